"""Local search keeps the rules, agrees with the simulator and returns in time."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from instances import broken_rules, random_problem

from baselines.memory_mapping import local_search_kernel as kernel
from baselines.memory_mapping.local_search import Search, local_search, stays_of, wishes_of
from games.memory_mapping.simulator import simulate
from games.memory_mapping.solution import Mapping, objective


@pytest.mark.parametrize("seed", range(40))
def test_mappings_are_legal_and_no_worse_than_the_start(seed):
    problem = random_problem(seed)
    result = local_search(problem, time_limit=5, seed=seed, moves=2000)
    assert broken_rules(problem, result.solution) == []
    assert result.objective == pytest.approx(objective(problem, result.solution), rel=1e-12)
    assert result.objective <= objective(problem, Mapping(())) * (1 + 1e-12)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_incremental_simulation_agrees_with_the_simulator(seed, strict):
    problem = random_problem(seed)
    search = Search(problem, seed, np.inf, threading.Event())
    search.strict = strict
    state = search.load(wishes_of(problem, ()))
    wishes = state.access[: kernel.NUM_WISHES].copy()
    # At this temperature every move is accepted, so the state wanders through all kinds.
    for _ in range(20):
        search.anneal(state, wishes, float(state.total[0]), 25, temperature=1e9)
        mapping = Mapping(tuple(stays_of(problem, state)))
        assert float(state.total[0]) == pytest.approx(simulate(problem, mapping).total, rel=1e-9)
        faults = broken_rules(problem, mapping)
        assert [fault for fault in faults if strict or "byte" not in fault] == []


def test_same_moves_and_seed_give_the_same_mapping():
    problem = random_problem(7)
    runs = [local_search(problem, time_limit=0.0, seed=3, moves=3000) for _ in range(2)]
    assert runs[0].solution == runs[1].solution


def test_time_limit_and_stop_are_kept():
    problem = random_problem(1)
    local_search(problem, time_limit=0.1)
    begun = time.perf_counter()
    local_search(problem, time_limit=1.0)
    assert time.perf_counter() - begun < 5.0  # on a busy machine
    stop = threading.Event()
    stop.set()
    begun = time.perf_counter()
    local_search(problem, time_limit=60.0, stop=stop)
    assert time.perf_counter() - begun < 5.0
