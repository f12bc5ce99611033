"""Offsets, their objective and a bound, and MiniMalloc's output format."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from games.offset_allocation.problem import COLUMNS, Ints, OffsetProblem
from hlo_frontend.errors import InputError


@dataclass(frozen=True, eq=False)
class Offsets:
    """i64[N]: where each buffer starts, in bytes."""

    offset: Ints


def objective(problem: OffsetProblem, solution: Offsets) -> float:
    """The peak: bytes from offset 0 to the top of the highest buffer."""
    return float((solution.offset + problem.size).max(initial=0))


def lower_bound(problem: OffsetProblem) -> float:
    """The most bytes that are alive at once."""
    return float(problem.max_load[0])


def write_csv(problem: OffsetProblem, solution: Offsets, path: Path) -> None:
    """Writes `id,lower,upper,size,offset`, as MiniMalloc does.

    Raises:
        InputError: the file cannot be written.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow([*COLUMNS, "offset"])
    rows.writerows(
        zip(
            problem.ids,
            problem.lower.tolist(),
            problem.upper.tolist(),
            problem.size.tolist(),
            solution.offset.tolist(),
            strict=True,
        )
    )
    try:
        path.write_text(file.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
