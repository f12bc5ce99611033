"""Solvers of the memory-mapping game, one signature: `(problem, *, time_limit, seed) -> Result`."""

from __future__ import annotations

from functools import cache

from baselines.memory_mapping.all_slow import all_slow
from baselines.memory_mapping.cp_sat import TOLERANCE, cp_sat
from baselines.memory_mapping.local_search import local_search
from baselines.memory_mapping.msa import msa
from games.base import Baseline, Exact
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from hlo_frontend import load
from hlo_frontend.examples import example_path

HEURISTICS: dict[str, Baseline] = {"all_slow": all_slow, "msa": msa}
IMPROVE: Baseline = local_search
EXACT = Exact("cp_sat", cp_sat, TOLERANCE)


@cache
def prepare() -> None:
    """Loads the native kernels of HEURISTICS and IMPROVE, compiled if that was never done."""
    chip = get_chip("v5e")
    problem = from_program(load(example_path("alexnet.v5e.nomsa")), chip, 2**22)
    start = msa(problem, time_limit=1.0).solution
    local_search(problem, time_limit=1.0, start=start, moves=64)
