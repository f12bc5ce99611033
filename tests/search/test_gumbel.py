"""Our trees against those of mctx, and what the search is for: better moves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import mctx
import numpy as np
import pytest

from compiler_rl.search import gumbel
from compiler_rl.search.gumbel import Model, Settings, search

ACTIONS = 5
DEPTH = 6


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A path of actions, as a number, its length, and a flag of another type to pack."""

    path: jax.Array
    move: jax.Array
    odd: jax.Array


class RandomTree:
    """A game of DEPTH moves whose rewards, prior and value are hashes of the path."""

    def init(self, arrays):
        return State(jnp.int32(arrays), jnp.int32(0), jnp.asarray(False))

    def _noise(self, state, salt, shape):
        key = jax.random.fold_in(jax.random.key(salt), state.path)
        return jax.random.normal(jax.random.fold_in(key, state.move), shape)

    def legal_actions(self, arrays, state):
        legal = self._noise(state, 1, (ACTIONS,)) > -0.5
        return legal.at[state.path % ACTIONS].set(True)

    def prior_logits(self, arrays, state):
        return 2.0 * self._noise(state, 2, (ACTIONS,))

    def prior_value(self, arrays, state):
        return self._noise(state, 3, ())

    def step(self, arrays, state, action):
        reward = self._noise(state, 4, (ACTIONS,))[action]
        active = state.move < DEPTH
        after = State(
            path=jnp.where(active, (state.path * 7 + action + 1) % 99991, state.path),
            move=state.move + active,
            odd=(state.move % 2) == 0,
        )
        return after, jnp.where(active, reward, 0.0), after.move >= DEPTH


def by_mctx(model, settings, arrays, root, key, *, simulations):
    def expand(params, key, action, state):
        del key
        node, reward = model.step(params, state, action)
        output = mctx.RecurrentFnOutput(
            reward=reward,
            discount=jnp.ones_like(reward),
            prior_logits=node.logits,
            value=node.value,
        )
        return output, node.state

    return mctx.gumbel_muzero_policy(
        arrays,
        key,
        mctx.RootFnOutput(prior_logits=root.logits, value=root.value, embedding=root.state),
        expand,
        simulations,
        invalid_actions=root.logits <= gumbel._MASKED,
        max_num_considered_actions=settings.considered,
        qtransform=partial(
            mctx.qtransform_completed_by_mix_value,
            rescale_values=settings.rescale,
            epsilon=settings.least_range,
        ),
    )


@pytest.mark.parametrize("simulations", [1, 16, 256])
@pytest.mark.parametrize(
    "options",
    [
        {"considered": 2},
        {"considered": 16},
        {"considered": 16, "least_range": 2.0},
        {"considered": 16, "rescale": False},
    ],
)
def test_trees_are_those_of_mctx(simulations, options):
    batch = 12
    model = Model(RandomTree(), arrays_axis=0)
    settings = Settings(simulations=simulations, **options)
    arrays = jnp.arange(batch) * 31
    root = jax.jit(model.root)(arrays, jax.vmap(model.game.init)(arrays))
    key = jax.random.key(simulations)
    theirs = jax.jit(lambda: by_mctx(model, settings, arrays, root, key, simulations=simulations))()
    ours = jax.jit(lambda: search(model, settings, arrays, root, jax.random.split(key)[1]))()
    tree = theirs.search_tree
    for mine, other in [
        (ours.action, theirs.action),
        (ours.tree.visits, tree.node_visits),
        (ours.tree.children, tree.children_index),
        (ours.tree.child_visits, tree.children_visits),
        (ours.tree.actions, tree.action_from_parent),
    ]:
        np.testing.assert_array_equal(mine, other)
    for mine, other in [
        (ours.policy, theirs.action_weights),
        (ours.tree.values, tree.node_values),
        (ours.tree.raw_values, tree.raw_values),
        (ours.tree.child_q, tree.children_rewards + tree.children_values),
        (ours.value, tree.node_values[:, 0]),
    ]:
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_the_node_after_the_action_is_the_games():
    model = Model(RandomTree(), arrays_axis=0)
    arrays = jnp.arange(8)
    root = model.root(arrays, jax.vmap(model.game.init)(arrays))
    found = search(model, Settings(simulations=16), arrays, root, jax.random.key(0))
    node, reward = model.step(arrays, root.state, found.action)
    for mine, other in zip(jax.tree.leaves(found.node), jax.tree.leaves(node), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    np.testing.assert_allclose(found.reward, reward, atol=1e-6)


def test_one_simulation_at_run_time_draws_from_the_policy():
    model = Model(RandomTree(), arrays_axis=0)
    arrays = jnp.arange(64)
    root = model.root(arrays, jax.vmap(model.game.init)(arrays))
    key = jax.random.key(3)
    found = search(model, Settings(simulations=32), arrays, root, key, simulations=1)
    gumbels = jax.random.gumbel(key, root.logits.shape)
    legal = root.logits > gumbel._MASKED
    expected = jnp.where(legal, root.logits + gumbels, -jnp.inf).argmax(axis=-1)
    np.testing.assert_array_equal(found.action, expected)
    greedy = search(model, Settings(), arrays, root, key, simulations=1, gumbel_scale=0.0)
    np.testing.assert_array_equal(greedy.action, root.logits.argmax(axis=-1))


def test_a_full_search_finds_the_best_first_move():
    """With exact values below, the search is right wherever the prior is not."""

    class OneMove(RandomTree):
        def prior_value(self, arrays, state):
            return jnp.float32(0.0)

        def step(self, arrays, state, action):
            after, reward, _ = super().step(arrays, state, action)
            return after, jnp.where(state.move == 0, reward, 0.0), after.move >= 1

    model = Model(OneMove(), arrays_axis=0)
    arrays = jnp.arange(32)
    root = model.root(arrays, jax.vmap(model.game.init)(arrays))
    settings = Settings(simulations=64, value_scale=10.0)
    found = search(model, settings, arrays, root, jax.random.key(0))
    rewards = jax.vmap(lambda s: model.game._noise(s, 4, (ACTIONS,)))(root.state)
    legal = root.logits > gumbel._MASKED
    np.testing.assert_array_equal(found.action, jnp.where(legal, rewards, -jnp.inf).argmax(axis=-1))


def test_the_largest_value_is_backed_up():
    model = Model(RandomTree(), arrays_axis=0)
    arrays = jnp.arange(8)
    root = model.root(arrays, jax.vmap(model.game.init)(arrays))
    settings = Settings(simulations=256, backup="max")
    tree = search(model, settings, arrays, root, jax.random.key(0)).tree
    children = np.asarray(tree.child_q)
    children = np.where(np.asarray(tree.child_visits) > 0, children, -np.inf).max(axis=-1)
    visited = np.asarray(tree.visits)
    np.testing.assert_allclose(
        np.asarray(tree.values)[visited > 1], children[visited > 1], atol=1e-5
    )
    np.testing.assert_array_equal(
        np.asarray(tree.values)[visited == 1], np.asarray(tree.raw_values)[visited == 1]
    )


def test_packing_keeps_every_bit():
    states = State(
        path=jnp.array([1, -(2**31)], jnp.int32),
        move=jnp.array([0, 5], jnp.int32),
        odd=jnp.array([True, False]),
    )
    floats = {"x": jnp.array([[jnp.inf, -0.0], [1e-30, 3.5]]), "state": states}
    again = gumbel.unpack(gumbel.pack(floats), floats)
    for mine, other in zip(jax.tree.leaves(again), jax.tree.leaves(floats), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype
