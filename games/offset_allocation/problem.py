"""The offset-allocation problem: buffers with fixed lifetimes share one range of memory.

A buffer is alive during [lower, upper) and then needs `size` bytes at one offset; buffers alive at
a common time share no byte. This is the problem of MiniMalloc (Moffitt, "MiniMalloc: A Lightweight
Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023), also known as dynamic
storage allocation, and its file format (github.com/google/minimalloc).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hlo_frontend.errors import InputError

Ints = npt.NDArray[np.int64]

LARGEST = 2**53  # of times and of the sum of sizes: exact in floating point too

# What MiniMalloc calls the columns today -> all names that it reads.
_NAMES = {
    "id": ("id", "buffer", "buffer_id"),
    "lower": ("lower", "start", "begin"),
    "upper": ("upper", "end"),  # "end" is the last time alive, one less than upper
    "size": ("size",),
    "alignment": ("alignment",),
    "offset": ("offset",),
}
_REQUIRED = ("id", "lower", "upper", "size")
_UNSUPPORTED = ("gaps", "hint")  # accepted while they are empty


@dataclass(frozen=True, eq=False)
class OffsetProblem:
    """Arrays of one problem with N buffers.

    Attributes:
        ids: N distinct names.
        lower: i64[N] first time at which the buffer is alive.
        upper: i64[N] first time at which it is alive no more, > lower.
        size: i64[N] bytes, >= 0.
        capacity: bytes that are to suffice.
        alignment: bytes; every offset is a multiple.

    Raises:
        InputError: arrays that are no such thing.
    """

    ids: tuple[str, ...]
    lower: Ints
    upper: Ints
    size: Ints
    capacity: int
    alignment: int = 1

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "size"):
            array = np.asarray(getattr(self, name), dtype=np.int64)
            if array.shape != (len(self.ids),):
                raise InputError(f"{name} has shape {array.shape}, expected ({len(self.ids)},)")
            object.__setattr__(self, name, array)
        for name in ("capacity", "alignment"):
            value = getattr(self, name)
            if not 0 < value <= LARGEST:
                raise InputError(f"{name} is {value}, expected 1 to 2**53 bytes")
        for k, (lower, upper, size) in enumerate(
            zip(self.lower.tolist(), self.upper.tolist(), self.size.tolist(), strict=True)
        ):
            fault = _fault(lower, upper, size)
            if fault is not None:
                raise InputError(f"buffer {self.ids[k]}: {fault}")
        if sum(self.size.tolist()) + len(self.ids) * (self.alignment - 1) > LARGEST:
            raise InputError("the sizes add up to more than 2**53 bytes")
        if len(set(self.ids)) < len(self.ids):
            raise InputError("two buffers have the same id; ids must differ")

    @cached_property
    def max_load(self) -> tuple[int, int]:
        """(bytes, time): the most that is needed at one time whatever the offsets, and when first.

        Of the buffers alive, all but the topmost take their aligned size.
        """
        times, height = _least_height(self)
        if not len(height):
            return 0, 0
        worst = int(height.argmax())
        return int(height[worst]), int(times[worst])

    @cached_property
    def aligned_size(self) -> Ints:
        """i64[N]: what a buffer takes from the next one above it, in bytes."""
        return -(-self.size // self.alignment) * self.alignment


def _least_height(problem: OffsetProblem) -> tuple[Ints, Ints]:
    """Bytes that the buffers alive need when one starts: (i64[T] times, i64[T] bytes)."""
    times, start = np.unique(problem.lower, return_inverse=True)
    end = np.searchsorted(times, problem.upper)
    change = np.zeros(len(times) + 1, dtype=np.int64)
    np.add.at(change, start, problem.aligned_size)
    np.subtract.at(change, end, problem.aligned_size)
    height = np.cumsum(change)[:-1]
    if problem.alignment > 1:
        saved = problem.aligned_size - problem.size
        for time in range(len(times)):
            height[time] -= saved[(start <= time) & (time < end)].max(initial=0)
    return times, height


def from_csv(path: Path | str, capacity: int) -> OffsetProblem:
    """Reads a CSV of MiniMalloc.

    Columns, in any order: `id`, `lower`, `upper`, `size`, and optionally `alignment` (the same for
    all buffers) and `offset` (not read here). MiniMalloc's older `start` and `end` are understood;
    its `gaps` and `hint` are not, and must be empty.

    Args:
        path: the file.
        capacity: bytes.

    Raises:
        InputError: the file cannot be read, is not such a CSV, or its buffers cannot fit because
            too many bytes are alive at one time.
    """
    problem, _ = read_table(path, capacity)
    return problem


def read_table(path: Path | str, capacity: int) -> tuple[OffsetProblem, dict[str, list[int]]]:
    """The problem of a CSV, and its columns of integers, `offset` among them if it is there."""
    rows = _rows(Path(path))
    line, header = next(rows, (1, []))
    columns = _columns(f"{path}: line {line}", header)
    ids: dict[str, int] = {}
    values: dict[str, list[int]] = {
        name: [] for name in columns if name != "id" and name not in _UNSUPPORTED
    }
    after_end = 1 if header[columns["upper"]] == "end" else 0
    for line, row in rows:
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} cells, expected {len(header)}")
        for name in _UNSUPPORTED:
            if name in columns and row[columns[name]]:
                raise InputError(f"{where}: {name} are not supported; leave the column empty")
        for name, found in values.items():
            found.append(_integer(where, header[columns[name]], row[columns[name]]))
        values["upper"][-1] += after_end
        fault = _fault(values["lower"][-1], values["upper"][-1], values["size"][-1])
        if fault is not None:
            raise InputError(f"{where}: {fault}")
        if values["size"][-1] > capacity:
            raise InputError(
                f"{where}: size {values['size'][-1]} is larger than the capacity {capacity}"
            )
        name = row[columns["id"]]
        if name in ids:
            raise InputError(f"{where}: id '{name}' is already that of line {ids[name]}")
        ids[name] = line
        alignment = values.get("alignment", [1])
        if alignment[-1] != alignment[0] or alignment[0] < 1:
            raise InputError(
                f"{where}: alignment is {alignment[-1]}, expected one positive number for all"
            )
    if not ids:
        raise InputError(f"{path}: no buffer after the header")
    try:
        problem = OffsetProblem(
            ids=tuple(ids),
            lower=np.array(values["lower"], dtype=np.int64),
            upper=np.array(values["upper"], dtype=np.int64),
            size=np.array(values["size"], dtype=np.int64),
            capacity=capacity,
            alignment=values.get("alignment", [1])[0],
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    load, when = problem.max_load
    if load > capacity:
        raise InputError(
            f"{path}: cannot fit: {load} bytes are alive at time {when}, more than the capacity"
            f" {capacity}"
        )
    return problem, values


def to_csv(problem: OffsetProblem, offsets: Ints | None = None) -> str:
    """The problem as MiniMalloc's CSV, with a column of offsets if they are given."""
    columns: dict[str, list[str] | list[int]] = {
        "id": list(problem.ids),
        "lower": problem.lower.tolist(),
        "upper": problem.upper.tolist(),
        "size": problem.size.tolist(),
    }
    if problem.alignment > 1:
        columns["alignment"] = [problem.alignment] * len(problem.ids)
    if offsets is not None:
        columns["offset"] = offsets.tolist()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of the lines that are not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file, expected a CSV") from error
    if "\0" in text:
        raise InputError(f"{path}: not a text file, expected a CSV")
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: not a CSV ({error})") from error


def _columns(where: str, header: list[str]) -> dict[str, int]:
    """Where each column is, by today's name."""
    today = {old: new for new, names in _NAMES.items() for old in names}
    today |= {name: name for name in _UNSUPPORTED}
    columns: dict[str, int] = {}
    for k, name in enumerate(header):
        if name not in today:
            raise InputError(
                f"{where}: unknown column {name[:40]!r}; the header is {','.join(_REQUIRED)}"
                " and optionally alignment"
            )
        if today[name] in columns:
            raise InputError(f"{where}: column {today[name]} is there twice")
        columns[today[name]] = k
    for name in _REQUIRED:
        if name not in columns:
            raise InputError(f"{where}: no column '{name}'; expected {','.join(_REQUIRED)}")
    return columns


def _integer(where: str, column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: {column} is {text[:40]!r}, expected an integer") from None


def _fault(lower: int, upper: int, size: int) -> str | None:
    if size < 0:
        return f"size {size} is negative"
    if upper <= lower:
        return f"upper {upper} is not above lower {lower}"
    if max(abs(lower), abs(upper), size) > LARGEST:
        return "numbers beyond 2**53 are not supported"
    return None
