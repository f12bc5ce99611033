"""The rules of the offset-allocation game, as pure functions of JAX over a small state.

Buffers are stacked from the bottom. Every unplaced buffer has a lowest offset, on top of all placed
buffers that it overlaps in time. A move picks one of the NUM_ACTIONS unplaced buffers with the
lowest of these (ties by rank) and places it there; no gap is filled later. Any problem has a best
solution of this form, MiniMalloc's *canonical* solutions (Moffitt, ASPLOS 2023, section 4), and a
game that always takes the first candidate already needs less than first fit on most problems.

A candidate is illegal if some other buffer would fit wholly below it (MiniMalloc's dominance): the
other one could go first at no cost. So there is always a legal move, and no dead end.

Rewards: the game keeps a lower bound on its final height, the most that any section of the timeline
needs for what is stacked there, gaps included, and what is still to come. A move's reward is what
it adds to the bound, negated, as a fraction of the reference height; the first move also earns the
reference less the bound at the start. The rewards of a game therefore add up to

    (reference - peak) / reference,

where the reference is the peak of first fit by size. Heights are integers in units of `Arrays.unit`
bytes: the greatest common divisor of all sizes, or where heights would leave 30 bits a multiple of
it, to which sizes are then rounded up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

NUM_ACTIONS = 16
NEVER = 2**30  # the lowest offset of a buffer that cannot be picked


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """A problem padded to N buffers and N sections, the times at which a buffer starts.

    Attributes:
        buffer: i32[N] the problem's index; buffers are sorted by rank.
        first, last: i32[N] sections [first, last) in which the buffer is alive; empty for padding.
        size: i32[N] units that count for the peak.
        taken: i32[N] units that the next buffer on top leaves free: the aligned size.
        length: f32[N] lifetime, as a fraction of the whole time axis.
        load: i32[N] units alive in each section; 0 for padding.
        num_buffers: i32[] without padding.
        bound: i32[] no peak is lower.
        reference: i32[] peak of first fit by size.
        slack: i32[] most that alignment adds to a buffer.
        unit: f32[] bytes.
    """

    buffer: jax.Array
    first: jax.Array
    last: jax.Array
    size: jax.Array
    taken: jax.Array
    length: jax.Array
    load: jax.Array
    num_buffers: jax.Array
    bound: jax.Array
    reference: jax.Array
    slack: jax.Array
    unit: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The state before a move.

    Attributes:
        low: i32[N] lowest offset of each unplaced buffer, else NEVER.
        floor: i32[N] top of what is stacked in each section.
        height: i32[N] the same and what is still to come there.
        bound: i32[] lower bound on the final height; the reference before the first move.
        move: i32[] number of buffers placed.
    """

    low: jax.Array
    floor: jax.Array
    height: jax.Array
    bound: jax.Array
    move: jax.Array


def init(arrays: Arrays) -> State:
    """Nothing is placed."""
    real = jnp.arange(arrays.size.shape[0]) < arrays.num_buffers
    return State(
        low=jnp.where(real, 0, NEVER).astype(jnp.int32),
        floor=jnp.zeros_like(arrays.load),
        height=arrays.load,
        bound=arrays.reference,
        move=jnp.int32(0),
    )


def candidates(state: State) -> jax.Array:
    """i32[NUM_ACTIONS]: the buffers to pick from, lowest offset first, then lowest rank."""
    _, buffers = jax.lax.top_k(-state.low, NUM_ACTIONS)
    return buffers


def legal_actions(arrays: Arrays, state: State) -> jax.Array:
    """bool[NUM_ACTIONS]: candidates below which no other unplaced buffer fits; the first is one."""
    fits_below = (state.low + jnp.maximum(arrays.taken, 1)).min()
    legal = state.low[candidates(state)] < jnp.minimum(fits_below, NEVER)
    return legal.at[0].set(True)


def step(arrays: Arrays, state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """Places the picked buffer: (state, reward, done). Nothing changes once the game is done."""
    picked = candidates(state)[action]
    playing = state.move < arrays.num_buffers
    offset = state.low[picked]
    first, last = arrays.first[picked], arrays.last[picked]
    section = jnp.arange(arrays.load.shape[0])
    stacks = arrays.size[picked] > 0
    under = playing & stacks & (first <= section) & (section < last)
    overlaps = playing & stacks & (arrays.first < last) & (first < arrays.last)
    floor = offset + arrays.taken[picked]
    low = jnp.where(overlaps & (state.low < NEVER), jnp.maximum(state.low, floor), state.low)
    # What was to come of the buffer is stacked now, and the gap below it is lost.
    height = jnp.where(under, state.height + offset - state.floor, state.height)
    reached = jnp.maximum(offset + arrays.size[picked], height.max() - arrays.slack)
    known = jnp.where(state.move > 0, state.bound, arrays.bound)
    bound = jnp.where(playing, jnp.maximum(known, reached), state.bound)
    after = State(
        low=jnp.where(playing, low.at[picked].set(NEVER), state.low),
        floor=jnp.where(under, floor, state.floor),
        height=height,
        bound=bound,
        move=state.move + playing,
    )
    reward = (state.bound - bound).astype(jnp.float32) / jnp.maximum(arrays.reference, 1)
    return after, reward, after.move >= arrays.num_buffers


def observe(arrays: Arrays, state: State) -> dict[str, jax.Array]:
    """What is seen of a move, all fractions.

    `actions`: f32[NUM_ACTIONS, 12], for each candidate its lowest offset above the first one's, its
    size, lifetime, the sections that it covers and where they start, the highest and the lowest
    height and the lowest floor of these, how much is still to come there, what is lost below it,
    and how far the floors beside it rise above its lowest offset. `edges`: f32[NUM_ACTIONS,
    NUM_ACTIONS, 2], the share of a candidate's sections that another one covers too, and whether
    the one begins as the other one ends. `game`: f32[3], the moves made, the bound and the lowest
    offset. Heights are relative to the largest load.
    """
    picked = candidates(state)
    scale = jnp.maximum(arrays.bound, 1).astype(jnp.float32)
    sections = jnp.maximum((arrays.load > 0).sum(), 1).astype(jnp.float32)
    highest, lowest, floor = _covered(arrays, state, picked)
    low = jnp.minimum(state.low[picked], 2 * arrays.bound)
    first, last = arrays.first[picked], arrays.last[picked]
    length = state.floor.shape[0]
    before = jnp.where(first > 0, state.floor[first - 1], 0) - low
    after = jnp.where(last < length, state.floor[jnp.minimum(last, length - 1)], 0) - low
    to_come = _mean_over(arrays, picked, state.height - state.floor)
    shared = jnp.minimum(last[:, None], last) - jnp.maximum(first[:, None], first)
    beside = (last[:, None] == first) | (first[:, None] == last)
    actions = jnp.stack(
        [
            (low - low[0]) / scale,
            arrays.size[picked] / scale,
            arrays.length[picked],
            (last - first) / sections,
            first / sections,
            highest / scale,
            lowest / scale,
            floor / scale,
            to_come / scale,
            (low - _mean_over(arrays, picked, state.floor)) / scale,
            before / scale,
            after / scale,
        ],
        axis=1,
    )
    edges = jnp.stack(
        [
            jnp.maximum(shared, 0) / jnp.maximum(last - first, 1)[:, None],
            beside.astype(jnp.float32),
        ],
        axis=2,
    )
    known = jnp.where(state.move > 0, state.bound, arrays.bound)
    game = jnp.stack(
        [state.move / jnp.maximum(arrays.num_buffers, 1), known / scale, low[0] / scale]
    )
    return {"actions": actions, "edges": edges, "game": game}


def prior_logits(arrays: Arrays, state: State) -> jax.Array:
    """f32[NUM_ACTIONS]: lowest offset first, then those under which the timeline is fullest."""
    picked = candidates(state)
    scale = jnp.maximum(arrays.bound, 1).astype(jnp.float32)
    highest, _, _ = _covered(arrays, state, picked)
    low = state.low[picked]
    score = PRIOR[0] * (low[0] - jnp.minimum(low, 2 * arrays.bound)) / scale
    score += PRIOR[1] * highest / scale
    score += PRIOR[2] * (arrays.size[picked] / scale)
    score -= PRIOR[3] * jnp.arange(NUM_ACTIONS)
    return jnp.where(legal_actions(arrays, state), score, -1e9)


PRIOR = (20.0, 10.0, 1.0, 0.5)


def prior_value(arrays: Arrays, state: State) -> jax.Array:
    """f32[]: the rewards still to come if the final height is a usual one."""
    left = 1.0 - state.move / jnp.maximum(arrays.num_buffers, 1)
    known = jnp.where(state.move > 0, state.bound, arrays.bound)
    usual = jnp.maximum(known, arrays.bound * (1.0 + USUAL_GAP * left))
    value = (state.bound - usual) / jnp.maximum(arrays.reference, 1)
    return jnp.where(state.move < arrays.num_buffers, value, 0.0)


USUAL_GAP = 0.15  # of the peak above the largest load


def _covered(
    arrays: Arrays, state: State, picked: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each candidate's sections: f32[NUM_ACTIONS] highest and lowest height, lowest floor."""
    under = _under(arrays, picked)
    none = ~under.any(axis=1)

    def over(values: jax.Array, fill: int, reduce: Any) -> jax.Array:
        found = reduce(jnp.where(under, values, fill), axis=1)
        return jnp.where(none, 0, found).astype(jnp.float32)

    return (
        over(state.height, 0, jnp.max),
        over(state.height, NEVER, jnp.min),
        over(state.floor, NEVER, jnp.min),
    )


def _mean_over(arrays: Arrays, picked: jax.Array, values: jax.Array) -> jax.Array:
    """f32[NUM_ACTIONS]: the mean of values of sections over those of each candidate."""
    under = _under(arrays, picked)
    return (under * values.astype(jnp.float32)).sum(axis=1) / jnp.maximum(under.sum(axis=1), 1)


def _under(arrays: Arrays, picked: jax.Array) -> jax.Array:
    """bool[NUM_ACTIONS, N]: the sections that each candidate covers."""
    section = jnp.arange(arrays.load.shape[0])
    return (arrays.first[picked, None] <= section) & (section < arrays.last[picked, None])


def play(arrays: Arrays, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The buffers that the actions pick, one for each of N moves, and the rewards: i32[N], f32[N].

    Moves after the end repeat the last buffers' indices and earn nothing.
    """

    def move(state: State, action: jax.Array) -> tuple[State, tuple[jax.Array, jax.Array]]:
        picked = candidates(state)[action]
        state, reward, _ = step(arrays, state, action)
        return state, (picked, reward)

    _, trace = jax.lax.scan(move, init(arrays), actions)
    return trace
