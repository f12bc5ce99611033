"""Offsets for the buffers, the peak height that they need, and a bound that none goes below.

A solution file is the problem's CSV with a column `offset`, as MiniMalloc writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from games.offset_allocation.problem import (
    Ints,
    OffsetProblem,
    read_table,
    to_csv,
)
from hlo_frontend.errors import InputError


@dataclass(frozen=True, eq=False)
class Offsets:
    """The offset of each buffer of a problem.

    Attributes:
        offset: i64[N] bytes.
    """

    offset: Ints


def objective(problem: OffsetProblem, solution: Offsets) -> float:
    """Peak height: bytes from offset 0 to the top of the highest buffer."""
    return float((solution.offset + problem.size).max(initial=0))


def lower_bound(problem: OffsetProblem) -> float:
    """Bytes that some moment needs: no peak is lower."""
    return float(problem.max_load[0])


def stack(problem: OffsetProblem, order: Iterable[int]) -> Offsets:
    """Places the buffers in order, each on top of all that it overlaps in time."""
    times, first = np.unique(problem.lower, return_inverse=True)
    last = np.searchsorted(times, problem.upper)
    floor = np.zeros(len(times), dtype=np.int64)
    offsets = np.zeros(len(problem.ids), dtype=np.int64)
    for k in order:
        alive = slice(first[k], last[k])
        offsets[k] = floor[alive].max()
        if problem.size[k] > 0:
            floor[alive] = offsets[k] + problem.aligned_size[k]
    return Offsets(offsets)


def write_csv(problem: OffsetProblem, solution: Offsets, path: Path | str) -> None:
    """Writes the problem's CSV with the offsets, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(to_csv(problem, solution.offset), encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def read_csv(path: Path | str, problem: OffsetProblem) -> Offsets:
    """Reads the offsets of a problem's buffers, by id; the rows may be in any order.

    Raises:
        InputError: the file cannot be read, is not such a CSV, or is one of other buffers.
    """
    found, columns = read_table(path, problem.capacity)
    if "offset" not in columns:
        raise InputError(f"{path}: no column 'offset'")
    offset_of = dict(zip(found.ids, columns["offset"], strict=True))
    if offset_of.keys() != set(problem.ids):
        name = min(offset_of.keys() ^ set(problem.ids))
        where = "only in this file" if name in offset_of else "not in this file"
        raise InputError(f"{path}: buffer {name} is {where}; give the offsets of the same buffers")
    return Offsets(np.array([offset_of[name] for name in problem.ids], dtype=np.int64))
