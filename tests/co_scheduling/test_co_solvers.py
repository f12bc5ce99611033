"""Solvers: legal, above the bound, and against brute force and CP-SAT on small problems."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from co_instances import problem_of

from baselines.co_scheduling import EXACT, HEURISTICS, IMPROVE
from baselines.co_scheduling.chain import Chain
from baselines.co_scheduling.cp_sat import cp_sat
from baselines.co_scheduling.kernel import LEVELS_AND_ORDER
from baselines.co_scheduling.local_search import annealing, local_search, order_search, replan
from baselines.co_scheduling.lp import lp_bound
from games.co_scheduling import GAME
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DYNAMIC,
    MODES,
    NO_INTERFERENCE,
    SLOTS,
    STATIC,
)
from games.co_scheduling.solution import evaluate, make_pipeline, objective
from games.co_scheduling.structures import alone, candidates, spread_phases, two_halves


@pytest.mark.parametrize("mode", range(len(MODES)))
@pytest.mark.parametrize("tp", [1, 8])
def test_heuristics_are_valid_and_above_every_bound(mode, tp):
    problem = problem_of(mode, tp=tp)
    bound = lp_bound(problem)
    found = {}
    for name, heuristic in HEURISTICS.items():
        result = heuristic(problem, time_limit=1.0, seed=0)
        assert result.method == name
        assert GAME.validate(problem, result.solution) == []
        assert result.objective == GAME.objective(problem, result.solution)
        assert result.objective >= bound * (1 - 1e-9)
        assert result.objective >= lp_bound(problem, result.solution.structure) * (1 - 1e-9)
        found[name] = result.objective
    assert found["split_sequential"] > found["sequential"] * 0.98
    assert found["two_stage"] < found["split_sequential"]


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_local_search_is_deterministic_valid_and_never_worse_than_its_start(mode):
    problem = problem_of(mode)
    start = HEURISTICS["two_stage"](problem, time_limit=1.0, seed=0)
    runs = [
        local_search(problem, time_limit=0.0, seed=3, start=start.solution, moves=6000)
        for _ in range(2)
    ]
    assert runs[0].objective == runs[1].objective <= start.objective
    assert (runs[0].solution.phase == runs[1].solution.phase).all()
    assert (runs[0].solution.level == runs[1].solution.level).all()
    assert GAME.validate(problem, runs[0].solution) == []
    values = [value for _, value in runs[0].curve]
    assert values == sorted(values, reverse=True)
    assert abs(runs[0].detail["moves"] - 6000) <= 600


def test_time_limit_and_stop_are_kept():
    problem = problem_of()
    for search in (IMPROVE, annealing):
        search(problem, time_limit=0.05)
        begun = time.perf_counter()
        search(problem, time_limit=0.5)
        assert time.perf_counter() - begun < 5.0  # on a busy machine
        stop = threading.Event()
        stop.set()
        begun = time.perf_counter()
        result = search(problem, time_limit=60.0, stop=stop)
        assert time.perf_counter() - begun < 5.0
        assert GAME.validate(problem, result.solution) == []


def _interleavings(first: int, second: int) -> list[np.ndarray]:
    """All orders of two chains: bool arrays that say where the second's elements are."""
    orders = []
    for places in combinations(range(first + second), second):
        order = np.zeros(first + second, dtype=np.bool_)
        order[list(places)] = True
        orders.append(order)
    return orders


def _brute_force(problem, structure) -> float:
    """The least time over all orders of two nano-batches in which no layer overtakes another."""
    best = np.inf
    compute, network = (0, 8, 10, 11), (9, 12)
    for gemms, nets, swapped in product(_interleavings(4, 4), _interleavings(2, 2), (False, True)):
        phase = np.zeros(ALL_SLOTS)
        for order, kinds in ((gemms, compute), (nets, network)):
            taken = [0, 0]
            for place, second in enumerate(order):
                phase[SLOTS * int(second) + kinds[taken[int(second)]]] = place / len(order)
                taken[int(second)] += 1
        phase[2], phase[SLOTS + 2] = (0.5, 0.0) if swapped else (0.0, 0.5)
        best = min(best, evaluate(problem, structure, phase, alone()))
    return best


@pytest.mark.parametrize("layers", [1, 3])
def test_annealing_finds_what_brute_force_finds(layers):
    problem = problem_of(NO_INTERFERENCE, decode=512, prefill=0, layers=layers)
    structure = two_halves(problem)
    exhaustive = _brute_force(problem, structure)
    chain = Chain(problem, structure, spread_phases(problem, structure), alone(), 5)
    for temperature in (0.03, 0.01, 0.003, 0.001):
        chain.run(4000, temperature, LEVELS_AND_ORDER)
    # Rounds may also overtake each other, which brute force leaves out.
    assert chain.best <= exhaustive * (1 + 1e-9)
    assert chain.best >= lp_bound(problem, structure) * (1 - 1e-9)


def test_cp_sat_proves_the_period_and_annealing_reaches_it():
    problem = problem_of(NO_INTERFERENCE, decode=512, prefill=256, layers=40, tp=1)
    structure = two_halves(problem)
    start = make_pipeline(problem, structure, spread_phases(problem, structure), alone())
    result = cp_sat(problem, time_limit=10.0, start=start)
    assert result.detail["proved_periodic"]
    # The first and the last layers may be less strict than the period.
    assert result.detail["periodic_bound"] <= result.objective * 1.01
    assert GAME.validate(problem, result.solution) == []
    assert result.objective <= objective(problem, start)
    assert result.bound <= result.objective
    chain = Chain(problem, structure, spread_phases(problem, structure), alone(), 1)
    for temperature in (0.03, 0.01, 0.003, 0.001):
        chain.run(4000, temperature, LEVELS_AND_ORDER)
    assert chain.best <= result.objective * 1.01
    fixed = order_search(problem, structure, time_limit=0.5)
    assert fixed.objective <= result.objective * 1.01
    assert (fixed.solution.structure.decode == structure.decode).all()


def test_cp_sat_over_all_structures_is_no_worse_than_over_any():
    problem = problem_of(NO_INTERFERENCE, decode=256, prefill=128, layers=40, tp=1)
    result = cp_sat(problem, time_limit=8.0)
    assert GAME.validate(problem, result.solution) == []
    assert result.detail["structures"] >= len(list(candidates(problem)))
    assert result.detail["periodic_bound"] <= result.objective
    assert result.detail["proved_periodic"] == (result.detail["open"] == 0)
    for structure in list(candidates(problem))[:3]:
        fixed = order_search(problem, structure, time_limit=0.2)
        if result.detail["proved_periodic"]:
            assert result.objective <= fixed.objective * 1.01
        assert result.detail["periodic_bound"] <= fixed.objective * (1 + 1e-6)
    race = local_search(problem, time_limit=0.0, moves=4000)
    own = cp_sat(problem, time_limit=3.0, start=race.solution)
    assert own.objective <= race.objective
    assert own.detail["structures"] == 1


@pytest.mark.parametrize("mode", [STATIC, DYNAMIC])
def test_cp_sat_with_shares_is_valid_and_no_worse_than_its_start(mode):
    problem = problem_of(mode, decode=384, prefill=128, layers=20)
    start = HEURISTICS["two_stage"](problem, time_limit=1.0, seed=0)
    result = cp_sat(problem, time_limit=2.0, start=start.solution)
    assert result.objective <= start.objective
    assert GAME.validate(problem, result.solution) == []
    assert result.bound <= result.objective
    assert EXACT.name == result.method


def test_structure_bound_holds_for_long_annealing():
    problem = problem_of(DYNAMIC, decode=384, prefill=256, layers=30)
    for structure in list(candidates(problem))[:6]:
        chain = Chain(problem, structure, spread_phases(problem, structure), alone(), 0)
        chain.run(2000, 0.01, LEVELS_AND_ORDER)
        assert chain.best >= lp_bound(problem, structure) * (1 - 1e-9)
        assert lp_bound(problem, structure) >= lp_bound(problem) * (1 - 1e-9)


def test_a_new_batch_is_planned_from_an_old_plan():
    plan = local_search(problem_of(), time_limit=0.0, moves=6000).solution
    for decode, prefill in ((900, 0), (0, 600), (500, 500)):
        problem = problem_of(decode=decode, prefill=prefill)
        begun = time.perf_counter()
        result = replan(problem, plan, time_limit=0.05)
        assert time.perf_counter() - begun < 5.0  # on a busy machine
        assert GAME.validate(problem, result.solution) == []
        sequential = HEURISTICS["sequential"](problem).objective
        assert result.objective <= sequential * (1 + 1e-9)


def test_one_chunk_cannot_be_cut():
    problem = problem_of(DYNAMIC, decode=100, prefill=0, layers=10)
    result = local_search(problem, time_limit=0.0, moves=10000)
    assert result.objective == pytest.approx(lp_bound(problem), rel=1e-9)


def test_modes_are_ordered():
    """No interference is never worse than shares, and dynamic shares never worse than static."""
    static = problem_of(STATIC)
    result = local_search(static, time_limit=0.0, moves=8000)
    pipeline = result.solution
    for mode in (NO_INTERFERENCE, DYNAMIC):
        easier = replace(static, mode=mode)
        value = evaluate(easier, pipeline.structure, pipeline.phase, pipeline.level)
        assert value <= result.objective * (1 + 1e-9)
