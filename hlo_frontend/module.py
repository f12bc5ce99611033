"""The HLO module as plain records, decoded from XLA's serialized form."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hlo_frontend.errors import InputError
from hlo_frontend.hlo_proto import ModuleProto
from hlo_frontend.shapes import Shape, ShapeTable

ShapeIndex = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One HLO instruction.

    `operands`, `control` and `called` are ids in the module; `aliases` are XLA's
    `output_to_operand_aliasing`: (output index, operand number, operand index). `proto` is the
    original message, for the cost analysis.
    """

    id: int
    name: str
    opcode: str
    shape: Shape
    operands: tuple[int, ...]
    control: tuple[int, ...]
    called: tuple[int, ...]
    parameter_number: int
    tuple_index: int
    target: str
    aliases: tuple[tuple[ShapeIndex, int, ShapeIndex], ...]
    proto: Any = field(repr=False)

    @property
    def constant(self) -> int | None:
        """The number of an integer constant with one element; None for any other instruction."""
        if self.opcode != "constant":
            return None
        literal = self.proto.literal
        numbers = [*literal.s32s, *literal.s64s, *literal.u32s, *literal.u64s]
        return int(numbers[0]) if len(numbers) == 1 else None

    @property
    def on_main_thread(self) -> bool:
        """Whether an asynchronous computation runs on the device, not for example on the host."""
        return self.proto.async_execution_thread in ("", "main")

    @property
    def config(self) -> dict[str, Any]:
        """The backend config as JSON; empty where there is none or it is no JSON object."""
        try:
            config = json.loads(self.proto.backend_config or b"{}")
        except ValueError:
            return {}
        return config if isinstance(config, dict) else {}


@dataclass(frozen=True, slots=True)
class Computation:
    """A computation; `instructions` are in schedule order where the module is scheduled."""

    id: int
    name: str
    instructions: tuple[Instruction, ...]
    root: int
    proto: Any = field(repr=False)

    def by_id(self) -> dict[int, Instruction]:
        """Instructions by id."""
        return {instruction.id: instruction for instruction in self.instructions}


@dataclass(frozen=True, slots=True)
class Module:
    """A module; `aliases` are (output index, parameter number, parameter index)."""

    name: str
    entry: int
    computations: dict[int, Computation]
    scheduled: bool
    aliases: tuple[tuple[ShapeIndex, int, ShapeIndex], ...]


def decode(data: bytes, where: str) -> Module:
    """Reads a serialized `HloModuleProto` that XLA itself has written.

    Raises:
        InputError: an element type or a schedule that makes no sense.
    """
    proto = ModuleProto.FromString(data)
    sequences = {entry.key: entry.value.instruction_ids for entry in proto.schedule.sequences}
    table = ShapeTable()
    computations: dict[int, Computation] = {}
    try:
        for computation in proto.computations:
            instructions = {i.id: _instruction(i, table) for i in computation.instructions}
            order = sequences.get(computation.id, instructions)
            if set(order) != instructions.keys():
                raise InputError(
                    f"{where}: the schedule of {computation.name} does not name each of its"
                    " instructions once; write the dump again"
                )
            computations[computation.id] = Computation(
                computation.id,
                computation.name,
                tuple(instructions[i] for i in order),
                computation.root_id,
                computation,
            )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    return Module(
        proto.name,
        proto.entry_computation_id,
        computations,
        scheduled=proto.entry_computation_id in sequences,
        aliases=tuple(
            (tuple(a.output_shape_index), a.parameter_number, tuple(a.parameter_shape_index))
            for a in proto.input_output_alias.entries
        ),
    )


def _instruction(proto: Any, table: ShapeTable) -> Instruction:
    return Instruction(
        proto.id,
        proto.name,
        proto.opcode,
        table.decode(proto.shape),
        tuple(proto.operand_ids),
        tuple(proto.control_predecessor_ids),
        tuple(proto.called_computation_ids),
        proto.parameter_number,
        proto.tuple_index,
        proto.custom_call_target,
        tuple(
            (tuple(a.output_shape_index), a.operand_index, tuple(a.operand_shape_index))
            for a in proto.output_operand_aliasing
        ),
        proto,
    )
