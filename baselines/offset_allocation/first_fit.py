"""Heuristics: place the buffers one after the other in a fixed order."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from baselines.offset_allocation.kernels import first_fit_order
from games.base import Result
from games.offset_allocation.problem import Ints, OffsetProblem
from games.offset_allocation.solution import Offsets, objective


def first_fit_by_size(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0
) -> Result[Offsets]:
    """First fit, the largest buffer first."""
    return _run("first_fit_by_size", problem, -problem.size, _first_fit)


def first_fit_by_area(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0
) -> Result[Offsets]:
    """First fit, the largest size x lifetime first."""
    area = -problem.size * (problem.upper - problem.lower)
    return _run("first_fit_by_area", problem, area, _first_fit)


def first_fit_by_length(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0
) -> Result[Offsets]:
    """First fit, the longest lifetime first."""
    return _run("first_fit_by_length", problem, problem.lower - problem.upper, _first_fit)


def best_fit_by_size(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0
) -> Result[Offsets]:
    """Best fit, the largest buffer first: the tightest gap below the top, else on the top."""
    return _run("best_fit_by_size", problem, -problem.size, _best_fit)


def _run(
    method: str,
    problem: OffsetProblem,
    key: Ints,
    place: Callable[[OffsetProblem, Ints], Ints],
) -> Result[Offsets]:
    started = time.perf_counter()
    order = np.argsort(key, kind="stable").astype(np.int64)
    solution = Offsets(place(problem, order))
    return Result(
        method=method,
        solution=solution,
        objective=objective(problem, solution),
        wall_s=time.perf_counter() - started,
    )


def _first_fit(problem: OffsetProblem, order: Ints) -> Ints:
    offsets = np.zeros(len(order), dtype=np.int64)
    first_fit_order(order, problem.lower, problem.upper, problem.size, offsets)
    return offsets


def _best_fit(problem: OffsetProblem, order: Ints) -> Ints:
    offsets = np.zeros(len(order), dtype=np.int64)
    placed = np.zeros(len(order), dtype=np.bool_)
    for buffer in order:
        meets = placed & (problem.lower < problem.upper[buffer])
        meets &= problem.upper > problem.lower[buffer]
        rows = np.flatnonzero(meets)
        rows = rows[np.argsort(offsets[rows], kind="stable")]
        size, floor = int(problem.size[buffer]), 0
        tightest: tuple[int, int] | None = None
        for row in rows:
            gap = int(offsets[row]) - floor
            if gap >= size and (tightest is None or gap < tightest[0]):
                tightest = (gap, floor)
            floor = max(floor, int(offsets[row] + problem.size[row]))
        offsets[buffer] = floor if tightest is None else tightest[1]
        placed[buffer] = True
    return offsets
