"""JSON that users may write: entries of a table or files of their own, checked field by field."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from hlo_frontend.errors import InputError


def entry(kind: str, table: str, name: str) -> dict[str, Any]:
    """The entry `name` of a packaged table, or the JSON object in the file of that path.

    Raises:
        InputError: neither is there.
    """
    text = resources.files("games.co_scheduling").joinpath(table).read_text()
    known: dict[str, dict[str, Any]] = json.loads(text)
    if name in known:
        return known[name]
    if not name.endswith(".json"):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"unknown {kind} '{name}': expected one of {', '.join(known)}"
            f" or the path of a {kind} file ending in .json{hint}"
        )
    return read_object(kind, Path(name))


def read_object(kind: str, path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: no such file, or no such thing in it.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{kind} file {path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise InputError(f"{kind} file {path}: expected one JSON object")
    return found


def number(where: str, given: Mapping[str, Any], key: str, *, least: float = 0.0) -> float:
    """The number in a field; `least` itself is allowed unless it is 0.

    Raises:
        InputError: the field is missing, or not such a number.
    """
    if key not in given:
        raise InputError(f"{where}: field '{key}' is missing; add it as a positive number")
    value = given[key]
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not (value >= least if least else value > 0) or value == float("inf"):
        wanted = f"a number of at least {least:g}" if least else "a positive number"
        raise InputError(f"{where}: field '{key}' is {value!r}, expected {wanted}")
    return float(value)


def whole(where: str, given: Mapping[str, Any], key: str) -> int:
    """The positive whole number in a field.

    Raises:
        InputError: the field is missing, or not such a number.
    """
    value = number(where, given, key)
    if value != int(value):
        raise InputError(f"{where}: field '{key}' is {value:g}, expected a whole number")
    return int(value)


def no_others(where: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises InputError if there is a field that nothing reads."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(f"{where}: unknown field '{unknown[0]}', expected {', '.join(known)}")
