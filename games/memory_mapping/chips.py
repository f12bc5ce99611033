"""The chip table: figures in `chips.json`, each with its source, or the word assumption."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

from hlo_frontend.errors import InputError


@dataclass(frozen=True)
class Chip:
    """What the cost model needs of one core.

    Attributes:
        name: name in the table, or of the user's file.
        peak_flops: floating point operations per second (bf16).
        slow_bandwidth: bytes per second of the slow memory (HBM); copies share it.
        fast_bandwidth: bytes per second of the fast memory (VMEM or CMEM).
        fast_bytes: physical size of the fast memory; scoped reservations are taken from it.
        memory_space: its number in HLO layouts, 1 for VMEM, 3 for CMEM.
        alignment: bytes; sizes and offsets in fast memory are multiples of it.
        clock_hz: clock of the compiler's `estimated_cycles`.
    """

    name: str
    peak_flops: float
    slow_bandwidth: float
    fast_bandwidth: float
    fast_bytes: int
    memory_space: int
    alignment: int
    clock_hz: float


def _table() -> dict[str, dict[str, dict[str, float]]]:
    text = resources.files("games.memory_mapping").joinpath("chips.json").read_text()
    table: dict[str, dict[str, dict[str, float]]] = json.loads(text)
    return table


def chip_names() -> tuple[str, ...]:
    """Names in the table."""
    return tuple(_table())


def get_chip(name: str) -> Chip:
    """The chip called `name`, or the one in a user's JSON file of that path.

    A user's file is one object with the fields of `Chip` other than `name`, as plain numbers.

    Raises:
        InputError: neither a chip of the table nor a readable, complete file.
    """
    table = _table()
    if name in table:
        return _chip(name, {key: entry["value"] for key, entry in table[name].items()})
    if not name.endswith(".json"):
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"unknown chip '{name}': expected one of {', '.join(table)}"
            f" or the path of a chip file ending in .json{hint}"
        )
    try:
        entry = json.loads(Path(name).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"chip file {name}: cannot be read as JSON ({error})") from error
    if not isinstance(entry, dict):
        raise InputError(f"chip file {name}: expected one JSON object")
    return _chip(name, entry)


def _chip(name: str, entry: dict[str, float]) -> Chip:
    expected = [field.name for field in fields(Chip) if field.name != "name"]
    for key in expected:
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"chip {name}: field '{key}' is {value!r}, expected a positive number")
    unknown = sorted(set(entry) - set(expected))
    if unknown:
        raise InputError(
            f"chip {name}: unknown field '{unknown[0]}', expected {', '.join(expected)}"
        )
    return Chip(
        name=name,
        peak_flops=float(entry["peak_flops"]),
        slow_bandwidth=float(entry["slow_bandwidth"]),
        fast_bandwidth=float(entry["fast_bandwidth"]),
        fast_bytes=int(entry["fast_bytes"]),
        memory_space=int(entry["memory_space"]),
        alignment=int(entry["alignment"]),
        clock_hz=float(entry["clock_hz"]),
    )
