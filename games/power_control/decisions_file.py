"""Decisions as a table: CSV, Parquet or JSON."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars

from games.files import replace_file
from hlo_frontend.errors import InputError

SUFFIXES = (".csv", ".parquet", ".json")


def require_table(path: Path | None, option: str) -> None:
    """Raises InputError unless the name ends as one of a table."""
    if path is not None and path.suffix not in SUFFIXES:
        raise InputError(f"{option} {path}: expected a name ending in {', '.join(SUFFIXES)}")


def write(path: Path, columns: dict[str, Any]) -> None:
    """Writes the columns, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    frame = polars.DataFrame(columns)
    content = io.BytesIO()
    if path.suffix == ".parquet":
        frame.write_parquet(content)
    elif path.suffix == ".json":
        frame.write_json(content)
    else:
        frame.write_csv(content)
    replace_file(path, content.getvalue())
