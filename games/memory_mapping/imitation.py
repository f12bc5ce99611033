"""Games that come near a given solution, for an agent to learn from.

Where a stay lies is the rules' choice, and a copy starts at one of two places: what is imitated is
which accesses fast memory serves, which copies are made, and about when.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from games.memory_mapping.moves import Arrays
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import Mapping
from games.memory_mapping.state import (
    COPY_EARLY,
    COPY_LATE,
    COPY_LOOP,
    DROP,
    KEEP,
    KEEP_WRITE_BACK,
    NUM_ACTIONS,
    State,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wishes:
    """What a mapping does with the access of each move.

    Attributes:
        in_fast: bool[N] fast memory serves it.
        write_back: bool[N] a copy-out starts after it.
        begin: i32[N] step in which the stay's copy-in starts; the access's own without one.
        before_loop: bool[N] that is outside of the loop of the access.
    """

    in_fast: jax.Array
    write_back: jax.Array
    begin: jax.Array
    before_loop: jax.Array


def wishes(arrays: Arrays, problem: MemoryMappingProblem, solution: Mapping) -> Wishes:
    """The solution's, move by move."""
    step = problem.access_step
    in_fast = solution.accesses_in_fast(problem)
    write_back = np.zeros(len(step), dtype=np.bool_)
    begin = step.astype(np.int32)
    for stay in solution.intervals:
        low, high = problem.first_access[stay.buffer : stay.buffer + 2]
        own = np.arange(low, high)
        own = own[(step[own] >= stay.ready) & (step[own] < stay.end)]
        if len(own) and stay.copy_in is not None:
            begin[own] = stay.copy_in.start
        if len(own) and stay.copy_out is not None:
            before = own[step[own] < stay.copy_out.start]
            write_back[before[-1:]] = True
    outside = problem.step_loop[step] != problem.step_loop[np.minimum(begin, step)]
    access = np.asarray(jax.vmap(lambda move: arrays.row(move).access)(jnp.arange(arrays.length)))

    def by_move(values: np.ndarray) -> jax.Array:
        return jnp.asarray(np.where(access >= 0, values[access], 0).astype(values.dtype))

    return Wishes(by_move(in_fast), by_move(write_back), by_move(begin), by_move(outside))


def agreement(arrays: Arrays, wishes: Wishes, state: State) -> jax.Array:
    """f32[NUM_ACTIONS] in 0..1: how near an action comes to what the solution does."""
    move = jnp.minimum(state.move, arrays.length - 1)
    out, loop = wishes.write_back[move], wishes.before_loop[move]
    begins = arrays.units.step[jnp.maximum(state.offers.start, 0)]
    late = jnp.abs(begins[COPY_LATE] - wishes.begin[move])
    early = jnp.abs(begins[COPY_EARLY] - wishes.begin[move])
    wanted = jnp.zeros(NUM_ACTIONS)
    wanted = wanted.at[KEEP].set(jnp.where(out, 0.8, 1.0))
    wanted = wanted.at[KEEP_WRITE_BACK].set(jnp.where(out, 1.0, 0.8))
    wanted = wanted.at[COPY_LATE].set(jnp.where(late <= early, 0.6, 0.5))
    wanted = wanted.at[COPY_EARLY].set(jnp.where(late <= early, 0.5, 0.6))
    wanted = wanted.at[COPY_LOOP].set(jnp.where(loop, 0.7, 0.4))
    unwanted = jnp.zeros(NUM_ACTIONS).at[DROP].set(1.0)
    return jnp.where(wishes.in_fast[move], wanted, unwanted)
