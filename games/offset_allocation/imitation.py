"""Games that come near a given solution, for an agent to learn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.rules import Arrays, State, candidates, legal_actions
from games.offset_allocation.solution import Offsets


def wishes(arrays: Arrays, problem: OffsetProblem, solution: Offsets) -> jax.Array:
    """i32[N]: the place of each buffer in the order of the solution's offsets."""
    del problem
    buffers = np.asarray(arrays.buffer)[: int(arrays.num_buffers)]
    place = np.zeros(arrays.buffer.shape[0], dtype=np.int32)
    place[np.argsort(np.asarray(solution.offset)[buffers], kind="stable")] = np.arange(len(buffers))
    return jnp.asarray(place)


def agreement(arrays: Arrays, wishes: jax.Array, state: State) -> jax.Array:
    """f32[NUM_ACTIONS] in 0..1: 1 for the candidate that the solution has lowest."""
    place = jnp.where(legal_actions(arrays, state), wishes[candidates(state)], len(wishes))
    return (place == place.min()).astype(jnp.float32)
