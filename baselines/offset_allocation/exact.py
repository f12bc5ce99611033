"""The exact search of `search.py` for offsets within the capacity, in slices of time."""

from __future__ import annotations

import time

import numpy as np

from baselines.offset_allocation.first_fit import first_fit_by_size
from baselines.offset_allocation.search import (
    INFEASIBLE,
    RUNNING,
    SOLVED,
    advance,
    make_search,
    write_offsets,
)
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets, objective

SLICE = 2000  # nodes between looks at the clock


def exact(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0, nodes: int | None = None
) -> Result[Offsets]:
    """Searches for offsets within the capacity until there are some, or none can be.

    It asks only whether the buffers fit, so a found packing has the capacity as its target and is
    not the lowest one. `detail["infeasible"]` tells that none exists; then, and where time is up,
    the solution is first fit's.

    Args:
        nodes: a budget for determinism, instead of the time limit.
    """
    started = time.perf_counter()
    fallback = first_fit_by_size(problem, time_limit=time_limit)
    search = make_search(problem.lower, problem.upper, problem.size, problem.capacity, 1, seed)
    status, done = RUNNING, 0
    try:
        while status == RUNNING and (
            time.perf_counter() - started < time_limit if nodes is None else done < nodes
        ):
            step = SLICE if nodes is None else min(SLICE, nodes - done)
            status = advance(search, step)
            done += step
    except KeyboardInterrupt:
        pass
    solution = fallback.solution
    if status == SOLVED:
        offsets = np.zeros(len(problem.ids), dtype=np.int64)
        write_offsets(search, offsets)
        solution = Offsets(offsets)
    peak = objective(problem, solution)
    return Result(
        method="exact",
        solution=solution,
        objective=peak,
        bound=float(problem.max_load[0]),
        wall_s=time.perf_counter() - started,
        proved_optimal=peak <= problem.max_load[0],
        detail={"nodes": done, "infeasible": status == INFEASIBLE},
    )
