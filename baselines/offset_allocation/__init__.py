"""Solvers of the offset allocation problem, one signature: `(problem, *, time_limit, seed)`."""

from __future__ import annotations

from baselines.offset_allocation.allocate import allocate
from baselines.offset_allocation.cp_sat import cp_sat
from baselines.offset_allocation.exact import exact
from baselines.offset_allocation.first_fit import (
    best_fit_by_size,
    first_fit_by_area,
    first_fit_by_length,
    first_fit_by_size,
)
from games.base import Baseline, Exact

HEURISTICS: dict[str, Baseline] = {
    "first_fit_by_size": first_fit_by_size,
    "first_fit_by_area": first_fit_by_area,
    "first_fit_by_length": first_fit_by_length,
    "best_fit_by_size": best_fit_by_size,
}
EXACT = Exact("exact", exact, 0.0)

__all__ = ["EXACT", "HEURISTICS", "allocate", "cp_sat", "exact"]
