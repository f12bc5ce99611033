"""CP-SAT: the lowest peak, as rectangles of time x bytes that do not overlap."""

from __future__ import annotations

import numpy as np
from ortools.sat.python import cp_model

from baselines.offset_allocation.heuristics import first_fit
from baselines.offset_allocation.incumbent import Incumbent
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets


def cp_sat(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0, workers: int = 1
) -> Result[Offsets]:
    """Minimises the peak, with a bound, from first fit's solution.

    Args:
        problem: its capacity does not matter.
        time_limit: seconds.
        seed: CP-SAT's.
        workers: CP-SAT's threads.
    """
    best = Incumbent(problem)
    start = first_fit(problem, time_limit=time_limit)
    best.offer("first_fit_by_size", start.solution.offset)
    # All in units: offsets are sums of aligned sizes.
    aligned = problem.aligned_size
    unit = max(int(np.gcd.reduce(np.append(aligned, problem.size))), 1)
    step = max(int(np.gcd.reduce(aligned)), 1) // unit
    bound = problem.max_load[0] // unit
    highest = int(best.peak) // unit
    model = cp_model.CpModel()
    peak = model.new_int_var(bound, highest, "peak")
    places, lifetimes, rectangles = [], [], []
    for k in range(len(problem.ids)):
        size, taken = int(problem.size[k]) // unit, int(aligned[k]) // unit
        # The offset is `step * place`; the peak counts the size, the neighbour above the rest too.
        place = model.new_int_var(0, (highest - size) // step, "")
        model.add(step * place + size <= peak)
        model.add_hint(place, int(start.solution.offset[k]) // unit // step)
        lower, length = int(problem.lower[k]), int(problem.upper[k] - problem.lower[k])
        places.append(place)
        lifetimes.append(model.new_fixed_size_interval_var(lower, length, ""))
        rectangles.append(model.new_fixed_size_interval_var(place, taken // step, ""))
    model.add_no_overlap_2d(lifetimes, rectangles)
    model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = max(time_limit, 0.01)
    status = solver.solve(model)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        bound = max(bound, round(solver.best_objective_bound))
        found = [solver.value(place) * step * unit for place in places]
        best.offer("cp_sat", np.array(found, dtype=np.int64))
    return best.result("cp_sat", bound=float(bound * unit))
