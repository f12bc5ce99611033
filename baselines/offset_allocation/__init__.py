"""Solvers of the offset allocation problem, one signature: `(problem, *, time_limit, seed)`."""

from __future__ import annotations

from baselines.offset_allocation.allocate import allocate
from baselines.offset_allocation.cp_sat import cp_sat
from baselines.offset_allocation.exact import exact, lower_peak
from baselines.offset_allocation.heuristics import HEURISTICS
from baselines.offset_allocation.local_search import local_search
from games.base import Baseline, Exact

IMPROVE: Baseline = lower_peak
EXACT = Exact("exact", exact, 0.0)
# All that a table compares.
BASELINES: dict[str, Baseline] = {
    **HEURISTICS,
    "annealing": local_search,
    "exact": exact,
    "cp_sat": cp_sat,
}

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
]
