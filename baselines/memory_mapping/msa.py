"""A heuristic after XLA's memory-space assignment: the baseline to beat.

The order of decisions follows xla/service/memory_space_assignment (`algorithm.cc`,
`cost_analysis.cc`, `prefetch_interval_picker.cc`, `buffer_interval_comparator.cc`):

- Buffers are taken by memory-boundedness: the time that fast memory saves at their accesses,
  divided by the square root of their size.
- Each stretch between two accesses of a buffer is decided on its own: stay in fast memory if
  there is room (preferably at the same offset); else write a value that only fast memory has
  back, right after its definition; else fall back to slow memory and try to prefetch.
- Copies need time: every step supplies what it takes with everything in slow memory, and
  prefetches and write-backs draw from separate supplies.
- A write-back that does not fit undoes everything for this buffer; it is tried once more with a
  longer wait and a free write-back, and then left in slow memory.

Where it differs: our alias classes and step costs (no pipeline overhead), offsets below scoped
reservations, no cross-program prefetch or sliced copies, and a loop's buffer is in fast memory for
the whole body or comes and goes within one iteration (rule 6 of `solution.py`).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field

import numpy as np

from baselines.memory_mapping import msa_kernel as kernel
from baselines.memory_mapping.levels import (
    executions,
    home,
    level_positions,
    position_loops,
    valid_at_start,
)
from baselines.memory_mapping.placement import place_arrays
from games.base import Result
from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping, crosses_border, objective
from hlo_frontend.program import CopyWindow

# XLA's defaults in libtpu 0.0.42.
MIN_OVERLAP, PREFERRED_OVERLAP, MAX_OVERLAP = 1.0, 2.0, 8.0  # multiples of a copy's time
MAX_OUTSTANDING = 40  # prefetches, and as many write-backs
MAX_RETRIES = 2
MAX_REPACKS = 4
EVICTION_RETRY = 2.0  # kEvictionRetryMultiplier


def msa(problem: MemoryMappingProblem, *, time_limit: float, seed: int = 0) -> Result[Mapping]:
    """XLA's heuristic. It takes what time it takes (seconds for the largest programs).

    Its objective is that of its mapping as it is, even where that is worse than all slow.
    """
    begin = time.perf_counter()
    run = _Run(problem, seed)
    for buffer in boundedness_order(problem):
        run.assign(int(buffer))
    mapping = run.mapping()
    value = objective(problem, mapping)
    wall = time.perf_counter() - begin
    return Result(
        "msa",
        mapping,
        value,
        wall_s=wall,
        curve=((wall, value),),
        detail={"repacks": run.repacks, "given_up": run.given_up},
    )


def boundedness_order(problem: MemoryMappingProblem) -> Ints:
    """Buffers by falling boundedness, as XLA's `MemoryBoundednessBufferIntervalComparator`."""
    slow = problem.fixed_slow + np.bincount(
        problem.access_step, weights=problem.access_slow, minlength=problem.num_steps
    )
    step = problem.access_step
    weight = np.array([executions(problem, int(loop)) for loop in problem.step_loop])
    saved = problem.access_slow - problem.access_fast
    # A step that is bound by arithmetic gains nothing: how far it is from being memory-bound.
    benefit = np.where(
        slow[step] > problem.compute[step],
        saved,
        (slow - problem.compute)[step] / weight[step],
    )
    score = np.zeros(problem.num_buffers)
    for buffer in range(problem.num_buffers):
        low, high = problem.first_access[buffer : buffer + 2]
        # A parameter's definition is an instruction without cost, and so without benefit.
        total = float(benefit[low]) if problem.access_defines[low] else 0.0
        for access in range(low + int(problem.access_defines[low]), high):
            gain = float(benefit[access])
            total = total + gain if total > 0 and gain > 0 else max(total, gain)
        score[buffer] = total / np.sqrt(problem.size[buffer])
    last_use = problem.access_step[problem.first_access[1:] - 1]
    duration = problem.live_end - problem.live_start
    return np.lexsort((problem.live_start, last_use, -duration, -problem.size, -score)).astype(
        np.int64
    )


@dataclass
class _Pool:
    """Copies of one direction, in the order of their queue."""

    windows: Ints
    seconds: Floats
    count: int = 0

    def restore(self, other: _Pool) -> None:
        self.windows[:, : other.count] = other.windows[:, : other.count]
        self.seconds[:, : other.count] = other.seconds[:, : other.count]
        self.count = other.count

    def saved(self) -> _Pool:
        return _Pool(
            self.windows[:, : self.count].copy(), self.seconds[:, : self.count].copy(), self.count
        )


@dataclass(frozen=True)
class _Use:
    """An access, or a whole loop that the buffer lives through, as one thing to be served.

    Attributes:
        at: the position before it.
        end: the position after it.
        low, high: its accesses.
        loop: the loop, or -1 for an access.
        reads: it needs what the buffer holds.
        writes: it changes what the buffer holds.
        saved: seconds that its step gets shorter if it is served by fast memory.
    """

    at: int
    end: int
    low: int
    high: int
    loop: int
    reads: bool
    writes: bool
    saved: float


@dataclass
class _Value:
    """Where the present contents of a buffer are.

    Attributes:
        slow_from: position from which slow memory has them, None if it has not.
        defined: position of a definition whose memory is not chosen yet, None if there is none.
        stay: row of the stay that holds them at the last use, -1 if there is none.
        written: position after the last write, from which they can be written back.
        free_from: end of the buffer's last stay that is over.
    """

    slow_from: int | None
    defined: int | None = None
    stay: int = -1
    written: int = 0
    free_from: int = 0


class _Uncommit(Exception):  # noqa: N818 (XLA's name for it: a decision, not an error)
    """A value had to be written back, and there was no time or room for it."""


@dataclass
class _Stay:
    """What the table of stays does not hold."""

    buffer: int
    copy_in: CopyWindow | None = None
    copy_out: CopyWindow | None = None


@dataclass
class _Run:
    """The heap, the copy pools, and the stays so far."""

    problem: MemoryMappingProblem
    seed: int
    repacks: int = 0
    given_up: int = 0
    out_of_room: bool = False
    retry: int = 0
    stays: list[_Stay] = field(default_factory=list)

    def __post_init__(self) -> None:
        problem = self.problem
        self.loops = position_loops(problem)
        self.levels: dict[int, Bools] = {}
        slow = problem.fixed_slow + np.bincount(
            problem.access_step, weights=problem.access_slow, minlength=problem.num_steps
        )
        self.elapsed = np.maximum(problem.compute, slow)
        self.slow = slow
        self.supply = np.concatenate([[0.0], np.cumsum(self.elapsed)])
        most = problem.num_accesses + len(problem.loop_start) * problem.num_buffers + 1
        self.table = np.zeros((4, most), dtype=np.int64)
        self.used = np.zeros(problem.num_steps, dtype=np.int64)
        self.prefetches, self.evictions = (
            _Pool(np.zeros((2, most), dtype=np.int64), np.zeros((2, most))) for _ in range(2)
        )

    # --- one buffer ---

    def assign(self, buffer: int) -> None:
        """Decides about one buffer for good, with retries and repacking."""
        repacked = False
        self.retry = 0
        while self.retry < MAX_RETRIES:
            before = (len(self.stays), self.prefetches.saved(), self.evictions.saved())
            self.out_of_room = False
            try:
                self._allocate(buffer)
            except _Uncommit:
                self._undo(*before)
                self.retry += 1
                continue
            if self.out_of_room and self.repacks < MAX_REPACKS and not repacked:
                self._undo(*before)
                self.repacks += 1
                repacked = True
                if not self._repack():
                    self.retry += 1
                continue
            return
        self.given_up += 1

    def _undo(self, num_stays: int, prefetches: _Pool, evictions: _Pool) -> None:
        for row in range(num_stays, len(self.stays)):
            start, end, _, size = self.table[:, row]
            self.used[start:end] -= size
        del self.stays[num_stays:]
        self.prefetches.restore(prefetches)
        self.evictions.restore(evictions)

    def _repack(self) -> bool:
        """New offsets for all stays; whether there are any."""
        count = len(self.stays)
        buffers = np.array([stay.buffer for stay in self.stays], dtype=np.int64)
        fits, offsets = place_arrays(
            self.problem,
            buffers,
            self.table[kernel.START, :count],
            self.table[kernel.END, :count],
            seed=self.seed,
        )
        if fits:
            self.table[kernel.OFFSET, :count] = offsets
        return fits

    def _allocate(self, buffer: int) -> None:
        problem = self.problem
        low, high = problem.first_access[buffer : buffer + 2]
        value = _Value(slow_from=0 if valid_at_start(problem, buffer) else None)
        end = problem.num_steps
        self._serve(
            buffer,
            home(problem, buffer),
            int(low),
            int(high),
            value,
            end if problem.live_out[buffer] else None,
        )

    def _serve(
        self, buffer: int, loop: int, low: int, high: int, value: _Value, home_by: int | None
    ) -> None:
        """Serves the accesses [low, high) at the level of `loop`.

        Args:
            buffer: whose accesses.
            loop: the level; accesses in loops nested in it are served as one use each.
            low, high: accesses.
            value: where the buffer is before; brought up to date.
            home_by: position at which slow memory must have the contents, if any.
        """
        uses = self._uses(buffer, loop, low, high)
        for number, use in enumerate(uses):
            if use.reads:
                self._segment(buffer, loop, uses[number:], value)
            if use.loop >= 0 and value.stay < 0:
                self._serve(buffer, use.loop, use.low, use.high, value, use.end)
                self._leave(value)
                value.slow_from = use.end
                continue
            if not use.writes:
                continue
            value.written = use.end
            if not use.reads:
                self._leave(value)
                value.defined, value.slow_from = use.at, None
            else:
                value.slow_from = None if value.stay >= 0 else use.end
        if home_by is not None:
            self._bring_home(buffer, loop, home_by, value)

    def _uses(self, buffer: int, loop: int, low: int, high: int) -> list[_Use]:
        problem = self.problem
        uses: list[_Use] = []
        access = low
        loops = self._inner_loops(buffer, loop)
        while access < high or loops:
            step = int(problem.access_step[access]) if access < high else problem.num_steps
            if loops and problem.loop_start[loops[0]] <= step:
                inner = loops.pop(0)
                start, end = int(problem.loop_start[inner]), int(problem.loop_end[inner])
                first = access
                while access < high and problem.access_step[access] < end:
                    access += 1
                writes = bool(problem.access_writes[first:access].any())
                uses.append(_Use(start, end, first, access, inner, True, writes, 0.0))
                continue
            slow = self.slow[step] - problem.access_slow[access]
            fast = problem.access_fast[access]
            saved = float(self.elapsed[step] - max(problem.compute[step], slow + fast))
            uses.append(
                _Use(
                    step,
                    step + 1,
                    access,
                    access + 1,
                    -1,
                    not problem.access_defines[access],
                    bool(problem.access_writes[access]),
                    saved,
                )
            )
            access += 1
        return uses

    def _inner_loops(self, buffer: int, loop: int) -> list[int]:
        """Loops right inside `loop` that the buffer lives through and is used in, in order."""
        problem = self.problem
        steps = problem.access_step[slice(*problem.first_access[buffer : buffer + 2])]
        inner = [
            index
            for index in range(len(problem.loop_start))
            if problem.loop_parent[index] == loop
            and crosses_border(problem, buffer, index)
            and ((problem.loop_start[index] <= steps) & (steps < problem.loop_end[index])).any()
        ]
        return sorted(inner, key=lambda index: int(problem.loop_start[index]))

    # --- one stretch ---

    def _segment(self, buffer: int, loop: int, uses: list[_Use], value: _Value) -> None:
        """XLA's `AllocateSegment`: serves the first use, from fast memory if that can be.

        Args:
            buffer: whose use.
            loop: the level.
            uses: this use and all later ones.
            value: brought up to date.
        """
        problem = self.problem
        use = uses[0]
        weight = executions(problem, loop)
        longest = MAX_OVERLAP * weight * problem.capacity / problem.slow_bandwidth
        ends = self._reach(uses, longest)
        if self._stay_on(buffer, use, ends, value, longest):
            return
        no_room = value.defined is not None or value.stay >= 0
        slow_from = self._bring_home(buffer, loop, use.at, value)
        self._leave(value)
        work = weight * float(problem.copy_seconds[buffer])
        start, offset = kernel.find_prefetch(
            self.table,
            len(self.stays),
            self.used,
            problem.limit,
            ends,
            problem.size[buffer],
            self.prefetches.windows,
            self.prefetches.seconds,
            self.prefetches.count,
            self.supply,
            self._positions(loop),
            max(slow_from, value.free_from, self._first_start(buffer, loop)),
            use.at,
            work,
            use.saved,
            np.array([MIN_OVERLAP, PREFERRED_OVERLAP]),
            longest,
            MAX_OUTSTANDING,
        )
        if start < 0:
            self.out_of_room |= no_room or start == kernel.NO_ROOM
            return
        self._add_copy(self.prefetches, start, use.at, work)
        value.stay = self._add_stay(buffer, start, use.end, offset, CopyWindow(start, use.at))

    def _reach(self, uses: list[_Use], longest: float) -> Ints:
        """Ends of the uses up to the first that is too far from the one before it."""
        ends = [uses[0].end]
        for before, use in itertools.pairwise(uses):
            if self.supply[use.at] - self.supply[before.end] >= longest:
                break
            ends.append(use.end)
        return np.array(ends, dtype=np.int64)

    def _stay_on(self, buffer: int, use: _Use, ends: Ints, value: _Value, longest: float) -> bool:
        """No copy: produce the value in fast memory, or hold on to it, until after the use."""
        size = self.problem.size[buffer]
        if value.defined is not None:
            if self.supply[use.at] - self.supply[value.defined + 1] >= longest:
                return False
            offset = kernel.longest_offset(
                self.table,
                len(self.stays),
                self.used,
                self.problem.limit,
                value.defined,
                ends,
                size,
            )
            if offset >= 0:
                value.stay = self._add_stay(buffer, value.defined, use.end, offset, None)
                value.defined = None
            return bool(offset >= 0)
        if value.stay < 0:
            return False
        end, offset = self.table[[kernel.END, kernel.OFFSET], value.stay]
        if self.supply[use.at] - self.supply[end] >= longest:
            return False
        return self._extend(value.stay, int(end), use.end)

    def _evict(self, loop: int, deadline: int, work: float, value: _Value) -> int:
        """Writes a value that only fast memory has back, early; when that is done."""
        start = value.written
        end = int(self.table[kernel.END, value.stay])
        allowed = self._positions(loop)
        wait = (1 + EVICTION_RETRY * self.retry) * PREFERRED_OVERLAP * work
        done = int(np.searchsorted(self.supply, self.supply[start] + wait))
        done = min(max(done, end), deadline)
        while done > end and not (allowed[done] and self._extend(value.stay, end, done)):
            done -= 1
        pool = self.evictions
        fits = kernel.copy_fits(
            pool.windows, pool.seconds, pool.count, self.supply, start, done, work
        )
        if not fits and self.retry == MAX_RETRIES - 1:
            work, fits = 0.0, True
        if (
            start >= done
            or self._whole_body(loop, value.stay)
            or not fits
            or kernel.outstanding(pool.windows, pool.count, start, done) >= MAX_OUTSTANDING
        ):
            raise _Uncommit
        self._add_copy(pool, start, done, work)
        self.stays[value.stay].copy_out = CopyWindow(start, done)
        return done

    def _whole_body(self, loop: int, row: int) -> bool:
        """Whether the stay is one of the loop's whole body, which has no copies inside of it."""
        if loop < 0 or not crosses_border(self.problem, self.stays[row].buffer, loop):
            return False
        start, end = self.table[[kernel.START, kernel.END], row]
        return bool(start == self.problem.loop_start[loop] and end == self.problem.loop_end[loop])

    def _bring_home(self, buffer: int, loop: int, deadline: int, value: _Value) -> int:
        """Makes slow memory hold the value at `deadline`; from which position on it does."""
        if value.slow_from is None:
            if value.defined is not None:
                value.slow_from, value.defined = value.defined + 1, None
            else:
                work = executions(self.problem, loop) * float(self.problem.copy_seconds[buffer])
                value.slow_from = self._evict(loop, deadline, work, value)
        return value.slow_from

    def _leave(self, value: _Value) -> None:
        """The value's stay is over. Two stays of one buffer are never there at once."""
        if value.stay >= 0:
            value.free_from = int(self.table[kernel.END, value.stay])
            value.stay = -1

    def _first_start(self, buffer: int, loop: int) -> int:
        """First position at which a copy inside the loop may start.

        Not the body's first: the stay could come to be one of the whole body, and that belongs to
        the level outside of the loop.
        """
        if loop < 0 or not crosses_border(self.problem, buffer, loop):
            return 0
        return int(self.problem.loop_start[loop]) + 1

    # --- tables ---

    def _positions(self, loop: int) -> Bools:
        if loop not in self.levels:
            self.levels[loop] = level_positions(self.problem, self.loops, loop)
        return self.levels[loop]

    def _add_stay(
        self, buffer: int, start: int, end: int, offset: int, copy_in: CopyWindow | None
    ) -> int:
        row = len(self.stays)
        size = int(self.problem.size[buffer])
        self.table[:, row] = start, end, offset, size
        self.used[start:end] += size
        self.stays.append(_Stay(buffer, copy_in))
        return row

    def _extend(self, row: int, end: int, new_end: int) -> bool:
        """Makes a stay longer at its offset, if that is free."""
        _, _, offset, size = self.table[:, row]
        free = kernel.find_offset(
            self.table,
            len(self.stays),
            self.used,
            self.problem.limit,
            end,
            new_end,
            size,
            offset,
        )
        if free < 0:
            return False
        self.table[kernel.END, row] = new_end
        self.used[end:new_end] += size
        return True

    def _add_copy(self, pool: _Pool, start: int, done: int, work: float) -> None:
        kernel.add_copy(pool.windows, pool.seconds, pool.count, self.supply, start, done, work)
        pool.count += 1

    def mapping(self) -> Mapping:
        """The stays so far."""
        return Mapping(
            tuple(
                FastInterval(
                    stay.buffer,
                    int(self.table[kernel.START, row]),
                    int(self.table[kernel.END, row]),
                    int(self.table[kernel.OFFSET, row]),
                    stay.copy_in,
                    stay.copy_out,
                )
                for row, stay in enumerate(self.stays)
            )
        )
