"""Games that come near a given solution, for an agent to learn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from games.tensor_parallel.game import GAME
from games.tensor_parallel.moves import Arrays
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.rules import State
from games.tensor_parallel.solution import Strategies


def wishes(arrays: Arrays, problem: ShardingProblem, solution: Strategies) -> jax.Array:
    """i32[M]: the action of each move that the solution takes, -1 where no action stands for it."""
    line = GAME.line(problem)
    graph = line.graph
    wanted = np.full(arrays.length, -1, dtype=np.int32)
    for move, decision in enumerate(line.decisions.tolist()):
        strategies = graph.strategy[graph.start[decision] + line.options[move]]
        found = np.flatnonzero(strategies == solution.choice[graph.node[decision]])
        wanted[move] = found[0] if len(found) else -1
    return jnp.asarray(wanted)


def agreement(arrays: Arrays, wishes: jax.Array, state: State) -> jax.Array:
    """f32[K] in 0..1: 1 for the solution's action."""
    wanted = wishes[jnp.minimum(state.move, arrays.length - 1)]
    return (jnp.arange(arrays.width) == wanted).astype(jnp.float32)
