"""Agents of the game in which chance moves: search looks ahead by drawn chance alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiler_rl.agent.config import Config
from compiler_rl.agent.evaluation import methods
from compiler_rl.agent.guided import Sampled
from compiler_rl.agent.sampling import Player, search_with
from compiler_rl.agent.selfplay import SelfPlay, stack
from compiler_rl.agent.training import train
from compiler_rl.agent.weights import new_agent, shape_of
from compiler_rl.search.gumbel import Settings
from games.power_control import generator
from games.power_control.game import GAME
from games.power_control.generator import test_problems as drawn_tests
from games.power_control.generator import training_problem

STEPS = 30  # control steps of a scenario
SMALL = Config(
    instances=2,
    batch=2,
    simulations=3,
    cloning=1,
    tries=2,
    iterations=2,
    width=8,
    latent=8,
    updates=2,
    minibatch=16,
    unroll=2,
)


def small_problem(seed):
    problem = training_problem(seed)
    return dataclasses.replace(
        problem, arrivals=problem.arrivals[:, 1800 : 1800 + 10 * STEPS], warm_up_s=60.0
    )


@pytest.fixture(scope="module")
def problem():
    return small_problem(1)


@pytest.fixture(scope="module")
def agent(problem):
    return new_agent(GAME, SMALL, shape_of(GAME, [GAME.arrays(problem)]))


def other_future(arrays):
    """The same row on another day."""
    chances = arrays.chances
    return arrays._replace(
        chances=chances._replace(arrivals=chances.arrivals[:, ::-1] + jnp.uint8(3))
    )


def games_of(agent, arrays, simulations):
    player = SelfPlay(GAME, agent.player, Settings(simulations=SMALL.simulations))
    stacked = stack([arrays] * 2)
    return player.play(agent.weights, stacked, jax.random.key(5), np.zeros(2), simulations)


def test_search_does_not_see_what_chance_will_do(problem, agent):
    arrays = GAME.arrays(problem)
    assert isinstance(agent.player.game, Sampled)
    games = [games_of(agent, each, SMALL.simulations) for each in (arrays, other_future(arrays))]
    # The row is empty at first: what is seen, and so the search, cannot differ before it is not.
    np.testing.assert_array_equal(games[0].position[0], games[1].position[0])
    np.testing.assert_array_equal(games[0].policy[0], games[1].policy[0])
    assert (games[0].position[-1] != games[1].position[-1]).any()


def test_the_games_themselves_are_the_recorded_ones(problem, agent):
    games = games_of(agent, GAME.arrays(problem), SMALL.simulations)
    solution = GAME.solution(problem, games.of(0).action[:, 0])
    assert GAME.validate(problem, solution) == []
    saving = 1 - GAME.objective(problem, solution) / GAME.lower_bound(problem)
    assert float(games.savings[0]) == pytest.approx(saving, abs=1e-3)


def test_a_recorded_scenario_is_played_once(problem, agent):
    result = Player(agent, simulations=SMALL.simulations, batch=8).solve(problem, time_limit=60.0)
    assert result.detail["games"] == 1
    again = search_with(agent, problem, time_limit=60.0, simulations=SMALL.simulations, seed=0)
    assert again.objective == result.objective == GAME.objective(problem, result.solution)
    compared = methods(GAME, [("agent", agent)], SMALL.simulations)
    assert [name for name in compared if name.startswith("agent")] == [
        "agent, greedy",
        f"agent, search {SMALL.simulations}",
    ]


@pytest.mark.parametrize("model", ["simulator", "learned"])
def test_it_is_trained(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generator, "training_problem", small_problem)
    config = dataclasses.replace(SMALL, model=model)
    trained = train(GAME, config, tmp_path)
    fresh = new_agent(GAME, config, trained.shape)
    leaves = [jax.tree.leaves(each.weights) for each in (trained, fresh)]
    assert any((one != other).any() for one, other in zip(*leaves, strict=True))
    assert all(np.isfinite(leaf).all() for leaf in leaves[0])


def test_training_and_test_problems_differ_in_kind():
    problems = dict(drawn_tests(2))
    assert len(problems) == 2
    assert all(each.steps > training_problem(0).steps for each in problems.values())
