from __future__ import annotations

import time

import pytest
from instances import big_problem, random_problem

from compiler_rl.search import play
from games.memory_mapping import GAME


def test_a_budget_of_simulations_is_deterministic_and_its_result_valid():
    problem = random_problem(5, steps=12, buffers=8)
    first, second = (play(GAME, problem, simulations=8, seed=1, batch=4) for _ in range(2))
    assert first.solution == second.solution
    assert GAME.validate(problem, first.solution) == []
    assert first.objective == GAME.objective(problem, first.solution)
    objectives = [objective for _, objective in first.curve]
    assert objectives == sorted(objectives, reverse=True)
    assert objectives[-1] == first.objective


def test_search_is_no_worse_than_the_prior_and_often_better():
    better = 0
    for seed in range(4):
        problem = random_problem(100 + seed, steps=14, buffers=9)
        alone = play(GAME, problem, simulations=8, seed=0, batch=4, time_limit=0.0)
        found = play(GAME, problem, simulations=8, seed=0, batch=4)
        assert found.objective <= alone.objective
        better += found.objective < alone.objective
    assert better


@pytest.mark.parametrize("time_limit", [0.0, 1.0])
def test_a_complete_game_comes_back_whatever_the_time(time_limit):
    problem = big_problem(1, steps=60, buffers=50)
    play(GAME, problem, simulations=8, batch=4, time_limit=0.0)  # compiles
    started = time.perf_counter()
    result = play(GAME, problem, simulations=8, batch=4, time_limit=time_limit)
    assert time.perf_counter() - started < time_limit + 10.0
    assert GAME.validate(problem, result.solution) == []
    assert (result.detail["searched_moves"] > 0) == (time_limit > 0)
