"""Plain simulated annealing, one decision at a time, without the dual: what tables compare with."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np

from baselines.tensor_parallel.heuristics import greedy, least_usage
from baselines.tensor_parallel.local_search import Search, anneal
from games.base import Result
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, lower_bound, objective


def annealing(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """Anneals single decisions of the reduced problem within the limit, from the best heuristic.

    Args:
        problem: what to solve.
        time_limit: seconds.
        seed: of the moves.
    """
    begun = time.perf_counter()
    graph = reduce(problem)
    starts = [heuristic(problem, time_limit=time_limit) for heuristic in (greedy, least_usage)]
    start = min(starts, key=lambda result: result.objective)
    options = graph.options_of(start.solution.choice)
    if options is None or start.objective == math.inf:
        return Result("annealing", start.solution, math.inf, wall_s=time.perf_counter() - begun)
    search = Search(graph, np.asarray(options), seed, tree=1)
    with contextlib.suppress(KeyboardInterrupt):
        left = time_limit - (time.perf_counter() - begun)
        if graph.num_decisions:
            anneal(search, graph.cost, lower_bound(problem), left, None, None)
    solution = Strategies(graph.expand(search.best))
    return Result(
        method="annealing",
        solution=solution,
        objective=objective(problem, solution),
        wall_s=time.perf_counter() - begun,
        curve=tuple(search.curve),
        detail={"moves": search.moves},
    )
