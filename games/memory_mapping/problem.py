"""The memory-mapping problem: which values of a program live in fast memory, when, copied how.

Time is a line of steps 0..T-1, the instructions of the flattened schedule that cost anything.
Everything below is weighted: seconds of a step are those of all its executions, so a loop body
stands once on the line (`hlo_frontend.program`). Sizes are bytes, rounded up to the alignment.

Cost of a step t, after XLA's `CostAnalysis` (xla/service/memory_space_assignment/cost_analysis.cc):

    slow_t    = fixed_slow_t + sum of access_slow over its accesses left in slow memory
    fast_t    = sum of access_fast over its accesses in fast memory
    elapsed_t = max(compute_t, slow_t + fast_t)

and copies between the memories run in the slow memory's idle time, elapsed_t - slow_t
(`simulator.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from games.memory_mapping.chips import Chip
from hlo_frontend.errors import InputError
from hlo_frontend.program import Program

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SCHEMA = "compiler-rl/memory-mapping-problem/1"


@dataclass(frozen=True, eq=False)
class MemoryMappingProblem:
    """Arrays of one problem. T steps, L loops, V buffers (alias classes), A accesses.

    Only buffers that could go to fast memory are here: the traffic of the others is in
    `fixed_slow`. Accesses are grouped by buffer and sorted by step, at most one for a buffer and
    a step: those of buffer v are `first_access[v]:first_access[v + 1]`.

    Attributes:
        name: program name.
        fingerprint: `Program.fingerprint` of the program it was made from.
        capacity: bytes of fast memory that values may use.
        alignment: bytes.
        slow_bandwidth: bytes per second of slow memory; copies share it.
        compute: f64[T] seconds of arithmetic.
        fixed_slow: f64[T] seconds of slow-memory traffic that no mapping changes.
        limit: i64[T] bytes of fast memory free for values during the step (capacity, or what
            scoped reservations leave of the physical memory).
        step_loop: i64[T] innermost loop around the step, -1 if none.
        program_step: i64[T] index of the step in `Program.steps`.
        loop_start, loop_end: i64[L] body as steps [start, end).
        loop_parent: i64[L] enclosing loop, -1 if none.
        loop_executions: f64[L] executions of the body in one run of the program.
        size: i64[V] bytes.
        live_start, live_end: i64[V] steps [start, end) in which the buffer holds data.
        initial: bool[V] valid in slow memory before the first step (parameters, constants).
        live_out: bool[V] must be valid in slow memory after the last step.
        program_buffer: i64[V] index in `Program.buffers`.
        first_access: i64[V + 1].
        access_step: i64[A].
        access_buffer: i64[A].
        access_slow, access_fast: f64[A] seconds of the access in either memory.
        access_writes: bool[A] the step changes the buffer.
        access_defines: bool[A] the step needs nothing of what was there before (implies writes).
    """

    name: str
    fingerprint: str
    capacity: int
    alignment: int
    slow_bandwidth: float
    compute: Floats
    fixed_slow: Floats
    limit: Ints
    step_loop: Ints
    program_step: Ints
    loop_start: Ints
    loop_end: Ints
    loop_parent: Ints
    loop_executions: Floats
    size: Ints
    live_start: Ints
    live_end: Ints
    initial: Bools
    live_out: Bools
    program_buffer: Ints
    first_access: Ints
    access_step: Ints
    access_buffer: Ints
    access_slow: Floats
    access_fast: Floats
    access_writes: Bools
    access_defines: Bools

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.compute)

    @property
    def num_buffers(self) -> int:
        """V."""
        return len(self.size)

    @property
    def num_accesses(self) -> int:
        """A."""
        return len(self.access_step)

    @cached_property
    def all_slow(self) -> float:
        """Modelled seconds with every value in slow memory."""
        slow = self.fixed_slow + np.bincount(
            self.access_step, weights=self.access_slow, minlength=self.num_steps
        )
        return float(np.maximum(self.compute, slow).sum())

    @cached_property
    def copy_seconds(self) -> Floats:
        """f64[V] seconds that one copy of the buffer needs of the slow memory's bandwidth."""
        return self.size / self.slow_bandwidth

    def save(self, path: Path) -> None:
        """Writes the problem to an `.npz` file, losslessly."""
        data = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, schema=np.asarray(SCHEMA), **data)

    @classmethod
    def load(cls, path: Path) -> MemoryMappingProblem:
        """Reads what `save` wrote.

        Raises:
            InputError: not such a file, or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                schema = str(data["schema"])
                if schema != SCHEMA:
                    raise InputError(f"{path}: schema is {schema}, expected {SCHEMA}")
                values = {
                    field.name: data[field.name].item()
                    if data[field.name].ndim == 0
                    else data[field.name]
                    for field in fields(cls)
                }
        except InputError:
            raise
        except Exception as error:  # numpy raises whatever the zip reader does
            raise InputError(f"{path}: not a saved memory-mapping problem ({error})") from error
        return cls(**values)


def from_program(
    program: Program, chip: Chip, fast_memory: int | None = None
) -> MemoryMappingProblem:
    """The problem of mapping `program` onto `chip`.

    Args:
        program: what the frontend read.
        chip: bandwidths, peak, alignment.
        fast_memory: bytes that values may use; the chip's physical size if None. Scoped
            reservations of instructions are taken from the physical memory, so they bind only
            where the two together exceed it.

    Raises:
        InputError: no step, a fast memory too small for any value or larger than the chip's, or
            scoped reservations that the chip cannot hold.
    """
    if not any(step.flops > 0 or step.other_bytes > 0 for step in program.steps) and not any(
        value.def_bytes > 0 or value.uses for value in program.values
    ):
        raise InputError(f"{program.source}: the program does no work, so there is nothing to map")
    align = chip.alignment
    capacity = (chip.fast_bytes if fast_memory is None else fast_memory) // align * align
    if fast_memory is not None and fast_memory > chip.fast_bytes:
        raise InputError(
            f"fast memory of {fast_memory} bytes: chip {chip.name} has {chip.fast_bytes};"
            " give less, or a chip file with more"
        )
    # Scoped reservations are in VMEM; they take nothing from a CMEM.
    scoped = np.array([s.scoped_bytes if chip.memory_space == 1 else 0 for s in program.steps])
    worst = int(scoped.argmax())
    if scoped[worst] > chip.fast_bytes:
        raise InputError(
            f"chip {chip.name} has {chip.fast_bytes} bytes of fast memory, but instruction"
            f" {program.steps[worst].name} reserves {scoped[worst]} for itself;"
            " give a chip with more"
        )

    num_steps = len(program.steps)
    executions = np.array([step.executions for step in program.steps], dtype=np.float64)
    flops = np.array([step.flops for step in program.steps])
    other = np.array([step.other_bytes for step in program.steps], dtype=np.float64)
    compute = executions * flops / chip.peak_flops
    fixed_slow = executions * other / chip.slow_bandwidth

    smallest = min(
        (_round_up(b.size, align) for b in program.buffers if _movable(b.size, b.fixed_space)),
        default=0,
    )
    if smallest > capacity:
        raise InputError(
            f"fast memory of {capacity} bytes (multiples of {align}): the smallest value of"
            f" {program.source} needs {smallest}; give at least that"
        )

    free = np.minimum(capacity, (chip.fast_bytes - scoped) // align * align)
    columns: list[tuple[int, int, float, float, bool, bool]] = []
    kept: list[int] = []
    for index, buffer in enumerate(program.buffers):
        accesses = _accesses(program, index)
        size = _round_up(buffer.size, align)
        traffic = sum(bytes_ for bytes_, _, _ in accesses.values())
        if not _movable(buffer.size, buffer.fixed_space) or size > capacity or traffic == 0:
            for step, (bytes_, _, _) in accesses.items():
                fixed_slow[step] += executions[step] * bytes_ / chip.slow_bandwidth
            continue
        for step, (bytes_, writes, defines) in sorted(accesses.items()):
            seconds = executions[step] * bytes_
            columns.append(
                (
                    step,
                    len(kept),
                    seconds / chip.slow_bandwidth,
                    seconds / chip.fast_bandwidth,
                    writes,
                    defines,
                )
            )
        kept.append(index)

    access_step = np.array([c[0] for c in columns], dtype=np.int64)
    used = (compute > 0) | (fixed_slow > 0) | (scoped > 0)
    used[access_step] = True
    # The first and the last step of a loop stay, even if they cost nothing: a stay of the whole
    # body is then one in the program's steps too, and has no gap at the border (rule 6).
    for loop in program.loops:
        used[[loop.start, loop.end - 1]] = True
    program_step = np.flatnonzero(used)
    # Position p of the program's line becomes the number of kept steps before it.
    before = np.concatenate([[0], np.cumsum(used)]).astype(np.int64)
    buffers = [program.buffers[index] for index in kept]
    access_buffer = np.array([c[1] for c in columns], dtype=np.int64)
    return MemoryMappingProblem(
        name=program.name,
        fingerprint=program.fingerprint,
        capacity=capacity,
        alignment=align,
        slow_bandwidth=chip.slow_bandwidth,
        compute=compute[program_step],
        fixed_slow=fixed_slow[program_step],
        limit=free[program_step].astype(np.int64),
        step_loop=np.array([program.steps[i].loop for i in program_step], dtype=np.int64),
        program_step=program_step.astype(np.int64),
        loop_start=before[[loop.start for loop in program.loops]],
        loop_end=before[[loop.end for loop in program.loops]],
        loop_parent=np.array([loop.parent for loop in program.loops], dtype=np.int64),
        loop_executions=np.array(
            [_loop_executions(program, index) for index in range(len(program.loops))],
            dtype=np.float64,
        ),
        size=np.array([_round_up(b.size, align) for b in buffers], dtype=np.int64),
        live_start=before[[b.live_start for b in buffers]],
        live_end=before[[min(b.live_end + 1, num_steps) for b in buffers]],
        initial=np.array([b.initial for b in buffers], dtype=np.bool_),
        live_out=np.array([b.live_out for b in buffers], dtype=np.bool_),
        program_buffer=np.array(kept, dtype=np.int64),
        first_access=np.searchsorted(access_buffer, np.arange(len(kept) + 1)).astype(np.int64),
        access_step=before[access_step],
        access_buffer=access_buffer,
        access_slow=np.array([c[2] for c in columns], dtype=np.float64),
        access_fast=np.array([c[3] for c in columns], dtype=np.float64),
        access_writes=np.array([c[4] for c in columns], dtype=np.bool_),
        access_defines=np.array([c[5] for c in columns], dtype=np.bool_),
    )


def _round_up(size: int, alignment: int) -> int:
    return math.ceil(size / alignment) * alignment


def _movable(size: int, fixed_space: int | None) -> bool:
    return fixed_space is None and size > 0


def _loop_executions(program: Program, index: int) -> float:
    executions = 1.0
    while index >= 0:
        executions *= program.loops[index].trip_count
        index = program.loops[index].parent
    return executions


def _accesses(program: Program, buffer: int) -> dict[int, tuple[int, bool, bool]]:
    """Step -> (bytes of one execution, writes, defines) for an alias class."""
    reads: dict[int, int] = {}
    writes: dict[int, tuple[int, bool]] = {}
    for index in program.buffers[buffer].values:
        value = program.values[index]
        for use in value.uses:
            reads[use.step] = reads.get(use.step, 0) + use.num_bytes
        if value.def_bytes > 0:
            bytes_, whole = writes.get(value.def_step, (0, True))
            writes[value.def_step] = (bytes_ + value.def_bytes, whole and not value.updates)
    return {
        step: (
            reads.get(step, 0) + writes.get(step, (0, False))[0],
            step in writes,
            step in writes and writes[step][1] and step not in reads,
        )
        for step in sorted(reads.keys() | writes.keys())
    }
