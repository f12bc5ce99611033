"""The portfolio: who starts from what, and when."""

from __future__ import annotations

import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from compiler_rl import warm
from compiler_rl.agent import weight_file
from compiler_rl.solve import solve
from games.base import Result
from games.offset_allocation import GAME
from games.offset_allocation.generator import tight

portfolio = importlib.import_module("compiler_rl.solve")
solvers = importlib.import_module("baselines.offset_allocation")


class InTime:
    """A search that is done at once, with a solution better than any heuristic's."""

    seconds = 0.0

    def __init__(self, problem, **options):
        self.found = solvers.EXACT.solve(problem, time_limit=10, seed=0)
        self.ready = time.perf_counter() + self.seconds

    def wait(self, seconds):
        time.sleep(max(min(seconds, self.ready - time.perf_counter()), 0))

    def result(self):
        late = time.perf_counter() < self.ready
        return None if late else Result("search", self.found.solution, self.found.objective)

    def stop(self):
        pass


class Late(InTime):
    """A search that comes to no end in time."""

    seconds = 60.0


@pytest.mark.parametrize("search", [InTime, Late])
@pytest.mark.parametrize("workers", [1, 2])
def test_each_thread_has_one_run_and_the_second_starts_from_searchs(monkeypatch, search, workers):
    problem = replace(tight(5, buffers=24, times=24, capacity=200), capacity=1000)
    started = []

    def improve(problem, *, time_limit, seed, start, moves, stop):
        del problem, moves, stop
        started.append((seed, time_limit, start))
        return Result("improve", start, float("inf"))

    monkeypatch.setattr(portfolio, "Worker", search)
    monkeypatch.setattr(portfolio, "SEARCH_START", 0.1)
    monkeypatch.setattr(solvers, "IMPROVE", improve)
    found = solve(problem, time_limit=4.0, workers=workers, agent="none")
    heuristics = [each(problem, time_limit=1) for each in solvers.HEURISTICS.values()]
    best = min(heuristics, key=lambda each: each.objective)
    (_, seconds, first), *others = started
    assert seconds > 1.0  # heuristics take their time on a busy machine
    assert GAME.objective(problem, first) == best.objective
    assert len(others) == workers - 1
    optimum = solvers.EXACT.solve(problem, time_limit=10, seed=0).objective
    assert optimum < best.objective
    if search is InTime and workers > 1:
        assert found.objective == optimum
        assert all(GAME.objective(problem, start) == optimum for *_, start in others)
    else:
        assert found.objective == best.objective
        assert all(seconds < 2.8 for _, seconds, _ in others)


def test_ctrl_c_while_a_thread_starts_stops_it(monkeypatch):
    class Interrupted(ThreadPoolExecutor):
        def submit(self, *given):
            super().submit(*given)
            raise KeyboardInterrupt

    def improve(problem, *, time_limit, seed, start, moves, stop):
        del problem, seed, moves
        stop.wait(time_limit)
        return Result("improve", start, float("inf"))

    monkeypatch.setattr(portfolio, "ThreadPoolExecutor", Interrupted)
    monkeypatch.setattr(solvers, "IMPROVE", improve)
    problem = replace(tight(5, buffers=24, times=24, capacity=200), capacity=1000)
    started = time.perf_counter()
    found = solve(problem, time_limit=60.0, workers=1)
    assert time.perf_counter() - started < 30
    assert found.detail["interrupted"]
    assert GAME.validate(problem, found.solution) == []


def test_a_warm_agent_joins_where_its_games_fit(monkeypatch):
    monkeypatch.setattr(warm, "_ready", {})
    monkeypatch.setattr(warm, "BATCH", 2)
    problem = replace(tight(5, buffers=24, times=24, capacity=200), capacity=1000)
    weights = weight_file.find("default", GAME.name)
    ask = {"seconds": 60.0, "seed": 0}
    assert warm.games_of(GAME, problem, weights, **ask) is None
    warm.warm_up(problem)
    games = warm.games_of(GAME, problem, weights, **ask)
    assert games.detail["games"] == 2
    assert GAME.validate(problem, games.solution) == []
    assert warm.games_of(GAME, problem, None, **ask) is None
    assert warm.games_of(GAME, problem, weights, seconds=0.0, seed=0) is None

    def improve(problem, *, start, **options):
        del problem, options
        return Result("improve", start, float("inf"))

    monkeypatch.setattr(solvers, "IMPROVE", improve)
    found = solve(problem, time_limit=20.0, workers=1)
    assert found.detail["methods"]["agent"]["objective"] == games.objective
    assert "agent" not in solve(problem, time_limit=3.0, workers=1, agent="none").detail["methods"]
    # Another size of problem is not warm.
    larger = tight(5, buffers=150, times=60, capacity=200)
    assert warm.games_of(GAME, larger, weights, **ask) is None


def test_warm_up_leaves_games_without_an_agent_alone(monkeypatch):
    monkeypatch.setattr(warm, "_ready", {})
    warm.warm_up(tight(5, buffers=24, times=24, capacity=200), agent="none")
    assert warm._ready == {}
