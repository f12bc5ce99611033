"""An agent beside heuristics, local search and an exact solver, on problems never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from compiler_rl.agent.sampling import Player
from compiler_rl.agent.weights import Agent
from games.base import Game, Result, StochasticGame

BATCH = 32

Method = Callable[[Any, float, int], "Result[Any]"]


@dataclass(frozen=True)
class Row:
    """One method on one problem.

    Attributes:
        problem, method: names.
        time_limit: seconds it was given.
        seed: of the method.
        objective: what it found.
        wall_s: seconds it took.
        best: the least objective that any method found on the problem.
    """

    problem: str
    method: str
    time_limit: float
    seed: int
    objective: float
    wall_s: float
    best: float

    @property
    def gap(self) -> float:
        """Relative to the best known."""
        return self.objective / self.best - 1 if self.best > 0 else 0.0


def methods(game: Game, agents: Sequence[tuple[str, Agent]], simulations: int) -> dict[str, Method]:
    """What is compared: the game's solvers, its own prior, and the agents."""
    solvers = import_module(f"baselines.{game.name}")
    solvers.prepare()
    table: dict[str, Method] = {
        name: _baseline(heuristic) for name, heuristic in solvers.HEURISTICS.items()
    }
    table["local_search"] = _baseline(solvers.IMPROVE)
    table[solvers.EXACT.name] = _baseline(solvers.EXACT.solve)
    for name, agent in agents:
        for label, runs, batch in (
            ("greedy", 1, 1),
            (f"best of {BATCH}", 1, BATCH),
            (f"search {simulations}", simulations, BATCH),
        ):
            if batch > 1 and runs == 1 and isinstance(game, StochasticGame):
                continue  # it is played once: the greedy game
            table[f"{name}, {label}"] = _player(Player(agent, simulations=runs, batch=batch))
    return table


def _baseline(solver: Callable[..., Result[Any]]) -> Method:
    def run(problem: Any, time_limit: float, seed: int) -> Result[Any]:
        return solver(problem, time_limit=time_limit, seed=seed)

    return run


def _player(player: Player) -> Method:
    def run(problem: Any, time_limit: float, seed: int) -> Result[Any]:
        player.solve(problem, time_limit=0.0, seed=seed)  # compiles
        return player.solve(problem, time_limit=time_limit, seed=seed)

    return run


def evaluate(
    game: Game,
    problems: Sequence[tuple[str, Any]],
    table: dict[str, Method],
    *,
    time_limits: Sequence[float],
    seeds: int,
    report: Callable[[str], None] | None = None,
) -> list[Row]:
    """Every method on every problem, one after the other.

    What JAX compiles, once for each size of problem, is not counted; how long a method took is in
    the rows, because a batch of games that has begun is played to its end.
    """
    found: list[tuple[str, str, float, int, Result[Any]]] = []
    for name, problem in problems:
        for method, run in table.items():
            for limit in time_limits:
                for seed in range(seeds):
                    result = run(problem, limit, seed)
                    if game.validate(problem, result.solution):
                        raise RuntimeError(f"{method} on {name}: not a valid solution")
                    found.append((name, method, limit, seed, result))
                    if report is not None:
                        report(f"{name}: {method}, {limit:g} s: {result.objective:.6g}")
    best: dict[str, float] = {}
    for name, _, _, _, result in found:
        best[name] = min(best.get(name, result.objective), result.objective)
    return [
        Row(name, method, limit, seed, result.objective, result.wall_s, best[name])
        for name, method, limit, seed, result in found
    ]
