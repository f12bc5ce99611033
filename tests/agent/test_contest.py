"""Contests: games that are played to exceed what the policy alone saves."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import SMALL

from compiler_rl.agent.guided import SPREAD, STAKE, Contest
from compiler_rl.agent.sampling import search_with
from compiler_rl.agent.selfplay import SelfPlay, stack
from compiler_rl.agent.training import train
from compiler_rl.agent.weights import load, new_agent, shape_of
from compiler_rl.search import play
from compiler_rl.search.gumbel import Settings
from games.offset_allocation import GAME
from games.offset_allocation.generator import tight
from games.power_control import GAME as POWER
from hlo_frontend.errors import InputError

CONTEST = dataclasses.replace(SMALL, competition=True, batch=8)


def problem_of(seed, buffers=16):
    problem = tight(seed, buffers=buffers, times=buffers // 2, capacity=4 * buffers)
    return dataclasses.replace(problem, capacity=10_000)


@pytest.fixture(autouse=True)
def one_bucket(monkeypatch):
    """Training problems of one size, so that little is compiled."""
    monkeypatch.setattr("games.offset_allocation.generator.training_problem", problem_of)


@pytest.mark.parametrize("model", ["simulator", "learned"])
def test_the_reward_is_how_far_a_game_is_ahead_of_the_policy_alone(model):
    problem = problem_of(3, buffers=40)
    arrays = GAME.arrays(problem)
    config = dataclasses.replace(CONTEST, model=model)
    agent = new_agent(GAME, config, shape_of(GAME, [arrays], config))
    player = SelfPlay(GAME, agent.player, Settings(simulations=4))
    noise = np.linspace(0.0, 1.0, 8)
    games = player.play(agent.weights, stack([arrays] * 8), jax.random.key(0), noise, 4)
    # An agent that has learned nothing plays by the prior, whose saving is the mark.
    reference = play(GAME, problem, time_limit=0.0, batch=1)
    mark = 1.0 - reference.objective / float(arrays.reference * arrays.unit)
    expected = STAKE * np.tanh((games.savings - mark) / SPREAD)
    np.testing.assert_allclose((games.reward * games.active).sum(axis=0), expected, atol=1e-5)
    assert np.ptp(expected) > 0
    assert not games.reward[0].any()  # all of it comes with the end
    for index in range(8):
        solution = GAME.solution(problem, games.of(index).action[:, 0])
        saved = 1.0 - GAME.objective(problem, solution) / float(arrays.reference * arrays.unit)
        assert games.savings[index] == pytest.approx(saved, abs=1e-5)


@pytest.mark.parametrize("model", ["simulator", "learned"])
def test_it_is_trained_resumed_and_used(model, tmp_path):
    config = dataclasses.replace(CONTEST, model=model)
    whole = train(GAME, config, tmp_path / "whole")
    train(GAME, dataclasses.replace(config, iterations=2), tmp_path / "parts")
    resumed = train(GAME, config, tmp_path / "parts")
    for one, other in zip(
        jax.tree.leaves(whole.weights), jax.tree.leaves(resumed.weights), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    agent = load(tmp_path / "parts" / "weights.crlw", GAME)
    problem = problem_of(99)
    found = search_with(agent, problem, time_limit=0.0, simulations=4, seed=0)
    assert not GAME.validate(problem, found.solution)
    assert found.method == "agent"


def test_what_follows_the_end_earns_nothing():
    arrays = (GAME.arrays(problem_of(1)), jnp.float32(0.5))
    contest = Contest(GAME)
    state, rewards = contest.init(arrays), []
    for _ in range(20):
        state, reward, done = contest.step(arrays, state, jnp.int32(0))
        rewards.append(float(reward))
    assert bool(done)
    assert rewards[15] == pytest.approx(-STAKE, abs=1e-4)
    assert not any(rewards[:15] + rewards[16:])


def test_chance_would_decide_some_contests():
    with pytest.raises(InputError, match="competition: not in power_control"):
        new_agent(POWER, CONTEST, shape_of(GAME, [GAME.arrays(problem_of(0))]))
