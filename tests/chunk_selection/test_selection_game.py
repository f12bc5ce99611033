"""Rules, objective, bound and validator of the chunk-selection game."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_instances import best_by_force, random_problem

from games.chunk_selection import GAME
from games.chunk_selection.solution import (
    Selection,
    arranged,
    losses_with,
    lower_bound,
    objective,
    worth,
)
from games.chunk_selection.validator import expected_loss
from games.registry import game_of, get_game
from hlo_frontend.errors import InputError


@jax.jit
def random_play(arrays, key):
    """(actions, sum of rewards, whether each move before the end had a legal action, done)."""

    def move(state, key):
        legal = GAME.legal_actions(arrays, state)
        finite = jnp.isfinite(GAME.prior_logits(arrays, state)).all()
        finite &= jnp.isfinite(GAME.prior_value(arrays, state))
        action = jax.random.categorical(key, jnp.where(legal, 0.0, -1e9))
        following, reward, done = GAME.step(arrays, state, action)
        return following, (action, reward, (legal.any() | state.done) & finite, done)

    keys = jax.random.split(key, len(arrays.tokens) + 1)
    _, (actions, rewards, legal, done) = jax.lax.scan(move, GAME.init(arrays), keys)
    return actions, rewards.sum(), legal.all(), done[-1]


@pytest.mark.parametrize("seed", range(12))
def test_random_play_is_legal_and_rewards_are_the_saving(seed):
    problem = random_problem(seed, size=3 + seed, cost_weight=0.1 * (seed % 3))
    arrays = GAME.arrays(problem)
    for game in range(4):
        key = jax.random.key(100 * seed + game)
        actions, total, legal, done = random_play(arrays, key)
        assert legal
        assert done
        selection = GAME.solution(problem, np.asarray(actions))
        assert GAME.validate(problem, selection) == []
        nothing = objective(problem, Selection(()))
        saving = (nothing - objective(problem, selection)) / nothing
        assert float(total) == pytest.approx(saving, abs=1e-5)


def test_budget_is_exact_to_the_token():
    problem = random_problem(0)
    whole = int(problem.tokens.sum())
    for budget, fits in ((whole, True), (whole - 1, False)):
        arrays = GAME.arrays(replace(problem, budget=budget))
        state = GAME.init(arrays)
        for action in range(problem.size - 1):
            state, *_ = GAME.step(arrays, state, action)
        legal = GAME.legal_actions(arrays, state)
        assert bool(legal[problem.size - 1]) is fits


def test_padding_changes_nothing():
    problem = random_problem(5)
    arrays = GAME.arrays(problem)
    n, more = len(arrays.tokens), 7

    def longer(x, axes, value=0):
        return jnp.pad(
            x, [(0, more if axis in axes else 0) for axis in range(x.ndim)], constant_values=value
        )

    padded = replace(
        arrays,
        tokens=longer(arrays.tokens, (0,), problem.budget + 1),
        overlap=longer(arrays.overlap, (0, 1)),
    )
    state, other = GAME.init(arrays), GAME.init(padded)
    for action in GAME.solution(problem, [3, 1, 0]).order:
        state, reward, _ = GAME.step(arrays, state, action)
        other, same, _ = GAME.step(padded, other, action)
        assert float(reward) == pytest.approx(float(same), abs=1e-6)
        logits, wide = GAME.prior_logits(arrays, state), GAME.prior_logits(padded, other)
        np.testing.assert_allclose(logits[:n], wide[:n], atol=1e-4)
        value, same = GAME.prior_value(arrays, state), GAME.prior_value(padded, other)
        assert float(value) == pytest.approx(float(same), abs=1e-5)


def test_one_bucket_compiles_once():
    before = random_play._cache_size()
    shapes = set()
    for seed in range(30, 36):
        arrays = GAME.arrays(random_problem(seed))
        shapes.add((arrays.tokens.shape, arrays.members.shape))
        random_play(arrays, jax.random.key(seed))
    assert random_play._cache_size() - before <= len(shapes)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_objective_is_the_definition_and_order_does_not_count(seed, data):
    problem = random_problem(seed, cost_weight=0.2)
    order = data.draw(st.permutations(range(problem.size)))
    count = data.draw(st.integers(0, problem.size))
    chosen = tuple(order[:count])
    loss = objective(problem, Selection(chosen))
    assert loss == pytest.approx(expected_loss(problem, Selection(chosen)), abs=1e-9)
    assert loss == pytest.approx(objective(problem, Selection(chosen[::-1])), abs=1e-12)
    value = worth(problem, chosen)
    assert -1e-9 <= value.all_found <= value.recall + 1e-9 <= 1 + 2e-9


@pytest.mark.parametrize("seed", range(20))
def test_bound_is_below_the_optimum(seed):
    problem = random_problem(seed, size=7, cost_weight=0.3 * (seed % 2))
    best = best_by_force(problem)
    assert lower_bound(problem) <= best + 1e-9
    assert best <= objective(problem, Selection(()))


def test_bound_is_tight_where_everything_fits():
    problem = replace(random_problem(3), budget=10**6)
    everything = Selection(tuple(range(problem.size)))
    assert lower_bound(problem) == pytest.approx(objective(problem, everything), abs=0.05)


def test_validator_finds_every_fault():
    problem = random_problem(1)
    assert GAME.validate(problem, Selection((0, 0)))[0].endswith("is chosen twice")
    assert "no candidate 99" in GAME.validate(problem, Selection((99,)))[0]
    assert "no candidate -1" in GAME.validate(problem, Selection((-1,)))[0]
    assert "no index" in GAME.validate(problem, Selection((1.5,)))[0]
    small = replace(problem, budget=int(problem.tokens[:2].sum()) - 1)
    assert "the budget is" in GAME.validate(small, Selection((0, 1)))[0]


def test_order_puts_the_likeliest_where_it_is_read_best():
    problem = random_problem(2)
    selection = Selection((0, 3, 5, 6))
    ranks = np.argsort(-problem.marginals[[0, 3, 5, 6]], kind="stable")
    best = [(0, 3, 5, 6)[i] for i in ranks]
    assert arranged(problem, selection).order == tuple(best)
    ends = arranged(problem, selection, [1.0, 0.2, 0.1, 0.9])
    assert ends.order == (best[0], best[2], best[3], best[1])
    short = arranged(problem, selection, [0.0, 1.0])
    assert short.order[1] == best[0]
    assert short.order[0] == best[3]
    with pytest.raises(InputError, match="position_weights"):
        arranged(problem, selection, [float("nan")])


def test_registered():
    problem = random_problem(0)
    assert game_of(problem) is get_game("chunk_selection")


@pytest.mark.parametrize("seed", range(4))
def test_losses_with_one_more(seed):
    problem = random_problem(seed, size=9, cost_weight=0.2 * (seed % 2))
    for order in ((), (2,), (4, 0, 7)):
        losses = losses_with(problem, order)
        for index in set(range(9)) - set(order):
            assert losses[index] == pytest.approx(worth(problem, (*order, index)).loss)
