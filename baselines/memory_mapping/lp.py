"""The linear relaxation: a lower bound for programs that are too large to be solved exactly."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from baselines.memory_mapping.relaxation import Relaxation, Row
from games.memory_mapping.problem import Floats, MemoryMappingProblem
from games.memory_mapping.solution import lower_bound

WINDOWS_A_ROUND = 200
SAFETY = 1e-7  # relative; the LP solver's tolerances, taken off the bound


def lp_bound(problem: MemoryMappingProblem, time_limit: float) -> float:
    """Seconds that no mapping beats: the better of `lower_bound` and the linear relaxation.

    Args:
        problem: the problem.
        time_limit: seconds. The bound is valid, if weaker, where they do not suffice.
    """
    started = time.perf_counter()
    simple = lower_bound(problem)
    relaxation = Relaxation(problem)
    left = time_limit - (time.perf_counter() - started)
    return max(simple, solve_linear(relaxation, left).bound)


@dataclass(frozen=True)
class LinearSolution:
    """What `solve_linear` found.

    Attributes:
        bound: seconds; valid for the problem (0 if there was no time for anything).
        windows: the windows whose rows matter.
        cuts: rows of `Relaxation.broken_roundings`.
        values: f64[columns] of the last solution, None if there is none.
    """

    bound: float
    windows: list[tuple[int, int]]
    cuts: list[Row]
    values: Floats | None


def solve_linear(relaxation: Relaxation, time_limit: float) -> LinearSolution:
    """Solves the linear relaxation, adding the rows of windows as they are found broken."""
    deadline = time.perf_counter() + time_limit
    problem = relaxation.problem
    solver = pywraplp.Solver.CreateSolver("GLOP")
    # Microseconds: the solver's tolerances are absolute.
    scale = 1e6
    columns = [
        solver.NumVar(low * (scale if seconds else 1.0), high * (scale if seconds else 1.0), "")
        for low, high, seconds in zip(
            relaxation.lower, relaxation.upper, relaxation.seconds, strict=True
        )
    ]
    is_seconds = np.array(relaxation.seconds)

    def add(row: Row, unit: float) -> pywraplp.Constraint:
        constraint = solver.Constraint(row.bound * unit, solver.infinity())
        for column, coefficient in zip(row.columns, row.coefficients, strict=True):
            factor = 1.0 if relaxation.seconds[column] else unit
            constraint.SetCoefficient(columns[column], float(coefficient) * factor)
        return constraint

    for row in relaxation.logic:
        # Bytes in units of the whole memory, like the other rows' coefficients.
        largest = max((abs(c) for c in row.coefficients), default=1.0)
        add(row, 1.0 if largest <= 1.0 else 1.0 / problem.capacity)
    for row in relaxation.timing:
        add(row, scale)
    objective = solver.Objective()
    for column, cost in enumerate(relaxation.cost):
        if cost:
            objective.SetCoefficient(columns[column], cost)
    objective.SetMinimization()

    constant = float(relaxation.constant.sum())
    rows: dict[tuple[int, int], pywraplp.Constraint] = {}
    pending = [(0, problem.num_steps)]
    bound, values = 0.0, None
    roundings: list[Row] = []
    cuts: list[Row] = []
    while pending or roundings:
        for window in pending:
            rows[window] = add(relaxation.window(*window), scale)
        for row in roundings:
            add(row, 1.0)
        cuts += roundings
        left = deadline - time.perf_counter()
        if left <= 0:
            break
        solver.SetTimeLimit(max(1, int(left * 1000)))
        if solver.Solve() != pywraplp.Solver.OPTIMAL:
            break
        bound = objective.Value() / scale + constant
        values = np.array([column.solution_value() for column in columns])
        values[is_seconds] /= scale
        pending = [w for w in relaxation.broken_windows(values, WINDOWS_A_ROUND) if w not in rows]
        roundings = relaxation.broken_roundings(values)
    return LinearSolution(bound * (1.0 - SAFETY), list(rows), cuts, values)
