"""The memory-mapping problem as linear rows over 0-1 columns, a little too optimistic.

It is exact in what is where and when: which accesses fast memory serves, stays, write-backs,
loops, and the room of each step. It is optimistic in three ways, so that its optimum is a lower
bound on the problem's:

- no offsets: what is in fast memory at a step must only fit by its sum;
- copies share the slow memory's idle time freely, where the simulator has two first-in first-out
  queues: it is only asked that for any window [a, b] of positions the copies that must run inside
  of it take no longer than the idle time and the stalls inside of it. These rows are many, and
  are added as they are found broken (`Relaxation.broken_windows`);
- where there are very many starts of a copy to choose from, neighbouring ones are put into one
  bucket: such a copy may use the time of the whole bucket, and takes room only from its end.

Columns: for each access whether fast memory serves it; for each gap between accesses of a buffer
whether it stays; for each copy-in and each bucket of starts whether it has started by then; for
each copy-out and each bucket of ends whether it still holds its room; the seconds of each step
(`elapsed`) and of the stall at each position.

All rows are `sum of coefficient * column >= bound`. Rows in seconds stay true if coefficients are
rounded up, bounds down and the columns in seconds up; the others have whole numbers only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from baselines.memory_mapping.levels import (
    by_depth,
    executions,
    home,
    level_positions,
    position_loops,
    valid_at_start,
)
from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.simulator import simulate
from games.memory_mapping.solution import FastInterval, Mapping, crosses_border
from hlo_frontend.program import CopyWindow

# Copies that take at least this share of the whole program's time have a bucket for each start;
# the others have fewer in proportion to the root of their time, but as many as LEAST_BUCKETS.
FULL_RESOLUTION = 2e-3
LEAST_BUCKETS = 4
MOST_PARTS = 12  # into which the room of a step is cut to round its row


@dataclass
class Row:
    """`sum of coefficients * columns >= bound`."""

    columns: list[int]
    coefficients: list[float]
    bound: float


@dataclass(frozen=True)
class Event:
    """An access of a buffer, or a border of a loop that it lives through and is used in.

    Attributes:
        column: whether fast memory has the buffer then.
        at, end: positions before and after it (equal for a border).
        access: index, -1 for a border.
        reads: it needs valid data in slow memory if fast memory does not have the buffer.
        writes, defines: as of the access.
        level: loop level of the copies of a stay that starts with it.
        after: loop level of the gap that follows.
    """

    column: int
    at: int
    end: int
    access: int
    reads: bool
    writes: bool
    defines: bool
    level: int
    after: int


@dataclass(frozen=True)
class CopyIn:
    """A possible copy-in whose deadline is one event.

    Attributes:
        buffer, event: which event of which buffer.
        done: its deadline.
        work: seconds.
        low, high: i64[K] first and last start of each bucket, ascending.
        started: i64[K] columns: it has started by the end of the bucket; the last one says
            whether there is a copy at all.
    """

    buffer: int
    event: int
    done: int
    work: float
    low: Ints
    high: Ints
    started: Ints


@dataclass(frozen=True)
class CopyOut:
    """A possible copy-out after an event, where a stay ends.

    Attributes:
        buffer, event: the last event of the stay.
        release: position from which it can run.
        work: seconds.
        low, high: i64[K] first and last end of each bucket, ascending.
        column: whether there is a copy.
        held: i64[K - 1] columns: it still holds room after the bucket.
    """

    buffer: int
    event: int
    release: int
    work: float
    low: Ints
    high: Ints
    column: int
    held: Ints


@dataclass
class Relaxation:
    """Columns, rows, and what they stand for.

    Attributes:
        problem: the problem.
        upper: upper bound of each column; lower bounds are 0, or `compute` for `elapsed`.
        lower: lower bound of each column.
        cost: objective coefficient of each column.
        seconds: whether each column is in seconds; the others are 0-1.
        logic: rows in whole numbers.
        timing: rows in seconds.
        events: of each buffer, in order.
        stays: column of each buffer's gaps: it stays from event k to event k + 1.
        copies_in, copies_out: the copies.
        elapsed: i64[T] columns; -1 where a step always takes `constant`.
        stall: i64[T + 1] columns; -1 where nobody waits.
        constant: f64[T] seconds of steps without a column.
    """

    problem: MemoryMappingProblem
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    seconds: list[bool] = field(default_factory=list)
    logic: list[Row] = field(default_factory=list)
    timing: list[Row] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)
    stays: list[list[int]] = field(default_factory=list)
    copies_in: list[CopyIn] = field(default_factory=list)
    copies_out: list[CopyOut] = field(default_factory=list)

    def __post_init__(self) -> None:
        problem = self.problem
        steps = problem.num_steps
        self.slow = problem.fixed_slow + np.bincount(
            problem.access_step, weights=problem.access_slow, minlength=steps
        )
        fast = np.bincount(problem.access_step, weights=problem.access_fast, minlength=steps)
        # The most idle time that a step can have: all its accesses are in fast memory.
        self.most_idle = np.maximum(problem.compute - problem.fixed_slow, fast)
        self.idle_before = np.concatenate([[0.0], np.cumsum(self.most_idle)])
        self._loops = position_loops(problem)
        self._levels: dict[int, Bools] = {}
        self._border_loop: dict[int, int] = {}
        self.in_fast = self._new(problem.num_accesses)
        self.elapsed = np.full(steps, -1, dtype=np.int64)
        self.stall = np.full(steps + 1, -1, dtype=np.int64)
        self.constant = np.zeros(steps)
        for buffer in range(problem.num_buffers):
            self._add_events(buffer)
        self._tight = self._tight_steps()
        room: list[tuple[list[int], list[float]]] = [([], []) for _ in range(steps)]
        for buffer in range(problem.num_buffers):
            self._add_buffer(buffer, room)
        self.room: list[tuple[Ints, Floats, float]] = []
        for step in np.flatnonzero(self._tight):
            columns, sizes = room[step]
            limit = float(problem.limit[step])
            self._require(columns, [-size for size in sizes], -limit)
            self.room.append((np.array(columns, dtype=np.int64), np.array(sizes), limit))
        self._add_time()

    # --- columns ---

    def _new(
        self, count: int, lower: float = 0.0, upper: float = 1.0, seconds: bool = False
    ) -> Ints:
        first = len(self.upper)
        self.lower += [lower] * count
        self.upper += [upper] * count
        self.cost += [1.0 if seconds else 0.0] * count
        self.seconds += [seconds] * count
        return np.arange(first, first + count, dtype=np.int64)

    def _require(self, columns: list[int], coefficients: list[float], bound: float) -> None:
        """A row in whole numbers."""
        if columns:
            self.logic.append(Row(columns, coefficients, bound))

    def _positions(self, loop: int) -> Bools:
        if loop not in self._levels:
            self._levels[loop] = level_positions(self.problem, self._loops, loop)
        return self._levels[loop]

    # --- events ---

    def _add_events(self, buffer: int) -> None:
        problem = self.problem
        low, high = problem.first_access[buffer : buffer + 2]
        steps = problem.access_step[low:high]
        # (position, order, loop or access): a body's end comes before the next body's start, and
        # an inner body ends first and starts last.
        marks: list[tuple[int, int, int, int]] = []
        depth = {loop: rank for rank, loop in enumerate(by_depth(problem))}
        loops = [
            loop
            for loop in range(len(problem.loop_start))
            if crosses_border(problem, buffer, loop)
            and ((problem.loop_start[loop] <= steps) & (steps < problem.loop_end[loop])).any()
        ]
        for loop in loops:
            start, end = int(problem.loop_start[loop]), int(problem.loop_end[loop])
            marks.append((start, 1, depth[loop], loop))
            marks.append((end, 0, -depth[loop], loop))
        marks += [(int(problem.access_step[a]), 2, 0, a) for a in range(low, high)]
        events: list[Event] = []
        covered = dict(zip(loops, self._new(len(loops)).tolist(), strict=True))
        self._border_loop.update((column, loop) for loop, column in covered.items())
        level = home(problem, buffer)
        for position, order, _, index in sorted(marks):
            if order == 2:
                access = index
                defines = bool(problem.access_defines[access])
                events.append(
                    Event(
                        int(self.in_fast[access]),
                        position,
                        position + 1,
                        access,
                        not defines,
                        bool(problem.access_writes[access]),
                        defines,
                        level,
                        level,
                    )
                )
                continue
            loop = index
            outside = int(problem.loop_parent[loop])
            enters = order == 1
            before = bool(
                problem.initial[buffer] or problem.live_start[buffer] < problem.loop_start[loop]
            )
            events.append(
                Event(
                    covered[loop],
                    position,
                    position,
                    -1,
                    before or not enters,
                    False,
                    False,
                    outside,
                    loop if enters else outside,
                )
            )
            level = loop if enters else outside
        self.events.append(events)
        self.stays.append(self._new(max(0, len(events) - 1)).tolist())

    # --- buckets ---

    def _version_start(self, events: list[Event], index: int) -> int:
        """Index of the last event before `index` that writes, -1 if there is none."""
        for k in range(index - 1, -1, -1):
            if events[k].writes:
                return k
        return -1

    def _starts(self, buffer: int, index: int) -> Ints:
        """Positions at which a copy-in for an event can start, ascending."""
        events = self.events[buffer]
        event = events[index]
        wrote = self._version_start(events, index)
        first = events[wrote].end if wrote >= 0 else 0
        allowed = np.flatnonzero(self._positions(event.level)[first : event.at + 1]) + first
        # No room before a step that has too little of it, whoever else is there.
        narrow = np.flatnonzero(self.problem.limit[first : event.at] < self.problem.size[buffer])
        return allowed[allowed > first + narrow[-1]] if len(narrow) else allowed

    def _ends(self, buffer: int, index: int) -> Ints:
        """Positions at which a copy-out after an event can be done, ascending."""
        events = self.events[buffer]
        event = events[index]
        last = events[index + 1].at if index + 1 < len(events) else self.problem.num_steps
        allowed = np.flatnonzero(self._positions(event.after)[event.end : last + 1]) + event.end
        narrow = np.flatnonzero(self.problem.limit[event.end : last] < self.problem.size[buffer])
        return allowed[allowed <= event.end + narrow[0]] if len(narrow) else allowed

    def _needs_copy_out(self, buffer: int, index: int) -> bool:
        """Whether contents that only fast memory has after an event can be needed in slow."""
        events = self.events[buffer]
        enters_body = events[index].access < 0 and not self._is_loop_end(events, index)
        if enters_body or (not events[index].writes and self._version_start(events, index) < 0):
            return False
        if index + 1 < len(events):
            return not events[index + 1].defines
        return bool(self.problem.live_out[buffer])

    @staticmethod
    def _is_loop_end(events: list[Event], index: int) -> bool:
        event = events[index]
        return event.access < 0 and any(e.column == event.column for e in events[:index])

    def _tight_steps(self) -> Bools:
        """bool[T]: steps at which all that could be in fast memory does not fit at once."""
        problem = self.problem
        load = np.zeros(problem.num_steps + 1, dtype=np.int64)
        for buffer, events in enumerate(self.events):
            start = 0 if valid_at_start(problem, buffer) else events[0].at
            end = problem.num_steps if problem.live_out[buffer] else events[-1].end
            load[start] += problem.size[buffer]
            load[end] -= problem.size[buffer]
        return np.cumsum(load)[:-1] > problem.limit

    def _grouped(self, positions: Ints, anchor: int, work: float) -> tuple[Ints, Ints]:
        """(low, high) of the buckets of positions; `anchor` is the end where time is measured."""
        share = math.sqrt(work / (FULL_RESOLUTION * self.problem.all_slow))
        most = max(LEAST_BUCKETS, round(share * len(positions)))
        if len(positions) <= most:
            return positions, positions
        # Logarithmic in the time that the copy could have.
        distance = np.abs(self.idle_before[positions] - self.idle_before[anchor])
        scaled = np.log1p(distance / work)
        label = np.ceil((most - 1) * scaled / max(scaled.max(), 1e-30)).astype(np.int64)
        first = np.flatnonzero(np.diff(label, prepend=-1))
        last = np.append(first[1:], len(positions)) - 1
        return positions[first], positions[last]

    # --- one buffer ---

    def _add_buffer(self, buffer: int, room: list[tuple[list[int], list[float]]]) -> None:
        problem = self.problem
        events, stays = self.events[buffer], self.stays[buffer]
        size = float(problem.size[buffer])
        steps = problem.num_steps
        limit = problem.limit
        copies_in: dict[int, CopyIn] = {}
        copies_out: dict[int, CopyOut] = {}
        for index, event in enumerate(events):
            if event.access >= 0 and limit[event.at] < size:
                self.upper[event.column] = 0.0
            if index + 1 < len(events):
                between = limit[event.end : events[index + 1].at]
                if len(between) and between.min() < size:
                    self.upper[stays[index]] = 0.0
            if not event.defines and not self._is_loop_end(events, index):
                copies_in[index] = self._new_copy_in(buffer, index)
            if self._needs_copy_out(buffer, index):
                copies_out[index] = self._new_copy_out(buffer, index)
        self.copies_in += copies_in.values()
        self.copies_out += copies_out.values()

        for index, event in enumerate(events):
            arrives = stays[index - 1] if index > 0 else -1
            # A stay goes on, or starts with a copy, or with a definition.
            if not event.defines and not self._starts_with_body(events, index):
                columns, coefficients = [event.column], [-1.0]
                if arrives >= 0:
                    columns.append(arrives)
                    coefficients.append(1.0)
                if index in copies_in:
                    columns.append(int(copies_in[index].started[-1]))
                    coefficients.append(1.0)
                self._require(columns, coefficients, 0.0)
            if index in copies_in:
                # No copy for what is not used, or is there already.
                columns = [event.column, int(copies_in[index].started[-1])]
                coefficients = [1.0, -1.0]
                if arrives >= 0:
                    columns.append(arrives)
                    coefficients.append(-1.0)
                self._require(columns, coefficients, 0.0)
            elif arrives >= 0:
                self._require([event.column, arrives], [1.0, -1.0], 0.0)
            if index < len(stays):
                leaves = [event.column, stays[index]]
                coefficients = [1.0, -1.0]
                if index in copies_out:
                    leaves.append(copies_out[index].column)
                    coefficients.append(-1.0)
                self._require(leaves, coefficients, 0.0)
            elif index in copies_out:
                self._require([event.column, copies_out[index].column], [1, -1], 0.0)
        self._add_covers(events, stays)
        self._add_validity(buffer, copies_in, copies_out)

        # Room.
        present: list[dict[int, float]] = [{} for _ in range(steps)]
        for index, event in enumerate(events):
            if event.access >= 0:
                present[event.at][event.column] = size
            if index < len(stays):
                for step in range(event.end, events[index + 1].at):
                    present[step][stays[index]] = size
        for copy in copies_in.values():
            for k, column in enumerate(copy.started):
                stop = int(copy.high[k + 1]) if k + 1 < len(copy.high) else copy.done
                for step in range(int(copy.high[k]), stop):
                    present[step][int(column)] = size
        for out in copies_out.values():
            begin = events[out.event].end
            for k in range(len(out.low)):
                column = out.column if k == 0 else int(out.held[k - 1])
                for step in range(begin, int(out.low[k])):
                    present[step][column] = size
                begin = int(out.low[k])
        for step in np.flatnonzero(self._tight).tolist():
            room[step][0].extend(present[step])
            room[step][1].extend(present[step].values())

    def _new_copy_in(self, buffer: int, index: int) -> CopyIn:
        problem = self.problem
        event = self.events[buffer][index]
        positions = self._starts(buffer, index)
        if self._version_start(self.events[buffer], index) < 0:
            positions = self._useful_starts(buffer, positions)
        work = executions(problem, event.level) * float(problem.copy_seconds[buffer])
        low, high = self._grouped(positions, event.at, work)
        started = self._new(len(low))
        for k in range(1, len(started)):
            self._require([int(started[k]), int(started[k - 1])], [1.0, -1.0], 0.0)
        return CopyIn(buffer, index, event.at, work, low, high, started)

    def _useful_starts(self, buffer: int, positions: Ints) -> Ints:
        """The starts without those that another one of them is always as good as."""
        problem = self.problem
        taken = problem.access_step[slice(*problem.first_access[buffer : buffer + 2])]
        kept: list[int] = []
        for k, position in enumerate(positions.tolist()):
            step = position - 1
            # An earlier start that takes no room that anybody else could need is no worse.
            if k == 0 or positions[k - 1] != step or self._tight[step] or step in taken:
                kept.append(position)
        return np.array(kept, dtype=np.int64)

    def _new_copy_out(self, buffer: int, index: int) -> CopyOut:
        problem = self.problem
        events = self.events[buffer]
        event = events[index]
        wrote = index if event.writes else self._version_start(events, index)
        written = events[wrote].end
        release = written + int(np.argmax(self._positions(event.after)[written:]))
        work = executions(problem, event.after) * float(problem.copy_seconds[buffer])
        low, high = self._grouped(self._ends(buffer, index), release, work)
        column = int(self._new(1)[0])
        held = self._new(len(low) - 1)
        chain = [column, *held.tolist()]
        for k in range(1, len(chain)):
            self._require([chain[k - 1], chain[k]], [1.0, -1.0], 0.0)
        return CopyOut(buffer, index, release, work, low, high, column, held)

    def _starts_with_body(self, events: list[Event], index: int) -> bool:
        """A loop's body whose first step defines the buffer: nothing has to be there before."""
        if events[index].access >= 0 or self._is_loop_end(events, index):
            return False
        first = next(event for event in events[index:] if event.access >= 0)
        return first.defines and first.at == events[index].at

    def _add_covers(self, events: list[Event], stays: list[int]) -> None:
        """A loop's border column means a stay of the whole body."""
        first: dict[int, int] = {}
        for index, event in enumerate(events):
            if event.access >= 0:
                continue
            if event.column in first:
                for gap in range(first[event.column], index):
                    self._require([stays[gap], event.column], [1.0, -1.0], 0.0)
            first[event.column] = index

    def _add_validity(
        self, buffer: int, copies_in: dict[int, CopyIn], copies_out: dict[int, CopyOut]
    ) -> None:
        """Whoever reads slow memory finds valid data there; nobody reads what is on its way."""
        events = self.events[buffer]
        # Slow memory has the present contents: `valid` (a sum of columns) >= 1 - constant.
        constant = 1.0 if valid_at_start(self.problem, buffer) else 0.0
        valid: dict[int, float] = {}
        for index, event in enumerate(events):
            out = copies_out.get(index - 1)
            done: dict[int, float] = dict(valid)
            if out is not None:
                done[out.column] = 1.0
            if event.reads:
                row = {**done, event.column: 1.0}
                self._require(list(row), list(row.values()), 1.0 - constant)
            in_flight = [
                (copy, k)
                for copy in copies_in.values()
                if copy.event > index
                for k in [int(np.searchsorted(copy.high, event.at, side="right")) - 1]
                if k >= 0
            ]
            if in_flight and not self._is_loop_end(events, index):
                columns = [event.column, *(int(copy.started[k]) for copy, k in in_flight)]
                self._require(columns, [-1.0] * len(columns), -1.0)
            if out is not None:
                self._add_handover(out, copies_in, valid, constant)
            valid = done
            if event.writes:
                constant, valid = 1.0, {event.column: -1.0}
        out = copies_out.get(len(events) - 1)
        if self.problem.live_out[buffer]:
            row = dict(valid)
            if out is not None:
                row[out.column] = 1.0
            self._require(list(row), list(row.values()), 1.0 - constant)

        # Without a copy-out in between, contents are as valid as right after the last write.
        constant = 1.0 if valid_at_start(self.problem, buffer) else 0.0
        valid = {}
        for index, event in enumerate(events):
            copy = copies_in.get(index)
            if copy is not None:
                row = {**valid, int(copy.started[-1]): -1.0}
                self._require(list(row), list(row.values()), -constant)
            before = copies_out.get(index)
            if event.writes:
                constant, valid = 1.0, {event.column: -1.0}
            if before is not None:
                valid = {**valid, before.column: 1.0}

    def _add_handover(
        self,
        out: CopyOut,
        copies_in: dict[int, CopyIn],
        valid: dict[int, float],
        constant: float,
    ) -> None:
        """A copy-in in the gap of a copy-out starts after that is done."""
        later = [copy for copy in copies_in.values() if copy.event > out.event]
        version = [
            copy
            for copy in later
            if self._version_start(self.events[out.buffer], copy.event)
            == self._version_start(self.events[out.buffer], out.event + 1)
        ]
        for k in range(len(out.low) - 1):
            # Starts before the next bucket of ends begins.
            started = [
                int(copy.started[j])
                for copy in version
                for j in [int(np.searchsorted(copy.high, out.low[k + 1], side="left")) - 1]
                if j >= 0
            ]
            if started:
                row = {**valid, out.column: 1.0, int(out.held[k]): -1.0}
                columns = [*row, *started]
                coefficients = [*row.values(), *([-1.0] * len(started))]
                self._require(columns, coefficients, -constant)

    # --- time ---

    def _add_time(self) -> None:
        problem = self.problem
        saved = problem.access_slow - problem.access_fast
        accesses: list[list[int]] = [[] for _ in range(problem.num_steps)]
        for access, step in enumerate(problem.access_step):
            accesses[step].append(access)
        self._accesses_at = accesses
        least = np.maximum(problem.compute, self.slow - self._most_saved(saved))
        for step in range(problem.num_steps):
            most = max(float(problem.compute[step]), float(self.slow[step]))
            if most <= least[step]:
                self.constant[step] = most
                continue
            column = int(self._new(1, float(least[step]), most, seconds=True)[0])
            self.elapsed[step] = column
            # A single access cannot save more than takes the step to its least.
            cap = float(self.slow[step] - least[step])
            own = [int(self.in_fast[access]) for access in accesses[step]]
            gain = np.minimum(saved[accesses[step]], cap)
            self.timing.append(Row([column, *own], [1.0, *gain.tolist()], float(self.slow[step])))
        waits = {copy.done for copy in self.copies_in}
        waits |= {int(end) for copy in self.copies_out for end in copy.high}
        if waits:
            waits.add(problem.num_steps)
        positions = sorted(waits)
        self.stall[positions] = self._new(
            len(positions), 0.0, float(problem.all_slow), seconds=True
        )

    def _most_saved(self, saved: Floats) -> Floats:
        most: Floats = np.bincount(
            self.problem.access_step, weights=saved, minlength=self.problem.num_steps
        ).astype(np.float64)
        return most

    def window(self, start: int, end: int) -> Row:
        """The row that the copies inside of the positions [start, end] have time there."""
        problem = self.problem
        row: dict[int, float] = {}
        bound = 0.0
        for step in range(start, end):
            if self.elapsed[step] >= 0:
                row[int(self.elapsed[step])] = 1.0
            bound += float(self.slow[step] - self.constant[step])
            for access in self._accesses_at[step]:
                row[int(self.in_fast[access])] = float(problem.access_slow[access])
        for column in self.stall[start : end + 1]:
            if column >= 0:
                row[int(column)] = 1.0
        for copy in self.copies_in:
            if start <= copy.low[-1] and copy.done <= end:
                first = int(np.searchsorted(copy.low, start, side="left"))
                row[int(copy.started[-1])] = -copy.work
                if first > 0:
                    row[int(copy.started[first - 1])] = copy.work
        for out in self.copies_out:
            if start <= out.release and out.high[0] <= end:
                last = int(np.searchsorted(out.high, end, side="right")) - 1
                row[out.column] = -out.work
                if last < len(out.held):
                    row[int(out.held[last])] = out.work
        return Row(list(row), list(row.values()), bound)

    def broken_windows(self, values: Floats, most: int) -> list[tuple[int, int]]:
        """The windows that a solution breaks most, at most one for each end; worst first.

        Args:
            values: f64[columns].
            most: number of windows at most.
        """
        problem = self.problem
        steps = problem.num_steps
        work = np.zeros((steps + 1, steps + 1))  # by start of the window, by deadline
        for copy in self.copies_in:
            started = values[copy.started]
            if started[-1] <= 0.0:
                continue
            share = np.diff(started, prepend=0.0)
            for k in np.flatnonzero(share > 1e-9):
                work[: copy.low[k] + 1, copy.done] += share[k] * copy.work
        for out in self.copies_out:
            if values[out.column] <= 0.0:
                continue
            left = np.append(values[out.held], 0.0)
            share = np.append(values[out.column], left[:-1]) - left
            for k in np.flatnonzero(share > 1e-9):
                work[: out.release + 1, out.high[k]] += share[k] * out.work
        np.cumsum(work, axis=1, out=work)
        elapsed = np.where(self.elapsed >= 0, values[self.elapsed], self.constant)
        slow = self.slow - np.bincount(
            problem.access_step,
            weights=problem.access_slow * values[self.in_fast],
            minlength=steps,
        )
        stall = np.where(self.stall >= 0, values[self.stall], 0.0)
        idle = np.concatenate([[0.0], np.cumsum(elapsed - slow)])
        stalls = np.concatenate([[0.0], np.cumsum(stall)])
        have = (idle + stalls[1:])[None, :] - (idle + stalls[:-1])[:, None]
        excess = np.triu(work - have)
        worst = excess.argmax(axis=0)
        by_end = excess[worst, np.arange(steps + 1)]
        order = np.argsort(-by_end, kind="stable")[:most]
        slack = 1e-7 * problem.all_slow
        return [(int(worst[end]), int(end)) for end in order if by_end[end] > slack]

    def broken_roundings(self, values: Floats) -> list[Row]:
        """Rows of room, rounded to whole numbers of parts of it, that a solution breaks.

        If things are counted in parts of a (k + 1)th of the room, and a little more, then no more
        than k parts fit; each thing takes its size in such parts, rounded down.
        """
        rows: dict[tuple[tuple[int, ...], int], Row] = {}
        for columns, sizes, limit in self.room:
            present = values[columns] > 1e-6
            if sizes[present] @ values[columns[present]] < 0.5 * limit:
                continue
            for parts in range(1, MOST_PARTS + 1):
                counts = np.floor(sizes * (parts + 1) / (limit + 0.5))
                if counts @ values[columns] <= parts + 1e-3:
                    continue
                taken = np.flatnonzero(counts)
                own = columns[taken]
                row = Row(own.tolist(), (-counts[taken]).tolist(), -float(parts))
                rows[tuple(own.tolist()), parts] = row
        return list(rows.values())

    # --- mappings ---

    def stays_of(self, values: Floats) -> list[FastInterval]:
        """The stays of an integer solution, offset 0, copies as late and as short as it says."""
        chosen = values > 0.5
        by_event_in = {(copy.buffer, copy.event): copy for copy in self.copies_in}
        by_event_out = {(copy.buffer, copy.event): copy for copy in self.copies_out}
        result: list[FastInterval] = []
        for buffer, events in enumerate(self.events):
            stays = self.stays[buffer]
            index = 0
            while index < len(events):
                if not chosen[events[index].column]:
                    index += 1
                    continue
                first = last = index
                while last < len(stays) and chosen[stays[last]]:
                    last += 1
                index = last + 1
                served = [k for k in range(first, last + 1) if events[k].access >= 0]
                if not served:
                    continue
                stay = self._stay(
                    buffer, first, last, chosen, by_event_in, by_event_out.get((buffer, last))
                )
                result.append(stay)
        return result

    def values_of(self, mapping: Mapping) -> Floats:
        """f64[columns] of a legal mapping; stalls are where the program waits for copies."""
        values = np.zeros(len(self.upper))
        by_buffer: dict[int, list[FastInterval]] = {}
        for stay in mapping.intervals:
            by_buffer.setdefault(stay.buffer, []).append(stay)
        held: dict[tuple[int, int], FastInterval] = {}  # last event -> stay
        fetched: dict[tuple[int, int], FastInterval] = {}  # first event -> stay
        for buffer, stays in by_buffer.items():
            events = self.events[buffer]
            for stay in stays:
                inside = [
                    index
                    for index, event in enumerate(events)
                    if stay.ready <= event.at
                    and event.end <= stay.end
                    and not (event.access < 0 and self._only_touches(stay, event))
                ]
                if not inside:
                    continue
                for index in inside:
                    values[events[index].column] = 1.0
                for index in range(inside[0], inside[-1]):
                    values[self.stays[buffer][index]] = 1.0
                fetched[buffer, inside[0]] = stay
                held[buffer, inside[-1]] = stay
        for copy in self.copies_in:
            into = fetched.get((copy.buffer, copy.event))
            if into is not None and into.copy_in is not None:
                # A start that was left out is no better than the one before it.
                bucket = int(np.searchsorted(copy.low, into.start, side="right")) - 1
                values[copy.started[bucket:]] = 1.0
        for out in self.copies_out:
            left = held.get((out.buffer, out.event))
            if left is not None and left.copy_out is not None:
                values[out.column] = 1.0
                values[out.held[: np.searchsorted(out.high, left.end)]] = 1.0
        timeline = simulate(self.problem, mapping)
        columns = self.elapsed >= 0
        values[self.elapsed[columns]] = timeline.elapsed[columns]
        waits = np.flatnonzero(self.stall >= 0)
        if len(waits):
            at = np.minimum(np.searchsorted(waits, np.arange(len(timeline.stall))), len(waits) - 1)
            np.add.at(values, self.stall[waits[at]], timeline.stall)
        return values

    def _only_touches(self, stay: FastInterval, border: Event) -> bool:
        """Whether the border's loop is not one whose whole body the stay covers."""
        loop = self._border_loop[border.column]
        return not (
            stay.ready <= self.problem.loop_start[loop] and self.problem.loop_end[loop] <= stay.end
        )

    def _stay(
        self,
        buffer: int,
        first: int,
        last: int,
        chosen: Bools,
        copies_in: dict[tuple[int, int], CopyIn],
        out: CopyOut | None,
    ) -> FastInterval:
        events = self.events[buffer]
        start, end = events[first].at, events[last].end
        copy_in = copy_out = None
        copy = copies_in.get((buffer, first))
        if copy is not None and chosen[copy.started[-1]]:
            start = int(copy.high[np.argmax(chosen[copy.started])])
            copy_in = CopyWindow(start, copy.done)
        dirty = any(events[k].writes for k in range(first, last + 1))
        if out is not None and dirty and chosen[out.column]:
            bucket = int(chosen[out.held].sum())
            done = max(int(out.low[bucket]), end)
            copy_out = CopyWindow(out.release, done)
            end = done
        loop = events[first].level
        if (
            loop >= 0
            and crosses_border(self.problem, buffer, loop)
            and start == self.problem.loop_start[loop]
            and end == self.problem.loop_end[loop]
        ):
            # A stay of the whole body is one of the level outside, and so must its copies be.
            copy_in = None if copy_in is None else CopyWindow(start, start)
            copy_out = None if copy_out is None else CopyWindow(end, end)
        return FastInterval(buffer, start, end, 0, copy_in, copy_out)
