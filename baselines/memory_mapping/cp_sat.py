"""CP-SAT on the 0-1 relaxation: a mapping, and a bound that no mapping beats.

The relaxation (`relaxation.py`) is solved with the rows of few windows; those that its solution
breaks are added, and it is solved again. Each solution's stays get better copy windows
(`retiming.py`) and offsets (`placement.py`), and what the mapping is worth is what the simulator
says. So the bound is the relaxation's, and the objective a real mapping's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from baselines.memory_mapping.lp import solve_linear
from baselines.memory_mapping.msa import msa
from baselines.memory_mapping.placement import place
from baselines.memory_mapping.relaxation import Relaxation, Row
from baselines.memory_mapping.retiming import retime
from games.base import Result
from games.memory_mapping.problem import Floats, MemoryMappingProblem
from games.memory_mapping.solution import Mapping, lower_bound, objective

TOLERANCE = 1e-4  # relative gap between objective and bound that counts as proved
LINEAR_SHARE = 0.3  # of the time, for the linear relaxation: its windows and its bound
WINDOWS_A_ROUND = 200
UNITS = 2e7  # of time in the all-slow program: the resolution of whole numbers
LARGEST = 2**60


def cp_sat(problem: MemoryMappingProblem, *, time_limit: float, seed: int = 0) -> Result[Mapping]:
    """The best mapping that CP-SAT finds, with its bound; one thread.

    The MSA-like mapping is where it starts from, so it is never worse than that. Ctrl-C ends it
    like the time limit.
    """
    started = time.perf_counter()
    deadline = started + time_limit
    best = msa(problem, time_limit=time_limit, seed=seed)
    curve = [(time.perf_counter() - started, best.objective)]
    value, mapping = best.objective, best.solution
    bound = lower_bound(problem)
    rounds = 0
    try:
        relaxation = Relaxation(problem)
        left = deadline - time.perf_counter()
        linear = solve_linear(relaxation, LINEAR_SHARE * left)
        bound = max(bound, linear.bound)
        windows = {(0, problem.num_steps), *linear.windows}
        hint = linear.values
        while value > bound * (1 + TOLERANCE) and (left := deadline - time.perf_counter()) > 0.1:
            rounds += 1
            found = _solve(relaxation, windows, linear.cuts, hint, deadline, seed)
            bound = max(bound, found.bound)
            if found.values is None:
                break
            hint = found.values
            stays = retime(problem, relaxation.stays_of(found.values))
            placed = place(problem, stays)
            if placed is not None and objective(problem, placed) < value:
                mapping, value = placed, objective(problem, placed)
                curve.append((time.perf_counter() - started, value))
            broken = relaxation.broken_windows(found.values, WINDOWS_A_ROUND)
            new = [window for window in broken if window not in windows]
            if not new:
                break
            windows.update(new)
    except KeyboardInterrupt:
        pass
    return Result(
        method="cp_sat",
        solution=mapping,
        objective=value,
        bound=bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=value <= bound * (1 + TOLERANCE),
        curve=tuple(curve),
        detail={"rounds": rounds},
    )


@dataclass(frozen=True)
class _Found:
    """bound: seconds, valid for the problem. values: f64[columns] of a solution, if any."""

    bound: float
    values: Floats | None


def _solve(
    relaxation: Relaxation,
    windows: Iterable[tuple[int, int]],
    cuts: Iterable[Row],
    hint: Floats | None,
    deadline: float,
    seed: int,
) -> _Found:
    """The relaxation with the rows of these windows, and cuts, in whole numbers."""
    problem = relaxation.problem
    in_seconds = np.array(relaxation.seconds)
    count = int(in_seconds.sum())
    # Each column in seconds may be up to a unit too high: keep that far below the tolerance.
    unit = problem.all_slow / max(UNITS, count * 1e5)
    model = cp_model.CpModel()
    columns = [
        model.new_int_var(math.floor(low / unit), math.ceil(high / unit), "")
        if seconds
        else model.new_int_var(0, int(high), "")
        for low, high, seconds in zip(
            relaxation.lower, relaxation.upper, relaxation.seconds, strict=True
        )
    ]

    def add(row: Row, scale: float) -> None:
        coefficients = [
            1 if relaxation.seconds[column] else math.ceil(coefficient / scale)
            for column, coefficient in zip(row.columns, row.coefficients, strict=True)
        ]
        terms = cp_model.LinearExpr.weighted_sum([columns[c] for c in row.columns], coefficients)
        model.add_linear_constraint(terms, math.floor(row.bound / scale), LARGEST)

    for row in relaxation.logic:
        in_bytes = max(abs(coefficient) for coefficient in row.coefficients) > 1
        add(row, problem.alignment if in_bytes else 1)
    for row in cuts:
        add(row, 1)
    for row in relaxation.timing:
        add(row, unit)
    for window in windows:
        add(relaxation.window(*window), unit)
    model.minimize(sum(columns[index] for index in np.flatnonzero(in_seconds)))
    if hint is not None:
        for column, value, seconds in zip(columns, hint, relaxation.seconds, strict=True):
            model.add_hint(column, math.ceil(value / unit) if seconds else round(value))
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.linearization_level = 2
    solver.parameters.relative_gap_limit = TOLERANCE / 5
    solver.parameters.max_time_in_seconds = max(deadline - time.perf_counter(), 0.05)
    status = solver.solve(model)
    constant = float(relaxation.constant.sum())
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        bound = (solver.best_objective_bound - count) * unit + constant
        return _Found(bound if status == cp_model.UNKNOWN else 0.0, None)
    values = np.array([solver.value(column) for column in columns], dtype=np.float64)
    values[in_seconds] *= unit
    return _Found((solver.best_objective_bound - count) * unit + constant, values)
