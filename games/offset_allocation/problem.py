"""The offset allocation problem: buffers with fixed lifetimes in one memory (MiniMalloc).

Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
ASPLOS 2023, section 2. Files are its CSV: a header with at least `id,lower,upper,size`, and a line
for each buffer, alive at the times lower <= t < upper.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hlo_frontend.errors import InputError

Ints = npt.NDArray[np.int64]
COLUMNS = ("id", "lower", "upper", "size")


@dataclass(frozen=True, eq=False)
class OffsetProblem:
    """N buffers and a capacity.

    Attributes:
        ids: names, in the order of the file.
        lower, upper: i64[N] lifetimes [lower, upper).
        size: i64[N] bytes.
        capacity: bytes of the memory.
    """

    ids: tuple[str, ...]
    lower: Ints
    upper: Ints
    size: Ints
    capacity: int

    @cached_property
    def max_load(self) -> tuple[int, int]:
        """(bytes, time): the most bytes that are alive at once, and when first."""
        if not len(self.size):
            return 0, 0
        times = np.concatenate([self.lower, self.upper])
        change = np.concatenate([self.size, -self.size])
        # At one time, what ends goes before what starts.
        order = np.lexsort((change, times))
        load = np.cumsum(change[order])
        worst = int(load.argmax())
        return int(load[worst]), int(times[order][worst])


def from_csv(path: Path, capacity: int) -> OffsetProblem:
    """Reads a MiniMalloc CSV.

    Raises:
        InputError: the file cannot be read, a line is not as it should be, or the buffers cannot
            fit because one is larger than the capacity or too many live at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); expected a CSV") from error
    try:
        table = list(csv.reader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: no CSV ({error})") from error
    header = [name.strip() for name in table[0]] if table else []
    for name in COLUMNS:
        if name not in header:
            raise InputError(
                f"{path}: line 1: no column '{name}'; expected the header {','.join(COLUMNS)}"
            )
    ids: list[str] = []
    rows: list[tuple[int, int, int]] = []
    seen: dict[str, int] = {}
    for number, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise InputError(f"{path}: line {number}: {len(cells)} cells, expected {len(header)}")
        row = dict(zip(header, cells, strict=True))
        numbers = []
        for name in COLUMNS[1:]:
            try:
                numbers.append(int(row[name]))
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number}: {name} is '{row[name]}', expected a whole number"
                ) from error
            if abs(numbers[-1]) >= 2**62:
                raise InputError(f"{path}: line {number}: {name} is beyond 64 bits")
        lower, upper, size = numbers
        if upper <= lower:
            raise InputError(f"{path}: line {number}: upper {upper} is not above lower {lower}")
        if size < 0:
            raise InputError(f"{path}: line {number}: size {size} is negative")
        if size > capacity:
            raise InputError(
                f"{path}: line {number}: size {size} is larger than the capacity {capacity}"
            )
        if row["id"] in seen:
            raise InputError(
                f"{path}: line {number}: id '{row['id']}' is already that of line {seen[row['id']]}"
            )
        seen[row["id"]] = number
        ids.append(row["id"])
        rows.append((lower, upper, size))
    if not rows:
        raise InputError(f"{path}: no buffer after the header")
    array = np.array(rows, dtype=np.int64)
    problem = OffsetProblem(tuple(ids), array[:, 0], array[:, 1], array[:, 2], capacity)
    load, when = problem.max_load
    if load > capacity:
        raise InputError(
            f"{path}: {load} bytes are alive at time {when}, more than the capacity {capacity}:"
            " no offsets can fit"
        )
    return problem
