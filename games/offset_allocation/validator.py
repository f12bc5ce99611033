"""Independent checker of offsets: a sweep over time in plain numpy, sharing no code with the game.

A solution is valid if every offset is there, not negative and a multiple of the alignment, no
buffer ends above the capacity, and no two buffers alive at a common time share a byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from games.offset_allocation.problem import OffsetProblem
    from games.offset_allocation.solution import Offsets


def validate(problem: OffsetProblem, solution: Offsets) -> list[str]:
    """Every broken rule as one line; [] for a valid solution that fits the capacity."""
    offsets = np.asarray(solution.offset)
    count = len(problem.ids)
    if offsets.shape != (count,) or offsets.dtype.kind not in "iu":
        return [
            f"offsets have shape {offsets.shape} and type {offsets.dtype},"
            f" expected ({count},) integers"
        ]
    bottoms = offsets.astype(np.int64)
    tops = bottoms + problem.size
    faults = []
    for k in np.flatnonzero((bottoms < 0) | (tops > problem.capacity)):
        faults.append(
            f"{problem.ids[k]}: bytes [{bottoms[k]}, {tops[k]}) are outside of the memory"
            f" [0, {problem.capacity})"
        )
    for k in np.flatnonzero(bottoms % problem.alignment):
        faults.append(
            f"{problem.ids[k]}: offset {bottoms[k]} is no multiple of {problem.alignment}"
        )
    alive: list[int] = []
    for k in np.argsort(problem.lower, kind="stable").tolist():
        now = problem.lower[k]
        alive = [j for j in alive if problem.upper[j] > now]
        others = np.array(alive, dtype=np.int64)
        shared_from = np.maximum(bottoms[others], bottoms[k])
        shared_to = np.minimum(tops[others], tops[k])
        for x in np.flatnonzero(shared_from < shared_to):
            j = alive[x]
            end = min(problem.upper[j], problem.upper[k])
            faults.append(
                f"{problem.ids[j]} and {problem.ids[k]} share bytes"
                f" [{shared_from[x]}, {shared_to[x]}) during [{now}, {end})"
            )
        alive.append(k)
    return faults
