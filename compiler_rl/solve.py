"""`solve()`: the best of heuristics, search and local search, within the time given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import import_module
from math import inf
from pathlib import Path
from typing import Any

from compiler_rl.agent import weight_file
from compiler_rl.search import play
from compiler_rl.search.worker import Worker
from compiler_rl.warm import games_of
from games.base import Baseline, Game, Result, StochasticGame
from games.registry import game_of

SEARCH_SHARE = 0.2  # of the time that the heuristics leave
GAMES_SHARE = 0.1  # of that time, at most, for the games of an agent that is warm
PATIENCE = 0.4  # of that time: so long local search leaves a core to search, and waits for it
DEFAULT_SIMULATIONS = 16  # a move
# Seconds that a process of search takes to start, with all that it needs compiled before. With
# less time, or one worker, the cores are local search's.
SEARCH_START = 5.0
LOOK = 0.2  # seconds between two looks for Ctrl-C
LOCAL_MOVES = 2000  # of local search for each simulation a move, where the budget is in simulations


class NoSolutionError(Exception):
    """No method found a valid solution; the message says what is wrong with each."""


@dataclass
class _Best:
    """All results so far, best first, and the anytime curve over them."""

    started: float
    report: Callable[[Result[Any]], None] | None
    results: list[Result[Any]] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)

    def add(self, result: Result[Any]) -> None:
        now = time.perf_counter() - self.started
        begun = now - result.wall_s
        for seconds, objective in (*result.curve, (result.wall_s, result.objective)):
            if not self.curve or objective < self.curve[-1][1]:
                self.curve.append((begun + seconds, objective))
        self.results.append(result)
        self.results.sort(key=lambda each: each.objective)
        if self.report is not None:
            self.report(result)


def solve(
    problem: Any,
    *,
    time_limit: float = 20.0,
    simulations: int | None = None,
    seed: int = 0,
    workers: int = 2,
    agent: str = weight_file.DEFAULT,
    report: Callable[[Result[Any]], None] | None = None,
) -> Result[Any]:
    """The best solution found for a problem of any game; never worse than the heuristics.

    Runs the game's heuristics, then local search from the best solutions so far, and aside of it,
    in a process of its own, the games of a trained agent's policy and search with it; what that
    finds is where the second thread of local search starts. Every solution is checked by the
    game's validator before it can win. Ctrl-C has the same effect as the time limit.

    Args:
        problem: a `Problem` of one of the games.
        time_limit: seconds; the heuristics run to their end in any case. The clock starts once
            native kernels are loaded; the first time after installation they are compiled, which
            takes up to a minute.
        simulations: a budget for determinism: that many simulations a move, and local search in
            proportion; `time_limit` is then not looked at.
        seed: of search and local search.
        workers: threads of local search.
        agent: `default`, the agent that is shipped for the game, if one is; a weight file of
            `compiler-rl train`; or `none`: search follows the game's own prior. It joins where
            there are more than a few seconds and workers, or where `warm_up` was called.
        report: called with the result of each method as it ends.

    Returns:
        The winner, its `method` the name of who found it. `detail["methods"]` has for each method
        its objective, seconds and bound; `bound` is the best one that any method proved.

    Raises:
        NoSolutionError: no method's solution passed the validator: there is none within the
            problem's limits, or none was found in time.
        InputError: the agent's weights cannot be read, are damaged, or are of another game.
    """
    game = game_of(problem)
    weights = weight_file.find(agent, game.name)
    solvers = import_module(f"baselines.{game.name}")
    solvers.prepare()
    started = time.perf_counter()
    best = _Best(started, report)
    deadline = started + time_limit if simulations is None else inf
    interrupted = False
    search: Worker | None = None
    try:
        for heuristic in solvers.HEURISTICS.values():
            seconds = max(time_limit, 1.0) if simulations is None else inf
            result = heuristic(problem, time_limit=seconds, seed=seed)
            best.add(result)
            if result.detail.get("interrupted"):
                raise KeyboardInterrupt
        if isinstance(game, StochasticGame):
            pass  # search over recorded scenarios would see their future
        elif simulations is None:
            left = max(deadline - time.perf_counter(), 0.0)
            played = games_of(game, problem, weights, seconds=GAMES_SHARE * left, seed=seed)
            if played is not None:
                best.add(played)
            if left > SEARCH_START and workers > 1:
                search = Worker(
                    problem,
                    time_limit=SEARCH_SHARE * left,
                    simulations=DEFAULT_SIMULATIONS,
                    seed=seed,
                    weights=weights,
                )
        else:
            best.add(_search(game, problem, weights, seed, simulations))
        moves = None if simulations is None else LOCAL_MOVES * simulations
        if time.perf_counter() < deadline:
            interrupted = _improve(
                solvers.IMPROVE, problem, best, deadline, seed, moves, workers, search
            )
    except KeyboardInterrupt:
        interrupted = True
        if not best.results:
            raise
    finally:
        if search is not None:
            search.stop()
    return _winner(game, problem, best, interrupted)


def _search(
    game: Game, problem: Any, weights: Path | None, seed: int, simulations: int
) -> Result[Any]:
    """Search in this process, with a budget in simulations."""
    if weights is None:
        return play(game, problem, seed=seed, time_limit=inf, simulations=simulations)
    from compiler_rl.agent.sampling import search_with  # noqa: PLC0415 (networks load slowly)
    from compiler_rl.agent.weights import load  # noqa: PLC0415

    agent = load(weights, game)
    return search_with(agent, problem, seed=seed, time_limit=inf, simulations=simulations)


def _improve(
    improve: Baseline,
    problem: Any,
    best: _Best,
    deadline: float,
    seed: int,
    moves: int | None,
    workers: int,
    search: Worker | None,
) -> bool:
    """Local search in threads, one long run each: it gains more from time than from better starts.

    The first is from the best elite. The others are from the next ones, and leave their cores to
    `search` first, so that what it found is one of those.

    Returns whether Ctrl-C ended it.
    """
    stop = threading.Event()
    first = best.results[0]
    found: Result[Any] | None = None
    interrupted = False

    def run(worker: int, start: Any) -> Result[Any]:
        return improve(
            problem,
            time_limit=max(deadline - time.perf_counter(), 0.0),
            seed=seed * workers + worker,
            start=start,
            moves=moves,
            stop=stop,
        )

    with ThreadPoolExecutor(workers) as pool:
        futures = []
        # Leaving the pool waits for its threads: Ctrl-C while one starts has to stop it as well.
        try:
            futures.append(pool.submit(run, 0, first.solution))
            if search is not None and workers > 1:
                search.wait(PATIENCE * (deadline - time.perf_counter()))
                found = search.result()
                if found is not None:
                    best.add(found)
            others = [result for result in best.results if result is not first] or [first]
            futures += [
                pool.submit(run, worker, others[(worker - 1) % len(others)].solution)
                for worker in range(1, workers)
            ]
            # Ctrl-C does not end a long wait where a library's handler restarts it (Polars does).
            while wait(futures, timeout=LOOK).not_done:
                pass
        except KeyboardInterrupt:
            interrupted = True
            stop.set()
        for future in futures:
            best.add(future.result())
    if search is not None and found is None and (late := search.result()) is not None:
        best.add(late)
    return interrupted


def _winner(game: Game, problem: Any, best: _Best, interrupted: bool) -> Result[Any]:
    rejected = {}
    for result in best.results:
        faults = game.validate(problem, result.solution)
        if faults:
            rejected[result.method] = faults[0]
            continue
        bound = max(
            [game.lower_bound(problem)]
            + [each.bound for each in best.results if each.bound is not None]
        )
        methods: dict[str, dict[str, Any]] = {}
        for each in best.results:
            row = methods.setdefault(
                each.method, {"objective": each.objective, "wall_s": 0.0, "bound": each.bound}
            )
            row["wall_s"] += each.wall_s
        return Result(
            method=result.method,
            solution=result.solution,
            objective=result.objective,
            bound=bound,
            wall_s=time.perf_counter() - best.started,
            proved_optimal=result.objective <= bound * (1 + 1e-6),
            curve=tuple(best.curve),
            detail={
                "methods": methods,
                "interrupted": interrupted,
                **({"rejected": rejected} if rejected else {}),
            },
        )
    raise NoSolutionError(f"no valid solution: {rejected}")
