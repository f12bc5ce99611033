"""Solvers of the chunk-selection game, one signature: `(problem, *, time_limit, seed) -> Result`.

`corag` and `set_search` (`tree_search.py`) play against any scorer, a reranker for instance.
"""

from __future__ import annotations

from functools import cache

from baselines.chunk_selection.cp_sat import TOLERANCE, cp_sat, knapsack
from baselines.chunk_selection.heuristics import (
    adagres,
    beam,
    bridge_greedy,
    dense_fill,
    dpp,
    hybrid_fill,
    mmr,
    submodular,
    value_greedy,
)
from baselines.chunk_selection.local_search import local_search
from games.base import Baseline, Exact
from games.chunk_selection.problem import make_problem

HEURISTICS: dict[str, Baseline] = {
    "dense_fill": dense_fill,
    "hybrid_fill": hybrid_fill,
    "mmr": mmr,
    "dpp": dpp,
    "submodular": submodular,
    "adagres": adagres,
    "bridge_greedy": bridge_greedy,
    "value_greedy": value_greedy,
    "beam": beam,
}
KNAPSACK: Baseline = knapsack
IMPROVE: Baseline = local_search
EXACT = Exact("cp_sat", cp_sat, TOLERANCE)


@cache
def prepare() -> None:
    """Loads the native kernels of HEURISTICS and IMPROVE, compiled if that was never done."""
    texts = ["Ada Lovelace was born in London.", "London is in England.", "It rains in England."]
    problem = make_problem("Where was Ada born?", texts, 16)
    for heuristic in HEURISTICS.values():
        heuristic(problem, time_limit=1.0)
    IMPROVE(problem, time_limit=1.0, moves=64)
