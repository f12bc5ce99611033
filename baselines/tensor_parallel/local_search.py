"""Local search: annealing over trees of decisions, guided by the dual's prices of usage."""

from __future__ import annotations

import contextlib
import math
import threading
import time

import numpy as np

from baselines.tensor_parallel.blocks import search_blocks
from baselines.tensor_parallel.heuristics import start_options
from baselines.tensor_parallel.trws import SHARE
from games.base import Result
from games.tensor_parallel.dual import known_dual
from games.tensor_parallel.graph import Graph
from games.tensor_parallel.messages import priced_costs
from games.tensor_parallel.problem import Floats, Ints, ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective

HOT, COLD = 0.3, 0.003  # first and last temperature of a cycle, of the mean cost of a decision
POLISH = 0.2  # of a cycle, at the end: downhill by true costs, from the best so far
SLICES = 32  # temperatures of a cycle
FIRST_CYCLE = 3.0  # seconds; each is longer than the one before
LONGER = 1.5
CYCLE_MOVES = 20_000  # the first cycle, where the budget is in moves
TREE = 40  # decisions of a move at most
ROOTS = 3  # trees of a move at most
FIRST_BATCH = 4
BATCH_SECONDS = 0.02  # between two looks at the clock


class Search:
    """A walk over feasible options, and the best that it has seen."""

    def __init__(self, graph: Graph, options: Ints, seed: int, tree: int = TREE) -> None:
        self.graph = graph
        self.tree = tree
        self.started = time.perf_counter()
        self.random = np.array([seed * 0x2545F491 + 1], dtype=np.uint64)
        self.options, self.best = options.copy(), options.copy()
        self.load = graph.load(options)
        self.total = self.best_total = graph.total(options)
        self.curve = [(0.0, self.best_total)]
        self.moves = 0
        self.batch = FIRST_BATCH

    def take(
        self, priced: Floats, moves: int, temperature: float, *, downhill: bool = False
    ) -> None:
        """Takes moves by priced costs at a temperature, or such that lower the true cost."""
        begun = time.perf_counter()
        before = self.best_total
        self.total, self.best_total = search_blocks(
            self.graph.net,
            priced,
            self.options,
            self.load,
            self.best,
            self.total,
            self.best_total,
            moves,
            self.tree,
            ROOTS if self.tree > 1 else 1,
            temperature,
            downhill,
            self.random,
        )
        now = time.perf_counter()
        self.moves += moves
        self.batch = max(1, int(min(2 * self.batch, moves * BATCH_SECONDS / (now - begun + 1e-9))))
        if self.best_total < before:
            self.curve.append((now - self.started, self.best_total))

    def return_to_best(self) -> None:
        """Goes on from the best."""
        self.options[:] = self.best
        self.load[:] = self.graph.load(self.best)
        self.total = self.best_total


def local_search(
    problem: ShardingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Strategies | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Strategies]:
    """Anneals in cycles of growing length from `start` (from what the dual decodes if None).

    Args:
        problem: what to solve.
        time_limit: seconds.
        seed: of the moves.
        start: a solution; one that breaks the limit is not gone on from.
        moves: a budget in trees instead of the time limit; it makes the result deterministic.
        stop: ends the search when another thread sets it.

    Ctrl-C has the same effect as the time limit.
    """
    begun = time.perf_counter()
    graph = reduce(problem)
    dual = known_dual(problem, math.inf if moves is not None else SHARE * time_limit)
    options = start_options(problem, graph, dual, start)
    if options is None:
        solution = start or Strategies(graph.expand(dual.fallback))
        return Result("local_search", solution, math.inf, wall_s=time.perf_counter() - begun)
    search = Search(graph, options, seed)
    if graph.num_decisions and search.best_total > dual.bound + 1e-9 * abs(dual.bound):
        priced = np.empty(len(graph.cost))
        priced_costs(graph.net, dual.prices, priced)
        left = time_limit - (time.perf_counter() - begun)
        with contextlib.suppress(KeyboardInterrupt):
            anneal(search, priced, dual.bound, left, moves, stop)
    solution = Strategies(graph.expand(search.best))
    return Result(
        method="local_search",
        solution=solution,
        objective=objective(problem, solution),
        wall_s=time.perf_counter() - begun,
        curve=tuple(search.curve),
        detail={"trees": search.moves},
    )


def anneal(
    search: Search,
    priced: Floats,
    bound: float,
    time_limit: float,
    moves: int | None,
    stop: threading.Event | None,
) -> None:
    """Anneals in cycles by priced costs, each of which ends with a descent by true ones.

    Args:
        search: where to start; holds the result.
        priced: f64[S].
        bound: on the cost; reaching it ends the search.
        time_limit: seconds.
        moves: a budget in trees instead.
        stop: ends it when another thread sets it.
    """
    graph = search.graph
    premium = priced - graph.cost
    chance = np.random.default_rng(int(search.random[0]))
    deadline = search.started + time_limit
    cycle = FIRST_CYCLE
    quota = CYCLE_MOVES
    # What a decision costs above the bound of all: what there is to gain or lose.
    scale = max(search.best_total - bound, 0.01 * abs(bound)) / graph.num_decisions

    def over() -> bool:
        spent = search.moves >= moves if moves is not None else time.perf_counter() >= deadline
        done = search.best_total <= bound + 1e-9 * abs(bound)
        return spent or done or (stop is not None and stop.is_set())

    while not over():
        begun, first = time.perf_counter(), search.moves
        length = min(cycle, deadline - begun)
        most = quota if moves is None else min(quota, moves - first)
        while not over():
            at = (
                (search.moves - first) / most
                if moves is not None
                else (time.perf_counter() - begun) / length
            )
            if at >= 1:
                break
            if moves is None:
                number = search.batch
            else:
                number = min(max(most // SLICES, 1), most - (search.moves - first))
            if at < 1 - POLISH:
                turn = int(at / (1 - POLISH) * SLICES) / SLICES
                search.take(priced, number, scale * HOT * (COLD / HOT) ** turn)
            else:
                if search.total > search.best_total:
                    search.return_to_best()
                # Prices between none and twice those of the dual: room is given and taken.
                weight = 2.0 * float(chance.random()) if search.tree > 1 else 0.0
                search.take(graph.cost + weight * premium, number, 0.0, downhill=True)
        cycle *= LONGER
        quota = int(quota * LONGER)
