"""Better windows for the copies of a mapping: what is in fast memory when it is used stays so.

Every copy-in may start earlier and every copy-out may start or end at another position, as far as
the rules and the room of each step allow. Descent over one copy at a time; a mapping is worth
what the simulator's queues make of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numba
import numpy as np

from baselines.memory_mapping.levels import level_positions, position_loops
from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.simulator import drain, traffic
from games.memory_mapping.solution import (
    FastInterval,
    Mapping,
    crosses_border,
    interval_loop,
    occupancy,
)
from hlo_frontend.program import CopyWindow

MOST_CHOICES = 16  # positions tried for one end of a copy, in one pass
PASSES = 6
NONE = -1

# Rows of the table of stays; those of windows are NONE where there is no such copy.
IN_START, IN_DONE, OUT_START, OUT_DONE = 0, 1, 2, 3
START, END = 4, 5
# The first position for a copy-in's start; the first and last ones for a copy-out; the end of the
# stay if nothing is copied out; the rows of the buffer's stays before and after this one.
FIRST_IN, FIRST_OUT, LAST_OUT, LEAST_END, BEFORE, AFTER = 6, 7, 8, 9, 10, 11
BUFFER, SIZE = 12, 13
NUM_ROWS = 14


def retime(problem: MemoryMappingProblem, stays: Sequence[FastInterval]) -> list[FastInterval]:
    """The stays with other copy windows, no worse by the simulator; offsets are not looked at.

    The stays must keep the rules, and fit into the room of each step by their sum.
    """
    if not any(stay.copy_in or stay.copy_out for stay in stays):
        return list(stays)
    mapping = Mapping(tuple(stays))
    slow, fast = traffic(problem, mapping)
    elapsed = np.maximum(problem.compute, slow + fast)
    table, allowed = _table(problem, stays)
    work = np.array(mapping.interval_executions(problem)) * problem.copy_seconds[table[BUFFER]]
    room = problem.limit - occupancy(problem, stays)
    best, best_stall = table, math.inf
    for spread in (False, True):
        trial, trial_room = table.copy(), room.copy()
        if spread:
            _start_early(trial, allowed, trial_room)
        stall = _descend(trial, work, allowed, trial_room, elapsed, elapsed - slow)
        if stall < best_stall:
            best, best_stall = trial, stall
    return [
        replace(
            stay,
            start=int(row[START]),
            end=int(row[END]),
            copy_in=stay.copy_in and CopyWindow(int(row[IN_START]), int(row[IN_DONE])),
            copy_out=stay.copy_out and CopyWindow(int(row[OUT_START]), int(row[OUT_DONE])),
        )
        for stay, row in zip(stays, best.T, strict=True)
    ]


def _table(problem: MemoryMappingProblem, stays: Sequence[FastInterval]) -> tuple[Ints, Bools]:
    """(i64[NUM_ROWS, N], bool[N, T + 1] positions at the loop level of each stay)."""
    loops = position_loops(problem)
    levels: dict[int, Bools] = {}
    table = np.full((NUM_ROWS, len(stays)), NONE, dtype=np.int64)
    allowed = np.zeros((len(stays), problem.num_steps + 1), dtype=np.bool_)
    for row, stay in enumerate(stays):
        loop = interval_loop(problem, stay)
        if loop not in levels:
            levels[loop] = level_positions(problem, loops, loop)
        allowed[row] = levels[loop]
        if stay.copy_in is not None:
            table[[IN_START, IN_DONE], row] = stay.copy_in.start, stay.copy_in.done
        if stay.copy_out is not None:
            table[[OUT_START, OUT_DONE], row] = stay.copy_out.start, stay.copy_out.done
        low, high = problem.first_access[stay.buffer : stay.buffer + 2]
        steps = problem.access_step[low:high]
        writes = steps[problem.access_writes[low:high]]
        inside = steps[(steps >= stay.ready) & (steps < stay.end)]
        written = writes[writes < stay.end]
        copied = writes[writes < stay.ready]
        later = steps[steps >= stay.end]
        first_in = int(copied[-1]) + 1 if len(copied) else 0
        last_out = int(later[0]) if len(later) else problem.num_steps
        if loop >= 0 and crosses_border(problem, stay.buffer, loop):
            # Not to become a stay of the whole body, which is of another level.
            if stay.start > problem.loop_start[loop]:
                first_in = max(first_in, int(problem.loop_start[loop]) + 1)
            else:
                last_out = min(last_out, int(problem.loop_end[loop]) - 1)
        least_end = int(inside[-1]) + 1 if len(inside) else stay.ready
        least_end += int(np.argmax(levels[loop][least_end:]))
        first_out = max(int(written[-1]) + 1 if len(written) else 0, stay.ready)
        table[START:FIRST_IN, row] = stay.start, stay.end
        table[FIRST_IN:BEFORE, row] = first_in, first_out, last_out, least_end
        table[BUFFER:, row] = stay.buffer, problem.size[stay.buffer]
    order = np.lexsort((table[START], table[BUFFER]))
    left, right = order[:-1], order[1:]
    same = table[BUFFER, left] == table[BUFFER, right]
    table[BEFORE, right[same]] = left[same]
    table[AFTER, left[same]] = right[same]
    return table, allowed


@numba.njit(cache=True)
def _queue(table: Ints, work: Floats, start_row: int) -> tuple[Ints, Ints, Floats]:
    """(start, done, work) of the copies of one direction, as `simulator.copy_queue` has them."""
    chosen = np.flatnonzero(table[start_row] >= 0)
    start, done = table[start_row, chosen], table[start_row + 1, chosen]
    span = max(start.max(), done.max()) + 1 if len(chosen) else 1
    most = table[BUFFER].max() + 1
    order = np.argsort((start * span + done) * most + table[BUFFER, chosen], kind="mergesort")
    return start[order], done[order], work[chosen[order]]


@numba.njit(cache=True)
def _stall(table: Ints, work: Floats, elapsed: Floats, idle: Floats) -> float:
    """Seconds of stall of the whole program."""
    in_start, in_done, in_work = _queue(table, work, IN_START)
    out_start, out_done, out_work = _queue(table, work, OUT_START)
    stall, _, _ = drain(elapsed, idle, in_start, in_done, in_work, out_start, out_done, out_work)
    return float(stall.sum())


@numba.njit(cache=True)
def _take(room: Ints, begin: int, end: int, size: int) -> bool:
    """Takes room in steps [begin, end), if there is enough."""
    for step in range(begin, end):
        if room[step] < size:
            return False
    for step in range(begin, end):
        room[step] -= size
    return True


@numba.njit(cache=True)
def _move_start(table: Ints, room: Ints, row: int, start: int) -> bool:
    """Moves the start of a copy-in, if there is room."""
    old = table[START, row]
    if start < old and not _take(room, start, old, table[SIZE, row]):
        return False
    for step in range(old, start):
        room[step] += table[SIZE, row]
    table[START, row] = table[IN_START, row] = start
    return True


@numba.njit(cache=True)
def _move_out(table: Ints, room: Ints, row: int, start: int, done: int) -> bool:
    """Moves a copy-out, if there is room."""
    old = table[END, row]
    end = max(done, table[LEAST_END, row])
    if end > old and not _take(room, old, end, table[SIZE, row]):
        return False
    for step in range(end, old):
        room[step] += table[SIZE, row]
    table[END, row] = end
    table[OUT_START, row], table[OUT_DONE, row] = start, done
    return True


@numba.njit(cache=True)
def _first_in(table: Ints, row: int) -> int:
    first = table[FIRST_IN, row]
    before = table[BEFORE, row]
    return max(first, table[END, before]) if before >= 0 else first


@numba.njit(cache=True)
def _last_out(table: Ints, row: int) -> int:
    last = table[LAST_OUT, row]
    after = table[AFTER, row]
    return min(last, table[START, after]) if after >= 0 else last


@numba.njit(cache=True)
def _start_early(table: Ints, allowed: Bools, room: Ints) -> None:
    """Starts every copy-in as early as there is room, in the order of their deadlines."""
    floor = 0  # a later deadline starts no earlier: the queue is first-in first-out
    for row in np.argsort(table[IN_DONE], kind="mergesort"):
        if table[IN_START, row] < 0:
            continue
        for start in range(max(floor, _first_in(table, row)), table[IN_START, row]):
            if allowed[row, start] and _move_start(table, room, row, start):
                break
        floor = max(floor, table[IN_START, row])


@numba.njit(cache=True)
def _choices(allowed: Bools, first: int, last: int) -> Ints:
    """At most MOST_CHOICES allowed positions in [first, last], evenly chosen."""
    positions = np.flatnonzero(allowed[first : last + 1]) + first
    if len(positions) <= MOST_CHOICES:
        return positions
    return positions[np.linspace(0, len(positions) - 1, MOST_CHOICES).astype(np.int64)]


@numba.njit(cache=True)
def _descend(
    table: Ints, work: Floats, allowed: Bools, room: Ints, elapsed: Floats, idle: Floats
) -> float:
    """Moves one copy at a time to where the program stalls least; the stall that is left."""
    best = _stall(table, work, elapsed, idle)
    enough = 1e-9 * elapsed.sum()
    for _ in range(PASSES):
        before = best
        # Large copies first: they matter most.
        for row in np.argsort(-work, kind="mergesort"):
            if best <= enough:
                return best
            if work[row] * len(work) * 10.0 < enough:
                break
            if table[IN_START, row] >= 0:
                kept = table[IN_START, row]
                for start in _choices(allowed[row], _first_in(table, row), table[IN_DONE, row]):
                    if start != table[IN_START, row] and _move_start(table, room, row, start):
                        stall = _stall(table, work, elapsed, idle)
                        if stall < best:
                            best, kept = stall, start
                _move_start(table, room, row, kept)
            if table[OUT_START, row] >= 0:
                kept, kept_done = table[OUT_START, row], table[OUT_DONE, row]
                last = _last_out(table, row)
                for done in _choices(allowed[row], table[FIRST_OUT, row], last):
                    for start in (table[FIRST_OUT, row], kept, done):
                        if (
                            start <= done
                            and allowed[row, start]
                            and _move_out(table, room, row, start, done)
                        ):
                            stall = _stall(table, work, elapsed, idle)
                            if stall < best:
                                best, kept, kept_done = stall, start, done
                _move_out(table, room, row, kept, kept_done)
        if best >= before:
            break
    return best
