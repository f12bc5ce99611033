"""Agents that are ready in this process: what they need compiled is, for a size of problem.

Compiling takes longer than a short time limit, and starting a process for search does too. Whoever
solves many problems of a size calls `warm_up` once, and the agent joins `solve()` wherever its
games are a small part of the time.
"""

from __future__ import annotations

import time
from math import inf
from pathlib import Path
from typing import Any

from compiler_rl.agent import weight_file
from games.base import Game, Result
from games.registry import game_of

BATCH = 32  # games that are played side by side; one alone is no better a start than a heuristic

_Key = tuple[Path, tuple[Any, ...]]
# For an agent and a size of problem: (seconds of a batch, player).
_ready: dict[_Key, tuple[float, Any]] = {}


def warm_up(problem: Any, *, agent: str = weight_file.DEFAULT) -> None:
    """Compiles an agent's policy for problems of this one's size, for as long as the process lasts.

    `solve()` then plays the agent's games before local search, with any number of workers, where
    they take a small part of the time limit.

    Args:
        problem: of one of the games; does nothing for a game that has no agent.
        agent: as for `solve()`.

    Raises:
        InputError: the agent's weights cannot be read, are damaged, or are of another game.
    """
    game = game_of(problem)
    weights = weight_file.find(agent, game.name)
    if weights is None or _key(game, problem, weights) in _ready:
        return
    from compiler_rl.agent.sampling import Player  # noqa: PLC0415 (networks load slowly)
    from compiler_rl.agent.weights import load  # noqa: PLC0415

    player = Player(load(weights, game), simulations=1, batch=BATCH)
    player.solve(problem)
    started = time.perf_counter()
    player.solve(problem)
    _ready[_key(game, problem, weights)] = (time.perf_counter() - started, player)


def games_of(
    game: Game, problem: Any, weights: Path | None, *, seconds: float, seed: int
) -> Result[Any] | None:
    """The best of a batch of games; None where nothing is warm, or it takes longer than that."""
    # The key of a problem takes milliseconds, which a short limit is not to be spent on.
    if weights is None or not any(
        key[0] == weights and took <= seconds for key, (took, _) in _ready.items()
    ):
        return None
    took, player = _ready.get(_key(game, problem, weights), (inf, None))
    return player.solve(problem, seed=seed) if took <= seconds else None


def _key(game: Game, problem: Any, weights: Path) -> _Key:
    import jax  # noqa: PLC0415 (what solves without an agent does not need it here)

    leaves = jax.tree.leaves(game.arrays(problem))
    return weights, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
