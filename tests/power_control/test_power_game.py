"""The game as `games.base` promises it, chance that no player sees in advance, and `solve()`."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check_game import check_game

from baselines.power_control import HEURISTICS
from compiler_rl.solve import solve
from games.base import StochasticGame
from games.power_control import GAME
from games.power_control.instances import read_instance
from games.power_control.rules import FOUR
from games.power_control.solution import lower_bound
from games.registry import game_of


def part(seconds, seed=0, scenarios=1):
    problem = read_instance("bursty", 0.4, days=(seed,), seeds=scenarios)
    begin = 15 * 3600
    return replace(problem, arrivals=problem.arrivals[:, begin : begin + seconds], warm_up_s=100.0)


def larger(problem):
    arrays = GAME.arrays(problem)
    up = jnp.pad(arrays.row.up, ((0, 0), (0, 2), (0, 0)))
    return arrays._replace(row=arrays.row._replace(up=up))


def test_game_keeps_its_promises():
    problems = [part(640), replace(part(640, seed=1), levers=FOUR, budget_w=150e3)]
    check_game(
        GAME,
        problems,
        saving=lambda problem, objective: 1 - objective / lower_bound(problem),
        larger=larger,
        games=2,
        tolerance=2e-4,
    )


@pytest.mark.slow
def test_chance_is_drawn_by_the_key_alone():
    problem = part(640)
    assert isinstance(GAME, StochasticGame) and game_of(problem) is GAME
    other = replace(problem, arrivals=part(640, seed=3).arrivals)
    rates = GAME.arrays(problem).rate

    @jax.jit
    def six(arrays, key):
        def step(position, draw):
            return GAME.sampled_step(arrays, position, 0, draw)[0], None

        position, _ = jax.lax.scan(step, GAME.init(arrays), jax.random.split(key, 6))
        return GAME.observe(arrays, position).readings

    def walk(problem, key):
        arrays = GAME.arrays(problem)._replace(rate=rates)
        return np.asarray(six(arrays, jax.random.key(key)))

    # The recorded scenario is another one: a player that looks ahead sees nothing of it.
    np.testing.assert_array_equal(walk(problem, 1), walk(other, 1))
    assert (walk(problem, 1) != walk(problem, 2)).any()


def test_four_action_track_takes_no_other_lever():
    problem = replace(part(640), levers=FOUR)
    arrays = GAME.arrays(problem)
    assert np.flatnonzero(GAME.legal_actions(arrays, GAME.init(arrays))).tolist() == list(FOUR)
    deep = GAME.solution(problem, np.full(64, 3))
    assert "no action 3" in GAME.validate(problem, deep)[0]


@pytest.mark.slow
def test_solve_is_never_worse_than_the_heuristics_and_repeats_itself():
    problem = part(2400, scenarios=2)
    first, again = (solve(problem, simulations=2, workers=1) for _ in range(2))
    assert first.objective == again.objective and first.method == again.method
    floor = min(solver(problem).objective for solver in HEURISTICS.values())
    assert lower_bound(problem) <= first.objective <= floor
    assert GAME.validate(problem, first.solution) == []
