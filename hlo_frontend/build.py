"""Puts a `Program` together out of the module's parts."""

from __future__ import annotations

import hashlib

from hlo_frontend import xla_parser
from hlo_frontend.aliasing import alias_classes
from hlo_frontend.assignment import FAST, SLOW, find_moves, stays, strip
from hlo_frontend.cost import Cost, CostModel
from hlo_frontend.dataflow import ZERO_COST, Dataflow, analyze
from hlo_frontend.errors import InputError
from hlo_frontend.flatten import Flat, flatten
from hlo_frontend.module import Instruction, Module, decode
from hlo_frontend.program import Buffer, Loop, Program, Step, Use, Value
from hlo_frontend.schedule import schedule

_VMEM = 1


def build(proto: bytes, source: str) -> Program:
    """The program of a serialized `HloModuleProto` that XLA has normalized.

    Raises:
        InputError: a module that makes no sense.
    """
    try:
        return _build(proto, source)
    except InputError:
        raise
    except (IndexError, KeyError, ValueError) as error:
        # XLA's reader does not verify what it reads, and jaxlib does not offer XLA's verifier.
        raise InputError(
            f"{source}: the HLO contradicts itself ({type(error).__name__}: {error}); the file is"
            " damaged or was edited: write the dump again"
        ) from error


def _build(proto: bytes, source: str) -> Program:
    module = decode(proto, source)
    if not module.scheduled:
        module = schedule(module)
    placed = flatten(module)
    moves = find_moves(placed)
    stripped = strip(placed, moves)
    flat = stripped.flat
    flow = analyze(flat)
    table = _Tables(module, flat, flow)
    buffer_of = [[table.buffer_of[value] for value in leaves] for leaves in flow.leaves]
    return Program(
        name=module.name,
        source=source,
        fingerprint=_fingerprint(proto),
        scheduled=module.scheduled,
        steps=tuple(table.steps()),
        values=table.values,
        buffers=table.buffers,
        loops=tuple(
            Loop(loop.name, loop.start, loop.end, loop.trip_count, loop.trip_known, loop.parent)
            for loop in flat.loops
        ),
        assignment=stays(module, placed, analyze(placed), moves, stripped, buffer_of),
    )


def _fingerprint(proto: bytes) -> str:
    """Digest of the text without metadata; its computations sorted, as XLA keeps no fixed order."""
    header, *computations = xla_parser.proto_to_text(proto, metadata=False).split("\n\n")
    text = "\n".join([header.strip(), *sorted(block.strip() for block in computations)])
    return hashlib.sha256(text.encode()).hexdigest()


class _Tables:
    """The value and buffer tables. A value's id in the program is its rank among the arrays."""

    def __init__(self, module: Module, flat: Flat, flow: Dataflow) -> None:
        self.flat = flat
        self.flow = flow
        model = CostModel(module, xla_parser.cost_analysis)
        self.costs = [
            model.cost(step.instruction, (flat.steps[o].instruction for o in step.operands))
            for step in flat.steps
        ]
        order = sorted(
            (value for value, record in enumerate(flow.values) if record.shape.is_array),
            key=lambda value: (flow.values[value].step, flow.values[value].leaf),
        )
        classes = alias_classes(module, flat, flow)
        representatives = list(dict.fromkeys(classes[value] for value in order))
        rank = {representative: index for index, representative in enumerate(representatives)}
        self.buffer_of = [rank.get(representative, -1) for representative in classes]
        self.number = {value: index for index, value in enumerate(order)}
        self.values = tuple(self._values(order))
        self.buffers = tuple(self._buffers(order, len(representatives)))

    def steps(self) -> list[Step]:
        """The step table."""
        return [
            Step(
                name=step.instruction.name,
                opcode=step.instruction.opcode,
                computation=step.computation,
                loop=step.loop,
                executions=step.executions,
                flops=cost.flops,
                transcendentals=cost.transcendentals,
                other_bytes=cost.other_bytes,
                estimated_cycles=_estimated_cycles(step.instruction),
                scoped_bytes=_scoped_bytes(step.instruction),
            )
            for step, cost in zip(self.flat.steps, self.costs, strict=True)
        ]

    def _values(self, order: list[int]) -> list[Value]:
        uses: dict[int, list[Use]] = {value: [] for value in order}
        updates: dict[int, tuple[int, ...]] = {}
        for index, (step, cost) in enumerate(zip(self.flat.steps, self.costs, strict=True)):
            if step.instruction.opcode in ZERO_COST:
                continue
            for number, operand in enumerate(step.operands):
                shape = self.flat.steps[operand].instruction.shape
                leaves = self.flow.leaves[operand]
                for leaf, (position, _) in enumerate(shape.leaves):
                    if leaves[leaf] in uses:
                        uses[leaves[leaf]].append(
                            Use(index, number, position, cost.reads[number][leaf])
                        )
            read = [value for operand in step.operands for value in self.flow.leaves[operand]]
            defined = (v for v in self.flow.leaves[index] if self.flow.values[v].step == index)
            for value in defined:
                updates[value] = tuple(
                    dict.fromkeys(
                        self.number[other]
                        for other in read
                        if other in uses and self.buffer_of[other] == self.buffer_of[value]
                    )
                )
        return [self._value(value, tuple(uses[value]), updates.get(value, ())) for value in order]

    def _value(self, value: int, uses: tuple[Use, ...], updates: tuple[int, ...]) -> Value:
        record = self.flow.values[value]
        step = self.flat.steps[record.step]
        instruction = step.instruction
        entry_parameter = instruction.opcode == "parameter" and step.frame == 0
        cost: Cost = self.costs[record.step]
        return Value(
            name=instruction.name,
            index=instruction.shape.leaves[record.leaf][0],
            shape=str(record.shape),
            size=record.shape.padded_bytes,
            buffer=self.buffer_of[value],
            def_step=record.step,
            def_bytes=cost.writes[record.leaf],
            uses=uses,
            memory_space=record.shape.memory_space,
            parameter=instruction.parameter_number if entry_parameter else -1,
            updates=updates,
        )

    def _buffers(self, order: list[int], count: int) -> list[Buffer]:
        members: list[list[int]] = [[] for _ in range(count)]
        for value in order:
            members[self.buffer_of[value]].append(value)
        results = set(self.flow.leaves[self.flat.frames[0].root])
        return [self._buffer(values, results) for values in members]

    def _buffer(self, values: list[int], results: set[int]) -> Buffer:
        records = [self.flow.values[value] for value in values]
        spaces = {record.shape.memory_space for record in records} - FAST - {SLOW}
        return Buffer(
            values=tuple(self.number[value] for value in values),
            size=max(record.shape.padded_bytes for record in records),
            live_start=min(record.start for record in records),
            live_end=max(record.end for record in records),
            initial=any(self._initial(value) for value in values),
            live_out=not results.isdisjoint(values),
            fixed_space=min(spaces, default=None),
        )

    def _initial(self, value: int) -> bool:
        step = self.flat.steps[self.flow.values[value].step]
        opcode = step.instruction.opcode
        return opcode == "constant" or (opcode == "parameter" and step.frame == 0)


def _estimated_cycles(instruction: Instruction) -> int | None:
    window = instruction.config.get("window_config")
    cycles = str(window.get("estimated_cycles")) if isinstance(window, dict) else ""
    return int(cycles) if cycles.isdigit() else None


def _scoped_bytes(instruction: Instruction) -> int:
    """VMEM that the instruction reserves for itself, from the bottom up to the last byte of it."""
    reservations = instruction.config.get("used_scoped_memory_configs", ())
    ends = [
        int(reservation.get("offset", 0)) + int(reservation.get("size", 0))
        for reservation in reservations
        if int(reservation.get("memory_space", 0)) == _VMEM
    ]
    return max(ends, default=0)
