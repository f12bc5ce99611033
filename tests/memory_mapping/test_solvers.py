"""Every solver against brute force on small problems, and on bundled programs."""

from __future__ import annotations

from itertools import count
from math import prod

import pytest
from instances import broken_rules, brute_force, legal_sets_of_stays, random_problem

from baselines.memory_mapping import EXACT, HEURISTICS, IMPROVE, compiler_replay
from compiler_rl import solve
from games.memory_mapping import validator
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from games.memory_mapping.solution import lower_bound, objective
from hlo_frontend import load
from hlo_frontend.examples import example_path

SMALL = 20  # problems
FEW = 4_000  # combinations of stays
CHIP = get_chip("v5e")


@pytest.fixture(scope="module")
def best():
    """(problem, least seconds) of small problems, by seed."""
    problems = {}
    for seed in count():
        problem = random_problem(seed, steps=5, buffers=3)
        sets = [len(legal_sets_of_stays(problem, v)) for v in range(problem.num_buffers)]
        if prod(sets) < FEW:
            problems[seed] = (problem, brute_force(problem)[0])
        if len(problems) == SMALL:
            break
    return problems


@pytest.mark.parametrize("name", [*HEURISTICS, "annealing", EXACT.name])
def test_solvers_are_legal_and_never_better_than_brute_force(name, best):
    solvers = HEURISTICS | {"annealing": IMPROVE, EXACT.name: EXACT.solve}
    budget = {"moves": 4000} if name == "annealing" else {}
    for seed, (problem, least) in best.items():
        result = solvers[name](problem, time_limit=20.0, seed=seed, **budget)
        assert broken_rules(problem, result.solution) == []
        assert validator.validate(problem, result.solution) == []
        assert result.objective == pytest.approx(objective(problem, result.solution), rel=1e-12)
        assert result.objective >= least * (1 - 1e-9)
        if result.bound is not None:
            assert result.bound <= least * (1 + 1e-9)
        if result.proved_optimal:
            assert result.objective <= least * (1 + EXACT.tolerance)


def test_the_exact_solver_proves_most_small_problems(best):
    results = [EXACT.solve(problem, time_limit=20.0) for problem, _ in best.values()]
    assert sum(result.proved_optimal for result in results) >= 0.75 * len(results)


def test_annealing_finds_the_best_of_most_small_problems(best):
    found = [
        IMPROVE(problem, time_limit=20.0, seed=seed, moves=20_000).objective <= least * (1 + 1e-9)
        for seed, (problem, least) in best.items()
    ]
    assert sum(found) >= 0.9 * len(found)


def test_lower_bound_is_one(best):
    for problem, least in best.values():
        assert lower_bound(problem) <= least * (1 + 1e-9)


@pytest.mark.parametrize("mebibytes", [4, 16])
def test_on_a_program_none_is_below_the_proved_bound(mebibytes):
    problem = from_program(load(example_path("alexnet.v5e.nomsa")), CHIP, mebibytes << 20)
    exact = EXACT.solve(problem, time_limit=20.0)
    assert exact.bound is not None
    for heuristic in HEURISTICS.values():
        result = heuristic(problem, time_limit=1.0)
        assert validator.validate(problem, result.solution) == []
        assert exact.bound <= result.objective * (1 + 1e-9)
    annealed = IMPROVE(problem, time_limit=20.0, moves=100_000)
    assert exact.bound <= annealed.objective * (1 + 1e-9)
    assert annealed.objective <= 1.01 * exact.objective


def test_a_budget_of_simulations_makes_the_portfolio_deterministic():
    problem = random_problem(3, steps=12, buffers=6)
    runs = [solve(problem, simulations=4, seed=5) for _ in range(2)]
    assert runs[0].solution == runs[1].solution
    assert runs[0].method == runs[1].method
    assert runs[0].objective <= HEURISTICS["msa"](problem, time_limit=1.0).objective


@pytest.mark.parametrize("name", ["mlp", "alexnet", "strassen49", "decode", "resnet50"])
def test_the_compilers_own_mapping_is_replayed(name):
    program = load(example_path(f"{name}.v5e"))
    problem = from_program(program, CHIP)
    result = compiler_replay.replay(problem, program)
    assert not isinstance(result, str), result
    assert validator.validate(problem, result.solution) == []
    assert result.detail["left_out"] <= 0.02 * result.detail["accesses"]
    without = load(example_path(f"{name}.v5e.nomsa"))
    assert isinstance(compiler_replay.replay(from_program(without, CHIP), without), str)
