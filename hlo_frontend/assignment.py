"""The memory-space assignment that a dump already has: taken out of the schedule, and kept.

The TPU compiler moves values between slow memory (space 0) and fast memory (space 1, VMEM, or 3,
CMEM) with `copy-start/done`, and with several `slice-start/done` whose results the custom call
`ConcatBitcast` puts together. `strip` removes these from the flattened schedule; `stays` reads
from the schedule before it how long which alias class was in fast memory.

Slices that do not make up the whole value are another value and stay in the schedule, and so do
copies to other memories and synchronous copies: they are the program's own work.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from itertools import accumulate

from hlo_frontend.aliasing import alias_classes
from hlo_frontend.dataflow import Dataflow
from hlo_frontend.flatten import Flat, FlatLoop, FlatStep, Frame, Role
from hlo_frontend.module import Module
from hlo_frontend.program import AssignedInterval, CopyWindow
from hlo_frontend.shapes import Shape

SLOW = 0
FAST = frozenset({1, 3})
"""VMEM and CMEM."""
_CONCAT = "ConcatBitcast"


@dataclass(frozen=True)
class Move:
    """A copy between the memories: it runs from step `start` to step `done`.

    `source` is the step whose result is copied, `result` the step whose result is the copy, and
    `removed` all the steps that do it.
    """

    source: int
    result: int
    start: int
    done: int
    into_fast: bool
    removed: frozenset[int]


@dataclass(frozen=True)
class Stripped:
    """A schedule without moves; `before[i]` steps of it come before step i of the original."""

    flat: Flat
    before: list[int]


def find_moves(flat: Flat) -> list[Move]:
    """All copies between slow and fast memory in a flattened schedule."""
    users: list[list[int]] = [[] for _ in flat.steps]
    for index, step in enumerate(flat.steps):
        for operand in step.operands:
            users[operand].append(index)
    moves = []
    for index, step in enumerate(flat.steps):
        if step.instruction.target == _CONCAT:
            moves.append(_sliced_move(flat, users, index))
        elif step.instruction.opcode == "copy-done" or _wrapped(flat, index) == "copy":
            moves.append(_whole_move(flat, users, index))
    return [move for move in moves if move is not None]


def strip(flat: Flat, moves: list[Move]) -> Stripped:
    """Takes the moves out; who read a copy now reads its source."""
    removed = frozenset().union(*(move.removed for move in moves))
    source_of = {move.result: move.source for move in moves}
    before = list(accumulate((i not in removed for i in range(len(flat.steps))), initial=0))

    def renumbered(step: int) -> int:
        while step in source_of:
            step = source_of[step]
        return before[step]

    gone = {frame for step in removed for frame in flat.steps[step].frames}
    frame_number = list(accumulate((f not in gone for f in range(len(flat.frames))), initial=0))
    frames = [
        Frame(
            frame.role,
            tuple(map(renumbered, frame.arguments)),
            frame.loop,
            before[frame.start],
            before[frame.end],
            renumbered(frame.root),
        )
        for number, frame in enumerate(flat.frames)
        if number not in gone
    ]
    steps = [
        FlatStep(
            step.instruction,
            step.computation,
            frame_number[step.frame],
            step.loop,
            step.executions,
            tuple(map(renumbered, step.operands)),
            tuple(frame_number[frame] for frame in step.frames),
        )
        for index, step in enumerate(flat.steps)
        if index not in removed
    ]
    loops = [
        FlatLoop(
            loop.name,
            before[loop.start],
            before[loop.end],
            loop.trip_count,
            loop.trip_known,
            loop.parent,
        )
        for loop in flat.loops
    ]
    return Stripped(Flat(steps, frames, loops), before)


def stays(
    module: Module,
    flat: Flat,
    flow: Dataflow,
    moves: list[Move],
    stripped: Stripped,
    buffer_of: list[list[int]],
) -> tuple[AssignedInterval, ...] | None:
    """The stays in fast memory, in stripped steps; None if nothing is in fast memory at all.

    Args:
        module: the module.
        flat: the schedule with its moves.
        flow: values of `flat`.
        moves: what `find_moves` found in it.
        stripped: the schedule without moves.
        buffer_of: per step and leaf of `stripped.flat` the index of the buffer in it.

    The values of one alias class that follow one another without a gap are one stay. It has one
    write-back, the last one.
    """
    joined = []
    arrivals: dict[int, Move] = {}
    departures: dict[int, Move] = {}
    for move in moves:
        if not move.into_fast:
            departures[flow.leaves[move.source][0]] = move
            continue
        pieces = flat.steps[move.result].operands
        for step in (move.result, *(pieces if len(pieces) > 1 else ())):
            arrivals[flow.leaves[step][0]] = move
            joined.append((flow.leaves[move.result][0], flow.leaves[step][0]))
    before = stripped.before
    source_of = {move.result: move.source for move in moves}

    def window(move: Move) -> CopyWindow:
        return CopyWindow(before[move.start], before[move.done])

    def buffer(step: int, leaf: int) -> int:
        while step in source_of:
            step, leaf = source_of[step], 0
        return buffer_of[before[step]][leaf]

    classes = alias_classes(module, flat, flow, forced=tuple(joined))
    intervals = []
    for values in _stretches(flat, flow, classes, arrivals):
        first = flow.values[values[0]]
        arrival = arrivals.get(values[0])
        leaving = [departures[value] for value in values if value in departures]
        start = before[arrival.start if arrival else first.start]
        end = before[max(flow.values[value].end for value in values) + 1]
        intervals.append(
            AssignedInterval(
                buffer(arrival.result, 0) if arrival else buffer(first.step, first.leaf),
                start,
                max(start, end),
                window(arrival) if arrival else None,
                window(max(leaving, key=lambda move: move.done)) if leaving else None,
                first.shape.memory_space,
            )
        )
    if not intervals:
        return None
    return tuple(sorted(intervals, key=lambda stay: (stay.start, stay.end, stay.buffer)))


def _stretches(
    flat: Flat, flow: Dataflow, classes: list[int], arrived: Container[int]
) -> list[list[int]]:
    """Values in fast memory, by alias class and unbroken stretch of time.

    A buffer that a loop carries in fast memory has its place there for the whole body, also where
    it holds nothing between the last read of the old value and the definition of the new one;
    unless the body itself moves it back in.
    """
    members: dict[int, list[int]] = {}
    for value, representative in enumerate(classes):
        shape = flow.values[value].shape
        if shape.is_array and shape.memory_space in FAST:
            members.setdefault(representative, []).append(value)
    stretches: list[list[int]] = []
    for values in members.values():
        end = -1
        for value in sorted(values, key=lambda v: flow.values[v].start):
            record = flow.values[value]
            if record.start > end:
                stretches.append([])
            stretches[-1].append(value)
            end = max(end, record.end)
            frame = flat.frames[flat.steps[record.step].frame]
            returned = (
                other in arrived and frame.start <= flow.values[other].start < frame.end
                for other in values
            )
            if record.phi and frame.role is Role.BODY and not any(returned):
                end = max(end, frame.end)
    return stretches


def _wrapped(flat: Flat, index: int) -> str:
    """Opcode of the one instruction in an asynchronous computation that this step waits for."""
    step = flat.steps[index]
    if step.instruction.opcode != "async-done":
        return ""
    start = flat.steps[step.operands[0]]
    if start.instruction.opcode != "async-start" or not start.frames:
        return ""
    frame = flat.frames[start.frames[0]]
    opcodes = [flat.steps[i].instruction.opcode for i in range(frame.start, frame.end)]
    return opcodes[1] if len(opcodes) == 2 and opcodes[0] == "parameter" else ""


def _steps_of(flat: Flat, done: int) -> set[int]:
    """The steps of an asynchronous operation, including those of the computation it wraps."""
    start = flat.steps[done].operands[0]
    steps = {start, done}
    for frame in flat.steps[start].frames:
        steps |= set(range(flat.frames[frame].start, flat.frames[frame].end))
    return steps


def _into_fast(source: Shape, copy: Shape) -> bool | None:
    """The direction of a copy between slow and fast memory; None if it is none."""
    spaces = (source.memory_space, copy.memory_space)
    if not (source.is_array and copy.is_array):
        return None
    if spaces[0] == SLOW and spaces[1] in FAST:
        return True
    return False if spaces[0] in FAST and spaces[1] == SLOW else None


def _whole_move(flat: Flat, users: list[list[int]], done: int) -> Move | None:
    start = flat.steps[done].operands[0]
    source = flat.steps[start].operands[0]
    before = flat.steps[source].instruction.shape
    after = flat.steps[done].instruction.shape
    into_fast = _into_fast(before, after)
    same = replace(before, memory_space=SLOW) == replace(after, memory_space=SLOW)
    if into_fast is None or not same or users[start] != [done]:
        return None
    return Move(source, done, start, done, into_fast, frozenset(_steps_of(flat, done)))


def _sliced_move(flat: Flat, users: list[list[int]], concat: int) -> Move | None:
    dones = flat.steps[concat].operands
    if any(_wrapped(flat, done) != "slice" or users[done] != [concat] for done in dones):
        return None
    starts = [flat.steps[done].operands[0] for done in dones]
    sources = {flat.steps[start].operands[0] for start in starts}
    if len(sources) != 1 or any(
        users[start] != [done] for start, done in zip(starts, dones, strict=True)
    ):
        return None
    source = sources.pop()
    before = flat.steps[source].instruction.shape
    after = flat.steps[concat].instruction.shape
    pieces = sum(flat.steps[done].instruction.shape.logical_bytes for done in dones)
    whole = pieces == before.logical_bytes and before.padded_bytes == after.padded_bytes
    if not _into_fast(before, after) or not whole:
        return None
    removed = {concat}.union(*(_steps_of(flat, done) for done in dones))
    return Move(source, concat, min(starts), max(dones), True, frozenset(removed))
