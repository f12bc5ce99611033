"""Exhaustive search: every assignment of the reduced problem, where these are few enough."""

from __future__ import annotations

import math
import time

import numpy as np

from games.base import Result
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective
from hlo_frontend.errors import InputError

MOST = 300_000  # assignments


def exhaustive(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """The optimum by trying everything that the reduction, which keeps an optimum, leaves.

    Raises:
        InputError: more assignments than can be tried, or none is valid.
    """
    del time_limit, seed
    started = time.perf_counter()
    graph = reduce(problem)
    counts = np.diff(graph.start).tolist()
    size = math.prod(counts)
    if size > MOST:
        raise InputError(f"{problem.name}: {size} assignments are too many to try them all")
    best, best_total = None, math.inf
    options = np.zeros(graph.num_decisions, dtype=np.int64)
    for number in range(size):
        left = number
        for decision, count in enumerate(counts):
            options[decision] = left % count
            left //= count
        total = graph.total(options)
        if total < best_total and (graph.load(options) <= graph.room).all():
            best, best_total = options.copy(), total
    if best is None:
        raise InputError(f"{problem.name}: no assignment keeps the usage limit")
    solution = Strategies(graph.expand(best))
    cost = objective(problem, solution)
    return Result(
        method="exhaustive",
        solution=solution,
        objective=cost,
        bound=cost,
        wall_s=time.perf_counter() - started,
        proved_optimal=True,
        detail={"assignments": size},
    )
