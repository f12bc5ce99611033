"""Native core of the local search: the state, its incremental simulator, and annealing moves.

The state says for each access whether it is in fast memory and whether it belongs to the same
stay as the access before it; a stay is keyed by its first access. In the loose mode offsets are
left out: a state keeps to the limit of bytes at every step, and offsets are found afterwards
(`placement.py`), which succeeds on most programs. In the strict mode every stay has an offset.

A move changes a few buffers, and only the steps whose copies, traffic or queues changed are
simulated again: from the first step that changed until the queues are as they were before.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.simulator import drain_to, share_idle

NONE = -1
MAX_CHANGED = 24  # buffers that one move may touch, ejected ones included
SAME = 1e-15  # seconds of queued work below which two queue states count as the same


# Rows of Static.access, i64[6, A].
STEP, BUFFER, WRITES, DEFINES, NEEDS_VALID, LOOP_FIRST = range(6)
# Rows of Static.seconds, f64[2, A], and of State.traffic, f64[2, T].
SLOW, FAST = range(2)
# Rows of Static.buffers, i64[4, V + 1].
FIRST, SIZE, INITIAL, LIVE_OUT = range(4)
# Rows of Static.steps, i64[2, T].
LIMIT, STEP_LOOP = range(2)
# Rows of Static.loops, i64[3, L].
LOOP_START, LOOP_END, LOOP_PARENT = range(3)
# Rows of State.access, i64[20, A]. The first ones are the free choice, the others follow from it.
IN_FAST, JOIN = 0, 1  # in fast memory; of the same stay as the access before it
WANT_IN, WANT_OUT, WANT_FREE = 2, 3, 4  # wished copy-in start, copy-out start, copy-out end
WANT_OFFSET = 5  # wished offset, strict mode
NUM_WISHES = 6
# A wish for a copy-in before the loop of the stay, which then lasts for all iterations, is stored
# as HOISTED - start.
HOISTED = -2
LAST = 6  # last access of the stay that starts here, NONE if none does
IN_START, READY = 7, 8  # copy-in window; IN_START is NONE if produced in fast memory
OUT_START, OUT_DONE = 9, 10  # copy-out window, NONE if never copied out
BEGIN, END = 11, 12  # steps that the stay occupies
OFFSET = 13  # in strict mode; NONE where no gap was found
ACTIVE, WHERE = 14, 15  # first accesses of all stays, by offset in strict mode; their places
NEXT_START, NEXT_DONE = 16, 18  # two rows each, one for each queue: linked lists
NUM_ACCESS_ROWS = 20
# Rows of State.points, f64[10, T + 2].
ENTER = 0  # two rows: seconds of copy work that enters each queue at a point
QUEUED = 2  # two rows: work in the queues before each point
SPARE, COST = 4, 5  # idle seconds left over in a step; its elapsed time and stall
SAVED = 6  # four rows: queued (2), spare, cost of what was simulated again, for undoing
NUM_POINT_ROWS = 10
# Rows of State.heads, i64[4, T + 1]: first stay by start and by end of its copy, for each queue.
BY_START, BY_DONE = 0, 2
# Entries of State.tally: stays; what the move in progress changed: buffers, accesses kept in
# State.old, first and last step; whether the mode is strict.
STAYS, CHANGED, KEPT, LOW, HIGH, STRICT = range(6)


class Static(NamedTuple):
    """What no move changes. Few arrays, with named rows: the kernels pass them in every call."""

    access: Ints
    seconds: Floats
    buffers: Ints
    work: Floats  # [V] seconds of one copy
    steps: Ints
    compute: Floats  # [T]
    loops: Ints
    loop_executions: Floats  # [L]
    crosses: Bools  # [V, L] lives across the loop's border


class State(NamedTuple):
    """What moves change."""

    access: Ints
    weight: Floats  # [A] executions of the copies of the stay that starts here
    load: Ints  # [T] bytes in fast memory
    traffic: Floats  # [2, T] seconds of either memory's traffic
    points: Floats
    heads: Ints
    changed: Ints  # [MAX_CHANGED] buffers that the move in progress touched
    old: Ints  # [NUM_WISHES, 2 A] what they wished before, packed one after the other
    gaps: Ints  # [3, A] scratch: bottom, top and key of what shares steps with a stay
    tally: Ints
    total: Floats  # [1] modelled seconds


def make_static(problem: MemoryMappingProblem) -> Static:
    """The kernel's view of a problem."""
    starts, ends = problem.loop_start, problem.loop_end
    enters = problem.initial[:, None] | (problem.live_start[:, None] < starts)
    crosses = enters | (problem.live_end[:, None] > ends)
    loop_first = np.zeros(problem.num_accesses, dtype=np.bool_)
    for loop, (start, end) in enumerate(zip(starts, ends, strict=True)):
        inside = (problem.access_step >= start) & (problem.access_step < end)
        inside &= enters[problem.access_buffer, loop]
        rows = np.flatnonzero(inside)
        loop_first[rows[np.unique(problem.access_buffer[rows], return_index=True)[1]]] = 1
    return Static(
        access=np.stack(
            [
                problem.access_step,
                problem.access_buffer,
                problem.access_writes,
                problem.access_defines,
                ~problem.access_defines | loop_first,
                loop_first,
            ]
        ).astype(np.int64),
        seconds=np.stack([problem.access_slow, problem.access_fast]),
        buffers=np.stack(
            [
                problem.first_access,
                np.append(problem.size, 0),
                # What nothing defines (memory that is only allocated) is there from the start.
                np.append(problem.initial | ~problem.access_defines[problem.first_access[:-1]], 0),
                np.append(problem.live_out, 0),
            ]
        ).astype(np.int64),
        work=problem.copy_seconds,
        steps=np.stack([problem.limit, problem.step_loop]),
        compute=problem.compute,
        loops=np.stack([starts, ends, problem.loop_parent]),
        loop_executions=problem.loop_executions,
        crosses=crosses,
    )


def make_state(problem: MemoryMappingProblem, *, strict: bool) -> State:
    """The state with everything in slow memory; `load_wishes` makes it ready."""
    steps, accesses = problem.num_steps, problem.num_accesses
    slow = problem.fixed_slow.copy()
    np.add.at(slow, problem.access_step, problem.access_slow)
    access = np.full((NUM_ACCESS_ROWS, accesses), NONE, dtype=np.int64)
    access[[IN_FAST, JOIN]] = 0
    return State(
        access=access,
        weight=np.ones(accesses),
        load=np.zeros(steps, dtype=np.int64),
        traffic=np.stack([slow, np.zeros(steps)]),
        points=np.zeros((NUM_POINT_ROWS, steps + 2)),
        heads=np.full((4, steps + 1), NONE, dtype=np.int64),
        changed=np.full(MAX_CHANGED, NONE, dtype=np.int64),
        old=np.zeros((NUM_WISHES, accesses * 2), dtype=np.int64),
        gaps=np.zeros((3, accesses), dtype=np.int64),
        tally=np.array([0, 0, 0, 0, 0, strict], dtype=np.int64),
        total=np.zeros(1),
    )


# --- the simulator, from one step on -------------------------------------------------------------


@numba.njit(cache=True)
def _behind(p: Static, s: State, queue: int, key: int, now: int) -> float:
    """Seconds of work that entered the queue after the copy of stay `key`, up to point `now`."""
    start = s.access[IN_START, key] if queue == 0 else s.access[OUT_START, key]
    done = s.access[READY, key] if queue == 0 else s.access[OUT_DONE, key]
    behind = 0.0
    for point in range(start + 1, now + 1):
        behind += s.points[ENTER + queue, point]
    other = s.heads[BY_START + queue, start]
    while other != NONE:
        if other != key:
            other_done = s.access[READY, other] if queue == 0 else s.access[OUT_DONE, other]
            if other_done > done or (
                other_done == done and p.access[BUFFER, other] > p.access[BUFFER, key]
            ):
                behind += s.weight[other] * p.work[p.access[BUFFER, other]]
        other = s.access[NEXT_START + queue, other]
    return behind


@numba.njit(cache=True)
def _target(p: Static, s: State, queue: int, point: int, work: float) -> float:
    """What may still be queued at `point`, given the copies that must be done by then."""
    target = work
    key = s.heads[BY_DONE + queue, point]
    while key != NONE:
        target = min(target, _behind(p, s, queue, key, point))
        key = s.access[NEXT_DONE + queue, key]
    return target


@numba.njit(cache=True)
def resimulate(p: Static, s: State) -> int:
    """Brings cost, queues and total up to date after a change of the steps in `span`.

    Returns the point after the last one simulated; `saved` holds what stood there before.
    """
    steps = len(p.compute)
    low, high = s.tally[LOW], s.tally[HIGH]
    work_in, work_out = s.points[QUEUED, low], s.points[QUEUED + 1, low]
    point = low
    change = 0.0
    while point <= steps:
        s.points[SAVED + 0, point] = s.points[QUEUED, point]
        s.points[SAVED + 1, point] = s.points[QUEUED + 1, point]
        if (
            point > high
            and abs(work_in - s.points[QUEUED, point]) < SAME
            and abs(work_out - s.points[QUEUED + 1, point]) < SAME
        ):
            break
        s.points[QUEUED, point] = work_in
        s.points[QUEUED + 1, point] = work_out
        work_in += s.points[ENTER, point]
        work_out += s.points[ENTER + 1, point]
        target_in = _target(p, s, 0, point, work_in) if s.heads[BY_DONE, point] != NONE else work_in
        target_out = (
            _target(p, s, 1, point, work_out) if s.heads[BY_DONE + 1, point] != NONE else work_out
        )
        if point == steps:
            target_in = 0.0
            target_out = 0.0
        cost = 0.0
        if target_in < work_in:
            cost, shared = drain_to(target_in, work_in, work_out)
            work_in = target_in
            work_out -= shared
        if target_out < work_out:
            more, shared = drain_to(target_out, work_out, work_in)
            cost += more
            work_out = target_out
            work_in -= shared
        if point < steps:
            elapsed = max(p.compute[point], s.traffic[SLOW, point] + s.traffic[FAST, point])
            idle = elapsed - s.traffic[SLOW, point]
            cost += elapsed
            if work_in > 0.0 or work_out > 0.0:
                done_in, done_out = share_idle(idle, work_in, work_out)
                work_in -= done_in
                work_out -= done_out
                idle -= done_in + done_out
            s.points[SAVED + 2, point] = s.points[SPARE, point]
            s.points[SPARE, point] = idle
        s.points[SAVED + 3, point] = s.points[COST, point]
        change += cost - s.points[COST, point]
        s.points[COST, point] = cost
        point += 1
    s.total[0] += change
    return point


@numba.njit(cache=True)
def _restore_simulation(s: State, stop: int, total: float) -> None:
    for point in range(s.tally[LOW], stop):
        s.points[QUEUED, point] = s.points[SAVED + 0, point]
        s.points[QUEUED + 1, point] = s.points[SAVED + 1, point]
        s.points[COST, point] = s.points[SAVED + 3, point]
        if point < len(s.load):
            s.points[SPARE, point] = s.points[SAVED + 2, point]
    s.total[0] = total


@numba.njit(cache=True)
def simulate_all(p: Static, s: State) -> None:
    """Simulates every step from the start."""
    s.tally[LOW] = 0
    s.tally[HIGH] = len(p.compute)
    s.total[0] = 0.0
    s.points[COST, :] = 0.0
    resimulate(p, s)


# --- stays of one buffer -------------------------------------------------------------------------


@numba.njit(cache=True)
def _touch(s: State, low: int, high: int) -> None:
    s.tally[LOW] = min(s.tally[LOW], low)
    s.tally[HIGH] = max(s.tally[HIGH], high)


@numba.njit(cache=True)
def _link(p: Static, s: State, queue: int, key: int, start: int, done: int, add: bool) -> None:
    """Puts the copy of stay `key` into the lists of its queue, or takes it out."""
    work = s.weight[key] * p.work[p.access[BUFFER, key]]
    if add:
        s.points[ENTER + queue, start] += work
        s.access[NEXT_START + queue, key] = s.heads[BY_START + queue, start]
        s.heads[BY_START + queue, start] = key
        s.access[NEXT_DONE + queue, key] = s.heads[BY_DONE + queue, done]
        s.heads[BY_DONE + queue, done] = key
    else:
        if s.heads[BY_START + queue, start] == key:
            s.heads[BY_START + queue, start] = s.access[NEXT_START + queue, key]
        else:
            at = s.heads[BY_START + queue, start]
            while s.access[NEXT_START + queue, at] != key:
                at = s.access[NEXT_START + queue, at]
            s.access[NEXT_START + queue, at] = s.access[NEXT_START + queue, key]
        if s.heads[BY_DONE + queue, done] == key:
            s.heads[BY_DONE + queue, done] = s.access[NEXT_DONE + queue, key]
        else:
            at = s.heads[BY_DONE + queue, done]
            while s.access[NEXT_DONE + queue, at] != key:
                at = s.access[NEXT_DONE + queue, at]
            s.access[NEXT_DONE + queue, at] = s.access[NEXT_DONE + queue, key]
        # An empty list means no work, exactly: sums of what was added and taken would drift.
        if s.heads[BY_START + queue, start] == NONE:
            s.points[ENTER + queue, start] = 0.0
        else:
            s.points[ENTER + queue, start] -= work
    _touch(s, start, done)


@numba.njit(cache=True)
def _ceiling(p: Static, begin: int, end: int) -> int:
    """The least limit of the steps [begin, end)."""
    ceiling = p.steps[LIMIT, begin]
    for step in range(begin + 1, end):
        ceiling = min(ceiling, p.steps[LIMIT, step])
    return ceiling


@numba.njit(cache=True)
def _collect(p: Static, s: State, key: int) -> int:
    """Fills `gaps` with what shares a step with stay `key`, by offset; returns how many."""
    begin, end = s.access[BEGIN, key], s.access[END, key]
    count = 0
    for index in range(s.tally[STAYS]):
        other = s.access[ACTIVE, index]
        if (
            other != key
            and s.access[BEGIN, other] < end
            and s.access[END, other] > begin
            and s.access[OFFSET, other] != NONE
        ):
            bottom = s.access[OFFSET, other]
            s.gaps[0, count] = bottom
            s.gaps[1, count] = bottom + p.buffers[SIZE, p.access[BUFFER, other]]
            s.gaps[2, count] = other
            count += 1
    return count


@numba.njit(cache=True)
def _find_gap(p: Static, s: State, key: int) -> int:
    """The wished offset if it is free, else the tightest gap, else NONE."""
    size = p.buffers[SIZE, p.access[BUFFER, key]]
    ceiling = _ceiling(p, s.access[BEGIN, key], s.access[END, key])
    wish = s.access[WANT_OFFSET, key]
    count = _collect(p, s, key)
    best, slack = NONE, ceiling + 1
    floor = 0
    for index in range(count + 1):
        top = s.gaps[0, index] if index < count else ceiling
        top = min(top, ceiling)
        if top - floor >= size:
            if wish != NONE and floor <= wish and wish + size <= top:
                return wish
            if top - floor - size < slack:
                slack = top - floor - size
                best = floor
        if index < count:
            floor = max(floor, s.gaps[1, index])
    return best


@numba.njit(cache=True)
def _enlist(s: State, key: int) -> None:
    """Adds a stay to the active ones."""
    at = s.tally[STAYS]
    if s.tally[STRICT]:
        while at > 0 and s.access[OFFSET, s.access[ACTIVE, at - 1]] > s.access[OFFSET, key]:
            s.access[ACTIVE, at] = s.access[ACTIVE, at - 1]
            s.access[WHERE, s.access[ACTIVE, at]] = at
            at -= 1
    s.access[ACTIVE, at] = key
    s.access[WHERE, key] = at
    s.tally[STAYS] += 1


@numba.njit(cache=True)
def _delist(s: State, key: int) -> None:
    """Takes a stay from the active ones."""
    s.tally[STAYS] -= 1
    at, last = s.access[WHERE, key], s.tally[STAYS]
    if s.tally[STRICT]:
        for place in range(at, last):
            s.access[ACTIVE, place] = s.access[ACTIVE, place + 1]
            s.access[WHERE, s.access[ACTIVE, place]] = place
    else:
        s.access[ACTIVE, at] = s.access[ACTIVE, last]
        s.access[WHERE, s.access[ACTIVE, at]] = at


@numba.njit(cache=True)
def _apply(p: Static, s: State, key: int, add: bool) -> None:
    """Enters a derived stay into load, traffic and queues, or takes it out."""
    buffer = p.access[BUFFER, key]
    size = p.buffers[SIZE, buffer] if add else -p.buffers[SIZE, buffer]
    for step in range(s.access[BEGIN, key], s.access[END, key]):
        s.load[step] += size
    for access in range(key, s.access[LAST, key] + 1):
        step = p.access[STEP, access]
        if add:
            s.traffic[SLOW, step] -= p.seconds[SLOW, access]
            s.traffic[FAST, step] += p.seconds[FAST, access]
        else:
            s.traffic[SLOW, step] += p.seconds[SLOW, access]
            s.traffic[FAST, step] -= p.seconds[FAST, access]
        if s.traffic[SLOW, step] < 1e-18:
            s.traffic[SLOW, step] = 0.0
        _touch(s, step, step)
    if s.access[IN_START, key] != NONE:
        _link(p, s, 0, key, s.access[IN_START, key], s.access[READY, key], add)
    if s.access[OUT_START, key] != NONE:
        _link(p, s, 1, key, s.access[OUT_START, key], s.access[OUT_DONE, key], add)
    if add:
        s.access[OFFSET, key] = _find_gap(p, s, key) if s.tally[STRICT] else NONE
        _enlist(s, key)
    else:
        _delist(s, key)
        s.access[LAST, key] = NONE


@numba.njit(cache=True)
def _remove_buffer(p: Static, s: State, buffer: int) -> None:
    for access in range(p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]):
        if s.access[LAST, access] != NONE:
            _apply(p, s, access, False)


@numba.njit(cache=True)
def _nest(p: Static, buffer: int, begin: int, end: int) -> tuple[int, int, int]:
    """(start, end, loop): the steps of a stay widened to whole loop bodies, and its own loop."""
    loop = p.steps[STEP_LOOP, begin]
    while loop != NONE:
        low, high = p.loops[LOOP_START, loop], p.loops[LOOP_END, loop]
        if (
            begin >= low
            and end <= high
            and not (begin == low and end == high and p.crosses[buffer, loop])
        ):
            break
        if begin < low or end > high:
            begin = min(begin, low)
            end = max(end, high)
        loop = p.loops[LOOP_PARENT, loop]
    inner = p.steps[STEP_LOOP, end - 1]
    while inner not in (loop, NONE):
        end = max(end, p.loops[LOOP_END, inner])
        begin = min(begin, p.loops[LOOP_START, inner])
        inner = p.loops[LOOP_PARENT, inner]
    return begin, end, loop


@numba.njit(cache=True)
def _hoist(
    p: Static, buffer: int, begin: int, end: int, loop: int, start: int
) -> tuple[int, int, int]:
    """What `_nest` gave, widened to its loop, and to those around it that start after `start`."""
    inner = loop
    while loop != NONE and p.crosses[buffer, loop]:
        if loop != inner and p.loops[LOOP_START, loop] <= start:
            break
        begin, end = p.loops[LOOP_START, loop], p.loops[LOOP_END, loop]
        loop = p.loops[LOOP_PARENT, loop]
    return begin, end, loop


@numba.njit(cache=True)
def _outside_child(p: Static, point: int, loop: int, up: bool) -> int:
    """The point moved out of loops inside `loop`: to their start, or with `up` to their end."""
    steps = len(p.compute)
    if point >= steps:
        return point
    inner = p.steps[STEP_LOOP, point]
    while inner not in (loop, NONE):
        if p.loops[LOOP_START, inner] < point:
            point = p.loops[LOOP_END, inner] if up else p.loops[LOOP_START, inner]
        inner = p.loops[LOOP_PARENT, inner]
    return point


@numba.njit(cache=True)
def _derive(p: Static, s: State, buffer: int) -> bool:
    """Makes the stays of a buffer from its bits and wishes; False (nothing kept) if illegal."""
    steps = len(p.compute)
    low, high = p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]
    valid = p.buffers[INITIAL, buffer]
    floor = 0  # a copy-in may not start before
    access = low
    while access < high:
        if not s.access[IN_FAST, access]:
            if p.access[NEEDS_VALID, access] and not valid:
                return False
            if p.access[WRITES, access]:
                valid = True
                floor = p.access[STEP, access] + 1
            access += 1
            continue
        key = access
        last = key
        dirty = NONE
        while last + 1 < high and s.access[IN_FAST, last + 1] and s.access[JOIN, last + 1]:
            last += 1
        for inside in range(key, last + 1):
            if p.access[WRITES, inside]:
                dirty = p.access[STEP, inside]
        begin, end, loop = _nest(p, buffer, p.access[STEP, key], p.access[STEP, last] + 1)
        want = s.access[WANT_IN, key]
        if want <= HOISTED:
            want = HOISTED - want
            if not p.access[DEFINES, key]:
                begin, end, loop = _hoist(p, buffer, begin, end, loop, want)
        if key > low and p.access[STEP, key - 1] >= begin:
            return False
        if last + 1 < high and p.access[STEP, last + 1] < end:
            return False
        if begin < floor:
            return False
        produced = p.access[DEFINES, key] and begin == p.access[STEP, key]
        if (
            p.access[LOOP_FIRST, key]
            and not valid
            and loop != NONE
            and p.loops[LOOP_START, loop] <= begin
        ):
            # It stays within an iteration, so slow memory holds the buffer at the border.
            return False
        s.access[IN_START, key] = NONE
        s.access[READY, key] = begin
        s.access[OUT_START, key] = NONE
        s.weight[key] = 1.0 if loop == NONE else p.loop_executions[loop]
        s.access[BEGIN, key] = begin
        if not produced:
            if not valid:
                return False
            earliest = floor if loop == NONE else max(floor, p.loops[LOOP_START, loop])
            start = min(max(want, earliest), begin)
            start = max(_outside_child(p, start, loop, False), earliest)
            if _outside_child(p, start, loop, True) != start:
                start = begin
            s.access[IN_START, key] = start
            s.access[BEGIN, key] = start
        s.access[END, key] = end
        if dirty != NONE:
            latest = steps if loop == NONE else p.loops[LOOP_END, loop]
            nxt = last + 1
            needed = False
            if loop != NONE and p.crosses[buffer, loop]:
                needed = True
            if nxt < high and p.access[STEP, nxt] < latest:
                if s.access[IN_FAST, nxt]:
                    if not p.access[DEFINES, nxt] or p.access[LOOP_FIRST, nxt]:
                        needed = True
                elif p.access[NEEDS_VALID, nxt]:
                    needed = True
                latest = _outside_child(p, p.access[STEP, nxt], loop, False)
            elif nxt < high or p.buffers[LIVE_OUT, buffer]:
                needed = True
            valid = False
            if needed:
                earliest = _outside_child(p, dirty + 1, loop, True)
                inner = p.steps[STEP_LOOP, dirty]
                while inner not in (loop, NONE):
                    earliest = max(earliest, p.loops[LOOP_END, inner])
                    inner = p.loops[LOOP_PARENT, inner]
                if earliest > latest:
                    return False
                start = min(max(s.access[WANT_OUT, key], earliest), latest)
                start = min(_outside_child(p, start, loop, True), latest)
                done = min(max(s.access[WANT_FREE, key], start), latest)
                done = min(_outside_child(p, done, loop, True), latest)
                s.access[OUT_START, key] = start
                s.access[OUT_DONE, key] = done
                s.access[END, key] = max(end, done)
                valid = True
        if (
            loop != NONE
            and p.crosses[buffer, loop]
            and s.access[BEGIN, key] == p.loops[LOOP_START, loop]
            and s.access[END, key] == p.loops[LOOP_END, loop]
        ):
            return False  # with its copies it would be a stay over the whole body (rule 6)
        floor = s.access[END, key]
        s.access[LAST, key] = last
        _apply(p, s, key, True)
        access = last + 1
    return True


@numba.njit(cache=True)
def _open(p: Static, s: State, buffer: int) -> bool:
    """Takes a buffer's stays out for changing, and remembers them; False if the move is full."""
    for index in range(s.tally[CHANGED]):
        if s.changed[index] == buffer:
            _remove_buffer(p, s, buffer)
            return True
    low, high = p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]
    if s.tally[CHANGED] >= MAX_CHANGED or s.tally[KEPT] + high - low > s.old.shape[1]:
        return False
    s.changed[s.tally[CHANGED]] = buffer
    s.tally[CHANGED] += 1
    at = s.tally[KEPT]
    for access in range(low, high):
        s.old[0, at] = s.access[IN_FAST, access]
        s.old[1, at] = s.access[JOIN, access]
        s.old[2, at] = s.access[WANT_IN, access]
        s.old[3, at] = s.access[WANT_OUT, access]
        s.old[4, at] = s.access[WANT_FREE, access]
        if s.access[LAST, access] != NONE:
            s.access[WANT_OFFSET, access] = s.access[OFFSET, access]
        s.old[5, at] = s.access[WANT_OFFSET, access]
        at += 1
    s.tally[KEPT] = at
    _remove_buffer(p, s, buffer)
    return True


@numba.njit(cache=True)
def _close(p: Static, s: State, buffer: int) -> bool:
    """Makes the stays of an opened buffer again from its new bits."""
    if _derive(p, s, buffer):
        return True
    _remove_buffer(p, s, buffer)
    return False


@numba.njit(cache=True)
def _undo(p: Static, s: State) -> None:
    """Puts the buffers that the move changed back (their bits, wishes and stays)."""
    for index in range(s.tally[CHANGED]):
        _remove_buffer(p, s, s.changed[index])
    at = 0
    for index in range(s.tally[CHANGED]):
        buffer = s.changed[index]
        for access in range(p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]):
            s.access[IN_FAST, access] = s.old[0, at]
            s.access[JOIN, access] = s.old[1, at]
            s.access[WANT_IN, access] = s.old[2, at]
            s.access[WANT_OUT, access] = s.old[3, at]
            s.access[WANT_FREE, access] = s.old[4, at]
            s.access[WANT_OFFSET, access] = s.old[5, at]
            at += 1
        _derive(p, s, buffer)


@numba.njit(cache=True)
def _take_out(p: Static, s: State, key: int, last: int) -> None:
    """Leaves the accesses key..last of an opened buffer in slow memory."""
    for access in range(key, last + 1):
        s.access[IN_FAST, access] = 0
        s.access[JOIN, access] = 0
    if last + 1 < p.buffers[FIRST, p.access[BUFFER, key] + 1]:
        s.access[JOIN, last + 1] = 0


@numba.njit(cache=True)
def _unplaced(p: Static, s: State, buffer: int) -> int:
    """The first stay of the buffer that found no gap, or NONE."""
    for key in range(p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]):
        if s.access[LAST, key] != NONE and s.access[OFFSET, key] == NONE:
            return key
    return NONE


@numba.njit(cache=True)
def load_wishes(p: Static, s: State, order: Ints) -> bool:
    """Makes all stays from the wishes in the state, buffer by buffer.

    What is illegal, or in strict mode finds no gap, is left in slow memory; then False.
    """
    legal = True
    for buffer in order:
        first, end = p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]
        if not _close(p, s, buffer):
            s.access[IN_FAST, first:end] = 0
            s.access[JOIN, first:end] = 0
            legal = False
        while s.tally[STRICT]:
            key = _unplaced(p, s, buffer)
            if key == NONE:
                break
            legal = False
            last = s.access[LAST, key]
            _remove_buffer(p, s, buffer)
            _take_out(p, s, key, last)
            if not _close(p, s, buffer):
                s.access[IN_FAST, first:end] = 0
                s.access[JOIN, first:end] = 0
    simulate_all(p, s)
    return legal


# --- moves ---------------------------------------------------------------------------------------


@numba.njit(cache=True)
def _start_for(p: Static, s: State, buffer: int, ready: int, scale: float) -> int:
    """The latest start of a copy-in that finds `scale` times its work in spare bandwidth.

    It looks back over a random number of steps at most: where bandwidth is short, a stay that
    waits long for its data is in everybody's way.
    """
    need = scale * p.work[buffer]
    point = ready
    earliest = max(0, ready - (1 << np.random.randint(2, 10)))
    while point > earliest and need > 0.0:
        point -= 1
        need -= s.points[SPARE, point]
    return point


@numba.njit(cache=True)
def _done_for(p: Static, s: State, buffer: int, start: int, scale: float) -> int:
    """The earliest end of a copy-out that finds `scale` times its work in spare bandwidth.

    It looks ahead over a random number of steps at most, as `_start_for` looks back.
    """
    need = scale * p.work[buffer]
    point = start
    latest = min(len(p.compute), start + (1 << np.random.randint(2, 10)))
    while point < latest and need > 0.0:
        need -= s.points[SPARE, point]
        point += 1
    return point


@numba.njit(cache=True)
def _wish(p: Static, s: State, key: int, last: int) -> None:
    """Fresh wishes for the copies of a stay of accesses key..last."""
    buffer = p.access[BUFFER, key]
    scale = 1.0 + 1.5 * np.random.random() ** 2 if np.random.random() < 0.7 else 0.0
    loop = p.steps[STEP_LOOP, p.access[STEP, key]]
    if loop != NONE and p.crosses[buffer, loop] and np.random.random() < 0.5:
        start = _start_for(p, s, buffer, p.loops[LOOP_START, loop], scale)
        s.access[WANT_IN, key] = HOISTED - start
    else:
        s.access[WANT_IN, key] = _start_for(p, s, buffer, p.access[STEP, key], scale)
    dirty = NONE
    for access in range(key, last + 1):
        if p.access[WRITES, access]:
            dirty = p.access[STEP, access]
    if dirty != NONE:
        s.access[WANT_OUT, key] = dirty + 1
        s.access[WANT_FREE, key] = _done_for(p, s, buffer, dirty + 1, scale)


@numba.njit(cache=True)
def _move_in(p: Static, s: State, access: int) -> bool:
    """Puts an access, and by chance its neighbours, into fast memory as one stay."""
    buffer = p.access[BUFFER, access]
    low, high = p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]
    left, right = access, access
    stretch = np.random.random()
    while left > low and np.random.random() < stretch:
        left -= 1
    while right + 1 < high and np.random.random() < stretch:
        right += 1
    if np.random.random() < 0.3:
        # From the step that makes the data: no copy-in is needed.
        while left > low and not p.access[DEFINES, left]:
            left -= 1
    if not _open(p, s, buffer):
        return False
    for inside in range(left, right + 1):
        s.access[IN_FAST, inside] = 1
        s.access[JOIN, inside] = inside > left
    if left > low and s.access[IN_FAST, left - 1] and np.random.random() < 0.5:
        s.access[JOIN, left] = 1
    if right + 1 < high and s.access[IN_FAST, right + 1]:
        s.access[JOIN, right + 1] = np.random.random() < 0.5
    key = left
    while key > low and s.access[JOIN, key] and s.access[IN_FAST, key - 1]:
        key -= 1
    last = right
    while last + 1 < high and s.access[IN_FAST, last + 1] and s.access[JOIN, last + 1]:
        last += 1
    _wish(p, s, key, last)
    if right + 1 < high and last == right and s.access[IN_FAST, right + 1]:
        s.access[WANT_IN, right + 1] = _start_for(p, s, buffer, p.access[STEP, right + 1], 1.0)
    return _close(p, s, buffer)


@numba.njit(cache=True)
def _move_out(p: Static, s: State, key: int) -> bool:
    """Shortens, splits or ends a stay."""
    buffer = p.access[BUFFER, key]
    last = s.access[LAST, key]
    if not _open(p, s, buffer):
        return False
    kind = np.random.random()
    if kind < 0.35 or last == key:
        for access in range(key, last + 1):
            s.access[IN_FAST, access] = 0
            s.access[JOIN, access] = 0
    elif kind < 0.55:
        s.access[IN_FAST, last] = 0
        s.access[JOIN, last] = 0
        _wish(p, s, key, last - 1)
    elif kind < 0.75:
        s.access[IN_FAST, key] = 0
        s.access[JOIN, key + 1] = 0
        _wish(p, s, key + 1, last)
    else:
        cut = key + 1 + np.random.randint(0, last - key)
        s.access[JOIN, cut] = 0
        _wish(p, s, key, cut - 1)
        _wish(p, s, cut, last)
    if last + 1 < p.buffers[FIRST, buffer + 1]:
        s.access[JOIN, last + 1] = 0
    return _close(p, s, buffer)


@numba.njit(cache=True)
def _move_copy(p: Static, s: State, key: int) -> bool:
    """Moves the copies of a stay in time."""
    buffer = p.access[BUFFER, key]
    reach = 1 << np.random.randint(0, 7)
    inwards = s.access[IN_START, key] != NONE and (
        s.access[OUT_START, key] == NONE or np.random.random() < 0.5
    )
    if not inwards and s.access[OUT_START, key] == NONE:
        return False
    if not _open(p, s, buffer):
        return False
    if inwards:
        if np.random.random() < 0.5:
            start = max(0, s.access[IN_START, key] + np.random.randint(-reach, reach + 1))
        else:
            start = _start_for(p, s, buffer, s.access[READY, key], 2.0 * np.random.random())
        hoisted = s.access[WANT_IN, key] <= HOISTED
        s.access[WANT_IN, key] = HOISTED - start if hoisted else start
    elif np.random.random() < 0.3:
        s.access[WANT_OUT, key] = s.access[OUT_START, key] + np.random.randint(-reach, reach + 1)
        s.access[WANT_FREE, key] = max(s.access[OUT_DONE, key], s.access[WANT_OUT, key])
    elif np.random.random() < 0.5:
        s.access[WANT_FREE, key] = s.access[OUT_DONE, key] + np.random.randint(-reach, reach + 1)
    else:
        scale = 2.0 * np.random.random()
        s.access[WANT_FREE, key] = _done_for(p, s, buffer, s.access[OUT_START, key], scale)
    return _close(p, s, buffer)


@numba.njit(cache=True)
def _gain(p: Static, s: State, key: int) -> float:
    """Seconds of traffic that a stay saves, less its copies, for each of its bytes."""
    gain = 0.0
    for access in range(key, s.access[LAST, key] + 1):
        gain += p.seconds[SLOW, access] - p.seconds[FAST, access]
    work = s.weight[key] * p.work[p.access[BUFFER, key]]
    if s.access[IN_START, key] != NONE:
        gain -= 0.5 * work
    if s.access[OUT_START, key] != NONE:
        gain -= 0.5 * work
    return gain / p.buffers[SIZE, p.access[BUFFER, key]]


@numba.njit(cache=True)
def _give_way(p: Static, s: State, victim: int, step: int) -> bool:
    """A stay leaves fast memory at `step`: wholly, or only for as long as it takes."""
    buffer = p.access[BUFFER, victim]
    ready, last = s.access[READY, victim], s.access[LAST, victim]
    body_end = p.access[STEP, last] + 1
    if not _open(p, s, buffer):
        return False
    if step < ready and np.random.random() < 0.8:
        s.access[WANT_IN, victim] = step + 1
    elif step >= body_end and np.random.random() < 0.8:
        s.access[WANT_FREE, victim] = step
        s.access[WANT_OUT, victim] = min(s.access[WANT_OUT, victim], step)
    elif last > victim and np.random.random() < 0.6:
        cut = victim
        while cut <= last and p.access[STEP, cut] < step:
            cut += 1
        again = cut  # first access of what comes back after the step
        if cut <= last and p.access[STEP, cut] == step:
            s.access[IN_FAST, cut] = 0
            s.access[JOIN, cut] = 0
            again = cut + 1
        if again <= last:
            s.access[JOIN, again] = 0
            start = _start_for(p, s, buffer, p.access[STEP, again], 1.0)
            s.access[WANT_IN, again] = max(step + 1, start)
        dirty = NONE
        for access in range(victim, min(cut, last + 1)):
            if p.access[WRITES, access]:
                dirty = p.access[STEP, access]
        s.access[WANT_FREE, victim] = step
        s.access[WANT_OUT, victim] = dirty + 1
    else:
        _take_out(p, s, victim, last)
    if _close(p, s, buffer):
        return True
    _take_out(p, s, victim, last)
    return _close(p, s, buffer)


@numba.njit(cache=True)
def _eject(p: Static, s: State, step: int, keep: int) -> bool:
    """Frees fast memory at `step`: one stay other than those of buffer `keep` gives way."""
    victim = NONE
    lowest = np.inf
    count = 0
    offset = np.random.randint(0, max(1, s.tally[STAYS]))
    enough = 1 + np.random.randint(0, 6)
    for index in range(s.tally[STAYS]):
        key = s.access[ACTIVE, (index + offset) % s.tally[STAYS]]
        if s.access[BEGIN, key] <= step < s.access[END, key] and p.access[BUFFER, key] != keep:
            gain = _gain(p, s, key)
            count += 1
            if gain < lowest:
                lowest = gain
                victim = key
            if count >= enough:
                break
    return victim != NONE and _give_way(p, s, victim, step)


@numba.njit(cache=True)
def _make_gap(p: Static, s: State, key: int) -> bool:
    """Strict mode: gives an unplaced stay an offset; the stays that are there give way.

    The offset is the one whose stays have the least to lose, with some chance in it.
    """
    size = p.buffers[SIZE, p.access[BUFFER, key]]
    begin, end = s.access[BEGIN, key], s.access[END, key]
    ceiling = _ceiling(p, begin, end)
    count = _collect(p, s, key)
    loss = np.zeros(count)
    for index in range(count):
        buffer = p.access[BUFFER, s.gaps[2, index]]
        loss[index] = _gain(p, s, s.gaps[2, index]) * p.buffers[SIZE, buffer]
    best, lowest = NONE, np.inf
    for index in range(count + 1):
        offset = s.gaps[1, index] if index < count else 0
        if offset + size > ceiling:
            continue
        total = 0.0
        for other in range(count):
            if s.gaps[0, other] < offset + size and offset < s.gaps[1, other]:
                total += loss[other]
        total *= 0.5 + np.random.random()
        if total < lowest:
            lowest = total
            best = offset
    if best == NONE:
        return False
    _delist(s, key)
    s.access[OFFSET, key] = best
    _enlist(s, key)
    # A stay that gives way may be in the way again with what is left of it.
    for _ in range(2 * MAX_CHANGED):
        victim = NONE
        for place in range(s.tally[STAYS]):
            other = s.access[ACTIVE, place]
            bottom = s.access[OFFSET, other]
            if (
                other != key
                and s.access[BEGIN, other] < end
                and s.access[END, other] > begin
                and bottom != NONE
                and bottom < best + size
                and best < bottom + p.buffers[SIZE, p.access[BUFFER, other]]
            ):
                victim = other
                break
        if victim == NONE:
            return True
        # It may come in after this stay, or leave before it.
        late = s.access[READY, victim] >= end
        step = end - 1 if late else max(begin, s.access[BEGIN, victim])
        if not _give_way(p, s, victim, step) or s.access[LAST, key] == NONE:
            return False
    return False


@numba.njit(cache=True)
def _overflow(p: Static, s: State) -> int:
    """A step whose load is most over its limit among the stays of the changed buffers, or NONE."""
    worst, over = NONE, 0
    for index in range(s.tally[CHANGED]):
        buffer = s.changed[index]
        for access in range(p.buffers[FIRST, buffer], p.buffers[FIRST, buffer + 1]):
            if s.access[LAST, access] != NONE:
                for step in range(s.access[BEGIN, access], s.access[END, access]):
                    if s.load[step] - p.steps[LIMIT, step] > over:
                        over = s.load[step] - p.steps[LIMIT, step]
                        worst = step
    return worst


@numba.njit(cache=True)
def propose(p: Static, s: State, heavy: Ints) -> bool:
    """One random change of the state, ejecting what is in its way; False if it came to nothing."""
    s.tally[CHANGED] = 0
    s.tally[KEPT] = 0
    s.tally[LOW] = len(p.compute)
    s.tally[HIGH] = 0
    kind = np.random.random()
    if kind < 0.5 or s.tally[STAYS] == 0:
        if np.random.random() < 0.5:
            access = np.random.randint(0, p.access.shape[1])
        else:
            access = heavy[np.random.randint(0, len(heavy))]
        keep = p.access[BUFFER, access]
        legal = _move_in(p, s, access)
    else:
        key = s.access[ACTIVE, np.random.randint(0, s.tally[STAYS])]
        keep = p.access[BUFFER, key]
        if kind < 0.7:
            legal = _move_out(p, s, key)
        else:
            legal = _move_copy(p, s, key)
    for _ in range(MAX_CHANGED):
        if not legal:
            return False
        if s.tally[STRICT]:
            key = NONE
            for index in range(s.tally[CHANGED]):
                key = _unplaced(p, s, s.changed[index])
                if key != NONE:
                    break
            if key == NONE:
                return True
            legal = _make_gap(p, s, key)
        else:
            step = _overflow(p, s)
            if step == NONE:
                return True
            legal = _eject(p, s, step, keep)
    return False


@numba.njit(cache=True, nogil=True)
def anneal(
    p: Static,
    s: State,
    heavy: Ints,
    best_wishes: Ints,
    best: float,
    moves: int,
    temperature: float,
    seed: int,
) -> float:
    """Simulated annealing for `moves` moves at one temperature (seconds).

    Args:
        heavy: accesses to try more often, one entry for each share.
        best_wishes: i64[NUM_WISHES, A] receives the first rows of `State.access` of the best state.
        best: objective of the best state so far.

    Returns:
        The best objective.
    """
    np.random.seed(seed)
    for _ in range(moves):
        before = s.total[0]
        if not propose(p, s, heavy):
            if s.tally[CHANGED] > 0:
                _undo(p, s)
            continue
        stop = resimulate(p, s)
        change = s.total[0] - before
        if change > 0.0 and np.random.random() >= np.exp(-change / temperature):
            low = s.tally[LOW]
            _undo(p, s)
            s.tally[LOW] = low
            _restore_simulation(s, stop, before)
        elif s.total[0] < best - 1e-15:
            best = s.total[0]
            best_wishes[:] = s.access[:NUM_WISHES]
            best_wishes[WANT_OFFSET] = s.access[OFFSET]
    return best
