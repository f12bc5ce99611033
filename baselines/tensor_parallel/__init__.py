"""Solvers of the tensor-parallel game, one signature: `(problem, *, time_limit, seed)`."""

from __future__ import annotations

from baselines.tensor_parallel.annealing import annealing
from baselines.tensor_parallel.heuristics import greedy, least_usage
from baselines.tensor_parallel.local_search import local_search
from baselines.tensor_parallel.milp import TOLERANCE, cp_sat, highs
from baselines.tensor_parallel.mplp import mplp
from games.base import Baseline, Exact

HEURISTICS: dict[str, Baseline] = {"greedy": greedy, "least_usage": least_usage, "mplp": mplp}
IMPROVE: Baseline = local_search
EXACT = Exact("highs", highs, TOLERANCE)
# All that a table compares.
BASELINES: dict[str, Baseline] = {
    **HEURISTICS,
    "annealing": annealing,
    "highs": highs,
    "cp_sat": cp_sat,
}

__all__ = [
    "BASELINES",
    "EXACT",
    "HEURISTICS",
    "IMPROVE",
    "annealing",
    "cp_sat",
    "greedy",
    "highs",
    "least_usage",
    "local_search",
    "mplp",
]
