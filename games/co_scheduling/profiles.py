"""Measured tables instead of fitted formulas: attention and network of an A100 at degree 8.

A folder with the files that NanoFlow's measurements were put into: `gemv_70B_knots_ms.csv`
(batch_size, seqlen, gemv_ms; linear between the knots) and `net_us_by_bytes.csv` (bytes,
allgather_8blk_us, reducescatter_32blk_us).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from games.co_scheduling.cost import Batch, Work, seconds_by_tokens
from games.co_scheduling.device import Device, Floats
from games.co_scheduling.model import BYTES, Model
from hlo_frontend.errors import InputError

_ATTENTION = ("batch_size", "seqlen", "gemv_ms")
_NETWORK = ("bytes", "allgather_8blk_us", "reducescatter_32blk_us")
_MEASURED = ("a100", 8)
_HEADS = (64, 8, 128)  # heads, key-value heads and their width


def measured_seconds(model: Model, device: Device, tp: int, batch: Batch, folder: Path) -> Floats:
    """`seconds_by_tokens` with the measured attention and network of `folder`.

    Raises:
        InputError: the tables are not of this device, degree and heads, or cannot be read.
    """
    table = seconds_by_tokens(model, device, tp, batch)
    if (device.name, tp) != _MEASURED or (model.heads, model.kv_heads, model.head_dim) != _HEADS:
        raise InputError(
            f"profiles {folder}: measured for 64 heads of 8 key-value heads on a100 at degree 8,"
            f" not for {model.name} on {device.name} at degree {tp}; leave them out"
        )
    tokens = np.arange(batch.tokens + 1, dtype=np.float64)
    knots = read_table(folder / "gemv_70B_knots_ms.csv", _ATTENTION)
    by_context = []
    for size in np.unique(knots[:, 0]):
        points = knots[knots[:, 0] == size]
        points = points[np.argsort(points[:, 1])]
        by_context.append((size, linear(batch.decode_context, points[:, 1], points[:, 2]) / 1e3))
    sizes, seconds = np.array(by_context).T
    table[Work.DECODE] = np.maximum(linear(tokens, sizes, seconds), 0.0)
    net = read_table(folder / "net_us_by_bytes.csv", _NETWORK)
    net = net[np.argsort(net[:, 0])]
    attended = BYTES * tokens * model.heads * model.head_dim
    reduced = BYTES * tokens * model.hidden
    table[Work.GATHER] = linear(attended, net[:, 0], net[:, 1]) / 1e6
    table[Work.GATHER_O] = linear(reduced, net[:, 0], net[:, 1]) / 1e6
    table[Work.REDUCE] = table[Work.GATHER_O] + linear(reduced, net[:, 0], net[:, 2]) / 1e6
    table[:, 0] = 0.0
    return table


def linear(x: Floats | float, xs: Floats, ys: Floats) -> Floats:
    """Linear between the points, and on beyond the first and the last of them."""
    segment = np.clip(np.searchsorted(xs, x) - 1, 0, len(xs) - 2)
    slope = (ys[segment + 1] - ys[segment]) / (xs[segment + 1] - xs[segment])
    return np.asarray(ys[segment] + slope * (x - xs[segment]))


def read_table(path: Path, columns: tuple[str, ...]) -> Floats:
    """f64[rows, len(columns)] of a CSV file.

    Raises:
        InputError: no such file, a missing column, or less than two rows of numbers.
    """
    try:
        with path.open(newline="") as file:
            rows = [[float(row[name]) for name in columns] for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a CSV of numbers, {', '.join(columns)}") from error
    if len(rows) < 2:
        raise InputError(f"{path}: expected at least two rows")
    return np.array(rows)
