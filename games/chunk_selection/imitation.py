"""Games that come near a given solution, for an agent to learn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.rules import Arrays, State
from games.chunk_selection.solution import Selection


def wishes(arrays: Arrays, problem: ChunkSelectionProblem, solution: Selection) -> jax.Array:
    """bool[N]: what the solution takes."""
    del problem
    taken = np.zeros(arrays.tokens.shape[0], dtype=np.bool_)
    taken[list(solution.order)] = True
    return jnp.asarray(taken)


def agreement(arrays: Arrays, wishes: jax.Array, state: State) -> jax.Array:
    """f32[N + 1] in 0..1: 1 for what the solution takes, then for stopping."""
    del arrays
    return jnp.append(wishes & ~state.chosen, ~(wishes & ~state.chosen).any()).astype(jnp.float32)
