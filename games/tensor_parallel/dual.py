"""Lagrangian dual of the problem: a bound, prices of usage, and what is decoded on the way.

Prices of usage at each time turn the limit into costs (`games.tensor_parallel.messages`). They
are found by subgradient steps: a time at which the decoded options use more than there is room for
gets dearer, one with room to spare cheaper. Of each stretch of times with too much usage only the
worst gets dearer, which keeps the prices few. A step is as long as would reach a bound a little
above the best one if the dual were linear (Polyak's rule with a target; Bertsekas, "Convex
Optimization Algorithms", 3.2). Message passing is not started anew after a step: one sweep each.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from games.tensor_parallel.graph import Graph
from games.tensor_parallel.messages import decode, priced_costs, sweep
from games.tensor_parallel.problem import Floats, Ints, ShardingProblem
from games.tensor_parallel.reduction import reduce

WORK = 3e9  # table entries that the sweeps of one run may look at
MOST_SWEEPS = 4000
PATIENCE = 10  # sweeps without getting halfway to the target before it comes nearer
FIRST_RISE = 0.3  # of the bound: the first target is that much above it
NEARER = 0.6
CLOSE = 1e-9  # of the bound: a target so near is none
DECODE_EVERY = 5  # sweeps
BOOSTS = 8  # powers of two that usage is weighed by until something fits


@dataclass
class Dual:
    """What is known of a graph's dual.

    Attributes:
        bound: on the problem's cost.
        prices: f64[T] that prove it.
        messages: f64[...] of the sweep that did.
        rise: of the next target above the bound.
        options: i64[D] of the cheapest decoded assignment within the limit, None if there is none.
        total: its cost, inf if there is none.
        fallback: i64[D] of the last decoded assignment, within the limit or not.
        sweeps: done so far.
        interrupted: by Ctrl-C.
        curve: (seconds, cost) at each improvement.
    """

    prices: Floats
    messages: Floats
    fallback: Ints
    bound: float = -math.inf
    rise: float = 0.0
    options: Ints | None = None
    total: float = math.inf
    sweeps: int = 0
    interrupted: bool = False
    curve: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, graph: Graph) -> Dual:
        """Nothing is known yet."""
        return cls(
            prices=np.zeros(graph.num_times),
            messages=np.zeros(int(graph.net.into[-1])),
            fallback=np.zeros(graph.num_decisions, dtype=np.int64),
        )

    @property
    def proved(self) -> bool:
        """The decoded assignment is optimal."""
        return self.total <= self.bound + 1e-9 * abs(self.bound)


def ascend(
    graph: Graph,
    dual: Dual,
    *,
    sweeps: int,
    time_limit: float = math.inf,
    stop: threading.Event | None = None,
    offered: Callable[[Ints, float], None] | None = None,
) -> None:
    """Improves `dual` in place, by a number of sweeps, or until the time is over.

    `offered` is called with each assignment within the limit that is cheaper than those before.
    """
    net = graph.net
    started = time.perf_counter()
    decisions = np.arange(graph.num_decisions)
    cost = np.empty(len(graph.cost))
    room = graph.room.astype(np.float64)
    options, load = dual.fallback.copy(), np.zeros(graph.num_times, dtype=np.int64)
    prices, messages = dual.prices.copy(), dual.messages.copy()
    failures = 0
    for turn in range(sweeps):
        if dual.proved or time.perf_counter() - started > time_limit:
            return
        if stop is not None and stop.is_set():
            return
        priced_costs(net, prices, cost)
        bound = sweep(net, cost, messages) + graph.constant - float(prices @ room)
        dual.sweeps += 1
        if turn % DECODE_EVERY == 0:
            if dual.total == math.inf:
                # Nothing has fitted yet: usage weighs more and more in what is decoded.
                cost += (cost - net.cost) * (2.0 ** (turn // DECODE_EVERY % BOOSTS) - 1)
            broken = decode(net, cost, messages, decisions, True, options, load)
            total = graph.total(options) if not broken else math.inf
            if total < dual.total:
                dual.options, dual.total = options.copy(), total
                dual.curve.append((time.perf_counter() - started, total))
                if offered is not None:
                    offered(dual.options, total)
            priced_costs(net, prices, cost)
        broken = decode(net, cost, messages, decisions, False, options, load)
        if dual.total == math.inf:
            dual.fallback = options.copy()
        if not broken and (load <= graph.room).all():
            total = graph.total(options)
            if total < dual.total:
                dual.options, dual.total = options.copy(), total
                dual.curve.append((time.perf_counter() - started, total))
                if offered is not None:
                    offered(dual.options, total)
        if dual.rise == 0.0:
            dual.rise = FIRST_RISE * max(abs(bound), 1.0)
        failures = 0 if bound > dual.bound + dual.rise / 2 else failures + 1
        if bound > dual.bound:
            dual.bound, dual.prices = bound, prices
            dual.messages = messages.copy()
        if failures >= PATIENCE:
            failures = 0
            dual.rise *= NEARER
            if dual.rise < CLOSE * max(abs(dual.bound), 1.0):
                return
            prices, messages = dual.prices, dual.messages.copy()
        over = load - room
        length = _direction(over, prices)
        size = float(length @ length)
        if size > 0:
            step = (dual.bound + dual.rise - bound) / size
            prices = np.maximum(prices + step * length, 0.0)


def _direction(over: Floats, prices: Floats) -> Floats:
    """The subgradient at the times that have a price, and at the worst of each stretch above."""
    result = np.where(prices > 0, over, 0.0)
    above = np.concatenate([[False], over > 0, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])
    for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        worst = begin + int(over[begin:end].argmax())
        result[worst] = over[worst]
    return result


def enough_sweeps(graph: Graph) -> int:
    """How many sweeps one run is worth."""
    return int(np.clip(WORK / (2 * len(graph.edge_cost) + 1), 200, MOST_SWEEPS))


_KNOWN: WeakKeyDictionary[ShardingProblem, Dual] = WeakKeyDictionary()


def known_dual(problem: ShardingProblem, time_limit: float, sweeps: int | None = None) -> Dual:
    """What was found out about the problem before, or else is now."""
    if problem not in _KNOWN:
        graph = reduce(problem)
        dual = Dual.of(graph)
        try:
            ascend(graph, dual, sweeps=sweeps or enough_sweeps(graph), time_limit=time_limit)
        except KeyboardInterrupt:
            dual.interrupted = True
        _KNOWN[problem] = dual
    return _KNOWN[problem]


def forget(problem: ShardingProblem) -> None:
    """Makes `known_dual` begin anew."""
    _KNOWN.pop(problem, None)
