"""The `Program`: what every reader of the frontend returns and every memory game starts from.

A `Program` is one straight line of steps: the scheduled entry computation with called
computations inlined where they are called. A loop body stands in it once; `Step.executions` says
how often it runs. Memory-space copies that the compiler put in (`copy-start/done` and
`slice-start/done` between memory spaces) are not steps: they are taken out, the uses of their
results are uses of the copied value, and what they did is kept in `Program.assignment`.

Units: bytes are tile-padded device bytes of one execution; a step index counts from 0.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One instruction of the flattened schedule.

    Attributes:
        name: instruction name as in the HLO, without the leading `%`; a computation that is called
            twice stands twice in the schedule, with the same names.
        opcode: HLO opcode, for example `fusion`.
        computation: name of the computation that holds the instruction.
        loop: index into `Program.loops` of the innermost loop body around it, -1 if none.
        executions: how often it runs in one run of the program (product of trip counts).
        flops: floating point operations of one execution, from XLA's cost analysis.
        transcendentals: transcendental operations of one execution, likewise.
        other_bytes: bytes of memory traffic of one execution that belong to no `Value`.
        estimated_cycles: the TPU compiler's own estimate for one execution, when the dump has it.
        scoped_bytes: fast memory that the instruction reserves for itself while it runs.
    """

    name: str
    opcode: str
    computation: str
    loop: int
    executions: int
    flops: float
    transcendentals: float
    other_bytes: int
    estimated_cycles: int | None
    scoped_bytes: int


@dataclass(frozen=True)
class Use:
    """One read of a value: operand `operand` (tuple leaf `index` of it) of step `step`.

    `num_bytes` is what one execution reads, which may be less than the value's size (slices) or
    more (re-reads). Steps that only hand values on (tuples, bitcasts, `while`, ...) read nothing
    and have no uses.
    """

    step: int
    operand: int
    index: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True)
class Value:
    """One array that one instruction defines (an `HloValue`), seen through tuples and bitcasts.

    Where control flow joins there is a value too, as in XLA's SSA dataflow: for the leaves that a
    loop changes at its condition's and its body's parameter and at the `while`, and for the result
    of a `conditional`. Nothing is written there (`def_bytes` 0).

    Attributes:
        name: defining instruction; with `index` it names the position, for example `fusion.3{1}`.
        index: tuple index inside the defining instruction's result, () for an array result.
        shape: HLO shape text with layout.
        size: tile-padded bytes.
        buffer: index into `Program.buffers`, the alias class it belongs to.
        def_step: step that defines it (for a parameter the step of the parameter instruction).
        def_bytes: bytes that one execution of the defining step writes; 0 for parameters and
            constants, which are there before the program starts.
        uses: reads, in schedule order.
        memory_space: memory space in the dump: 0 HBM, 1 VMEM, 2 SMEM, 3 CMEM, 5 host.
        parameter: entry parameter number, -1 if it is none.
        updates: ids of the values that the defining step updates in place to make this one.
    """

    name: str
    index: tuple[int, ...]
    shape: str
    size: int
    buffer: int
    def_step: int
    def_bytes: int
    uses: tuple[Use, ...]
    memory_space: int
    parameter: int
    updates: tuple[int, ...]

    @property
    def position(self) -> str:
        """`name{i,j}`, or `name` for an array result: how a mapping file names the value."""
        return f"{self.name}{{{','.join(map(str, self.index))}}}" if self.index else self.name


@dataclass(frozen=True)
class Buffer:
    """An alias class: values that must share their bytes (in-place update, while, input-output).

    Attributes:
        values: ids of its values, in schedule order of definition.
        size: tile-padded bytes, the largest of its values.
        live_start: first step at which it holds data.
        live_end: last step at which it holds data that somebody reads (inclusive).
        initial: it holds data in slow memory before the program starts (parameter, constant).
        live_out: its last value is a result of the program.
        fixed_space: a memory space that the program prescribes (2 SMEM, 5 host, ...), else None;
            such a buffer is not the mapper's to move.
    """

    values: tuple[int, ...]
    size: int
    live_start: int
    live_end: int
    initial: bool
    live_out: bool
    fixed_space: int | None


@dataclass(frozen=True)
class Loop:
    """A `while` in the flattened schedule: condition and body are steps [start, end).

    `trip_known` is False where neither XLA's backend config gives a trip count nor the condition
    compares a counter with a constant; `trip_count` is then XLA's own default for this case
    (`while_execution_count`, 5).
    """

    name: str
    start: int
    end: int
    trip_count: int
    trip_known: bool
    parent: int


@dataclass(frozen=True)
class CopyWindow:
    """An asynchronous copy that runs during steps [start, done) and is complete before `done`.

    The window is empty (`start == done`) where the compiler waits for it at once.
    """

    start: int
    done: int


@dataclass(frozen=True)
class AssignedInterval:
    """A stay in fast memory that the compiler chose: steps [start, end) of `buffer`.

    It begins with its copy-in, if it has one, and ends after its last read and its write-back.
    `copy_in` is None where the value is produced in fast memory; `copy_out` is None where it is
    never written back. `memory_space` is 1 (VMEM) or 3 (CMEM). Offsets are not in an HLO dump.
    """

    buffer: int
    start: int
    end: int
    copy_in: CopyWindow | None
    copy_out: CopyWindow | None
    memory_space: int


@dataclass(frozen=True)
class Program:
    """A whole program as the games see it. See the module's docstring.

    Attributes:
        name: module name.
        source: where it came from, for messages (a path, or the name of a function).
        fingerprint: hex digest of the canonical HLO text; a mapping names the program by it.
        scheduled: False where the frontend had to make the schedule itself.
        steps, values, buffers, loops: the tables, cross-referenced by index.
        assignment: the compiler's own stays in fast memory; None where the dump has no
            memory-space assignment at all.
    """

    name: str
    source: str
    fingerprint: str
    scheduled: bool
    steps: tuple[Step, ...]
    values: tuple[Value, ...]
    buffers: tuple[Buffer, ...]
    loops: tuple[Loop, ...]
    assignment: tuple[AssignedInterval, ...] | None
