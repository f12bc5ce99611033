"""Fits of the co-scheduling cost model, and their errors on measured points that were held out."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from games.co_scheduling.cost import Batch, gemm_seconds, paper_table
from games.co_scheduling.device import Device, Floats, get_device
from games.co_scheduling.model import get_model
from hlo_frontend.errors import InputError

LARGE = 1e6  # bytes: what nano-batches send; below, an all-reduce is latency alone
EFFICIENCIES = np.arange(0.5, 1.001, 0.01)
LAUNCHES = (0.0, 2e-6, 4e-6, 8e-6, 16e-6)
_HIDDEN, _KQV, _FFN = 8192, 10240, 28672  # of LLaMA-2 70B
_SHAPES: dict[str, Callable[[int], tuple[int, int]]] = {
    "attn_pre_proj": lambda tp: (_KQV // tp, _HIDDEN),
    "attn_post_proj": lambda tp: (_HIDDEN, _HIDDEN // tp),
    "mlp_up_proj": lambda tp: (2 * _FFN // tp, _HIDDEN),
    "mlp_down_proj": lambda tp: (_HIDDEN, _FFN // tp),
}

# NanoFlow, table 2: GFLOP, GB and ms for compute, memory and network, of its average batch: prompts
# of 512 tokens, answers of 1024, so that a third of the 2048 tokens is prefill.
TABLE_2 = {
    "KQV": (27487.8, 19.5, 11.01, 1.22, 0.0),
    "O": (21990.2, 16.1, 8.81, 1.01, 0.0),
    "UG": (153931.6, 96.6, 61.67, 6.04, 0.0),
    "D": (76965.8, 49.7, 30.84, 3.11, 0.0),
    "DecAttn": (3665.9, 462.2, 1.47, 28.89, 0.0),
    "PfAttn": (916.3, 2.1, 0.37, 0.13, 0.0),
    "Net": (18.8, 75.2, 0.01, 4.70, 31.33),
}
TABLE_2_BATCH = Batch(1365, 1024, 683, 512)
ROUNDING = 0.005  # of the printed times, ms

Gemm = tuple[int, int, int, float, int]  # rows, columns, inner, seconds, degree
Errors = dict[str, Any]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        InputError: no such file.
    """
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def vidur_gemms(folder: Path, device: str) -> list[Gemm]:
    """Vidur's GEMMs of LLaMA-2 70B, medians."""
    found = []
    for row in read_rows(folder / "vidur" / f"{device}_llama2-70b_mlp.csv"):
        tp, tokens = int(row["num_tensor_parallel_workers"]), int(row["num_tokens"])
        for name, shape in _SHAPES.items():
            seconds = float(row[f"time_stats.{name}.median"]) / 1e3
            found.append((tokens, *shape(tp), seconds, tp))
    return found


def nanoflow_gemms(folder: Path) -> list[Gemm]:
    """NanoFlow's GEMMs, the fastest of each shape; its doubled times halved."""
    best: dict[tuple[int, int, int], float] = {}
    for row in read_rows(folder / "nanoflow_profiles" / "gemm_a100_points_ms.csv"):
        if not row["N"]:
            continue
        seconds = float(row["ms"]) / 1e3 / (2 if row["op"].endswith("x2") else 1)
        key = (int(row["M"]), int(row["N"]), int(row["K"]))
        best[key] = min(best.get(key, np.inf), seconds)
    return [(*key, seconds, 8) for key, seconds in best.items()]


def gemm_errors(device: Device, points: Sequence[Gemm]) -> Floats:
    """f64[points]: relative errors."""
    return np.array(
        [
            float(gemm_seconds(device, rows, columns, inner)) / seconds - 1
            for rows, columns, inner, seconds, _ in points
        ]
    )


def fit_gemm(device: Device, points: Sequence[Gemm]) -> Device:
    """The device with the efficiency and launch time of the least mean absolute error."""
    candidates = [
        replace(device, gemm_efficiency=float(efficiency), gemm_launch_s=launch)
        for efficiency, launch in product(EFFICIENCIES, LAUNCHES)
    ]
    if len(points) > 200:
        points = points[:: len(points) // 200]
    return min(candidates, key=lambda each: float(np.abs(gemm_errors(each, points)).mean()))


def summary(errors: Floats, fitted_on: int) -> Errors:
    """Mean and largest absolute error of held-out points."""
    return {
        "mean_error": float(np.abs(errors).mean()),
        "max_error": float(np.abs(errors).max()),
        "held_out": len(errors),
        "fitted_on": fitted_on,
    }


def validate_vidur_gemm(folder: Path, name: str) -> Errors:
    """Fitted at degrees 1, 2 and 4, held out: degree 8."""
    points = vidur_gemms(folder, name)
    given = [point for point in points if point[4] < 8]
    held = [point for point in points if point[4] == 8]
    tiles = get_device("h100").gemm_tiles
    fitted = fit_gemm(replace(get_device(name), gemm_tiles=tiles), given)
    return summary(gemm_errors(fitted, held), len(given)) | {
        "efficiency": fitted.gemm_efficiency,
        "launch_us": fitted.gemm_launch_s * 1e6,
    }


def validate_nanoflow_gemm(folder: Path) -> Errors:
    """Each shape held out once, fitted on the others."""
    points = nanoflow_gemms(folder)
    device = get_device("a100")
    errors = [
        gemm_errors(fit_gemm(device, points[:k] + points[k + 1 :]), [points[k]])[0]
        for k in range(len(points))
    ]
    fitted = fit_gemm(device, points)
    return summary(np.array(errors), len(points) - 1) | {
        "efficiency": fitted.gemm_efficiency,
        "launch_us": fitted.gemm_launch_s * 1e6,
    }


def _linear(x: Floats, y: Floats) -> Errors:
    """Least relative squares on every second point, judged on the others; x f64[points, terms]."""
    given, held = np.arange(len(y)) % 2 == 0, np.arange(len(y)) % 2 == 1
    terms = np.linalg.lstsq(x[given] / y[given, None], np.ones(given.sum()), rcond=None)[0]
    return summary(x[held] @ terms / y[held] - 1, int(given.sum())) | {"terms": terms.tolist()}


def validate_all_reduce(folder: Path, name: str, tp: int) -> Errors:
    """Latency and rate fitted on every second size above `LARGE`; one node of NVLink."""
    rows = [
        (float(row["size"]), float(row["time_stats.all_reduce.median"]) / 1e3)
        for row in read_rows(folder / "vidur" / f"{name}_dgx_all_reduce.csv")
        if int(row["num_workers"]) == int(row["devices_per_node"]) == tp
    ]
    size, seconds = np.array(sorted(row for row in rows if row[0] >= LARGE)).T
    return _linear(np.stack([np.ones_like(size), size], axis=1), seconds)


def validate_collective(folder: Path, column: str) -> Errors:
    """Latency and rate of NanoFlow's all-gather or reduce-scatter, from every second size."""
    rows = read_rows(folder / "nanoflow_profiles" / "net_us_by_bytes.csv")
    size = np.array([float(row["bytes"]) for row in rows])
    seconds = np.array([float(row[column]) for row in rows]) / 1e6
    return _linear(np.stack([np.ones_like(size), size], axis=1), seconds)


def validate_decode_attention(folder: Path) -> Errors:
    """Launch, time a token and time a cached token, from every second knot of NanoFlow's table."""
    rows = read_rows(folder / "nanoflow_profiles" / "gemv_70B_knots_ms.csv")
    tokens = np.array([float(row["batch_size"]) for row in rows])
    cached = tokens * np.array([float(row["seqlen"]) for row in rows])
    seconds = np.array([float(row["gemv_ms"]) for row in rows]) / 1e3
    return _linear(np.stack([np.ones_like(tokens), tokens, cached], axis=1), seconds)


def validate_paper_table() -> Errors:
    """The largest relative difference from table 2, beyond the rounding of the printed times."""
    rows = paper_table(get_model("llama-2-70b"), get_device("a100"), 8, TABLE_2_BATCH)
    worst = 0.0
    for row in rows:
        found = (row.gflop, row.memory_gb, row.t_compute, row.t_memory, row.t_network)
        for mine, theirs in zip(found, TABLE_2[row.name], strict=True):
            if theirs and abs(mine - theirs) > ROUNDING:
                worst = max(worst, abs(mine / theirs - 1))
    return {"max_error": worst}


VALIDATIONS: dict[str, Callable[[Path], Errors]] = {
    "GEMM, NanoFlow, A100": validate_nanoflow_gemm,
    "GEMM, Vidur, A100": lambda folder: validate_vidur_gemm(folder, "a100"),
    "GEMM, Vidur, H100": lambda folder: validate_vidur_gemm(folder, "h100"),
    "all-reduce, Vidur, 8 A100": lambda folder: validate_all_reduce(folder, "a100", 8),
    "all-reduce, Vidur, 8 H100": lambda folder: validate_all_reduce(folder, "h100", 8),
    "all-gather, NanoFlow, 8 A100": lambda folder: validate_collective(folder, "allgather_8blk_us"),
    "reduce-scatter, NanoFlow, 8 A100": lambda folder: validate_collective(
        folder, "reducescatter_32blk_us"
    ),
    "decode attention, NanoFlow, A100": validate_decode_attention,
}
