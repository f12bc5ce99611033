"""Orders of a scheduled HLO computation: greedy latency hiding, and annealing under a memory limit.

The greedy one is list scheduling in the manner of XLA's latency-hiding scheduler: what is
asynchronous starts as soon as it can, a done comes when its operation is over or nothing else is
left, and the rest stays in the compiler's order.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from baselines.co_scheduling.kernel import UInt64, uniform
from games.base import Result
from games.co_scheduling.cost import Ints
from games.co_scheduling.device import Floats
from games.co_scheduling.hlo_order import (
    DONE,
    PLAIN,
    START,
    OrderProblem,
    OrderProgram,
    least_seconds,
    peak,
    run_order,
    run_peak,
    seconds_of,
)

HOT, COLD = 1e-2, 1e-5  # temperatures, of the seconds of the compiler's order
SLICES = 50
FIRST_BATCH = 20  # moves
ASYNCHRONOUS = 0.6  # of the moves are of a start or a done


def own_order(problem: OrderProblem) -> Result[Ints]:
    """The compiler's own order."""
    return _result("compiler", problem, problem.own, time.perf_counter(), 1)


def greedy_order(problem: OrderProblem) -> Result[Ints]:
    """List scheduling: starts at once, dones late; the compiler's order if memory does not do."""
    started = time.perf_counter()
    count = len(problem.names)
    after: list[list[int]] = [[] for _ in range(count)]
    missing = np.zeros(count, dtype=np.int64)
    for earlier, later in problem.before.tolist():
        after[earlier].append(later)
        missing[later] += 1
    ready = set(np.flatnonzero(missing == 0).tolist())
    free = np.zeros(max(int(problem.queue.max()) + 1, 1))
    over = np.zeros(count)
    now = 0.0
    order = []
    while ready:
        starts = [k for k in ready if problem.kind[k] == START]
        plain = [k for k in ready if problem.kind[k] == PLAIN]
        done = [k for k in ready if problem.kind[k] == DONE]
        due = [k for k in done if over[problem.start_of[k]] <= now]
        if starts or due:
            chosen = min(starts or due)
        elif plain:
            chosen = min(plain)
        else:
            chosen = min(done, key=lambda k: float(over[problem.start_of[k]]))
        ready.remove(chosen)
        order.append(chosen)
        if problem.kind[chosen] == START:
            queue = problem.queue[chosen]
            free[queue] = max(free[queue], now) + problem.seconds[chosen]
            over[chosen] = free[queue]
        elif problem.kind[chosen] == DONE:
            now = max(now, float(over[problem.start_of[chosen]]))
        else:
            now += float(problem.seconds[chosen])
        for later in after[chosen]:
            missing[later] -= 1
            if missing[later] == 0:
                ready.add(later)
    found = np.array(order)
    if (peak(problem, found) > problem.limit).any():
        found = problem.own
    return _result("greedy", problem, found, started, 1)


@njit(cache=True, nogil=True)
def _anneal(
    order: Ints,
    best_order: Ints,
    value: float,
    best: float,
    kind: Ints,
    seconds: Floats,
    queue: Ints,
    start_of: Ints,
    before: Ints,
    size: Ints,
    first: Ints,
    used: Ints,
    lasting: np.ndarray,
    limit: Ints,
    special: Ints,
    moves: int,
    temperature: float,
    random: UInt64,
) -> tuple[float, float]:
    """Moves single instructions within what dependences and memory allow; (value, best)."""
    count = len(order)
    place = np.empty(count, np.int64)
    for x in range(count):
        place[order[x]] = x
    for _ in range(moves):
        if uniform(random) < ASYNCHRONOUS:
            k = special[int(len(special) * uniform(random))]
        else:
            k = int(count * uniform(random))
        low, high = 0, count - 1
        for x in range(before.shape[0]):
            if before[x, 1] == k:
                low = max(low, place[before[x, 0]] + 1)
            elif before[x, 0] == k:
                high = min(high, place[before[x, 1]] - 1)
        source = place[k]
        target = low + int((high - low + 1) * uniform(random))
        if target == source:
            continue
        step = 1 if target > source else -1
        for x in range(source, target, step):
            order[x] = order[x + step]
            place[order[x]] = x
        order[target] = k
        place[k] = target
        tried = run_order(order, kind, seconds, queue, start_of)
        fits = tried <= value - temperature * np.log(1.0 - uniform(random))
        if fits:
            most = run_peak(order, size, first, used, lasting)
            fits = most[0] <= limit[0] and most[1] <= limit[1]
        if fits:
            value = tried
            if tried < best:
                best = tried
                for x in range(count):
                    best_order[x] = order[x]
            continue
        for x in range(target, source, -step):
            order[x] = order[x - step]
            place[order[x]] = x
        order[source] = k
        place[k] = source
    return value, best


def annealed_order(
    problem: OrderProblem, *, time_limit: float, seed: int = 0, moves: int | None = None
) -> Result[Ints]:
    """Simulated annealing from the better of the compiler's and the greedy order.

    With `moves` given the time limit is not looked at, and the result is deterministic. Ctrl-C has
    the same effect as the time limit.
    """
    started = time.perf_counter()
    start = min((own_order(problem), greedy_order(problem)), key=lambda r: r.objective)
    order, kept = start.solution.copy(), start.solution.copy()
    value = best = start.objective
    scale = own_order(problem).objective
    users = np.argsort(problem.uses[:, 0], kind="stable")
    first = np.searchsorted(problem.uses[users, 0], np.arange(len(order) + 1))
    random = np.array([seed], dtype=np.uint64)
    special = np.flatnonzero(problem.kind != PLAIN)
    bound = least_seconds(problem)
    done, batch = 0, FIRST_BATCH
    with contextlib.suppress(KeyboardInterrupt):
        while best > bound * (1 + 1e-9):
            elapsed = time.perf_counter() - started
            spent = elapsed / time_limit if moves is None else done / moves
            if spent >= 1.0:
                break
            temperature = HOT * (COLD / HOT) ** (round(spent * SLICES) / SLICES) * scale
            if moves is not None:
                batch = min(max(moves // SLICES, 1), moves - done)
            before = time.perf_counter()
            value, best = _anneal(
                order,
                kept,
                value,
                best,
                problem.kind,
                problem.seconds,
                problem.queue,
                problem.start_of,
                problem.before,
                problem.size,
                first,
                problem.uses[users, 1],
                problem.lasting,
                problem.limit,
                special,
                batch,
                temperature,
                random,
            )
            done += batch
            if moves is None:
                seconds = max(time.perf_counter() - before, 1e-6)
                aim = min(0.05, time_limit / SLICES)
                batch = max(1, min(4 * batch, int(batch * aim / seconds)))
    return _result("annealing", problem, kept, started, done)


@dataclass(frozen=True)
class Ordered:
    """Orders of all computations of a program, by one method.

    Attributes:
        method: who found them.
        orders: of each computation, as the program has them.
        problems: the same, with loops that take as long as their bodies do in these orders.
        seconds: of the program.
        bound: that no orders beat.
        wall_s: to find them.
    """

    method: str
    orders: tuple[Ints, ...]
    problems: tuple[OrderProblem, ...]
    seconds: float
    bound: float
    wall_s: float


def ordered(program: OrderProgram, method: Callable[[OrderProblem], Result[Ints]]) -> Ordered:
    """A method on each computation with pairs, inner loops first."""
    started = time.perf_counter()
    problems: list[OrderProblem] = []
    results: list[Result[Ints]] = []
    bounds: list[float] = []
    for number in range(len(program.problems)):
        problem = program.timed(number, [result.objective for result in results])
        results.append(method(problem) if problem.pairs else own_order(problem))
        bounds.append(least_seconds(program.timed(number, bounds)))
        problems.append(problem)
    return Ordered(
        method=next(r.method for r, p in zip(results, problems, strict=True) if p.pairs),
        orders=tuple(result.solution for result in results),
        problems=tuple(problems),
        seconds=results[-1].objective,
        bound=bounds[-1],
        wall_s=time.perf_counter() - started,
    )


def all_orders(program: OrderProgram, *, time_limit: float, seed: int = 0) -> list[Ordered]:
    """The compiler's orders, greedy ones, and annealed ones: each gets time for its pairs."""

    def annealed(problem: OrderProblem) -> Result[Ints]:
        share = problem.pairs / program.pairs
        return annealed_order(problem, time_limit=time_limit * share, seed=seed)

    return [ordered(program, method) for method in (own_order, greedy_order, annealed)]


def _result(
    method: str, problem: OrderProblem, order: Ints, started: float, moves: int
) -> Result[Ints]:
    value = seconds_of(problem, order)
    bound = least_seconds(problem)
    return Result(
        method=method,
        solution=order,
        objective=value,
        bound=bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=value <= bound * (1 + 1e-9),
        detail={"moves": moves},
    )
