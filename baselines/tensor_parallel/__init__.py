"""Solvers of the tensor-parallel game, one signature: `(problem, *, time_limit, seed)`."""

from __future__ import annotations

from functools import cache

import numpy as np

from baselines.tensor_parallel.annealing import annealing, coordinate_descent
from baselines.tensor_parallel.exhaustive import exhaustive
from baselines.tensor_parallel.heuristics import greedy, least_usage
from baselines.tensor_parallel.local_search import local_search
from baselines.tensor_parallel.milp import TOLERANCE, cp_sat, highs
from baselines.tensor_parallel.trws import trws
from games.base import Baseline, Exact
from games.tensor_parallel.problem import ShardingProblem

HEURISTICS: dict[str, Baseline] = {"greedy": greedy, "least_usage": least_usage, "trws": trws}
IMPROVE: Baseline = local_search
EXACT = Exact("highs", highs, TOLERANCE)
# All that a table compares.
BASELINES: dict[str, Baseline] = {
    **HEURISTICS,
    "coordinate_descent": coordinate_descent,
    "annealing": annealing,
    "highs": highs,
    "cp_sat": cp_sat,
}


@cache
def prepare() -> None:
    """Loads the native kernels of HEURISTICS and IMPROVE, compiled if that was never done."""
    problem = ShardingProblem(
        name="three nodes",
        node_start=np.arange(0, 8, 2),
        node_cost=np.arange(6),
        node_usage=np.arange(6),
        interval=np.array([[0, 2], [1, 3], [0, 3]]),
        edge_nodes=np.array([[0, 1], [1, 2], [0, 2]]),
        edge_start=np.arange(0, 16, 4),
        edge_cost=np.arange(12),
        usage_limit=8,
    )
    for heuristic in HEURISTICS.values():
        heuristic(problem, time_limit=1.0)
    IMPROVE(problem, time_limit=1.0, moves=64)


__all__ = [
    "BASELINES",
    "EXACT",
    "HEURISTICS",
    "IMPROVE",
    "annealing",
    "coordinate_descent",
    "cp_sat",
    "exhaustive",
    "greedy",
    "highs",
    "least_usage",
    "local_search",
    "prepare",
    "trws",
]
