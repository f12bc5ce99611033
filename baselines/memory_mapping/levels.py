"""Which points between steps belong to which loop (rule 6 of `solution.py`).

Position p is the point before step p; position T is the end of the program. The copies and the
ends of a stay must be at positions of the stay's own loop level: not strictly inside a loop
nested in it. The start and the end of a loop's body are positions of both levels.
"""

from __future__ import annotations

import numpy as np

from games.memory_mapping.problem import Bools, Ints, MemoryMappingProblem
from games.memory_mapping.solution import crosses_border


def position_loops(problem: MemoryMappingProblem) -> Ints:
    """i64[T + 1]: the innermost loop that has each position strictly inside its body, or -1."""
    result = np.full(problem.num_steps + 1, -1, dtype=np.int64)
    for loop in by_depth(problem):
        result[problem.loop_start[loop] + 1 : problem.loop_end[loop]] = loop
    return result


def by_depth(problem: MemoryMappingProblem) -> list[int]:
    """The loops, every one after the loop around it."""
    depth: dict[int, int] = {-1: 0}

    def of(loop: int) -> int:
        if loop not in depth:
            depth[loop] = of(int(problem.loop_parent[loop])) + 1
        return depth[loop]

    return sorted(range(len(problem.loop_start)), key=lambda loop: (of(loop), loop))


def level_positions(problem: MemoryMappingProblem, loops: Ints, loop: int) -> Bools:
    """bool[T + 1]: the positions that are at the level of `loop` (-1: outside of all loops).

    Args:
        problem: gives the loops' borders.
        loops: `position_loops(problem)`.
        loop: index of a loop, or -1.
    """
    result = loops == loop
    if loop >= 0:
        result[[problem.loop_start[loop], problem.loop_end[loop]]] = True
    return result


def executions(problem: MemoryMappingProblem, loop: int) -> float:
    """How often a copy at the level of `loop` runs."""
    return 1.0 if loop < 0 else float(problem.loop_executions[loop])


def home(problem: MemoryMappingProblem, buffer: int) -> int:
    """The innermost loop in one iteration of which the buffer lives and dies, -1 if none."""
    best = -1
    for loop in by_depth(problem):
        if not crosses_border(problem, buffer, loop):
            best = loop
    return best


def valid_at_start(problem: MemoryMappingProblem, buffer: int) -> bool:
    """Whether slow memory has the buffer from the start.

    So it has what no access defines (a buffer that is only allocated, for example).
    """
    return bool(problem.initial[buffer] or not problem.access_defines[problem.first_access[buffer]])
