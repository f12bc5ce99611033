"""Work and memory traffic of single instructions, from XLA's own cost analysis.

An instruction is put into a module of its own (`HloModuleProto`: its operands become parameters,
the computations that it calls come along), and XLA's `HloCostAnalysis` is asked about that. Names,
ids, metadata and memory spaces are made canonical first, because programs repeat themselves: equal
modules are analysed once.

XLA counts logical bytes. They are scaled to device bytes by the operand's padded size over its
logical size. What XLA cannot judge (custom calls; whatever cannot stand alone) is taken to read
each operand and to write its result once, and to compute nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hlo_frontend.dataflow import ZERO_COST
from hlo_frontend.hlo_proto import ModuleProto
from hlo_frontend.module import Instruction, Module, ShapeIndex
from hlo_frontend.shapes import Shape

_BYTES = re.compile(r"bytes accessed(\d+|out)\{([\d,]*)\}")
_COMPUTATION_BITS = 32  # an instruction's id is its computation's id and its own in there
_NAMES_AND_PLACES = (
    "metadata",
    "sharding",
    "frontend_attributes",
    "statistics_viz",
    "original_value",
    "control_predecessor_ids",
    "backend_config",
)


@dataclass(frozen=True)
class Cost:
    """What one execution of an instruction does.

    Attributes:
        flops, transcendentals: operations.
        reads: per operand, device bytes read of each leaf of its shape.
        writes: device bytes written of each leaf of the result.
        other_bytes: bytes of traffic of neither.
    """

    flops: float
    transcendentals: float
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[int, ...]
    other_bytes: int


class CostModel:
    """Costs of the instructions of one module; `analyze` is `xla_parser.cost_analysis`."""

    def __init__(self, module: Module, analyze: Callable[[bytes], dict[str, float] | None]) -> None:
        self._module = module
        self._analyze = analyze
        self._by_id: dict[int, Cost] = {}
        self._by_module: dict[bytes, dict[str, float] | None] = {}

    def cost(self, instruction: Instruction, operands: Iterable[Instruction]) -> Cost:
        """The cost of an instruction; `operands` are the instructions that it reads."""
        cost = self._by_id.get(instruction.id)
        if cost is None:
            cost = self._cost(instruction, tuple(operands))
            self._by_id[instruction.id] = cost
        return cost

    def _cost(self, instruction: Instruction, operands: tuple[Instruction, ...]) -> Cost:
        shapes = tuple(operand.shape for operand in operands)
        if instruction.opcode in ZERO_COST:
            reads = tuple((0,) * len(shape.leaves) for shape in shapes)
            return Cost(0.0, 0.0, reads, (0,) * len(instruction.shape.leaves), 0)
        properties = None
        if instruction.opcode != "custom-call":
            serialized = self._alone(instruction, operands)
            if serialized not in self._by_module:
                self._by_module[serialized] = self._analyze(serialized)
            properties = self._by_module[serialized]
        if properties is None:
            return Cost(
                0.0,
                0.0,
                tuple(_full(shape) for shape in shapes),
                _full(instruction.shape),
                0,
            )
        traffic: dict[tuple[str, ShapeIndex], float] = {}
        for name, amount in properties.items():
            match = _BYTES.fullmatch(name)
            if match:
                index = tuple(int(i) for i in match[2].split(",") if i)
                traffic[match[1], index] = max(0.0, amount)
        listed = sum(amount for (_, index), amount in traffic.items() if not index)
        return Cost(
            max(0.0, properties.get("flops", 0.0)),
            max(0.0, properties.get("transcendentals", 0.0)),
            tuple(_per_leaf(traffic, str(k), shape) for k, shape in enumerate(shapes)),
            _per_leaf(traffic, "out", instruction.shape),
            max(0, round(properties.get("bytes accessed", 0.0) - listed)),
        )

    def _alone(self, instruction: Instruction, operands: tuple[Instruction, ...]) -> bytes:
        """A serialized module of nothing but the instruction."""
        module = ModuleProto(name="m", entry_computation_name="e")
        number: dict[int, int] = {}
        for computation in self._callees(instruction):
            number[computation] = len(number)
            _copy_computation(module, self._module.computations[computation].proto, number)
        entry = module.computations.add(name="e", id=len(number))
        base = len(number) << _COMPUTATION_BITS
        slot_of: dict[int, int] = {}
        for operand in operands:
            if operand.id in slot_of:
                continue
            slot = slot_of[operand.id] = len(slot_of)
            parameter = entry.instructions.add(
                name=f"p{slot}", opcode="parameter", id=base + slot, parameter_number=slot
            )
            parameter.shape.CopyFrom(operand.proto.shape)
            entry.program_shape.parameters.add().CopyFrom(operand.proto.shape)
            entry.program_shape.parameter_names.append(f"p{slot}")
        root = entry.instructions.add()
        _copy_instruction(root, instruction.proto, f"e{len(slot_of)}", base + len(slot_of), number)
        root.operand_ids.extend(base + slot_of[operand.id] for operand in operands)
        entry.root_id = root.id
        entry.program_shape.result.CopyFrom(instruction.proto.shape)
        module.entry_computation_id = entry.id
        module.host_program_shape.CopyFrom(entry.program_shape)
        return bytes(module.SerializeToString(deterministic=True))

    def _callees(self, instruction: Instruction) -> list[int]:
        """Computations that it calls, directly or not, callees before their callers."""
        order: list[int] = []

        def visit(computation: int) -> None:
            if computation not in order:
                for inner in self._module.computations[computation].instructions:
                    for callee in inner.called:
                        visit(callee)
                order.append(computation)

        for callee in instruction.called:
            visit(callee)
        return order


def _copy_computation(module: Any, source: Any, number: dict[int, int]) -> None:
    """Adds a computation under a new id, with its instructions renumbered."""
    identity = number[source.id]
    target = module.computations.add(name=f"c{identity}", id=identity)
    target.is_fusion_computation = source.is_fusion_computation
    base = identity << _COMPUTATION_BITS
    ids = {inner.id: base + position for position, inner in enumerate(source.instructions)}
    for inner in source.instructions:
        copy = target.instructions.add()
        _copy_instruction(copy, inner, f"c{identity}.{ids[inner.id] - base}", ids[inner.id], number)
        copy.operand_ids.extend(ids[operand] for operand in inner.operand_ids)
    target.root_id = ids[source.root_id]
    target.program_shape.CopyFrom(source.program_shape)
    for position in range(len(target.program_shape.parameter_names)):
        target.program_shape.parameter_names[position] = f"p{position}"


def _copy_instruction(
    target: Any, source: Any, name: str, identity: int, number: dict[int, int]
) -> None:
    """Copies all attributes but names, places and operands."""
    target.CopyFrom(source)
    for field in _NAMES_AND_PLACES:
        target.ClearField(field)
    target.ClearField("operand_ids")
    target.name, target.id = name, identity
    callees = [number[callee] for callee in source.called_computation_ids]
    target.ClearField("called_computation_ids")
    target.called_computation_ids.extend(callees)


def _full(shape: Shape) -> tuple[int, ...]:
    return tuple(leaf.padded_bytes for _, leaf in shape.leaves)


def _per_leaf(
    traffic: dict[tuple[str, ShapeIndex], float], key: str, shape: Shape
) -> tuple[int, ...]:
    """Device bytes of the leaves of an operand (or of the result, "out").

    Where XLA gives no figure for a leaf, it gets its share by size of what it gives for the whole.
    """
    total, whole = traffic.get((key, ()), 0.0), shape.total_bytes
    result = []
    for index, leaf in shape.leaves:
        if not leaf.logical_bytes:
            result.append(0)
            continue
        logical = traffic.get((key, index))
        if logical is None:
            logical = total * leaf.logical_bytes / whole
        result.append(round(logical * leaf.padded_bytes / leaf.logical_bytes))
    return tuple(result)
