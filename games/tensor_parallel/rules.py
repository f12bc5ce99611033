"""The rules of the game, as pure functions of JAX over a small state.

A move sets one decision to one of its options; see `moves` for which and in what order. An option
is legal if it goes together with what its neighbours have now and if the usage then fits at every
time. The reward is what the total falls by, as a fraction of the plan's total: the rewards of a
game add up to its saving against the plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from games.tensor_parallel.moves import Arrays

SLACK = 1e-6  # of the largest room: what rounding to 32 bits may hide, on the safe side
DOUBT_WEIGHT = 2.0
SAVING_WEIGHT = 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """A game between two moves.

    Attributes:
        move: i32[] the next one.
        chosen: i32[M] the option of every move, the plan's where it is still to come.
        left: f32[T] room that is left.
    """

    move: jax.Array
    chosen: jax.Array
    left: jax.Array


def init(arrays: Arrays) -> State:
    """The plan."""
    return State(jnp.int32(0), arrays.plan, arrays.room)


def _rises(arrays: Arrays, state: State) -> jax.Array:
    """f32[K]: how much the total rises with each option of the move, inf where excluded."""
    at = jnp.minimum(state.move, arrays.length - 1)
    neighbour = arrays.neighbour[at]
    theirs = state.chosen[jnp.minimum(neighbour, arrays.length - 1)]
    pairs = jnp.take_along_axis(arrays.table[at], theirs[:, None, None], axis=2)[:, :, 0]
    pairs = jnp.where((neighbour < arrays.length)[:, None], pairs, 0.0)
    now = state.chosen[at]
    # Entry by entry against the present option: totals would lose the small differences.
    return arrays.cost[at] - arrays.cost[at, now] + (pairs - pairs[:, now][:, None]).sum(axis=0)


def _used(arrays: Arrays, state: State) -> jax.Array:
    """f32[K, T]: what each option of the move uses more than the present one."""
    at = jnp.minimum(state.move, arrays.length - 1)
    time = jnp.arange(arrays.room.shape[0])
    during = (arrays.begin[at][:, None] <= time) & (time < arrays.end[at][:, None])
    more = arrays.amount[at] - arrays.amount[at][:, state.chosen[at]][:, None]
    return more.T @ during.astype(jnp.float32)


def legal_actions(arrays: Arrays, state: State) -> jax.Array:
    """bool[K]: the options that the move may take; the plan's is always among them."""
    at = jnp.minimum(state.move, arrays.length - 1)
    option = jnp.arange(arrays.width)
    more = _used(arrays, state)
    fits = ((more <= 0) | (more <= state.left - SLACK)).all(axis=1)
    legal = (option < arrays.options[at]) & jnp.isfinite(_rises(arrays, state)) & fits
    return legal | (option == state.chosen[at])


def step(arrays: Arrays, state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """(state, reward, done) of an option for the next move."""
    at = jnp.minimum(state.move, arrays.length - 1)
    playing = state.move < arrays.num_moves
    reward = jnp.where(playing, -_rises(arrays, state)[action], 0.0)
    after = State(
        move=jnp.minimum(state.move + 1, arrays.num_moves),
        chosen=state.chosen.at[at].set(action.astype(jnp.int32)),
        left=state.left - _used(arrays, state)[action],
    )
    state = jax.tree.map(lambda new, old: jnp.where(playing, new, old), after, state)
    return replace(state), reward, state.move >= arrays.num_moves


def observe(arrays: Arrays, state: State) -> dict[str, jax.Array]:
    """Features of the options of the next move, f32[K] each, 0 where there is none."""
    at = jnp.minimum(state.move, arrays.length - 1)
    legal = legal_actions(arrays, state)
    tightest = (state.left - _used(arrays, state)).min(axis=1)
    features = {
        "rise": _rises(arrays, state),
        "doubt": arrays.doubt[at],
        "room": tightest,
        "planned": (jnp.arange(arrays.width) == arrays.plan[at]).astype(jnp.float32),
    }
    return {name: jnp.where(legal, value, 0.0) for name, value in features.items()}


def prior_logits(arrays: Arrays, state: State) -> jax.Array:
    """f32[K]: options that the dual believes in, and that cost little here and now."""
    at = jnp.minimum(state.move, arrays.length - 1)
    rises = _rises(arrays, state)
    finite = jnp.isfinite(rises)
    spread = jnp.where(finite, jnp.abs(rises), 0.0).sum() / jnp.maximum(finite.sum(), 1)
    wanted = -SAVING_WEIGHT * rises / jnp.maximum(spread, 1e-12)
    logits = wanted - DOUBT_WEIGHT * arrays.doubt[at]
    return jnp.where(jnp.isfinite(logits), jnp.maximum(logits, -1e4), -1e4)


def prior_value(arrays: Arrays, state: State) -> jax.Array:
    """f32[]: nothing more is saved if the rest of the plan is kept."""
    del arrays, state
    return jnp.float32(0.0)
