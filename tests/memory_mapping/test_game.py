"""Random legal play of the game: it ends in legal mappings, and the rewards are their saving."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import random_problem

from games.memory_mapping import GAME
from games.memory_mapping.solution import Mapping, objective


@jax.jit
def random_play(arrays, key):
    """(actions, sum of rewards, whether every move had a legal action, done at the end)."""

    def move(state, key):
        legal = GAME.legal_actions(arrays, state)
        action = jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
        state, reward, done = GAME.step(arrays, state, action)
        return state, (action, reward, legal.any() | done, done)

    keys = jax.random.split(key, arrays.length)
    _, (actions, rewards, legal, done) = jax.lax.scan(move, GAME.init(arrays), keys)
    return actions, rewards.sum(), legal.all(), done[-1]


@pytest.mark.parametrize("seed", range(12))
def test_random_play_is_legal_and_rewards_are_the_saving(seed):
    problem = random_problem(seed)
    arrays = GAME.arrays(problem)
    for game in range(4):
        key = jax.random.key(1000 * seed + game)
        actions, total, legal, done = random_play(arrays, key)
        assert legal
        assert done
        mapping = GAME.solution(problem, np.asarray(actions))
        assert GAME.validate(problem, mapping) == []
        slow = objective(problem, Mapping(()))
        saving = (slow - objective(problem, mapping)) / slow
        assert float(total) == pytest.approx(saving, abs=1e-4)
        again, *_ = random_play(arrays, key)
        assert (again == actions).all()


def test_problems_of_one_bucket_share_what_is_compiled():
    before = random_play._cache_size()
    shapes = set()
    for seed in range(20, 30):
        arrays = GAME.arrays(random_problem(seed))
        shapes.add(arrays.length)
        random_play(arrays, jax.random.key(seed))
    assert random_play._cache_size() - before <= len(shapes)


def test_features_are_finite():
    arrays = GAME.arrays(random_problem(3))
    features = GAME.observe(arrays, GAME.init(arrays))
    assert features
    assert all(bool(jnp.isfinite(value).all()) for value in features.values())
