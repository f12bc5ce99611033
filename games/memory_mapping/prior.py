"""What is seen of a move, and the game's own policy and value, for search without a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from games.memory_mapping import rules
from games.memory_mapping.moves import Arrays
from games.memory_mapping.state import COPY_LATE, DROP, NUM_ACTIONS, State

# The policy's logits: the log-odds of the plan, and the time that an action saves at the plan's
# prices, in units of what an access saves on average.
PLAN_WEIGHT = 0.3
SAVING_WEIGHT = 1.0
MOST_SAVING = 20.0
LEAST_PLAN = 0.02  # the plan is sure of nothing
MASKED = -1e9


def observe(arrays: Arrays, state: State) -> dict[str, jax.Array]:
    """Features of the move to be made: f32[], and f32[num_actions] `legal`, `wait`."""
    row = arrays.row(jnp.minimum(state.move, arrays.length - 1))
    can = state.offers
    now = rules.elapsed(arrays, row.unit, state.saved, state.fast)
    then = rules.elapsed(arrays, row.unit, state.saved + row.slow, state.fast + row.fast)
    features = {
        "saving": (now - then) / arrays.scale,
        "traffic": row.slow / arrays.scale,
        "copy": row.work / arrays.scale,
        "worth_next": row.worth / arrays.scale,
        "rent": row.rent / arrays.scale,
        "size": jnp.log1p(row.size.astype(jnp.float32)),
        "distance": jnp.log1p((row.next_unit - row.unit).astype(jnp.float32)),
        "plan": row.plan,
        "plan_next": row.plan_next,
        "in_fast": can.extend,
        "dirty": can.dirty,
        "writes": row.writes,
        "defines": row.defines,
        "needed": row.needed,
        "legal": can.legal,
        "wait": can.wait / arrays.scale,
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in features.items()}


def prior_logits(arrays: Arrays, state: State) -> jax.Array:
    """f32[num_actions]: how much the plan wants the access in fast memory, and what each action
    saves now and at the next use, less waiting, rent, what it displaces, and its copies.
    """
    row = arrays.row(jnp.minimum(state.move, arrays.length - 1))
    can = state.offers
    now = rules.elapsed(arrays, row.unit, state.saved, state.fast)
    then = rules.elapsed(arrays, row.unit, state.saved + row.slow, state.fast + row.fast)
    action = jnp.arange(NUM_ACTIONS)
    in_fast = action != DROP
    copy = action >= COPY_LATE
    new = in_fast & (copy | ~can.extend)
    displaced = jnp.where(jnp.isfinite(can.kills), can.kills, 0.0)
    soiled = row.writes | (can.extend & can.dirty & ~copy)
    dirty_after = soiled & row.needed & ~can.write_back & in_fast
    after = jnp.where(dirty_after, row.worth_dirty, row.worth)
    copies_out = can.write_back.astype(jnp.float32) + ((action == DROP) & can.dirty)
    saving = (
        jnp.where(in_fast, now - then + after, 0.0)
        - can.wait
        - jnp.where(new, row.rent + displaced, 0.0)
        - jnp.where(copy, row.cost_in, 0.0)
        - copies_out * row.cost_out
    )
    wanted = jnp.clip(row.plan, LEAST_PLAN, 1.0 - LEAST_PLAN)
    odds = jnp.where(in_fast, jnp.log(wanted), jnp.log1p(-wanted))
    worth = jnp.clip(saving / arrays.scale, -MOST_SAVING, MOST_SAVING)
    return jnp.where(can.legal, PLAN_WEIGHT * odds + SAVING_WEIGHT * worth, MASKED)


def prior_value(arrays: Arrays, state: State) -> jax.Array:
    """f32[]: what the plan still saves from here on, with what is in fast memory now."""
    row = arrays.row(jnp.minimum(state.move, arrays.length - 1))
    value = row.rest + jnp.where(state.slots.alive, state.slots.worth, 0.0).sum()
    return jnp.where(state.move < arrays.num_moves, value, 0.0)
