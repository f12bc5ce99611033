"""Plain local search, one decision at a time, without the dual: what tables compare with."""

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

ROUND = 8  # moves for each decision: few are then left out


def annealing(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """Anneals single decisions of the reduced problem within the limit, from the best heuristic.

    Args:
        problem: what to solve.
        time_limit: seconds.
        seed: of the moves.
    """
    return _walk(problem, "annealing", time_limit, seed)


def coordinate_descent(
    problem: ShardingProblem, *, time_limit: float, seed: int = 0
) -> Result[Strategies]:
    """Changes single decisions downhill, from the best heuristic, until that finds nothing more.

    Args:
        problem: what to solve.
        time_limit: seconds.
        seed: of the order.
    """
    return _walk(problem, "coordinate_descent", time_limit, seed)


def _walk(
    problem: ShardingProblem, method: str, time_limit: float, seed: int
) -> Result[Strategies]:
    begun = time.perf_counter()
    graph = reduce(problem)
    starts = [heuristic(problem, time_limit=time_limit) for heuristic in (greedy, least_usage)]
    start = min(starts, key=lambda result: result.objective)
    options = graph.options_of(start.solution.choice)
    if options is None or start.objective == math.inf:
        return Result(method, start.solution, math.inf, wall_s=time.perf_counter() - begun)
    search = Search(graph, np.asarray(options), seed, tree=1)
    deadline = begun + time_limit
    with contextlib.suppress(KeyboardInterrupt):
        if method == "annealing" and graph.num_decisions:
            left = deadline - time.perf_counter()
            anneal(search, graph.cost, lower_bound(problem), left, None, None)
        elif graph.num_decisions:
            before = math.inf
            while search.best_total < before and time.perf_counter() < deadline:
                before = search.best_total
                search.take(graph.cost, ROUND * graph.num_decisions, 0.0)
    solution = Strategies(graph.expand(search.best))
    return Result(
        method=method,
        solution=solution,
        objective=objective(problem, solution),
        wall_s=time.perf_counter() - begun,
        curve=tuple(search.curve),
        detail={"moves": search.moves},
    )
