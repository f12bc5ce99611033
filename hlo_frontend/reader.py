"""From a path, bytes or a JAX object to the serialized module.

A folder written by `--xla_dump_to` holds many files of many modules. Taken is the module after
optimizations whose file is largest (JAX also compiles small helper functions); the module before
optimizations only where no other is there. In any other folder there must be exactly one HLO file.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any

from hlo_frontend import xla_parser
from hlo_frontend.errors import InputError
from hlo_frontend.hlo_proto import unwrap_module

_GZIP = b"\x1f\x8b"
_SUFFIX = re.compile(r"\.(txt|hlo|pb)(\.gz)?$")
_DUMPED = re.compile(r"(module_\d+\..*?)[._]?(after|before)_optimizations\.(hlo\.pb|txt)(\.gz)?$")
_EXPECTED = "expected HLO text or a serialized HloModuleProto or HloProto"


def read_proto(source: Any) -> tuple[bytes, str]:
    """(serialized and normalized `HloModuleProto`, name for messages) of any source.

    Args:
        source: a path (str or Path) to a file or folder, the bytes of a file, or a JAX `Lowered`
            (which is compiled) or `Compiled`.

    Raises:
        InputError: not to be read; says what and why.
    """
    if isinstance(source, bytes):
        return _normalized(source, "<bytes>")
    if isinstance(source, str | Path):
        path = Path(source)
        return _normalized(_read(_choose(path) if path.is_dir() else path), str(source))
    if hasattr(source, "compile") and hasattr(source, "as_text"):
        source = source.compile()
    if not hasattr(source, "runtime_executable") or not hasattr(source, "as_text"):
        raise InputError(
            f"{type(source).__name__}: expected a path, bytes, or a compiled JAX function; for a"
            " function and its arguments use load_jax"
        )
    return _normalized(source.as_text().encode(), "<compiled>")


def _normalized(data: bytes, where: str) -> tuple[bytes, str]:
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"{where}: damaged gzip data ({error}); copy or write the file again"
            ) from error
    if not data.strip():
        raise InputError(f"{where}: empty; {_EXPECTED}")
    proto = unwrap_module(data)
    if proto is None:
        text = _text(data, where)
        proto = xla_parser.text_to_proto(text, where)
        # Without an entry XLA's parser takes the last computation for it.
        if not re.search(r"^\s*ENTRY\b", text, re.MULTILINE):
            raise InputError(f"{where}: no line starts with ENTRY: cut short; {_EXPECTED}")
    return xla_parser.normalized(proto, where), where


def _text(data: bytes, where: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: neither text nor a protobuf of an HLO module, or cut short; {_EXPECTED}"
        ) from error
    if not re.search(r"^HloModule\b", text, re.MULTILINE):
        raise InputError(f"{where}: no line starts with HloModule; {_EXPECTED}")
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); {_EXPECTED}, or a folder with one"
        ) from error


def _choose(folder: Path) -> Path:
    """The file of a folder to read."""
    files = sorted(path for path in folder.iterdir() if _SUFFIX.search(path.name))
    dumped = [(path, match) for path in files if (match := _DUMPED.match(path.name))]
    for stage in ("after", "before"):
        candidates = [path for path, match in dumped if match[2] == stage]
        if candidates:
            # Text before proto where both are there: sizes are then of one kind.
            texts = [path for path in candidates if ".txt" in path.name]
            return max(texts or candidates, key=lambda path: (path.stat().st_size, path.name))
    modules = [path for path in files if _is_module(path)]
    if not modules:
        raise InputError(
            f"{folder}: no HLO module in this folder; name a file, or dump with"
            " XLA_FLAGS=--xla_dump_to=FOLDER"
        )
    if len(modules) > 1:
        names = ", ".join(path.name for path in modules[:3])
        raise InputError(
            f"{folder}: {len(modules)} HLO modules in this folder ({names}"
            f"{', ...' if len(modules) > 3 else ''}); name one of the files"
        )
    return modules[0]


def _is_module(path: Path) -> bool:
    try:
        data = _read(path)
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (InputError, OSError, EOFError, zlib.error):
        return False
    return re.search(rb"^HloModule\b", data, re.MULTILINE) is not None or bool(unwrap_module(data))
