"""The dual alone as a solver: message passing, prices, and what is decoded from them.

Block-coordinate ascent on the dual of the local polytope, as MPLP is (Globerson & Jaakkola, NIPS
2007), in the sequential tree-reweighted order, TRW-S (`games.tensor_parallel.messages`).
"""

from __future__ import annotations

import math
import time

from games.base import Result
from games.tensor_parallel.dual import forget, known_dual
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective

SHARE = 0.35  # of the time limit


def trws(
    problem: ShardingProblem, *, time_limit: float, seed: int = 0, sweeps: int | None = None
) -> Result[Strategies]:
    """The dual alone: its bound, and the cheapest assignment that was decoded on the way.

    Args:
        problem: what to solve.
        time_limit: seconds, of which it takes a part at most.
        seed: without effect.
        sweeps: that many at most.
    """
    del seed
    started = time.perf_counter()
    graph = reduce(problem)
    forget(problem)
    dual = known_dual(problem, SHARE * time_limit, sweeps)
    found = dual.options is not None
    solution = Strategies(graph.expand(dual.fallback if dual.options is None else dual.options))
    return Result(
        method="trws",
        solution=solution,
        objective=objective(problem, solution) if found else math.inf,
        bound=dual.bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=dual.proved,
        curve=tuple(dual.curve),
        detail={
            "sweeps": dual.sweeps,
            "decisions": graph.num_decisions,
            "interrupted": dual.interrupted,
        },
    )
