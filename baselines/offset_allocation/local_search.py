"""Local search: simulated annealing over the order in which first fit places the buffers."""

from __future__ import annotations

import contextlib
import math
import threading
import time

import numpy as np
from numba import njit

from baselines.offset_allocation.incumbent import Incumbent
from baselines.offset_allocation.kernels import first_fit_order
from baselines.offset_allocation.search import Int64, Integer, UInt64, argsort, uniform
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets

HOT = 0.02  # of the largest load: the rise in the peak that is accepted at first
COLD = 2e-4  # and at last
CYCLES = 4  # from hot to cold
SLICES = 64  # of a cycle: temperatures, and looks at the clock
FIRST_BATCH = 8  # moves
BATCH_SECONDS = 0.02  # between two looks at the clock
AHEAD = 0.5  # of the moves put a topmost buffer earlier; the others move any buffer anywhere


@njit(cache=True, nogil=True)
def _anneal(
    lower: Int64,
    upper: Int64,
    size: Int64,
    order: Int64,
    offsets: Int64,
    best: Int64,
    peak: Integer,
    best_peak: Integer,
    moves: int,
    temperature: float,
    random: UInt64,
) -> tuple[Integer, Integer]:
    """Takes moves at a temperature in bytes; (peak of `order`, peak of `best`)."""
    n = order.size
    tried = np.empty(n, np.int64)
    placed = np.empty(n, np.int64)
    for _ in range(moves):
        source = int(n * uniform(random))
        if uniform(random) < AHEAD:
            # The topmost buffer next to a random place in the order, going round.
            while offsets[order[source]] + size[order[source]] < peak:
                source = (source + 1) % n
            target = int((source + 1) * uniform(random))
        else:
            target = int(n * uniform(random))
        if source == target:
            continue
        step = 1 if source < target else -1
        for x in range(n):
            tried[x] = order[x]
        for x in range(source, target, step):
            tried[x] = order[x + step]
        tried[target] = order[source]
        height = first_fit_order(tried, lower, upper, size, placed)
        if height <= peak or uniform(random) < math.exp((peak - height) / temperature):
            order[:] = tried
            offsets[:] = placed
            peak = height
            if height < best_peak:
                best_peak = height
                best[:] = placed
    return peak, best_peak


def local_search(
    problem: OffsetProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Offsets | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Offsets]:
    """Simulated annealing from `start`, its buffers in order of offset (by size if None).

    Args:
        problem: its capacity does not matter.
        time_limit: seconds.
        seed: of the moves.
        start: a solution without overlaps.
        moves: a budget in moves instead of the time limit; it makes the result deterministic.
        stop: ends the search when another thread sets it.

    Ctrl-C has the same effect as the time limit.
    """
    best = Incumbent(problem)
    size = problem.aligned_size
    order = argsort(-size if start is None else start.offset)
    offsets = np.zeros(len(size), dtype=np.int64)
    peak = first_fit_order(order, problem.lower, problem.upper, size, offsets)
    if start is not None:
        best.offer("start", start.offset)
    best.offer("annealing", offsets)
    done: int = 0
    if len(size) > 1:
        with contextlib.suppress(KeyboardInterrupt):
            done = _run(problem, best, order, offsets, peak, time_limit, seed, moves, stop)
    return best.result("annealing", bound=float(problem.max_load[0]), moves=done)


def _run(
    problem: OffsetProblem,
    best: Incumbent,
    order: Int64,
    offsets: Int64,
    peak: Integer,
    time_limit: float,
    seed: int,
    moves: int | None,
    stop: threading.Event | None,
) -> int:
    """Anneals in cycles; returns the number of moves."""
    random = np.array([seed], dtype=np.uint64)
    lowest = offsets.copy()
    lowest_peak = peak
    slices = CYCLES * SLICES
    done = 0
    batch = FIRST_BATCH
    for turn in range(slices):
        cold = turn % SLICES / (SLICES - 1)
        temperature = problem.max_load[0] * HOT * (COLD / HOT) ** cold
        until = time.perf_counter()
        until += (best.started + time_limit - until) / (slices - turn)
        quota = math.inf if moves is None else moves * (turn + 1) // slices
        while done < quota and (moves is not None or time.perf_counter() < until):
            if best.peak <= problem.max_load[0] or (stop is not None and stop.is_set()):
                return done
            number = int(min(batch, quota - done))
            begun = time.perf_counter()
            peak, lowest_peak = _anneal(
                problem.lower,
                problem.upper,
                problem.aligned_size,
                order,
                offsets,
                lowest,
                peak,
                lowest_peak,
                number,
                temperature,
                random,
            )
            seconds = max(time.perf_counter() - begun, 1e-6)
            batch = max(1, int(min(2 * batch, number * BATCH_SECONDS / seconds)))
            done += number
            best.offer("annealing", lowest)
    return done
