"""Solvers of the offset allocation problem, one signature: `(problem, *, time_limit, seed)`."""

from __future__ import annotations

from functools import cache

from baselines.offset_allocation.allocate import allocate
from baselines.offset_allocation.cp_sat import cp_sat
from baselines.offset_allocation.exact import exact, lower_peak
from baselines.offset_allocation.heuristics import HEURISTICS
from baselines.offset_allocation.local_search import local_search
from games.base import Baseline, Exact
from games.offset_allocation.generator import tight

IMPROVE: Baseline = lower_peak
EXACT = Exact("exact", exact, 0.0)
# All that a table compares.
BASELINES: dict[str, Baseline] = {
    **HEURISTICS,
    "annealing": local_search,
    "exact": exact,
    "cp_sat": cp_sat,
}


@cache
def prepare() -> None:
    """Loads the native kernels of HEURISTICS and IMPROVE, compiled if that was never done."""
    problem = tight(0, buffers=20, times=20, capacity=64)
    for method in HEURISTICS.values():
        method(problem, time_limit=1.0)
    lower_peak(problem, time_limit=1.0, moves=64)


__all__ = [
    "BASELINES",
    "EXACT",
    "HEURISTICS",
    "IMPROVE",
    "allocate",
    "cp_sat",
    "exact",
    "local_search",
    "lower_peak",
    "prepare",
]
