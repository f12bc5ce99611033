"""The few fields of XLA's `HloModuleProto` that the frontend reads, as run-time protobuf classes.

Field numbers are those of XLA's `xla/service/hlo.proto` and `xla/xla_data.proto`; protobuf never
changes the meaning of a number. Fields that are not listed survive a copy as unknown fields, so an
instruction that is copied into another module keeps all its attributes.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "string": _FIELD.TYPE_STRING,
}

# Message -> field -> (number, type); "*" marks a repeated field. Enums are read as int32.
_MESSAGES: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "Tile": {"dimensions": (1, "int64*")},
    "Layout": {
        "minor_to_major": (1, "int64*"),
        "tiles": (6, "Tile*"),
        "element_size_in_bits": (7, "int64"),
        "memory_space": (8, "int64"),
        "dynamic_shape_metadata_prefix_bytes": (15, "int64"),
        "tail_padding_alignment_in_elements": (16, "int64"),
    },
    "Shape": {
        "element_type": (2, "int32"),
        "dimensions": (3, "int64*"),
        "tuple_shapes": (4, "Shape*"),
        "layout": (5, "Layout"),
        "is_dynamic_dimension": (6, "bool*"),
    },
    "ProgramShape": {
        "parameters": (1, "Shape*"),
        "result": (2, "Shape"),
        "parameter_names": (3, "string*"),
    },
    "Literal": {
        "s32s": (4, "int32*"),
        "s64s": (5, "int64*"),
        "u32s": (6, "uint32*"),
        "u64s": (7, "uint64*"),
    },
    "OutputOperandAliasing": {
        "output_shape_index": (1, "int64*"),
        "operand_index": (2, "int64"),
        "operand_shape_index": (3, "int64*"),
    },
    "Instruction": {
        "name": (1, "string"),
        "opcode": (2, "string"),
        "shape": (3, "Shape"),
        "metadata": (7, "bytes"),
        "literal": (8, "Literal"),
        "parameter_number": (9, "int64"),
        "tuple_index": (13, "int64"),
        "custom_call_target": (28, "string"),
        "id": (35, "int64"),
        "operand_ids": (36, "int64*"),
        "control_predecessor_ids": (37, "int64*"),
        "called_computation_ids": (38, "int64*"),
        "sharding": (40, "bytes"),
        "backend_config": (43, "bytes"),
        "comparison_direction": (63, "string"),
        "frontend_attributes": (68, "bytes"),
        "output_operand_aliasing": (74, "OutputOperandAliasing*"),
        "async_execution_thread": (79, "string"),
        "statistics_viz": (82, "bytes"),
        "original_value": (88, "bytes"),
    },
    "Computation": {
        "name": (1, "string"),
        "instructions": (2, "Instruction*"),
        "program_shape": (4, "ProgramShape"),
        "id": (5, "int64"),
        "root_id": (6, "int64"),
        "is_fusion_computation": (7, "bool"),
    },
    "Sequence": {"instruction_ids": (1, "int64*")},
    # A protobuf map is a repeated message of keys and values.
    "SequenceEntry": {"key": (1, "int64"), "value": (2, "Sequence")},
    "Schedule": {"sequences": (1, "SequenceEntry*")},
    "AliasEntry": {
        "output_shape_index": (1, "int64*"),
        "parameter_number": (2, "int64"),
        "parameter_shape_index": (3, "int64*"),
        "kind": (4, "int32"),
    },
    "InputOutputAlias": {"entries": (1, "AliasEntry*")},
    "Module": {
        "name": (1, "string"),
        "entry_computation_name": (2, "string"),
        "computations": (3, "Computation*"),
        "host_program_shape": (4, "ProgramShape"),
        "entry_computation_id": (6, "int64"),
        "schedule": (7, "Schedule"),
        "input_output_alias": (8, "InputOutputAlias"),
    },
    # `HloProto` and `HloSnapshot` hold the module (or each other) in field 1.
    "Envelope": {"content": (1, "bytes")},
}

_PACKAGE: Final = "hlo_frontend"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="hlo_frontend.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            base = kind.removesuffix("*")
            field = descriptor.field.add(
                name=name,
                number=number,
                label=_FIELD.LABEL_REPEATED if kind.endswith("*") else _FIELD.LABEL_OPTIONAL,
            )
            if base in _SCALARS:
                field.type = _SCALARS[base]
            else:
                field.type = _FIELD.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Final = _classes()
ModuleProto: Final = _CLASSES["Module"]
_Envelope: Final = _CLASSES["Envelope"]


def unwrap_module(data: bytes) -> bytes | None:
    """The serialized `HloModuleProto` in `data`: itself, or out of an `HloProto` or `HloSnapshot`.

    Returns None where `data` is none of these.
    """
    content = data
    for _ in range(3):
        try:
            module = ModuleProto.FromString(content)
            if module.computations and module.entry_computation_name:
                return content
        except DecodeError:
            pass
        try:
            content = bytes(_Envelope.FromString(content).content)
        except DecodeError:
            return None
    return None
