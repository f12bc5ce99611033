"""Controllers of a row under a breaker, as solvers: `(problem, *, time_limit, seed) -> Result`.

A solver plays its policy against the problem's scenarios. There is no exact solver: in its place
stands planning with the future known, marked as such, beside a proven bound.
"""

from __future__ import annotations

from functools import cache

from baselines.power_control.solvers import clairvoyant, heuristic, improve
from baselines.power_control.table import CLAIRVOYANT, CONTROLLERS
from games.base import Baseline, Exact

HEURISTICS: dict[str, Baseline] = {name: heuristic(name) for name in CONTROLLERS}
IMPROVE: Baseline = improve
EXACT = Exact(CLAIRVOYANT, clairvoyant, 1e-6)


@cache
def prepare() -> None:
    """Nothing is compiled in advance: what JAX compiles depends on the problem's size."""


__all__ = ["EXACT", "HEURISTICS", "IMPROVE", "prepare"]
