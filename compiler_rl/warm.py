"""Agents that are ready in this process: what they need compiled is, for a size of problem.

Compiling takes longer than a short time limit, and starting a process for search does too. Whoever
solves many problems of a size calls `warm_up` once, and the agent joins `solve()` at any limit.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from compiler_rl.agent import weight_file
from games.base import Game, Result
from games.registry import game_of

BATCHES = (32, 1)  # games that are played side by side, the most that the time allows

_Key = tuple[Path, tuple[Any, ...]]
# For an agent and a size of problem: (seconds of a batch, player), the largest batch first.
_ready: dict[_Key, list[tuple[float, Any]]] = {}


def warm_up(problem: Any, *, agent: str = weight_file.DEFAULT) -> None:
    """Compiles an agent's policy for problems of this one's size, for as long as the process lasts.

    `solve()` then plays the agent's games before local search, with any time limit and number of
    workers, where they take a small part of it.

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

    loaded = load(weights, game)
    timed = []
    for batch in BATCHES:
        player = Player(loaded, simulations=1, batch=batch)
        player.solve(problem)
        started = time.perf_counter()
        player.solve(problem)
        timed.append((time.perf_counter() - started, player))
    _ready[_key(game, problem, weights)] = timed


def games_of(
    game: Game, problem: Any, weights: Path | None, *, seconds: float, seed: int
) -> Result[Any] | None:
    """The best of the most games that take so long at most; None where nothing is warm, or fits."""
    if weights is None or not _ready:
        return None
    for took, player in _ready.get(_key(game, problem, weights), []):
        if took <= seconds:
            found: Result[Any] = player.solve(problem, seed=seed)
            return found
    return None


def _key(game: Game, problem: Any, weights: Path) -> _Key:
    import jax  # noqa: PLC0415 (what solves without an agent does not need it here)

    leaves = jax.tree.leaves(game.arrays(problem))
    return weights, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
