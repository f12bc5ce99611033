"""Offsets for stays in fast memory, under a room that differs from step to step.

A stay must lie below the least room of its steps (scoped reservations take the top of the
memory), so every stay has a ceiling of its own. First-fit in a good order finds nearly all
packings; what does not fit is moved forward in the order and everything is placed anew
("squeaky wheel optimization", Joslin and Clements, JAIR 10, 1999). Where all ceilings are alike,
the exact search of `baselines.offset_allocation` has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numba
import numpy as np

from games.memory_mapping.problem import Ints, MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping

TRIES = 200  # rebuilds of the whole packing, over all first orders


def place(
    problem: MemoryMappingProblem, stays: Sequence[FastInterval], *, seed: int = 0
) -> Mapping | None:
    """The mapping of these stays with new offsets; None if no packing was found.

    The offsets that the stays carry are ignored. A None is no proof that there is none.
    """
    buffer = np.array([stay.buffer for stay in stays], dtype=np.int64)
    start = np.array([stay.start for stay in stays], dtype=np.int64)
    end = np.array([stay.end for stay in stays], dtype=np.int64)
    fits, offsets = place_arrays(problem, buffer, start, end, seed=seed)
    if not fits:
        return None
    return Mapping(
        tuple(
            replace(stay, offset=int(offset)) for stay, offset in zip(stays, offsets, strict=True)
        )
    )


def place_arrays(
    problem: MemoryMappingProblem, buffer: Ints, start: Ints, end: Ints, *, seed: int = 0
) -> tuple[bool, Ints]:
    """Offsets for the stays of `buffer` in steps [start, end): (whether all fit, i64[N] offsets).

    Args:
        problem: gives sizes, alignment and the room of each step.
        buffer, start, end: i64[N].
        seed: of the order of repairs.
    """
    unit = problem.alignment
    size = problem.size[buffer] // unit
    ceiling = least_room(problem.limit, start, end) // unit
    fits, offsets = pack_under(start, end, size, ceiling, TRIES, seed)
    return fits, offsets * unit


@numba.njit(cache=True)
def least_room(limit: Ints, start: Ints, end: Ints) -> Ints:
    """i64[N]: the least of `limit` over each [start, end)."""
    result = np.empty(len(start), np.int64)
    for i in range(len(start)):
        result[i] = limit[start[i] : max(end[i], start[i] + 1)].min()
    return result


@numba.njit(cache=True)
def _neighbours(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """For each stay the stays that share a step with it: (first[N + 1], list)."""
    count = len(start)
    by_start = np.argsort(start, kind="mergesort")
    first = np.zeros(count + 1, np.int64)
    listed = np.empty(0, np.int64)
    alive = np.empty(count, np.int64)
    for fill in range(2):  # count, then fill
        num_alive = 0
        for i in by_start:
            kept = 0
            for k in range(num_alive):
                j = alive[k]
                if end[j] > start[i]:
                    alive[kept] = j
                    kept += 1
                    if fill:
                        first[i] -= 1
                        listed[first[i]] = j
                        first[j] -= 1
                        listed[first[j]] = i
                    else:
                        first[i] += 1
                        first[j] += 1
            alive[kept] = i
            num_alive = kept + 1
        if not fill:
            for i in range(count):
                first[i + 1] += first[i]
            # Filling moves the end of each list down to its start.
            listed = np.empty(first[count], np.int64)
    return first, listed


@numba.njit(cache=True)
def _overfull(start: Ints, end: Ints, size: Ints, ceiling: Ints) -> bool:
    """Whether the stays alive at some time need more than the highest ceiling among them."""
    count = len(start)
    last = end.max()
    load = np.zeros(last + 1, np.int64)
    room = np.zeros(last + 1, np.int64)
    for i in range(count):
        for step in range(start[i], end[i]):
            load[step] += size[i]
            room[step] = max(room[step], ceiling[i])
    return bool((load > room).any())


@numba.njit(cache=True)
def _first_fit(
    order: Ints, first: Ints, listed: Ints, size: Ints, ceiling: Ints, offsets: Ints
) -> int:
    """Places in order; the position in the order of the first stay that does not fit, or N."""
    offsets[:] = -1
    below = np.empty(len(order), np.int64)
    above = np.empty(len(order), np.int64)
    for position, i in enumerate(order):
        count = 0
        for k in range(first[i], first[i + 1]):
            j = listed[k]
            if offsets[j] < 0:
                continue
            at = count
            while at > 0 and below[at - 1] > offsets[j]:
                below[at] = below[at - 1]
                above[at] = above[at - 1]
                at -= 1
            below[at] = offsets[j]
            above[at] = offsets[j] + size[j]
            count += 1
        offset = 0
        for k in range(count):
            if below[k] - offset >= size[i]:
                break
            offset = max(offset, above[k])
        if offset + size[i] > ceiling[i]:
            return position
        offsets[i] = offset
    return len(order)


@numba.njit(cache=True)
def pack_under(
    start: Ints, end: Ints, size: Ints, ceiling: Ints, tries: int, seed: int
) -> tuple[bool, Ints]:
    """Offsets with `offset + size <= ceiling` for stays in [start, end), in any unit of bytes.

    Returns:
        Whether all fit, and i64[N] offsets (meaningless if not).
    """
    count = len(start)
    offsets = np.zeros(count, np.int64)
    if count == 0:
        return True, offsets
    if (size > ceiling).any() or _overfull(start, end, size, ceiling):
        return False, offsets
    np.random.seed(seed)
    first, listed = _neighbours(start, end)
    length = end - start
    # Low ceilings first, then by size, by area, by length, by start.
    keys = (size, size * length, length, -start)
    for key in range(4):
        order = np.argsort(-keys[key], kind="mergesort")
        if key < 2:
            order = order[np.argsort(ceiling[order], kind="mergesort")]
        for _ in range(max(1, tries // 4)):
            failed = _first_fit(order, first, listed, size, ceiling, offsets)
            if failed == count:
                return True, offsets
            i = order[failed]
            to = int(failed * np.random.random() ** 2)
            for position in range(failed, to, -1):
                order[position] = order[position - 1]
            order[to] = i
    return False, offsets
