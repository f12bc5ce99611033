"""What a sweep measured, as rows: from its folder, from Parquet, or from committed results.

`results.parquet` has a row for each cell:

| column | what |
| --- | --- |
| schema | version of this table |
| key | of the cell |
| game, title, instance | the instance by name, in words, and as JSON |
| solver, time_limit, seed | what was run on it; seconds |
| objective, bound, unit | what came of it, and the best proven bound; null if it failed |
| method | who found the solution |
| wall_s, proved | seconds that the solver took; whether it proved its solution optimal |
| error | one line, null if it went well |
| curve | JSON: [seconds, objective] at each improvement |
| load, date | load average as the solver started; UTC |
| cpu, cores, python, jax, mctx, numba, numpy, ortools | machine and versions |
| commit | of the checkout |
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from experiments.common import PACKAGES, Results
from experiments.sweep.config import SCHEMA
from experiments.sweep.execute import check
from games.files import replace_file
from hlo_frontend.errors import InputError

Row = dict[str, Any]
PARQUET = "results.parquet"
COLUMNS: dict[str, pl.DataType] = {
    "schema": pl.Int64(),
    "key": pl.String(),
    "game": pl.String(),
    "title": pl.String(),
    "instance": pl.String(),
    "solver": pl.String(),
    "time_limit": pl.Float64(),
    "seed": pl.Int64(),
    "objective": pl.Float64(),
    "bound": pl.Float64(),
    "unit": pl.String(),
    "method": pl.String(),
    "wall_s": pl.Float64(),
    "proved": pl.Boolean(),
    "error": pl.String(),
    "curve": pl.String(),
    "load": pl.Float64(),
    "date": pl.String(),
    "cpu": pl.String(),
    "cores": pl.Int64(),
    "python": pl.String(),
    **{package: pl.String() for package in PACKAGES},
    "commit": pl.String(),
}
MACHINE = ("cpu", "cores", "python", *PACKAGES)


def read_cells(folder: Path) -> tuple[list[Row], list[str]]:
    """(rows, lines about cells that cannot be read) of a sweep's folder.

    Raises:
        InputError: no sweep's folder, or one of another version.
    """
    if not (folder / "sweep.json").exists():
        raise InputError(f"{folder}: no sweep was run there")
    check(folder)
    rows, damaged = [], []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            data = json.loads(path.read_bytes())
            instance, curve = json.dumps(data["instance"]), json.dumps(data["curve"])
            row = {**data, **data["machine"], "instance": instance, "curve": curve}
            optional = ("unit", "method", "load")  # a failed cell has none
            rows.append(
                {name: row.get(name) if name in optional else row[name] for name in COLUMNS}
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{path.name}: damaged ({error}); remove it and resume the sweep")
    return rows, damaged


def write_parquet(rows: Sequence[Row], folder: Path) -> None:
    """Writes `results.parquet`, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    buffer = io.BytesIO()
    pl.DataFrame(list(rows), schema=COLUMNS).write_parquet(buffer)
    replace_file(folder / PARQUET, buffer.getvalue())


def read_results(path: Path, benchmark: str) -> list[Row]:
    """Rows of a sweep's folder, of its Parquet file, or of committed results (JSON).

    Args:
        path: of any of the three.
        benchmark: name of the committed ones.

    Raises:
        InputError: neither, damaged, or of another version.
    """
    if path.is_dir():
        rows, damaged = read_cells(path)
        if damaged:
            raise InputError(f"{path}: {damaged[0]}")
    elif path.suffix == ".json":
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
        rows = [cell["config"] | cell["result"] for cell in Results(path, benchmark).cells]
    else:
        rows = _read_parquet(path)
    if not rows:
        raise InputError(f"{path}: has no finished cells yet")
    return rows


def _read_parquet(path: Path) -> list[Row]:
    try:
        table = pl.read_parquet(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pl.exceptions.PolarsError as error:
        line = str(error).splitlines()[0]
        raise InputError(
            f"{path}: not a whole Parquet file ({line}); `compiler-rl report {path.parent}` makes"
            " it anew from the cells"
        ) from error
    found = table["schema"].to_list() if "schema" in table.columns else [None]
    if found != [SCHEMA] * len(found) or list(table.columns) != list(COLUMNS):
        raise InputError(f"{path}: results of version {found[0]}, expected {SCHEMA}")
    return table.to_dicts()
