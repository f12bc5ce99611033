"""Solvers of the co-scheduling game, one signature: `(problem, *, time_limit, seed) -> Result`."""

from __future__ import annotations

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
from games.base import Baseline, Exact

HEURISTICS: dict[str, Baseline] = {
    "sequential": sequential,
    "split_sequential": split_sequential,
    "two_batch": two_batch,
    "list": list_schedule,
    "latency_hiding": latency_hiding,
    "two_stage": two_stage,
}
IMPROVE: Baseline = local_search
EXACT = Exact("cp_sat", cp_sat, TOLERANCE)
