"""The empty mapping: every value stays in slow memory."""

from __future__ import annotations

import time

from games.base import Result
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import Mapping, objective


def all_slow(problem: MemoryMappingProblem, *, time_limit: float, seed: int = 0) -> Result[Mapping]:
    """Leaves everything in slow memory; needs neither time nor seed."""
    begin = time.perf_counter()
    mapping = Mapping(())
    value = objective(problem, mapping)
    wall = time.perf_counter() - begin
    return Result("all_slow", mapping, value, wall_s=wall, curve=((wall, value),))
