"""The allocator that users call: heuristics first, then the exact search."""

from __future__ import annotations

import time
from dataclasses import replace

from baselines.offset_allocation.exact import exact
from baselines.offset_allocation.first_fit import (
    best_fit_by_size,
    first_fit_by_area,
    first_fit_by_length,
    first_fit_by_size,
)
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets


def allocate(problem: OffsetProblem, *, time_limit: float, seed: int = 0) -> Result[Offsets]:
    """Offsets within the capacity if they are found in time, else the lowest peak found.

    Never worse than first fit. `detail["infeasible"]` tells that no offsets can fit.
    """
    started = time.perf_counter()
    heuristics = (first_fit_by_size, first_fit_by_area, first_fit_by_length, best_fit_by_size)
    best = min(
        (solver(problem, time_limit=time_limit, seed=seed) for solver in heuristics),
        key=lambda result: result.objective,
    )
    detail = {"nodes": 0, "infeasible": False}
    if best.objective > problem.capacity:
        left = time_limit - (time.perf_counter() - started)
        found = exact(problem, time_limit=left, seed=seed)
        detail = dict(found.detail)
        if found.objective < best.objective:
            best = found
    return replace(
        best,
        bound=float(problem.max_load[0]),
        wall_s=time.perf_counter() - started,
        detail=detail,
    )
