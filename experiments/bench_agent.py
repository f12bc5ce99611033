"""Agents beside heuristics, annealing, an exact solver and the portfolio, at equal wall time.

The problems are those of a game's generator that are never trained on. Each agent (a weight file of
`compiler-rl train`) plays by its policy alone, greedily and as the best of 32 games with noise, and
with search. `portfolio` is `solve()` with the shipped agent warmed up, without an exact solver:
with two threads, or one, so that seconds are those of the processor as for the other methods.
Without local search it is the better of the heuristics and the first agent's `search_with`. What
JAX and numba compile is not counted, except where `solve()` starts a process for search: that is in
its time. A batch of games that has begun is played to its end, so the seconds are beside the gaps.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from compiler_rl.agent.config import Config
from compiler_rl.agent.evaluation import BATCH
from compiler_rl.agent.sampling import Player, search_with
from compiler_rl.agent.weights import Agent, load, new_agent, shape_of
from compiler_rl.solve import solve
from compiler_rl.warm import warm_up
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from games.base import Game, Result
from games.registry import GAMES, get_game

NAME = "agent"
SIMULATIONS = 16
EXACT = {"offset_allocation": "cp_sat"}  # where the game's own exact solver is in the portfolio
TIE = 1e-6  # relative

Method = Callable[[Any, float, int], Result[Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "agent.json", time_limit=10.0)
    options.add_argument("weights", nargs="*", type=Path, help="weight files of the game")
    options.add_argument("--game", default="memory_mapping", help="default: %(default)s")
    options.add_argument("--problems", type=int, default=6, help="default: %(default)s")
    options.add_argument("--method", action="append", help="this one; again for more")
    chosen = options.parse_args(arguments)
    game = get_game(chosen.game)
    results = Results(chosen.out, NAME)
    problems = import_module(f"{GAMES[game.name]}.generator").test_problems(chosen.problems)
    import_module(f"baselines.{game.name}").prepare()
    agents = {path.stem: load(path, game) for path in chosen.weights}
    # What the game's own prior and value are worth without learning.
    agents["untrained"] = new_agent(game, Config(), shape_of(game, [game.arrays(problems[0][1])]))
    table = dict(_methods(game, agents))
    wanted = chosen.method or table
    if absent := set(wanted) - set(table):
        options.error(f"--method {absent.pop()}: expected one of {'; '.join(table)}")
    for problem_name, problem in problems:
        for method in wanted:
            measure = table[method]
            for seed in range(chosen.seeds):
                config = {
                    "game": game.name,
                    "problem": problem_name,
                    "method": method,
                    "time_limit": chosen.time_limit,
                    "seed": seed,
                }
                results.measure(config, partial(_measure, game, problem, measure, config))
    results.write_report(report(results))


def _methods(game: Game, agents: dict[str, Agent]) -> Iterator[tuple[str, Method]]:
    solvers = import_module(f"baselines.{game.name}")
    exact = EXACT.get(game.name)
    yield "best heuristic", partial(_heuristic, solvers)
    yield "annealing", _baseline(solvers.BASELINES["annealing"] if exact else solvers.IMPROVE)
    yield "cp_sat", _baseline(solvers.BASELINES[exact] if exact else solvers.EXACT.solve)
    yield "portfolio, no agent", partial(_portfolio, "none", 2)
    yield "portfolio, no agent, one thread", partial(_portfolio, "none", 1)
    yield "portfolio", partial(_portfolio, "default", 2)
    yield "portfolio, one thread", partial(_portfolio, "default", 1)
    first = next(iter(agents))
    yield "portfolio, no local search", _Searched(agents[first], solvers)
    for name, agent in agents.items():
        yield f"{name}, greedy", _Played(agent, 1, batch=1)
        yield f"{name}, best of {BATCH}", _Played(agent, 1)
        yield f"{name}, search", _Played(agent, SIMULATIONS)
    yield f"{first}, search, max backup", _Played(agents[first], SIMULATIONS, backup="max")


class _Played:
    """An agent's games; what is compiled for a problem is compiled before the clock starts."""

    def __init__(
        self,
        agent: Agent,
        simulations: int,
        batch: int = BATCH,
        backup: Literal["mean", "max"] = "mean",
    ) -> None:
        self.player = Player(agent, simulations=simulations, batch=batch, backup=backup)
        self.compiled: int | None = None

    def __call__(self, problem: Any, time_limit: float, seed: int) -> Result[Any]:
        if self.compiled != id(problem):
            self.player.solve(problem)
            self.compiled = id(problem)
        # The policy's greedy game is always the same.
        return self.player.solve(
            problem, time_limit=0.0 if self.player.batch == 1 else time_limit, seed=seed
        )


class _Searched:
    """Heuristics, then the agent's policy and search; compiled as in `_Played`."""

    def __init__(self, agent: Agent, solvers: Any) -> None:
        self.agent = agent
        self.solvers = solvers
        self.compiled: int | None = None

    def __call__(self, problem: Any, time_limit: float, seed: int) -> Result[Any]:
        if self.compiled != id(problem):
            self._search(problem, 0.0, seed)
            self.compiled = id(problem)
        started = time.perf_counter()
        found = _heuristic(self.solvers, problem, time_limit, seed)
        left = max(time_limit - (time.perf_counter() - started), 0.0)
        best = min(found, self._search(problem, left, seed), key=lambda result: result.objective)
        return replace(best, wall_s=time.perf_counter() - started)

    def _search(self, problem: Any, time_limit: float, seed: int) -> Result[Any]:
        return search_with(
            self.agent, problem, time_limit=time_limit, simulations=SIMULATIONS, seed=seed
        )


def _heuristic(solvers: Any, problem: Any, time_limit: float, seed: int) -> Result[Any]:
    found = [
        heuristic(problem, time_limit=time_limit, seed=seed)
        for heuristic in solvers.HEURISTICS.values()
    ]
    return min(found, key=lambda result: result.objective)


def _baseline(solver: Any) -> Method:
    return lambda problem, limit, seed: solver(problem, time_limit=limit, seed=seed)


def _portfolio(agent: str, workers: int, problem: Any, time_limit: float, seed: int) -> Result[Any]:
    warm_up(problem, agent=agent)
    return solve(problem, time_limit=time_limit, seed=seed, workers=workers, agent=agent)


def _measure(game: Game, problem: Any, method: Method, config: Cell) -> Cell:
    result = method(problem, config["time_limit"], config["seed"])
    return {
        "objective": result.objective,
        "wall_s": result.wall_s,
        "won": result.method,
        "faults": len(game.validate(problem, result.solution)),
    }


def report(results: Results) -> str:
    """The tables under a heading."""
    return "\n\n".join(["# Agents on problems that were never trained on", table(results)])


def table(results: Results) -> str:
    """For each game the mean gap to the best known and how often annealing is beaten."""
    parts = []
    for game in dict.fromkeys(cell["config"]["game"] for cell in results.cells):
        cells = [cell for cell in results.cells if cell["config"]["game"] == game]
        count = len({cell["config"]["problem"] for cell in cells})
        parts += [f"{game}, {count} problems:", _table(cells)]
    return "\n\n".join(parts)


def _table(cells: Sequence[Cell]) -> str:
    """One row a method: the gap at each time limit, and wins, ties and losses to annealing."""
    best: dict[str, float] = {}
    for cell in cells:
        name, value = cell["config"]["problem"], cell["result"]["objective"]
        best[name] = min(best.get(name, math.inf), value)
    limits = sorted({cell["config"]["time_limit"] for cell in cells})
    of: dict[tuple[str, float], dict[tuple[str, int], float]] = {}
    for cell in cells:
        config = cell["config"]
        key = (config["problem"], config["seed"])
        own = of.setdefault((config["method"], config["time_limit"]), {})
        own[key] = cell["result"]["objective"]
    rows = []
    for method in dict.fromkeys(cell["config"]["method"] for cell in cells):
        row = [method]
        for limit in limits:
            own = of.get((method, limit), {})
            if not own:
                row += ["-", "-"]
                continue
            gap = mean(value / best[key[0]] - 1 for key, value in own.items())
            row += [f"{gap:.2%}", _against(own, of.get(("annealing", limit), {}))]
        rows.append(row)
    header = ["method"]
    for limit in limits:
        header += [f"gap at {limit:g} s", "W/T/L"]
    return markdown_table(header, rows)


def _against(own: dict[tuple[str, int], float], other: dict[tuple[str, int], float]) -> str:
    """Wins, ties and losses on the problems that both have."""
    common = own.keys() & other.keys()
    wins = sum(own[key] < other[key] * (1 - TIE) for key in common)
    losses = sum(own[key] > other[key] * (1 + TIE) for key in common)
    return f"{wins}/{len(common) - wins - losses}/{losses}"


if __name__ == "__main__":
    sys.exit(run(main))
