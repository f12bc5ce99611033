"""Checks offsets on their own: no solver's code is used here."""

from __future__ import annotations

from bisect import bisect_left, insort

from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets


def validate(problem: OffsetProblem, solution: Offsets) -> list[str]:
    """Every broken rule as one line: a byte outside the memory, or one that two buffers share."""
    count = len(problem.ids)
    if len(solution.offset) != count:
        return [f"{len(solution.offset)} offsets for {count} buffers"]
    faults = []
    bottom = [int(offset) for offset in solution.offset]
    top = [low + int(size) for low, size in zip(bottom, problem.size, strict=True)]
    for i in range(count):
        if bottom[i] < 0 or top[i] > problem.capacity:
            faults.append(
                f"{problem.ids[i]}: bytes [{bottom[i]}, {top[i]}) are outside of the memory"
                f" [0, {problem.capacity})"
            )
    events = [(int(problem.upper[i]), 0, i) for i in range(count) if problem.size[i] > 0]
    events += [(int(problem.lower[i]), 1, i) for i in range(count) if problem.size[i] > 0]
    # The live buffers by offset; while they share no byte, neighbours are all there is to compare.
    live: list[tuple[int, int]] = []
    for time, starts, i in sorted(events):
        if not starts:
            live.remove((bottom[i], i))
            continue
        at = bisect_left(live, (bottom[i], i))
        for _, j in live[max(at - 1, 0) : at + 1]:
            low, high = max(bottom[i], bottom[j]), min(top[i], top[j])
            if low < high:
                faults.append(
                    f"{problem.ids[i]} and {problem.ids[j]} share bytes [{low}, {high}) at time"
                    f" {time}"
                )
        insort(live, (bottom[i], i))
    return faults
