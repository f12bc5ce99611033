"""Heuristics that place each buffer once: first fit, best fit and lowest first, in fixed orders.

First fit by size is TFLite's and TVM's `greedy_by_size` (Pisarchyk & Lee, "Efficient Memory
Management for Deep Neural Net Inference", 2020). Lowest first is the first dive of the exact search
(`search.py`): it stacks buffers from the bottom and fills no gaps, and needs less on most problems.
"""

from __future__ import annotations

import time
from functools import partial
from itertools import product

import numpy as np

from baselines.offset_allocation.incumbent import Incumbent
from baselines.offset_allocation.kernels import best_fit_order, first_fit_order
from baselines.offset_allocation.search import (
    LOWEST,
    ORDERS,
    SELECTION,
    SOLVED,
    TIGHTEST,
    make_search,
    reset,
    run,
    set_rank,
    write_offsets,
)
from games.base import Baseline, Result
from games.offset_allocation.problem import Ints, OffsetProblem
from games.offset_allocation.solution import Offsets


def order_by(problem: OffsetProblem, key: str) -> Ints:
    """i64[N]: the buffers by decreasing size, area or length, or by increasing start."""
    length = problem.upper - problem.lower
    keys = {
        "size": -problem.size,
        "area": -problem.size.astype(np.float64) * length,
        "length": -length,
        "start": problem.lower,
    }
    return np.lexsort((-problem.size, keys[key]))


def first_fit(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0, by: str = "size"
) -> Result[Offsets]:
    """Each buffer, in order, at the lowest offset where it fits."""
    del time_limit, seed
    best = Incumbent(problem)
    best.offer(f"first_fit_by_{by}", _fit(problem, by, False))
    return best.result(f"first_fit_by_{by}")


def best_fit(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0, by: str = "size"
) -> Result[Offsets]:
    """Each buffer, in order, in the smallest gap where it fits."""
    del time_limit, seed
    best = Incumbent(problem)
    best.offer(f"best_fit_by_{by}", _fit(problem, by, True))
    return best.result(f"best_fit_by_{by}")


def lowest_first(problem: OffsetProblem, *, time_limit: float, seed: int = 0) -> Result[Offsets]:
    """Always the buffer that can go lowest, ties broken by each static order: the best of these."""
    del seed
    best = Incumbent(problem)
    roomy = int(problem.aligned_size.sum()) + problem.alignment
    search = make_search(problem.lower, problem.upper, problem.size, roomy, problem.alignment, 0)
    offsets = np.zeros(len(problem.ids), dtype=np.int64)
    nodes = 4 * len(problem.ids) + 4  # in so much room hardly anything fails
    for selection, order in product((LOWEST, TIGHTEST), range(len(ORDERS))):
        search.counters[SELECTION] = selection
        set_rank(search, order, 0.0)
        reset(search)
        if run(search, nodes) == SOLVED:
            write_offsets(search, offsets)
            best.offer("lowest_first", offsets)
        if best.curve and time.perf_counter() - best.started > time_limit:
            break
    if not best.curve:
        best.offer("lowest_first", _fit(problem, "size", False))
    return best.result("lowest_first")


def _fit(problem: OffsetProblem, by: str, tightest_gap: bool) -> Ints:
    offsets = np.zeros(len(problem.ids), dtype=np.int64)
    # Offsets are sums of aligned sizes, so they are multiples of the alignment.
    place = best_fit_order if tightest_gap else first_fit_order
    place(order_by(problem, by), problem.lower, problem.upper, problem.aligned_size, offsets)
    return offsets


HEURISTICS: dict[str, Baseline] = {
    **{
        f"first_fit_by_{by}": partial(first_fit, by=by)
        for by in ("size", "area", "length", "start")
    },
    "best_fit_by_size": best_fit,
    "lowest_first": lowest_first,
}
