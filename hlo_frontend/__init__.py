"""From XLA HLO to a `Program`: the flattened schedule with values, alias classes and costs.

`load` reads HLO text and protos, dump folders and compiled JAX functions; `load_jax` compiles a
function. Bad input raises `InputError` with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from hlo_frontend import xla_parser
from hlo_frontend.build import build
from hlo_frontend.errors import InputError
from hlo_frontend.program import (
    AssignedInterval,
    Buffer,
    CopyWindow,
    Loop,
    Program,
    Step,
    Use,
    Value,
)
from hlo_frontend.reader import read_proto

__all__ = [
    "AssignedInterval",
    "Buffer",
    "CopyWindow",
    "InputError",
    "Loop",
    "Program",
    "Step",
    "Use",
    "Value",
    "load",
    "load_jax",
    "read_text",
]


def load(source: str | Path | bytes | Any) -> Program:
    """Reads a program.

    Args:
        source: a file with HLO text or a serialized proto (each also gzipped), an
            `--xla_dump_to` folder (see `reader` for which module of it), the bytes of a file, or a
            JAX `Compiled` or `Lowered` (which is compiled first).

    Raises:
        InputError: not a usable HLO module; the message says what and what to do.
    """
    proto, where = read_proto(source)
    return build(proto, where)


def load_jax(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Program:
    """Compiles a function for the default backend and reads the optimized program.

    Args:
        function: a JAX function, jitted or not.
        args: example arguments, or `jax.ShapeDtypeStruct`s.
        kwargs: likewise.
    """
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    proto, _ = read_proto(jitted.lower(*args, **kwargs).compile())
    return build(proto, getattr(function, "__name__", "<function>"))


def read_text(source: str | Path | bytes | Any) -> str:
    """HLO text, with metadata, of anything that `load` takes; names are those of the `Program`."""
    proto, _ = read_proto(source)
    return xla_parser.proto_to_text(proto, metadata=True)
