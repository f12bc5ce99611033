"""Why a value is in slow memory: one honest line for each, from the problem and the mapping.

What no mapping can move is said as such: prescribed memory spaces, values larger than the fast
memory, values without traffic. For any other alias class with an access in slow memory one stay is
tried on top of the mapping: the widest around its most profitable access that there is room for,
produced in place where the class is defined next to it, else copied in as late as idle bandwidth
allows. The line says what forbids that stay, or what the simulator makes of it. It is about this
one class, all others as they are: several classes moved at once can gain more.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import numba
import numpy as np

from games.memory_mapping.problem import Floats, Ints, MemoryMappingProblem
from games.memory_mapping.simulator import copy_queue, drain, share_idle, traffic
from games.memory_mapping.solution import (
    FastInterval,
    Mapping,
    crosses_border,
    interval_loop,
    occupancy,
)
from hlo_frontend.program import CopyWindow, Program

NO_TRAFFIC = "no step moves any bytes of it"
"""The reason of a value that nobody reads or writes."""

# A gain below this share of the program's time is rounding, not a gain.
_ROUNDING = 1e-12


def why_slow(problem: MemoryMappingProblem, mapping: Mapping, program: Program) -> dict[int, str]:
    """Why each alias class that is not served by fast memory alone is left in slow memory.

    Args:
        problem: made from `program`.
        mapping: a legal mapping of it.
        program: gives the names.

    Returns:
        Index in `Program.buffers` -> one line without the class's name. Classes whose every access
        is in fast memory have none.
    """
    replay = _replay(problem, mapping)
    in_fast = mapping.accesses_in_fast(problem)
    row_of = {int(index): row for row, index in enumerate(problem.program_buffer)}
    lines: dict[int, str] = {}
    for index in range(len(program.buffers)):
        row = row_of.get(index)
        if row is None:
            lines[index] = _never_movable(problem, program, index)
            continue
        begin, end = (int(k) for k in problem.first_access[row : row + 2])
        left = begin + np.flatnonzero(~in_fast[begin:end])
        if len(left):
            lines[index] = _Case(replay, program, row, left).line()
    return lines


def _never_movable(problem: MemoryMappingProblem, program: Program, index: int) -> str:
    buffer = program.buffers[index]
    if buffer.fixed_space is not None:
        return f"the program prescribes memory space S({buffer.fixed_space}) for it"
    if buffer.size > problem.capacity:
        return f"larger than the fast memory ({buffer.size:,} > {problem.capacity:,} bytes)"
    return NO_TRAFFIC


@dataclass(frozen=True)
class _Replay:
    """What the mapping leaves over: bandwidth and room; stays sorted by offset."""

    problem: MemoryMappingProblem
    slow: Floats
    fast: Floats
    elapsed: Floats
    idle_left: Floats
    total: float
    queue_in: tuple[Ints, Ints, Floats]
    queue_out: tuple[Ints, Ints, Floats]
    free: Ints
    stays: tuple[FastInterval, ...]
    own: dict[int, list[FastInterval]]
    start: Ints
    end: Ints
    offset: Ints
    size: Ints

    def find_offset(self, low: int, high: int, need: int) -> int:
        """Lowest offset that is free for `need` bytes in steps [low, high), -1 if none."""
        limit = self.problem.limit
        return int(
            _find_offset(self.start, self.end, self.offset, self.size, limit, low, high, need)
        )

    def seconds_with(self, stay: FastInterval) -> float:
        """Modelled seconds of the program under the mapping and one more stay."""
        problem, v = self.problem, stay.buffer
        begin, end = problem.first_access[v : v + 2]
        steps = problem.access_step[begin:end]
        low, high = begin + np.searchsorted(steps, [stay.ready, stay.end])
        slow, fast = self.slow.copy(), self.fast.copy()
        slow[problem.access_step[low:high]] -= problem.access_slow[low:high]
        fast[problem.access_step[low:high]] += problem.access_fast[low:high]
        elapsed = np.maximum(problem.compute, slow + fast)
        loop = interval_loop(problem, stay)
        work = problem.copy_seconds[v] * (1.0 if loop < 0 else problem.loop_executions[loop])
        queue_in = _with_copy(self.queue_in, stay.copy_in, work)
        queue_out = _with_copy(self.queue_out, stay.copy_out, work)
        stall, _, _ = drain(elapsed, elapsed - slow, *queue_in, *queue_out)
        return float(elapsed.sum() + stall.sum())


def _replay(problem: MemoryMappingProblem, mapping: Mapping) -> _Replay:
    slow, fast = traffic(problem, mapping)
    elapsed = np.maximum(problem.compute, slow + fast)
    queue_in = copy_queue(problem, mapping, outwards=False)
    queue_out = copy_queue(problem, mapping, outwards=True)
    stall, backlog_in, backlog_out = drain(elapsed, elapsed - slow, *queue_in, *queue_out)
    stays = tuple(sorted(mapping.intervals, key=lambda stay: (stay.offset, stay.start)))
    own: dict[int, list[FastInterval]] = {}
    for stay in stays:
        own.setdefault(stay.buffer, []).append(stay)
    return _Replay(
        problem=problem,
        slow=slow,
        fast=fast,
        elapsed=elapsed,
        idle_left=_idle_left(elapsed - slow, backlog_in, backlog_out),
        total=float(elapsed.sum() + stall.sum()),
        queue_in=queue_in,
        queue_out=queue_out,
        free=problem.limit - occupancy(problem, stays),
        stays=stays,
        own=own,
        start=np.array([stay.start for stay in stays], dtype=np.int64),
        end=np.array([stay.end for stay in stays], dtype=np.int64),
        offset=np.array([stay.offset for stay in stays], dtype=np.int64),
        size=np.array([problem.size[stay.buffer] for stay in stays], dtype=np.int64),
    )


def _with_copy(
    queue: tuple[Ints, Ints, Floats], window: CopyWindow | None, work: float
) -> tuple[Ints, Ints, Floats]:
    """The queue with one more copy, behind those of the same window."""
    if window is None:
        return queue
    start, done, seconds = queue
    low, high = np.searchsorted(start, [window.start, window.start + 1])
    at = low + np.searchsorted(done[low:high], window.done, side="right")
    # np.insert does the same at ten times the cost.
    return (
        np.concatenate((start[:at], (window.start,), start[at:])),
        np.concatenate((done[:at], (window.done,), done[at:])),
        np.concatenate((seconds[:at], (work,), seconds[at:])),
    )


class _Case:
    """One alias class with accesses `left` (indices, by step) in slow memory."""

    def __init__(self, replay: _Replay, program: Program, row: int, left: Ints) -> None:
        self.replay = replay
        self.problem = replay.problem
        self.program = program
        self.row = row
        self.left = left
        self.need = int(self.problem.size[row])
        self.own = replay.own.get(row, [])

    def line(self) -> str:
        """The reason."""
        problem, replay = self.problem, self.replay
        steps = problem.access_step[self.left]
        slow = replay.slow[steps] - problem.access_slow[self.left]
        fast = replay.fast[steps] + problem.access_fast[self.left]
        gain = replay.elapsed[steps] - np.maximum(problem.compute[steps], slow + fast)
        best = int(gain.argmax())
        if gain[best] <= _ROUNDING * replay.total:
            return self._arithmetic(steps)
        return self._trial(int(self.left[best]))

    def _arithmetic(self, steps: Ints) -> str:
        memory = self.replay.slow[steps] + self.replay.fast[steps]
        step = int(steps[(memory - self.problem.compute[steps]).argmax()])
        return (
            "no gain: every step that accesses it in slow memory is bound by arithmetic"
            f" (the closest, {self._name(step)}: {_us(self.problem.compute[step])} of arithmetic,"
            f" {_us(float(memory.max()))} of memory traffic)"
        )

    def _trial(self, anchor: int) -> str:
        problem, replay = self.problem, self.replay
        step = int(problem.access_step[anchor])
        for stay in self.own:
            if stay.start <= step < stay.end:
                return (
                    f"its copy is still on the way when {self._name(step)} reads it: it has to be"
                    f" done only before {self._name(stay.ready)}"
                )
        low, high, loop = self._span(anchor)
        if replay.find_offset(low, high, self.need) < 0:
            return self._no_room(low, high)
        before = max((stay.end for stay in self.own if stay.end <= low), default=0)
        after = min((stay.start for stay in self.own if stay.start >= high), default=None)
        start, copy_in, reach, stop = self._beginning(anchor, low, high, loop, before)
        end = self._ending(start, high, loop, after)
        stay = FastInterval(
            self.row, start, end, replay.find_offset(start, end, self.need), copy_in
        )
        stay = self._written_back(stay, loop, after)
        saved = replay.total - replay.seconds_with(stay)
        where = f"in fast memory from {self._name(stay.start)} to {self._name(stay.end - 1)}"
        if saved > _ROUNDING * replay.total:
            return (
                f"the search did not find a place: {where} at offset {stay.offset:,} it would"
                f" save {_us(saved)}"
            )
        work = float(problem.copy_seconds[self.row] * self._executions(loop))
        if copy_in is not None and reach < work:
            return (
                f"the copy would stall: it needs {_us(work)} of idle bandwidth before"
                f" {self._name(low)} and {_us(reach)} are in reach (not earlier:"
                f" {stop})"
            )
        if saved < -_ROUNDING * replay.total:
            return f"no gain: {where} it would cost {_us(-saved)} more than it saves"
        return f"no gain: {where} it would save nothing"

    def _span(self, access: int) -> tuple[int, int, int]:
        """Steps that a stay for this access covers, and the loop in which that stay lies.

        A class that already holds data when a loop starts stays for the whole loop (rule 6),
        unless it has a stay inside of it.
        """
        problem = self.problem
        low = int(problem.access_step[access])
        high = low + 1
        loop = int(problem.step_loop[low])
        while loop >= 0 and (
            problem.initial[self.row] or problem.live_start[self.row] < problem.loop_start[loop]
        ):
            first, last = int(problem.loop_start[loop]), int(problem.loop_end[loop])
            if any(stay.start < last and stay.end > first for stay in self.own):
                break
            low, high, loop = first, last, int(problem.loop_parent[loop])
        return low, high, loop

    def _beginning(
        self, anchor: int, low: int, high: int, loop: int, before: int
    ) -> tuple[int, CopyWindow | None, float, str]:
        """(first step, copy-in, seconds of idle bandwidth in reach, what ends the reach)."""
        problem, replay = self.problem, self.replay
        for access in reversed(self.left[self.left <= anchor]):
            step = int(problem.access_step[access])
            if step < before or step < self._level_start(loop):
                break
            alone = problem.step_loop[step] == loop and (step < low or high == low + 1)
            if problem.access_defines[access] and alone:
                if replay.find_offset(step, high, self.need) >= 0:
                    return step, None, 0.0, ""
                break
        stops = [(0, "the program starts"), (before, "its last stay ends")]
        if loop >= 0:
            stops.append((self._level_start(loop), "an iteration of the loop starts"))
        first, last = problem.first_access[self.row : self.row + 2]
        steps = problem.access_step[first:last][problem.access_writes[first:last]]
        written = steps[steps < low]
        if len(written):
            step = int(written[-1])
            stops.append((step + 1, f"{self._name(step)} writes it"))
        elif not problem.initial[self.row]:
            stops.append((int(problem.live_start[self.row]), "it holds no data before"))
        bound, stop = max(stops, key=lambda item: item[0])
        bound = self._outside_inner_loops(bound, low, later=True)
        roomy = _earliest(
            replay.start,
            replay.end,
            replay.offset,
            replay.size,
            problem.limit,
            bound,
            low,
            high,
            self.need,
        )
        if roomy > bound:
            bound, stop = roomy, f"no room during {self._name(roomy - 1)}"
        work = float(problem.copy_seconds[self.row] * self._executions(loop))
        reach = 0.0
        start = low
        while start > bound and reach < work:
            start -= 1
            reach += float(replay.idle_left[start])
        if start < low:
            earlier = self._outside_inner_loops(start, low, later=False)
            start = (
                earlier if earlier >= bound else self._outside_inner_loops(start, low, later=True)
            )
            reach = float(replay.idle_left[start:low].sum())
        return start, CopyWindow(start, low), reach, stop

    def _ending(self, start: int, high: int, loop: int, after: int | None) -> int:
        """The end of the widest stay from `start` over further accesses of the same level."""
        ends = [high]
        for access in self.left:
            if self.problem.access_step[access] < ends[-1]:
                continue
            _, end, level = self._span(int(access))
            if level != loop or (after is not None and end > after):
                break
            ends.append(end)
        # More steps never make more room, so the ends that fit come first.
        fits = bisect_left(
            ends, True, key=lambda end: self.replay.find_offset(start, end, self.need) < 0
        )
        return ends[max(fits - 1, 0)]

    def _written_back(self, stay: FastInterval, loop: int, after: int | None) -> FastInterval:
        """The stay with a copy-out where slow memory is read after its writes."""
        problem, replay = self.problem, self.replay
        begin, end = problem.first_access[self.row : self.row + 2]
        accesses = np.arange(begin, end)
        steps = problem.access_step[begin:end]
        inside = (steps >= stay.ready) & (steps < stay.end)
        writes = accesses[inside & problem.access_writes[begin:end]]
        later = steps[steps >= stay.end]
        carried = loop >= 0 and crosses_border(problem, self.row, loop)
        if not len(writes) or not (len(later) or problem.live_out[self.row] or carried):
            return stay
        last_write = max(self._span(int(access))[1] for access in writes)
        bounds = [problem.num_steps if loop < 0 else int(problem.loop_end[loop])]
        bounds += [int(step) for step in later[:1]]
        bounds += [] if after is None else [after]
        work = float(problem.copy_seconds[self.row] * self._executions(loop))
        last = stay.end
        reach = float(replay.idle_left[last_write:last].sum())
        while reach < work and last < min(bounds):
            reach += float(replay.idle_left[last])
            last += 1
        last = self._outside_inner_loops(last, stay.end - 1, later=False)
        offset = replay.find_offset(stay.start, last, self.need)
        if offset < 0:
            last, offset = stay.end, stay.offset
        return replace(stay, end=last, offset=offset, copy_out=CopyWindow(last_write, last))

    def _outside_inner_loops(self, position: int, anchor: int, *, later: bool) -> int:
        """The nearest position that is inside no loop body without step `anchor` (rule 6)."""
        problem = self.problem
        inside = (problem.loop_start < position) & (position < problem.loop_end)
        inside &= ~((problem.loop_start <= anchor) & (anchor < problem.loop_end))
        if not inside.any():
            return position
        return int(problem.loop_end[inside].max() if later else problem.loop_start[inside].min())

    def _no_room(self, low: int, high: int) -> str:
        replay = self.replay
        step = low + int(replay.free[low:high].argmin())
        free = int(replay.free[step])
        if free >= self.need:
            return (
                f"no room in one piece: from {self._name(low)} to {self._name(high - 1)} at least"
                f" {free:,} bytes are free at each step, but its {self.need:,} not at one offset"
            )
        held = np.flatnonzero((replay.start <= step) & (step < replay.end))
        largest = held[np.argsort(-replay.size[held], kind="stable")[:3]]
        names = ", ".join(
            f"{class_name(self.program, int(self.problem.program_buffer[stay.buffer]))}"
            f" ({int(self.problem.size[stay.buffer]):,})"
            for stay in (replay.stays[k] for k in largest)
        )
        holders = (
            f"the largest there: {names}"
            if names
            else "the instruction reserves the rest for itself"
        )
        return (
            f"no room: during {self._name(step)} only {max(free, 0):,} of its {self.need:,} bytes"
            f" are free; {holders}"
        )

    def _level_start(self, loop: int) -> int:
        return 0 if loop < 0 else int(self.problem.loop_start[loop])

    def _executions(self, loop: int) -> float:
        return 1.0 if loop < 0 else float(self.problem.loop_executions[loop])

    def _name(self, step: int) -> str:
        return self.program.steps[int(self.problem.program_step[step])].name


def class_name(program: Program, buffer: int) -> str:
    """How messages name an alias class: the position of its first value."""
    return program.values[program.buffers[buffer].values[0]].position


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.4g} us"


@numba.njit(cache=True)
def _idle_left(idle: Floats, backlog_in: Floats, backlog_out: Floats) -> Floats:
    """Seconds of slow-memory bandwidth of each step that no copy of the mapping uses."""
    left = np.empty_like(idle)
    for step in range(len(idle)):
        done_in, done_out = share_idle(idle[step], backlog_in[step], backlog_out[step])
        left[step] = idle[step] - done_in - done_out
    return left


@numba.njit(cache=True)
def _find_offset(
    start: Ints, end: Ints, offset: Ints, size: Ints, limit: Ints, low: int, high: int, need: int
) -> int:
    """Lowest free offset for `need` bytes in steps [low, high) among stays sorted by offset."""
    room = limit[low:high].min()
    top = 0
    for k in range(len(start)):
        if start[k] < high and end[k] > low:
            if offset[k] - top >= need:
                break
            top = max(top, offset[k] + size[k])
    return top if top + need <= room else -1


@numba.njit(cache=True)
def _earliest(
    start: Ints,
    end: Ints,
    offset: Ints,
    size: Ints,
    limit: Ints,
    bound: int,
    low: int,
    high: int,
    need: int,
) -> int:
    """First step from `bound` on such that [step, high) has room, given that [low, high) has."""
    while bound < low:
        middle = (bound + low) // 2
        if _find_offset(start, end, offset, size, limit, middle, high, need) >= 0:
            low = middle
        else:
            bound = middle + 1
    return low
