"""Solvers of the memory-mapping game, one signature: `(problem, *, time_limit, seed) -> Result`."""

from __future__ import annotations

from baselines.memory_mapping.all_slow import all_slow
from baselines.memory_mapping.cp_sat import TOLERANCE, cp_sat
from baselines.memory_mapping.local_search import local_search
from baselines.memory_mapping.msa import msa
from games.base import Baseline, Exact

HEURISTICS: dict[str, Baseline] = {"all_slow": all_slow, "msa": msa}
IMPROVE: Baseline = local_search
EXACT = Exact("cp_sat", cp_sat, TOLERANCE)
