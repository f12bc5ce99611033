"""Independent checker of mappings: shares no code with the game it checks.

Two entry points, `validate` for a mapping of a `MemoryMappingProblem` and `validate_file` for a
mapping file (schema in `mapping_file.py`) of a `Program`, bring what they are given to one plain
form, a `_Line` of steps with the accesses of every buffer and the `_Stay`s in fast memory. One set
of checks reads that form: the rules 1 to 6 of `solution.py`. `recompute` and `validate_file` also
work out the modelled seconds again, with a plain implementation of the model in `problem.py` and
`simulator.py`: two queues of copies, drained item by item.

A *position* p of the line is the place just before step p, and T the end of the program. Two
positions with no working step between them are the same place; `_Line.place` names it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hlo_frontend.program import Program, Value

if TYPE_CHECKING:
    from games.memory_mapping.problem import MemoryMappingProblem
    from games.memory_mapping.solution import Mapping

_SCHEMA = "compiler-rl/memory-mapping/1"
_TOLERANCE = 1e-6  # relative, of stated seconds
_SMALLEST_RATE = 1e-6  # of a chip figure, so that seconds stay finite
_LARGEST = 2**60  # of any integer in a file, so that sums stay within 64 bits


def validate(problem: MemoryMappingProblem, mapping: Mapping) -> list[str]:
    """Every broken rule of `mapping` as one line; [] for a legal one.

    Buffers and steps are named by their index in the problem.
    """
    line = _line_of_problem(problem)
    stays, errors = _stays_of_mapping(line, mapping)
    return errors + _broken_rules(line, stays)


def recompute(problem: MemoryMappingProblem, mapping: Mapping) -> float:
    """Modelled seconds of a legal mapping, worked out without `simulator.simulate`."""
    line = _line_of_problem(problem)
    return _seconds(line, _stays_of_mapping(line, mapping)[0])


def validate_file(program: Program, data: object) -> list[str]:
    """Every broken rule of a mapping file as one line; [] for a valid one.

    Args:
        program: the program that the file should be a mapping of.
        data: what `json.load` made of the file.
    """
    try:
        header = _read_header(data)
    except _MalformedError as error:
        return [f"mapping file: {error}"]
    if header.fingerprint != program.fingerprint:
        return [
            f"mapping is for another program: fingerprint {_short(header.fingerprint)},"
            f" expected {program.fingerprint} of {program.source}"
        ]
    errors = _wrong_rows(program, header.rows)
    if errors:
        return errors
    rows: list[_Row] = []
    for raw, value in zip(header.rows, program.values, strict=True):
        try:
            rows.append(_read_row(raw, len(program.steps)))
        except _MalformedError as error:
            errors.append(f"{value.position}: {error}")
    line = _line_of_program(program, header)
    if isinstance(line, str):
        return [*errors, line]
    if errors:
        return errors
    for value, row in zip(program.values, rows, strict=True):
        errors += _wrong_facts(program, header, value, row)
    stays, conflicts = _stays_of_rows(program, rows)
    errors += conflicts
    errors += _wrong_lists(program, rows, stays)
    errors += _wrong_spaces(program, line, rows, stays)
    errors += _broken_rules(line, stays)
    if not conflicts:
        errors += _wrong_seconds("objective", header.objective, _seconds(line, stays))
    errors += _wrong_seconds("all_slow", header.all_slow, _seconds(line, []))
    return errors


# The plain form.


@dataclass(frozen=True)
class _Access:
    """What a step does with a buffer; `slow` and `fast` are its weighted seconds."""

    step: int
    writes: bool
    defines: bool
    slow: float
    fast: float


@dataclass(frozen=True)
class _Buffer:
    """An alias class: at most one access a step, sorted by step; live in steps [start, end)."""

    label: str
    size: int
    accesses: tuple[_Access, ...]
    initial: bool
    live_out: bool
    live_start: int
    live_end: int


@dataclass(frozen=True)
class _Loop:
    label: str
    start: int
    end: int
    parent: int
    executions: float


@dataclass(frozen=True)
class _Stay:
    """`copy_in` and `copy_out` are windows (start, done)."""

    buffer: int
    start: int
    end: int
    offset: int
    copy_in: tuple[int, int] | None
    copy_out: tuple[int, int] | None

    @property
    def ready(self) -> int:
        return self.start if self.copy_in is None else self.copy_in[1]

    @property
    def copies(self) -> Iterator[tuple[str, tuple[int, int]]]:
        if self.copy_in is not None:
            yield "copy-in", self.copy_in
        if self.copy_out is not None:
            yield "copy-out", self.copy_out


@dataclass(frozen=True)
class _Line:
    """Steps 0..T-1 with all that a mapping of them must respect."""

    steps: tuple[str, ...]
    works: npt.NDArray[np.bool_]
    compute: npt.NDArray[np.float64]
    fixed_slow: npt.NDArray[np.float64]
    limit: npt.NDArray[np.int64]
    loops: tuple[_Loop, ...]
    buffers: tuple[_Buffer, ...]
    alignment: int
    slow_bandwidth: float
    place: list[int] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.works)
        nearest = np.where(self.works, np.arange(count), count)
        place = np.minimum.accumulate(np.append(nearest, count)[::-1])[::-1]
        object.__setattr__(self, "place", place.tolist())

    def at(self, position: int) -> str:
        return self.steps[position] if position < len(self.steps) else "the end of the program"

    def stay(self, stay: _Stay) -> str:
        return f"{self.buffers[stay.buffer].label}: the stay in steps [{stay.start}, {stay.end})"

    def body(self, loop: int) -> tuple[int, int]:
        return self.place[self.loops[loop].start], self.place[self.loops[loop].end]

    def span(self, stay: _Stay) -> tuple[int, int]:
        return self.place[stay.start], self.place[stay.end]

    def lives_before(self, buffer: _Buffer, loop: int) -> bool:
        return buffer.initial or self.place[buffer.live_start] < self.body(loop)[0]

    def lives_after(self, buffer: _Buffer, loop: int) -> bool:
        return self.place[buffer.live_end] > self.body(loop)[1]

    def spans_iterations(self, stay: _Stay, loop: int) -> bool:
        """Whether the stay goes on from one iteration of the loop's body to the next."""
        (start, end), (first, last) = self.span(stay), self.body(loop)
        if start > first or end < last:
            return False
        if (start, end) != (first, last):
            return True
        buffer = self.buffers[stay.buffer]
        return self.lives_before(buffer, loop) or self.lives_after(buffer, loop)

    def levels(self, stay: _Stay) -> list[int]:
        """The loops in one iteration of whose body the stay lies."""
        start, end = self.span(stay)
        inside = []
        for loop in range(len(self.loops)):
            first, last = self.body(loop)
            if first <= start and end <= last and not self.spans_iterations(stay, loop):
                inside.append(loop)
        return inside


def _line_of_problem(problem: MemoryMappingProblem) -> _Line:
    buffers = []
    for v in range(problem.num_buffers):
        own = range(int(problem.first_access[v]), int(problem.first_access[v + 1]))
        buffers.append(
            _Buffer(
                label=f"buffer {v}",
                size=int(problem.size[v]),
                accesses=tuple(
                    _Access(
                        step=int(problem.access_step[a]),
                        writes=bool(problem.access_writes[a]),
                        defines=bool(problem.access_defines[a]),
                        slow=float(problem.access_slow[a]),
                        fast=float(problem.access_fast[a]),
                    )
                    for a in own
                ),
                initial=bool(problem.initial[v]),
                live_out=bool(problem.live_out[v]),
                live_start=int(problem.live_start[v]),
                live_end=int(problem.live_end[v]),
            )
        )
    return _Line(
        steps=tuple(f"step {t}" for t in range(problem.num_steps)),
        works=np.ones(problem.num_steps, dtype=np.bool_),
        compute=problem.compute,
        fixed_slow=problem.fixed_slow,
        limit=problem.limit,
        loops=tuple(
            _Loop(
                label=f"loop {k}",
                start=int(problem.loop_start[k]),
                end=int(problem.loop_end[k]),
                parent=int(problem.loop_parent[k]),
                executions=float(problem.loop_executions[k]),
            )
            for k in range(len(problem.loop_start))
        ),
        buffers=tuple(buffers),
        alignment=int(problem.alignment),
        slow_bandwidth=float(problem.slow_bandwidth),
    )


def _stays_of_mapping(line: _Line, mapping: Mapping) -> tuple[list[_Stay], list[str]]:
    """The stays of known buffers, and a line for each other one."""
    stays: list[_Stay] = []
    errors: list[str] = []
    for interval in mapping.intervals:
        if not 0 <= interval.buffer < len(line.buffers):
            errors.append(
                f"the stay in steps [{interval.start}, {interval.end}) is of buffer"
                f" {interval.buffer}; there are {len(line.buffers)}"
            )
            continue
        windows = [
            None if window is None else (int(window.start), int(window.done))
            for window in (interval.copy_in, interval.copy_out)
        ]
        stays.append(
            _Stay(
                buffer=int(interval.buffer),
                start=int(interval.start),
                end=int(interval.end),
                offset=int(interval.offset),
                copy_in=windows[0],
                copy_out=windows[1],
            )
        )
    return stays, errors


def _line_of_program(program: Program, header: _Header) -> _Line | str:
    """The line of all steps of the program, or what the chip of the file cannot hold."""
    align = header.alignment
    count = len(program.steps)
    if header.fast_memory > header.fast_bytes:
        return (
            f"fast_memory is {header.fast_memory} bytes, but chip {header.chip} has"
            f" {header.fast_bytes}"
        )
    scoped = [step.scoped_bytes if header.memory_space == 1 else 0 for step in program.steps]
    for instruction, reserved in zip(program.steps, scoped, strict=True):
        if reserved > header.fast_bytes:
            return (
                f"instruction {instruction.name} reserves {reserved} bytes of fast memory, but chip"
                f" {header.chip} has {header.fast_bytes}"
            )
    executions = np.array([step.executions for step in program.steps], dtype=np.float64)
    compute = executions * np.array([step.flops for step in program.steps]) / header.peak_flops
    other = np.array([step.other_bytes for step in program.steps], dtype=np.float64)
    fixed_slow = executions * other / header.slow_bandwidth
    works = (compute > 0) | (fixed_slow > 0) | (np.array(scoped) > 0)
    for loop in program.loops:
        works[[loop.start, loop.end - 1]] = True

    read: list[dict[int, int]] = [{} for _ in program.buffers]
    written: list[dict[int, int]] = [{} for _ in program.buffers]
    updated: set[tuple[int, int]] = set()
    for value in program.values:
        for use in value.uses:
            reads = read[value.buffer]
            reads[use.step] = reads.get(use.step, 0) + use.num_bytes
        if value.def_bytes > 0:
            writes = written[value.buffer]
            writes[value.def_step] = writes.get(value.def_step, 0) + value.def_bytes
            if value.updates:
                updated.add((value.buffer, value.def_step))
    buffers = []
    for index, buffer in enumerate(program.buffers):
        moved = Counter(read[index])
        moved.update(written[index])
        size = _aligned(buffer.size, align)
        movable = buffer.fixed_space is None and 0 < size <= header.fast_memory // align * align
        accesses = []
        for step in sorted(moved):
            seconds = float(executions[step]) * moved[step]
            writes_it = step in written[index]
            accesses.append(
                _Access(
                    step=step,
                    writes=writes_it,
                    defines=writes_it and step not in read[index] and (index, step) not in updated,
                    slow=seconds / header.slow_bandwidth,
                    fast=seconds / header.fast_bandwidth,
                )
            )
            if seconds > 0 or (movable and sum(moved.values()) > 0):
                works[step] = True
        buffers.append(
            _Buffer(
                label=f"{program.values[buffer.values[0]].position} (alias class {index})",
                size=size,
                accesses=tuple(accesses),
                initial=buffer.initial,
                live_out=buffer.live_out,
                live_start=buffer.live_start,
                live_end=min(buffer.live_end + 1, count),
            )
        )
    runs: list[float] = []
    for loop in program.loops:
        outer, total = loop.parent, float(loop.trip_count)
        while outer >= 0:
            total *= program.loops[outer].trip_count
            outer = program.loops[outer].parent
        runs.append(total)
    return _Line(
        steps=tuple(f"step {t} ({each.name})" for t, each in enumerate(program.steps)),
        works=works,
        compute=compute,
        fixed_slow=fixed_slow,
        limit=np.array(
            [min(header.fast_memory, (header.fast_bytes - s) // align * align) for s in scoped],
            dtype=np.int64,
        ),
        loops=tuple(
            _Loop(f"loop {loop.name}", loop.start, loop.end, loop.parent, executions_of_body)
            for loop, executions_of_body in zip(program.loops, runs, strict=True)
        ),
        buffers=tuple(buffers),
        alignment=align,
        slow_bandwidth=header.slow_bandwidth,
    )


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


# The rules.


def _broken_rules(line: _Line, stays: Sequence[_Stay]) -> list[str]:
    errors: list[str] = []
    sound: list[_Stay] = []
    for stay in stays:
        problems = list(_wrong_windows(line, stay))
        errors += problems
        if not problems:
            sound.append(stay)
    errors += _wrong_room(line, sound)
    errors += _overlaps(line, sound)
    own: list[list[_Stay]] = [[] for _ in line.buffers]
    for stay in sorted(sound, key=lambda s: (s.start, s.end)):
        own[stay.buffer].append(stay)
    for index, buffer in enumerate(line.buffers):
        errors += _wrong_copies(line, buffer, own[index])
        errors += _wrong_loops(line, own[index])
        errors += _stale_reads(line, buffer, own[index])
    return errors


def _wrong_windows(line: _Line, stay: _Stay) -> Iterator[str]:
    """The stay and its copies lie on the line, and the copies in the stay (rules 3 and 4)."""
    count = len(line.steps)
    if not 0 <= stay.start < stay.end <= count:
        yield f"{line.stay(stay)} is no range of steps within [0, {count})"
        return
    if line.place[stay.start] == line.place[stay.end]:
        yield f"{line.stay(stay)} covers no step that does any work"
    for kind, (start, done) in stay.copies:
        if not stay.start <= start <= done <= stay.end:
            yield f"{line.stay(stay)} has its {kind} in [{start}, {done}), not within the stay"
    if stay.copy_in is not None and stay.copy_in[0] != stay.start:
        yield (
            f"{line.stay(stay)} does not start with its copy-in, which starts at step"
            f" {stay.copy_in[0]}"
        )


def _wrong_room(line: _Line, stays: Iterable[_Stay]) -> Iterator[str]:
    """Rule 1 without overlaps: alignment, and room in every step."""
    for stay in stays:
        size = line.buffers[stay.buffer].size
        if stay.offset % line.alignment:
            yield (
                f"{line.stay(stay)} has offset {stay.offset}, not a multiple of the alignment,"
                f" {line.alignment}"
            )
        if stay.offset < 0:
            yield f"{line.stay(stay)} has offset {stay.offset}, below 0"
        free = line.limit[stay.start : stay.end]
        tightest = int(free.argmin())
        if stay.offset + size > free[tightest]:
            yield (
                f"{line.stay(stay)} needs bytes [{stay.offset}, {stay.offset + size}), but the"
                f" limit at {line.at(stay.start + tightest)} is {free[tightest]}"
            )


def _overlaps(line: _Line, stays: Sequence[_Stay]) -> Iterator[str]:
    """Stays that share a step share no byte; those of one buffer share no step."""
    ordered = sorted(stays, key=lambda s: (s.start, s.end, s.buffer, s.offset))
    start = np.array([s.start for s in ordered], dtype=np.int64)
    buffer = np.array([s.buffer for s in ordered], dtype=np.int64)
    low = np.array([s.offset for s in ordered], dtype=np.int64)
    high = low + np.array([line.buffers[s.buffer].size for s in ordered], dtype=np.int64)
    later = np.searchsorted(start, np.array([s.end for s in ordered], dtype=np.int64))
    for i, stay in enumerate(ordered):
        # All of these start within the stay, so they share its step `start[j]`.
        others = slice(i + 1, int(later[i]))
        same = buffer[others] == stay.buffer
        if same.any():
            other = ordered[i + 1 + int(same.argmax())]
            yield (
                f"{line.stay(stay)} overlaps another stay of the same value, in steps"
                f" [{other.start}, {other.end})"
            )
        clash = np.flatnonzero(~same & (low[others] < high[i]) & (high[others] > low[i]))
        if len(clash):
            first = i + 1 + int(clash[np.maximum(low[others][clash], low[i]).argmin()])
            other = ordered[first]
            more = f" (and {len(clash) - 1} more such stays)" if len(clash) > 1 else ""
            yield (
                f"{line.stay(stay)} overlaps that of {line.buffers[other.buffer].label} in bytes"
                f" [{max(low[i], low[first])}, {min(high[i], high[first])}) during steps"
                f" [{other.start}, {min(stay.end, other.end)}){more}"
            )


def _wrong_copies(line: _Line, buffer: _Buffer, stays: Iterable[_Stay]) -> Iterator[str]:
    """Rules 2, 3 and 4, but for validity in slow memory."""
    for stay in stays:
        within = [a for a in buffer.accesses if stay.start <= a.step < stay.end]
        if stay.copy_in is None and not any(a.step == stay.start and a.defines for a in within):
            yield (
                f"{line.stay(stay)} has no copy-in, but {line.at(stay.start)} does not define"
                " the value"
            )
        for access in within:
            if access.writes and access.step < stay.ready:
                yield (
                    f"{line.stay(stay)} is copied in during [{stay.start}, {stay.ready}), but"
                    f" {line.at(access.step)} writes the value during the copy"
                )
        if stay.copy_out is None:
            continue
        start = stay.copy_out[0]
        for access in within:
            if access.writes and access.step >= max(start, stay.ready):
                yield (
                    f"{line.stay(stay)} is copied out from step {start} on, but"
                    f" {line.at(access.step)} writes the value after that"
                )
        if line.place[start] < line.place[stay.ready]:
            yield (
                f"{line.stay(stay)} is copied out from step {start} on, before its copy-in is"
                f" done at step {stay.ready}"
            )


def _wrong_loops(line: _Line, stays: Iterable[_Stay]) -> Iterator[str]:
    """Rule 6 without validity: how stays and copies lie to the bodies of loops."""
    for stay in stays:
        start, end = line.span(stay)
        levels = set(line.levels(stay))
        for index, loop in enumerate(line.loops):
            first, last = line.body(index)
            if index in levels or end <= first or start >= last:
                continue
            if start > first or end < last:
                yield (
                    f"{line.stay(stay)} crosses the border of {loop.label}, whose body is steps"
                    f" [{loop.start}, {loop.end}): it must lie in the body, cover it all or keep"
                    " out of it"
                )
                continue
            for kind, window in stay.copies:
                for what, position in zip(("starts", "is done"), window, strict=True):
                    if first < line.place[position] < last:
                        yield (
                            f"{line.stay(stay)} covers the body of {loop.label}, steps"
                            f" [{loop.start}, {loop.end}), but its {kind} {what} inside of it, at"
                            f" {line.at(position)}"
                        )


def _stale_reads(line: _Line, buffer: _Buffer, stays: Sequence[_Stay]) -> Iterator[str]:
    """Rules 3, 5 and 6: whoever reads slow memory finds the data there.

    One pass along the line. It stands for every iteration of a loop, because rule 6 wants slow
    memory as valid at the end of the body as at its start.
    """
    # At one position: copies of earlier stays are done, then bodies end and start, then stays
    # start (where a whole copy-out may be done at once), then the step runs. The last entry is
    # the access.
    events: list[tuple[int, int, str, int]] = []
    for index, loop in enumerate(line.loops):
        first, last = line.body(index)
        if not any(first <= a.step < last for a in buffer.accesses) or any(
            line.spans_iterations(stay, index) for stay in stays
        ):
            continue
        if line.lives_before(buffer, index):
            events.append((first, 2, f"before the first iteration of {loop.label}", -1))
        if line.lives_before(buffer, index) or line.lives_after(buffer, index):
            events.append((last, 1, f"at the end of the body of {loop.label}", -1))
    for stay in stays:
        start = line.place[stay.start]
        if stay.copy_in is not None:
            events.append((start, 3, f"copy-in at step {stay.start}", -1))
        if stay.copy_out is not None:
            done = line.place[stay.copy_out[1]]
            events.append((done, 0 if start < done else 4, "copy-out", -1))
    events += [(access.step, 5, "", number) for number, access in enumerate(buffer.accesses)]
    if buffer.live_out:
        events.append((len(line.steps), 6, "the result of the program", -1))

    # Data that no access defines, an allocated buffer for example, is there from the start.
    valid = buffer.initial or not buffer.accesses or not buffer.accesses[0].defines
    writer = "nothing has written it yet"
    for _, order, who, number in sorted(events):
        if order in (0, 4):
            valid = True
        elif order == 5:
            access = buffer.accesses[number]
            if any(stay.ready <= access.step < stay.end for stay in stays):
                if access.writes:
                    valid = False
                    writer = f"{line.at(access.step)} wrote it in fast memory"
                continue
            if not valid and not access.defines:
                yield (
                    f"{buffer.label}: {line.at(access.step)} reads slow memory, where the value"
                    f" is not valid: {writer} and no copy-out is done"
                )
            valid = True
        elif not valid:
            yield (
                f"{buffer.label}: {who} needs slow memory, where the value is not valid: {writer}"
                " and no copy-out is done"
            )
            valid = True  # one line for one cause


# The model of time.


def _seconds(line: _Line, stays: Iterable[_Stay]) -> float:
    """Modelled seconds; stays that are no range of steps count as not there."""
    count = len(line.steps)
    stays = [stay for stay in stays if not any(_wrong_windows(line, stay))]
    slow = line.fixed_slow.tolist()
    fast = [0.0] * count
    own: list[list[_Stay]] = [[] for _ in line.buffers]
    for stay in stays:
        own[stay.buffer].append(stay)
    for buffer, its_stays in zip(line.buffers, own, strict=True):
        for access in buffer.accesses:
            if any(stay.ready <= access.step < stay.end for stay in its_stays):
                fast[access.step] += access.fast
            else:
                slow[access.step] += access.slow

    # (place of the start, place of the wait, buffer, seconds of work) of each copy, either way.
    copies: list[list[tuple[int, int, int, float]]] = [[], []]
    for stay in stays:
        runs = max((line.loops[loop].executions for loop in _innermost(line, stay)), default=1.0)
        work = runs * line.buffers[stay.buffer].size / line.slow_bandwidth
        for kind, (start, done) in stay.copies:
            copies[kind == "copy-out"].append(
                (line.place[start], line.place[done], stay.buffer, work)
            )
    arrivals: list[deque[tuple[int, int, float]]] = [deque(), deque()]  # (start, rank, work)
    last_awaited: list[dict[int, int]] = [{}, {}]  # place of the wait -> highest rank
    for way in range(2):
        for rank, (start, done, _, work) in enumerate(sorted(copies[way])):
            arrivals[way].append((start, rank, work))
            last_awaited[way][done] = rank
    queues: list[deque[list[float]]] = [deque(), deque()]  # entries [rank, work left]
    total = 0.0
    for step in range(count + 1):
        for arriving, queue in zip(arrivals, queues, strict=True):
            while arriving and arriving[0][0] <= step:
                _, rank, work = arriving.popleft()
                queue.append([rank, work])
        for way in range(2):
            queue, other = queues[way], queues[1 - way]
            awaited = math.inf if step == count else last_awaited[way].get(step, -1)
            while queue and queue[0][0] <= awaited:
                total += _serve(queue, other, math.inf)
        if step < count:
            elapsed = max(float(line.compute[step]), slow[step] + fast[step])
            total += elapsed
            idle = elapsed - slow[step]
            while idle > 0 and any(queues):
                queue, other = queues if queues[0] else queues[::-1]
                idle -= _serve(queue, other, idle)
    return total


def _innermost(line: _Line, stay: _Stay) -> list[int]:
    """The one innermost loop that the stay is inside of, or none."""
    levels = line.levels(stay)
    return [loop for loop in levels if not any(line.loops[k].parent == loop for k in levels)]


def _serve(queue: deque[list[float]], other: deque[list[float]], limit: float) -> float:
    """Works on the heads of the queues for at most `limit` seconds, until one of them is done.

    `queue` is not empty; each queue has half of the bandwidth while both hold work.
    """
    share = 2.0 if other else 1.0
    work = min(queue[0][1], other[0][1] if other else math.inf, limit / share)
    for each in (queue, other):
        if each and each[0][1] <= work:
            each.popleft()
        elif each:
            each[0][1] -= work
    return share * work


def _wrong_seconds(what: str, stated: float, recomputed: float) -> Iterator[str]:
    if not math.isclose(stated, recomputed, rel_tol=_TOLERANCE):
        yield f"{what} stated {stated!r}, recomputed {recomputed!r}"


# The mapping file.


class _MalformedError(Exception):
    """A node of the file that cannot be read; the message says which and why."""


@dataclass(frozen=True)
class _Header:
    fingerprint: str
    chip: str
    peak_flops: float
    slow_bandwidth: float
    fast_bandwidth: float
    fast_bytes: int
    memory_space: int
    alignment: int
    fast_memory: int
    objective: float
    all_slow: float
    rows: list[object]


@dataclass(frozen=True)
class _FileStay:
    """A stay as a value lists it: `buffer` of the stay is not known yet, hence no `_Stay`."""

    offset: int
    start: int
    end: int
    copy_in: tuple[int, int] | None
    copy_out: tuple[int, int] | None
    names: tuple[tuple[str, int, str | None], ...]

    @property
    def key(self) -> tuple[int, int, int, tuple[int, int] | None, tuple[int, int] | None]:
        return self.offset, self.start, self.end, self.copy_in, self.copy_out


@dataclass(frozen=True)
class _Row:
    shape: str
    size: int
    alias_class: int
    memory_space: str
    stays: tuple[_FileStay, ...]
    produced_in: str
    uses: tuple[tuple[str, int, int, tuple[int, ...], str], ...]


def _short(node: object) -> str:
    text = repr(node) if isinstance(node, str | int | float | bool | None) else type(node).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def _child(node: object, key: str) -> object:
    if not isinstance(node, dict):
        raise _MalformedError(f"expected an object, found {_short(node)}")
    if key not in node:
        raise _MalformedError(f"field '{key}' is missing")
    return node[key]


def _text(node: object, key: str, options: Sequence[str] = ()) -> str:
    text = _child(node, key)
    if not isinstance(text, str):
        raise _MalformedError(f"'{key}' is {_short(text)}, expected a text")
    if options and text not in options:
        raise _MalformedError(f"'{key}' is {_short(text)}, expected one of {', '.join(options)}")
    return text


def _optional_text(node: object, key: str) -> str | None:
    return None if _child(node, key) is None else _text(node, key)


def _integer(node: object, key: str, low: int, high: int = _LARGEST) -> int:
    number = _child(node, key)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise _MalformedError(
            f"'{key}' is {_short(number)}, expected an integer from {low} to {high}"
        )
    return number


def _number(node: object, key: str, low: float, high: float = 1e30) -> float:
    number = _child(node, key)
    if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
        raise _MalformedError(
            f"'{key}' is {_short(number)}, expected a number from {low:g} to {high:g}"
        )
    return float(number)


def _list(node: object, key: str) -> list[object]:
    entries = _child(node, key)
    if not isinstance(entries, list):
        raise _MalformedError(f"'{key}' is {_short(entries)}, expected a list")
    return entries


def _read_header(data: object) -> _Header:
    schema = _text(data, "schema")
    if schema != _SCHEMA:
        raise _MalformedError(f"schema is {_short(schema)}, expected '{_SCHEMA}'")
    program = _child(data, "program")
    for key in ("name", "source"):
        _text(program, key)
    chip = _child(data, "chip")
    _number(chip, "clock_hz", _SMALLEST_RATE)
    _text(data, "unit", ["s"])
    _text(data, "method")
    return _Header(
        fingerprint=_text(program, "fingerprint"),
        chip=_short(_text(chip, "name")),
        peak_flops=_number(chip, "peak_flops", _SMALLEST_RATE),
        slow_bandwidth=_number(chip, "slow_bandwidth", _SMALLEST_RATE),
        fast_bandwidth=_number(chip, "fast_bandwidth", _SMALLEST_RATE),
        fast_bytes=_integer(chip, "fast_bytes", 1),
        memory_space=_integer(chip, "memory_space", 1),
        alignment=_integer(chip, "alignment", 1),
        fast_memory=_integer(data, "fast_memory", 0),
        objective=_number(data, "objective", 0.0),
        all_slow=_number(data, "all_slow", 0.0),
        rows=_list(data, "values"),
    )


def _read_row(row: object, num_steps: int) -> _Row:
    _optional_text(row, "why_slow")
    uses = []
    for use in _list(row, "uses"):
        index = _list(use, "index")
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in index):
            raise _MalformedError("'index' of a use is not a list of integers")
        uses.append(
            (
                _text(use, "instruction"),
                _integer(use, "step", 0, num_steps),
                _integer(use, "operand", 0),
                tuple(i for i in index if isinstance(i, int)),
                _text(use, "memory_space", ["fast", "slow"]),
            )
        )
    return _Row(
        shape=_text(row, "shape"),
        size=_integer(row, "size", 0),
        alias_class=_integer(row, "alias_class", 0),
        memory_space=_text(row, "memory_space", ["fast", "slow", "mixed", "fixed"]),
        stays=tuple(_read_stay(stay, num_steps) for stay in _list(row, "stays")),
        produced_in=_text(row, "produced_in", ["fast", "slow"]),
        uses=tuple(uses),
    )


def _read_stay(node: object, num_steps: int) -> _FileStay:
    start = _integer(node, "start", 0, num_steps)
    end = _integer(node, "end", 0, num_steps)
    names: list[tuple[str, int, str | None]] = [
        ("start_instruction", start, _text(node, "start_instruction")),
        ("last_instruction", end - 1, _text(node, "last_instruction")),
    ]
    windows: list[tuple[int, int] | None] = []
    for key in ("copy_in", "copy_out"):
        copy = _child(node, key)
        if copy is None:
            windows.append(None)
            continue
        window = (_integer(copy, "start", 0, num_steps), _integer(copy, "done", 0, num_steps))
        names += [
            (f"{key} start_before", window[0], _optional_text(copy, "start_before")),
            (f"{key} done_before", window[1], _optional_text(copy, "done_before")),
        ]
        windows.append(window)
    return _FileStay(
        _integer(node, "offset", 0), start, end, windows[0], windows[1], names=tuple(names)
    )


def _wrong_rows(program: Program, rows: Sequence[object]) -> list[str]:
    """Every value of the program has exactly one row, in schedule order."""
    errors: list[str] = []
    found: list[str] = []
    for number, row in enumerate(rows):
        try:
            found.append(_text(row, "value"))
        except _MalformedError as error:
            errors.append(f"row {number} of 'values': {error}")
    if errors:
        return errors
    expected = [value.position for value in program.values]
    want, have = Counter(expected), Counter(found)
    for position in dict.fromkeys(expected + found):
        if want[position] == 0:
            errors.append(f"{_short(position)}: the program has no such value")
        elif have[position] < want[position]:
            errors.append(
                f"{position}: the value is missing: {have[position]} rows, expected"
                f" {want[position]}"
            )
        elif have[position] > want[position]:
            errors.append(
                f"{position}: the value is there more than once: {have[position]} rows, expected"
                f" {want[position]}"
            )
    if not errors:
        for number, (position, right) in enumerate(zip(found, expected, strict=True)):
            if position != right:
                return [
                    f"{position}: row {number} of 'values' is out of schedule order, expected"
                    f" {right} there"
                ]
    return errors


def _wrong_facts(program: Program, header: _Header, value: Value, row: _Row) -> Iterator[str]:
    """What the row says of the program itself."""
    size = _aligned(value.size, header.alignment)
    if row.size != size:
        yield f"{value.position}: size is {row.size}, expected {size} bytes"
    if row.shape != value.shape:
        yield f"{value.position}: shape is {_short(row.shape)}, expected {value.shape}"
    if row.alias_class != value.buffer:
        yield f"{value.position}: alias_class is {row.alias_class}, expected {value.buffer}"
    expected = [
        (program.steps[use.step].name, use.step, use.operand, use.index) for use in value.uses
    ]
    if len(row.uses) != len(expected):
        yield f"{value.position}: {len(row.uses)} uses, expected {len(expected)}"
    else:
        for number, (found, right) in enumerate(zip(row.uses, expected, strict=True)):
            if found[:4] != right:
                yield (
                    f"{value.position}: use {number} is {_use(*found[:4])}, expected {_use(*right)}"
                )
    for stay in row.stays:
        for what, step, name in stay.names:
            right_name = program.steps[step].name if 0 <= step < len(program.steps) else None
            if name != right_name:
                yield (
                    f"{value.position}: {what} of the stay in steps [{stay.start}, {stay.end}) is"
                    f" {_short(name)}, expected {right_name} of step {step}"
                )


def _use(instruction: str, step: int, operand: int, index: tuple[int, ...]) -> str:
    leaf = f"{{{','.join(map(str, index))}}}" if index else ""
    return f"operand {operand}{leaf} of step {step} ({instruction})"


def _stays_of_rows(program: Program, rows: Sequence[_Row]) -> tuple[list[_Stay], list[str]]:
    """Every stay once, and a line for each that contradicts another of its alias class."""
    stays: list[_Stay] = []
    errors: list[str] = []
    for index, buffer in enumerate(program.buffers):
        found: dict[object, tuple[_FileStay, str]] = {}
        for value in buffer.values:
            listed = rows[value].stays
            position = program.values[value].position
            if len({stay.key for stay in listed}) < len(listed):
                errors.append(f"{position}: a stay is listed twice")
            for stay in listed:
                for other, first in found.values():
                    if (
                        first != position
                        and stay.key != other.key
                        and (stay.start < other.end and other.start < stay.end)
                    ):
                        errors.append(
                            f"{position}: broken alias: its stay in steps [{stay.start},"
                            f" {stay.end}) at offset {stay.offset} is not that of {first}, of the"
                            f" same alias class {index}, in steps [{other.start}, {other.end}) at"
                            f" offset {other.offset}"
                        )
                found.setdefault(stay.key, (stay, position))
        stays += [
            _Stay(index, s.start, s.end, s.offset, s.copy_in, s.copy_out) for s, _ in found.values()
        ]
    return stays, errors


def _wrong_lists(program: Program, rows: Sequence[_Row], stays: Sequence[_Stay]) -> Iterator[str]:
    """The values that list a stay are those of its class that live in one of its steps."""
    lives = [_life(program, value) for value in program.values]
    for stay in stays:
        key = (stay.offset, stay.start, stay.end, stay.copy_in, stay.copy_out)
        for index in program.buffers[stay.buffer].values:
            first, end = lives[index]
            living = stay.start < end and first < stay.end
            listed = any(other.key == key for other in rows[index].stays)
            if living and not listed:
                yield (
                    f"{program.values[index].position}: broken alias: it does not list the stay of"
                    f" its alias class {stay.buffer} in steps [{stay.start}, {stay.end}) at offset"
                    f" {stay.offset}"
                )
            if listed and not living:
                yield (
                    f"{program.values[index].position}: lists the stay in steps [{stay.start},"
                    f" {stay.end}), but the value lives in steps [{first}, {end})"
                )


def _life(program: Program, value: Value) -> tuple[int, int]:
    """Steps [start, end) in which the value may hold data, loops taken as a whole."""
    buffer = program.buffers[value.buffer]
    first = value.def_step
    if buffer.initial and value.def_bytes == 0:
        first = min(first, buffer.live_start)
    end = 1 + max([value.def_step, *(use.step for use in value.uses)])
    if buffer.live_out and program.values[buffer.values[-1]] is value:
        end = len(program.steps)
    for loop in sorted(program.loops, key=lambda loop: loop.end - loop.start):
        if first < loop.end and end > loop.start and buffer.live_start < loop.start:
            first, end = min(first, loop.start), max(end, loop.end)
    return first, end


def _wrong_spaces(
    program: Program, line: _Line, rows: Sequence[_Row], stays: Sequence[_Stay]
) -> Iterator[str]:
    """`memory_space` and `produced_in` say what the stays say."""
    own: list[list[_Stay]] = [[] for _ in program.buffers]
    for stay in stays:
        own[stay.buffer].append(stay)
    for value, row in zip(program.values, rows, strict=True):
        fixed = program.buffers[value.buffer].fixed_space
        if fixed is not None and (row.memory_space != "fixed" or row.stays):
            yield (
                f"{value.position}: memory_space is {row.memory_space} with {len(row.stays)}"
                f" stays, expected fixed without stays: the program prescribes space {fixed}"
            )
            continue
        if len(row.uses) != len(value.uses):
            continue
        spaces = [_space(own[value.buffer], use.step) for use in value.uses]
        for use, (_, _, _, _, stated), right in zip(value.uses, row.uses, spaces, strict=True):
            if stated != right:
                yield (
                    f"{value.position}: the use as operand {use.operand} of {line.at(use.step)}"
                    f" is said to be in {stated} memory, but is in {right} memory"
                    f"{_late(own[value.buffer], use.step) if stated == 'fast' else ''}"
                )
        # What is there before the program starts was produced by nobody: it is in slow memory.
        produced = _space(own[value.buffer], value.def_step) if value.def_bytes > 0 else "slow"
        if row.produced_in != produced:
            yield (
                f"{value.position}: is said to be produced in {row.produced_in} memory by"
                f" {line.at(value.def_step)}, but is produced in {produced} memory"
            )
        if value.def_bytes > 0:
            spaces.append(produced)
        if not row.stays or (spaces and "fast" not in spaces):
            label = "slow"
        else:
            label = "mixed" if "slow" in spaces else "fast"
        if fixed is None and row.memory_space != label:
            yield (
                f"{value.position}: memory_space is {row.memory_space}, expected {label}:"
                f" {spaces.count('fast')} of its {len(spaces)} accesses are in fast memory, in"
                f" {len(row.stays)} stays"
            )


def _space(stays: Iterable[_Stay], step: int) -> str:
    return "fast" if any(stay.ready <= step < stay.end for stay in stays) else "slow"


def _late(stays: Iterable[_Stay], step: int) -> str:
    for stay in stays:
        if stay.start <= step < stay.ready:
            return f": late copy, done only before step {stay.ready}"
    return ""
