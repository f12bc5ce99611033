"""CP-SAT: the lowest peak, as rectangles of time x bytes that do not overlap."""

from __future__ import annotations

import time

import numpy as np
from ortools.sat.python import cp_model

from baselines.offset_allocation.first_fit import first_fit_by_size
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets, lower_bound, objective


def cp_sat(problem: OffsetProblem, *, time_limit: float, seed: int = 0) -> Result[Offsets]:
    """Minimises the peak, with a bound; starts from first fit. One thread."""
    started = time.perf_counter()
    start = first_fit_by_size(problem, time_limit=time_limit)
    model = cp_model.CpModel()
    highest = int(start.objective)
    peak = model.new_int_var(int(lower_bound(problem)), highest, "peak")
    offsets, rows, columns = [], [], []
    for i in range(len(problem.ids)):
        size, lower = int(problem.size[i]), int(problem.lower[i])
        offset = model.new_int_var(0, highest - size, "")
        model.add(offset + size <= peak)
        model.add_hint(offset, int(start.solution.offset[i]))
        offsets.append(offset)
        length = int(problem.upper[i]) - lower
        rows.append(model.new_fixed_size_interval_var(lower, length, ""))
        columns.append(model.new_fixed_size_interval_var(offset, size, ""))
    model.add_no_overlap_2d(rows, columns)
    model.add_cumulative(rows, [int(size) for size in problem.size], peak)
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = max(time_limit - (time.perf_counter() - started), 0.01)
    status = solver.solve(model)
    solution = start.solution
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        solution = Offsets(np.array([solver.value(o) for o in offsets], dtype=np.int64))
    value = objective(problem, solution)
    bound = max(lower_bound(problem), solver.best_objective_bound)
    return Result(
        method="cp_sat",
        solution=solution,
        objective=value,
        bound=bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=value <= bound,
    )
