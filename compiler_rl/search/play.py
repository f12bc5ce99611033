"""Whole games played with search, as a solver: `play`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from compiler_rl.search.gumbel import LEAST_RANGE, Model, Node, Settings, make_buffer, search
from games.base import Game, Result

BATCH = 16  # games played side by side
CHUNK = 16  # moves between two looks at the clock
NOISE = 1.0  # of the boldest game of a batch; the first game has none
_ROUNDS = 1  # of search, where no time limit ends them
GUIDE = 2.0


@dataclass
class _Incumbent:
    """The best game so far."""

    game: Game
    problem: Any
    started: float
    saving: float = -math.inf
    actions: npt.NDArray[np.int32] | None = None
    solution: Any = None
    objective: float = math.inf
    curve: list[tuple[float, float]] = field(default_factory=list)

    def offer(self, actions: npt.NDArray[np.int32], savings: npt.NDArray[np.float32]) -> None:
        """The games of a round: actions [moves, B], savings [B]."""
        best = int(savings.argmax())
        if float(savings[best]) <= self.saving:
            return
        self.saving = float(savings[best])
        self.actions = actions[:, best]
        solution = self.game.solution(self.problem, self.actions)
        objective = self.game.objective(self.problem, solution)
        if objective < self.objective:
            self.solution, self.objective = solution, objective
            self.curve.append((time.perf_counter() - self.started, objective))


def play(
    game: Game,
    problem: Any,
    *,
    simulations: int = 16,
    seed: int = 0,
    time_limit: float = math.inf,
    batch: int = BATCH,
    least_range: float = LEAST_RANGE,
) -> Result[Any]:
    """Plays batches of games, first by the game's prior, then with search, and keeps the best.

    One game of each batch follows the prior, or the search, without noise. Where the time does not
    suffice to search at every move, search is for the moves at which the prior is least sure; the
    others are the prior's. After the time limit the moves that are left are the prior's, so that
    there is always a complete game.

    Args:
        game, problem: what to play.
        simulations: for each move that is searched.
        seed: of the noise. The result depends on nothing else if there is no time limit.
        time_limit: seconds; without one there is one round of search. Compiling, at the first
            problem of a size, is not interrupted.
        batch: games in a batch.
        least_range: of the search, see `Settings`.
    """
    started = time.perf_counter()
    deadline = started + time_limit
    arrays = game.arrays(problem)
    best = _Incumbent(game, problem, started)
    settings = Settings(simulations=simulations, least_range=least_range)
    player = _Player(game, settings, arrays, batch)
    key = jax.random.key(seed)
    first = player.round(jax.random.fold_in(key, 0), None, None, math.inf)
    best.offer(first.actions, first.savings)
    rounds = searched = 0
    while True:
        left = deadline - time.perf_counter()
        if left <= 0 or (math.isinf(left) and rounds == _ROUNDS):
            break
        affordable = left / max(first.seconds, 1e-9) * first.moves / max(simulations - 1, 1)
        chosen = first.doubt > 0
        if affordable < chosen.sum():
            chosen &= first.doubt >= np.sort(first.doubt)[-max(int(affordable), 1)]
        rounds += 1
        searched += int(chosen.sum())
        played = player.round(jax.random.fold_in(key, rounds), chosen, best.actions, deadline)
        best.offer(played.actions, played.savings)
    return Result(
        method="search",
        solution=best.solution,
        objective=best.objective,
        wall_s=time.perf_counter() - started,
        curve=tuple(best.curve),
        detail={
            "simulations": simulations,
            "games": batch * (rounds + 1),
            "moves": first.moves,
            "searched_moves": searched,
        },
    )


@dataclass(frozen=True)
class _Round:
    """A batch of games: actions [moves, B], savings [B], doubt [moves] of the policy, seconds."""

    actions: npt.NDArray[np.int32]
    savings: npt.NDArray[np.float32]
    doubt: npt.NDArray[np.float32]
    moves: int
    seconds: float


class _Player:
    """Plays rounds of one problem."""

    def __init__(self, game: Game, settings: Settings, arrays: Any, batch: int) -> None:
        self.model = Model(game)
        self.settings = settings
        self.arrays = arrays
        self.batch = batch
        self.noise = jnp.linspace(0.0, NOISE, batch)
        self.start, self.buffer = _begin(game, self.model, settings, arrays, batch)

    def round(
        self,
        key: jax.Array,
        searched: npt.NDArray[np.bool_] | None,
        guide: npt.NDArray[np.int32] | None,
        deadline: float,
    ) -> _Round:
        """One batch of games, with search at the given moves (none if None) until the deadline."""
        carry = _Carry(
            node=jax.tree.map(jnp.copy, self.start),
            saving=jnp.zeros(self.batch),
        )
        trail: list[tuple[Any, Any, Any]] = []
        started = time.perf_counter()
        while not bool(carry.node.done.all()):
            begin = len(trail) * CHUNK
            runs = np.ones(CHUNK, dtype=np.int32)
            if searched is not None and time.perf_counter() < deadline:
                part = searched[begin : begin + CHUNK]
                runs[: len(part)] += part * (self.settings.simulations - 1)
            hints = np.full(CHUNK, -1, dtype=np.int32)
            if guide is not None:
                hints[: len(guide[begin : begin + CHUNK])] = guide[begin : begin + CHUNK]
            carry, self.buffer, step = _moves(
                self.model,
                self.settings,
                self.arrays,
                carry,
                self.buffer,
                jax.random.fold_in(key, begin),
                self.noise,
                runs,
                hints,
            )
            trail.append(step)
            if len(trail) == 1:
                jax.block_until_ready(carry)  # type: ignore[no-untyped-call]
                started = time.perf_counter()  # compiling is over
        actions, doubt, active = (
            np.concatenate([np.asarray(s[i]) for s in trail]) for i in range(3)
        )
        moves = int(active.any(axis=1).sum())
        seconds = time.perf_counter() - started
        return _Round(
            actions=actions[:moves],
            savings=np.asarray(carry.saving),
            doubt=doubt[:moves],
            moves=moves,
            seconds=seconds * moves / max(moves - CHUNK, 1),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Carry:
    """B games between two moves."""

    node: Node
    saving: jax.Array


@partial(jax.jit, static_argnums=(0, 1, 2, 4))
def _begin(
    game: Game, model: Model, settings: Settings, arrays: Any, batch: int
) -> tuple[Node, jax.Array]:
    states = jax.vmap(lambda _: game.init(arrays))(jnp.arange(batch))
    return model.root(arrays, states), make_buffer(settings, states)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3, 4))
def _moves(
    model: Model,
    settings: Settings,
    arrays: Any,
    carry: _Carry,
    buffer: Any,
    key: jax.Array,
    noise: jax.Array,
    simulations: jax.Array,
    hints: jax.Array,
) -> tuple[_Carry, Any, tuple[jax.Array, jax.Array, jax.Array]]:
    """CHUNK moves of B games: `simulations[i]` at move i, 1 for a move of the policy."""

    def move(
        at: tuple[_Carry, Any], given: tuple[jax.Array, ...]
    ) -> tuple[tuple[_Carry, Any], tuple[jax.Array, jax.Array, jax.Array]]:
        carry, buffer = at
        key, runs, hint = given
        legal = carry.node.logits > float(np.finfo(np.float32).min)
        bias = jnp.where(jnp.arange(legal.shape[1]) == hint, GUIDE, 0.0)
        root = replace(
            carry.node, logits=jnp.where(legal, carry.node.logits + bias, carry.node.logits)
        )
        found = search(
            model,
            settings,
            arrays,
            root,
            key,
            gumbel_scale=noise,
            simulations=runs,
            buffer=buffer,
        )
        doubt = jnp.where(
            carry.node.done, 0.0, 1.0 - jax.nn.softmax(carry.node.logits).max(axis=-1)
        )
        following = _Carry(
            node=found.node,
            saving=carry.saving + jnp.where(carry.node.done, 0.0, found.reward),
        )
        return (following, found.tree.states), (found.action, doubt.mean(), ~carry.node.done)

    keys = jax.random.split(key, CHUNK)
    (carry, buffer), trail = jax.lax.scan(move, (carry, buffer), (keys, simulations, hints))
    return carry, buffer, trail
