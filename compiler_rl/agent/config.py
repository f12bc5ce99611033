"""What a training run does, from a TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from compiler_rl.search.gumbel import LEAST_RANGE
from hlo_frontend.errors import InputError

MODELS = ("simulator", "learned")


@dataclass(frozen=True)
class Config:
    """Settings of one training run.

    Attributes:
        model: what search steps through: the game's own rules, or what the network learned of them.
        seed: of everything random.
        instances: size of the pool of training problems.
        batch: games of an iteration.
        parts: into which they are cut; each is played at once, at the same time on a cluster.
        simulations: of search for each move; the first iterations (`cloning`) use none.
        calmest: scale of the noise of the calmest game of self-play; the boldest one's is 1.
        competition: games are played to exceed what the policy alone saves, see `guided.Contest`.
        least_range: Q-values that differ by less are not stretched to [0, 1] in search.
        cloning: iterations in which the best of `tries` noisy games by the game's own prior is
            cloned.
        tries: games of each problem in a cloning iteration.
        annealing: moves of local search for each problem, from its best heuristic solution; a game
            that imitates what it finds is cloned too, where the game knows how. 0: none.
        iterations: in all, cloning included.
        width: of the hidden layers.
        bins: of the value's two-hot encoding.
        latent: size of the learned model's state.
        unroll: steps that the learned model is trained ahead.
        replay: iterations whose games are trained on.
        elite: share of a minibatch that comes from the best game of each problem.
        updates: gradient steps for each iteration.
        minibatch: positions in a gradient step.
        learning_rate: of AdamW.
        checkpoint_every: iterations between checkpoints.
    """

    model: str = "simulator"
    seed: int = 0
    instances: int = 64
    batch: int = 32
    parts: int = 1
    simulations: int = 16
    calmest: float = 1.0
    competition: bool = False
    least_range: float = LEAST_RANGE
    cloning: int = 4
    tries: int = 16
    annealing: int = 20_000
    iterations: int = 40
    width: int = 64
    bins: int = 51
    latent: int = 64
    unroll: int = 4
    replay: int = 8
    elite: float = 0.25
    updates: int = 64
    minibatch: int = 256
    learning_rate: float = 1e-3
    checkpoint_every: int = 2

    def __post_init__(self) -> None:
        """Raises InputError for an impossible value."""
        if self.model not in MODELS:
            raise InputError(f"model {self.model}: expected one of {', '.join(MODELS)}")
        numbers = ("instances", "batch", "parts", "simulations", "tries", "iterations", "width")
        more = ("latent", "unroll", "replay", "updates", "minibatch", "checkpoint_every")
        for name in (*numbers, *more):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected at least 1")
        if self.batch % self.parts:
            raise InputError(f"batch {self.batch}: expected a multiple of parts, {self.parts}")
        if self.annealing < 0:
            raise InputError(f"annealing {self.annealing}: expected 0 or more moves")
        if self.cloning < 0 or self.cloning > self.iterations:
            raise InputError(f"cloning {self.cloning}: expected 0 to {self.iterations}, iterations")
        if self.batch % self.tries and self.cloning:
            raise InputError(f"batch {self.batch}: expected a multiple of tries, {self.tries}")
        if self.bins < 3 or self.bins % 2 == 0:
            raise InputError(f"bins {self.bins}: expected an odd number from 3")
        if not 0 <= self.calmest <= 1:
            raise InputError(f"calmest {self.calmest:g}: expected 0 to 1")
        if not 0 < self.least_range < inf:
            raise InputError(f"least_range {self.least_range:g}: expected more than 0")
        if not 0 <= self.elite < 1:
            raise InputError(f"elite {self.elite:g}: expected 0 to less than 1")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate {self.learning_rate:g}: expected between 0 and 1")


def read_config(path: Path | None) -> Config:
    """The settings in a TOML file, defaults where it is silent.

    Raises:
        InputError: not a TOML file, an unknown key, a value of the wrong type or an impossible one.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a TOML file ({error})") from error
    fields = {field.name: field for field in dataclasses.fields(Config)}
    for name, value in table.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected {', '.join(fields)}"
            raise InputError(f"{path}: unknown key {name}{hint}")
        wanted = type(fields[name].default)
        fits = (wanted, int) if wanted is float else wanted
        if isinstance(value, bool) is not (wanted is bool) or not isinstance(value, fits):
            raise InputError(f"{path}: {name} is {value!r}, expected {wanted.__name__}")
    try:
        return Config(**table)
    except InputError as error:
        raise InputError(f"{path}: {error}" if path is not None else str(error)) from error
