"""The games that are learned from."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler_rl.agent.network import EDGES
from compiler_rl.agent.selfplay import Games


class Replay:
    """The games of the last iterations, and the best game of each problem.

    Attributes:
        recent: (iteration, games), oldest first.
        elite: problem -> its best game, with the moves made as policy.
        best: problem -> its saving.
    """

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.recent: list[tuple[int, Games]] = []
        self.elite: dict[int, Games] = {}
        self.best: dict[int, float] = {}

    def add(self, iteration: int, games: Games) -> None:
        """Games to learn from; those of long ago are dropped."""
        self.recent.append((iteration, games))
        self.recent = [each for each in self.recent if each[0] > iteration - self.iterations]

    def offer(self, problem: int, games: Games, index: int) -> None:
        """A game that may be the best of its problem."""
        saving = float(games.savings[index])
        if saving > self.best.get(problem, -np.inf):
            self.best[problem] = saving
            self.elite[problem] = games.of(index).cloned()

    def sample(
        self, random: np.random.Generator, shape: tuple[int, int], elite: float, steps: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Positions of `shape`, each with the `steps` - 1 that follow it.

        Args:
            random: of the draw.
            shape: of the sample.
            elite: share from elite games.
            steps: positions in a row.

        Returns:
            The fields of `Games` and `returns`, each [*shape, steps, ...]; after the end of a game
            `active` is False.
        """
        count = int(np.prod(shape))
        from_elite = int(count * elite) if self.elite else 0
        parts = [
            _draw([games for _, games in self.recent], random, count - from_elite, steps),
            # In order of problem: a resumed run has to draw the same.
            _draw([self.elite[key] for key in sorted(self.elite)], random, from_elite, steps),
        ]
        order = random.permutation(count)
        return {
            name: np.concatenate([part[name] for part in parts if part])[order].reshape(
                *shape, steps, *parts[0][name].shape[2:]
            )
            for name in parts[0]
        }

    def to_tree(self) -> dict[str, Any]:
        """Arrays for a checkpoint."""
        return {
            "recent": {
                f"{index:04d}": {"iteration": np.int64(iteration), **vars(games)}
                for index, (iteration, games) in enumerate(self.recent)
            },
            "elite": {str(problem): vars(games) for problem, games in self.elite.items()},
            "best": {str(problem): np.float64(best) for problem, best in self.best.items()},
        }

    def from_tree(self, tree: dict[str, Any]) -> None:
        """What `to_tree` gave."""
        names = [field.name for field in fields(Games)]

        def games(row: dict[str, Any]) -> Games:
            legal = np.asarray(row["legal"])
            # A checkpoint leaves out what is empty.
            no_edges = np.zeros((*legal.shape, legal.shape[-1], 0), np.float32)
            row = {EDGES: no_edges, **row}
            return Games(**{name: np.asarray(row[name]) for name in names})

        rows = tree.get("recent") or {}
        self.recent = [(int(rows[key]["iteration"]), games(rows[key])) for key in sorted(rows)]
        self.elite = {int(key): games(row) for key, row in (tree.get("elite") or {}).items()}
        self.best = {int(key): float(best) for key, best in (tree.get("best") or {}).items()}


def _draw(
    pool: list[Games], random: np.random.Generator, count: int, steps: int
) -> dict[str, npt.NDArray[Any]]:
    """`count` positions drawn evenly from all active ones, each with those that follow."""
    if count == 0 or not pool:
        return {}
    sizes = np.array([int(games.active.sum()) for games in pool])
    picks = random.multinomial(count, sizes / sizes.sum())
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for games, number in zip(pool, picks, strict=True):
        moves, players = np.nonzero(games.active)
        chosen = random.integers(len(moves), size=number)
        rows = moves[chosen][:, None] + np.arange(steps)
        inside = rows < len(games.active)
        rows, columns = np.minimum(rows, len(games.active) - 1), players[chosen][:, None]
        for name, values in (*vars(games).items(), ("returns", games.returns)):
            part = values[rows, columns]
            parts.setdefault(name, []).append(part & inside if name == "active" else part)
    return {name: np.concatenate(part) for name, part in parts.items()}
