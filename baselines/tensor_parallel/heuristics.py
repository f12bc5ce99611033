"""Quick solutions: least usage, greedy, and where a local search starts."""

from __future__ import annotations

import math
import time

import numpy as np

from games.base import Result
from games.tensor_parallel.dual import Dual
from games.tensor_parallel.graph import Graph
from games.tensor_parallel.messages import decode
from games.tensor_parallel.problem import Floats, Ints, ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective


def greedy(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """Node by node the least cost, with what is decided before, of what fits the limit."""
    del time_limit, seed
    graph = reduce(problem)
    return _decoded(problem, graph, graph.cost, "greedy")


def least_usage(
    problem: ShardingProblem, *, time_limit: float, seed: int = 0
) -> Result[Strategies]:
    """Node by node the least usage over all times, and of these the least cost."""
    del time_limit, seed
    graph = reduce(problem)
    used = np.zeros(len(graph.cost))
    for decision in range(graph.num_decisions):
        begin, end = graph.start[decision : decision + 2]
        for use in range(graph.use_start[decision], graph.use_start[decision + 1]):
            first = graph.use_first[use]
            length = graph.use_end[use] - graph.use_begin[use]
            used[begin:end] += length * graph.amount[first : first + end - begin]
    finite = graph.edge_cost[np.isfinite(graph.edge_cost)]
    # A unit of usage outweighs all costs together.
    most = float(finite.sum() + graph.cost.sum()) + 1.0
    return _decoded(problem, graph, graph.cost + most * used, "least_usage")


def _decoded(
    problem: ShardingProblem, graph: Graph, cost: Floats, method: str
) -> Result[Strategies]:
    started = time.perf_counter()
    options = np.zeros(graph.num_decisions, dtype=np.int64)
    load = np.zeros(graph.num_times, dtype=np.int64)
    messages = np.zeros(int(graph.net.into[-1]))
    order = np.arange(graph.num_decisions)
    broken = decode(graph.net, cost, messages, order, True, options, load)
    solution = Strategies(graph.expand(options))
    return Result(
        method=method,
        solution=solution,
        objective=math.inf if broken else objective(problem, solution),
        wall_s=time.perf_counter() - started,
    )


def start_options(
    problem: ShardingProblem, graph: Graph, dual: Dual, start: Strategies | None
) -> Ints | None:
    """Options to go on from: the cheaper of `start` and what the dual decoded, or greedy ones.

    None if none of these keeps the limit.
    """
    given = None if start is None else graph.options_of(start.choice)
    if given is not None and not (graph.load(given) <= graph.room).all():
        given = None
    if given is not None and graph.total(given) <= dual.total and graph.total(given) < math.inf:
        return given
    if dual.options is not None:
        return dual.options
    for heuristic in (greedy, least_usage):
        result = heuristic(problem, time_limit=math.inf)
        if result.objective < math.inf:
            return graph.options_of(result.solution.choice)
    return None
