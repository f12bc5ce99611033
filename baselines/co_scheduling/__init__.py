"""Solvers of the co-scheduling game, one signature: `(problem, *, time_limit, seed) -> Result`."""

from __future__ import annotations

from functools import cache

from baselines.co_scheduling.cp_sat import TOLERANCE, cp_sat
from baselines.co_scheduling.heuristics import (
    latency_hiding,
    list_schedule,
    sequential,
    split_sequential,
    two_batch,
    two_stage,
)
from baselines.co_scheduling.local_search import local_search
from baselines.co_scheduling.plans import library
from games.base import Baseline, Exact
from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import make_problem

HEURISTICS: dict[str, Baseline] = {
    "sequential": sequential,
    "split_sequential": split_sequential,
    "two_batch": two_batch,
    "list": list_schedule,
    "latency_hiding": latency_hiding,
    "two_stage": two_stage,
    "library": library,
}
IMPROVE: Baseline = local_search
EXACT = Exact("cp_sat", cp_sat, TOLERANCE)


@cache
def prepare() -> None:
    """Loads the native kernels of HEURISTICS and IMPROVE, compiled if that was never done."""
    batch = Batch(32, 512.0, 256)
    problem = make_problem(get_model("llama-3-8b"), get_device("a100"), 1, batch, 2)
    for heuristic in HEURISTICS.values():
        heuristic(problem, time_limit=1.0)
    IMPROVE(problem, time_limit=1.0, moves=64)
