"""Devices: rates of data sheets, fitted efficiencies, and what running side by side costs.

Sources of `devices.json`: rates from the makers' data sheets; efficiencies and latencies of the
A100 fitted on the measurements that NanoFlow published (arXiv 2408.12757), the H100's GEMM and
network on Vidur's (Agrawal et al., MLSys 2024). `experiments.bench_co_scheduling` reports the
errors on points held out. The curves are NanoFlow's of the A100; what was not measured on another
device stands under `assumptions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from games.co_scheduling.files import entry, no_others, number, read_object, whole
from hlo_frontend.errors import InputError

LEVELS = 10  # of the share of a device: level k is k tenths
Floats = npt.NDArray[np.float64]

_RATES = ("flops", "hbm_bytes_per_s", "hbm_bytes", "link_bytes_per_s")
_POSITIVE = (
    "gemm_efficiency",
    "gemm_split_bytes_per_s",
    "decode_bandwidth",
    "prefill_efficiency",
    "gather_efficiency",
    "scatter_efficiency",
)
_LATENCIES = (
    "gemm_launch_s",
    "decode_launch_s",
    "decode_head_s",
    "gather_latency_s",
    "scatter_latency_s",
)
_CURVES = ("memory_curve", "network_curve")
_OTHERS = ("sms", "gemm_tiles", "assumptions")


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: in the table, or the path of the user's file.
        flops: bf16 operations a second.
        hbm_bytes_per_s, hbm_bytes: rate and size of its memory.
        link_bytes_per_s: of its links to the others, a direction.
        sms: multiprocessors that share a GEMM's tiles in waves; 0 for none.
        gemm_tiles: (rows, columns) of the output that one multiprocessor computes.
        gemm_efficiency: of the peak, in full waves.
        gemm_launch_s: before a GEMM starts.
        gemm_split_bytes_per_s: at which the parts of a split-K GEMM are added up.
        decode_launch_s, decode_head_s: of decode attention; for each query head of each token.
        decode_bandwidth: share of the memory's rate at which the cache is read.
        prefill_efficiency: of the peak, in prefill attention.
        gather_latency_s, gather_efficiency: of an all-gather; of the link's rate.
        scatter_latency_s, scatter_efficiency: of a reduce-scatter.
        memory_curve, network_curve: f64[11], speed with k tenths of the device, 0 to 1.
        assumptions: what of this is not measured, in words.
    """

    name: str
    flops: float
    hbm_bytes_per_s: float
    hbm_bytes: float
    link_bytes_per_s: float
    sms: int
    gemm_tiles: tuple[tuple[int, int], ...]
    gemm_efficiency: float
    gemm_launch_s: float
    gemm_split_bytes_per_s: float
    decode_launch_s: float
    decode_head_s: float
    decode_bandwidth: float
    prefill_efficiency: float
    gather_latency_s: float
    gather_efficiency: float
    scatter_latency_s: float
    scatter_efficiency: float
    memory_curve: Floats
    network_curve: Floats
    assumptions: tuple[str, ...]


def get_device(name: str) -> Device:
    """The device called `name`, or the one in a user's JSON file of that path.

    Raises:
        InputError: neither a device of the table nor a readable, complete file.
    """
    given = entry("hardware", "devices.json", name)
    where = f"hardware {name}"
    no_others(where, given, (*_RATES, *_POSITIVE, *_LATENCIES, *_CURVES, *_OTHERS))
    values: dict[str, Any] = {key: number(where, given, key) for key in (*_RATES, *_POSITIVE)}
    for key in _LATENCIES:
        zero = given.get(key) == 0
        values[key] = 0.0 if zero else number(where, given, key)
    values["sms"] = 0 if given.get("sms") == 0 else whole(where, given, "sms")
    for key in _CURVES:
        if not isinstance(given.get(key), dict):
            raise InputError(f"{where}: field '{key}' is missing; add an object of share: speed")
        values[key] = curve(f"{where}, {key}", given[key])
    assumptions = given.get("assumptions", [])
    if not isinstance(assumptions, list) or not all(isinstance(x, str) for x in assumptions):
        raise InputError(f"{where}: field 'assumptions' is no list of texts")
    return Device(
        name=name, gemm_tiles=_tiles(where, given), assumptions=tuple(assumptions), **values
    )


def with_interference(device: Device, path: Path) -> Device:
    """The device with the curves of a JSON file: `{"memory": {"0.1": 0.25, ...}, "network": ...}`.

    Raises:
        InputError: no such file, or a curve that is none.
    """
    given = read_object("interference", path)
    where = f"interference file {path}"
    no_others(where, given, ("memory", "network"))
    changed: dict[str, Any] = {}
    for key, points in given.items():
        if not isinstance(points, dict):
            raise InputError(f"{where}, {key}: expected an object of share: speed")
        changed[f"{key}_curve"] = curve(f"{where}, {key}", points)
    return replace(device, **changed)


def curve(where: str, points: Mapping[str, Any]) -> Floats:
    """f64[11]: the speed at each level of a curve given at some shares of the device.

    Linear between the points, to which nothing at no share and full speed at the whole belong.

    Raises:
        InputError: not shares and speeds, or one that falls where the share grows.
    """
    shares, speeds = [0.0], [0.0]
    try:
        given = sorted((float(share), float(speed)) for share, speed in points.items())
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected numbers, share: speed ({error})") from error
    for share, speed in given:
        if not (0 < share <= 1 and 0 < speed <= 1):
            raise InputError(
                f"{where}: speed {speed:g} at share {share:g}, expected both in (0, 1]"
            )
        if share == shares[-1]:
            raise InputError(f"{where}: share {share:g} stands there twice; keep one")
        if speed < speeds[-1]:
            raise InputError(
                f"{where}: the speed falls from {speeds[-1]:g} to {speed:g} at share {share:g};"
                " expected a curve that does not fall"
            )
        shares.append(share)
        speeds.append(speed)
    if shares[-1] < 1.0:
        shares.append(1.0)
        speeds.append(1.0)
    return np.interp(np.arange(LEVELS + 1) / LEVELS, shares, speeds)


def _tiles(where: str, given: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    tiles = given.get("gemm_tiles")
    if not isinstance(tiles, list) or not tiles:
        raise InputError(f"{where}: field 'gemm_tiles' is missing; add a list of [rows, columns]")
    for tile in tiles:
        good = isinstance(tile, list) and len(tile) == 2
        if not good or not all(isinstance(side, int) and side > 0 for side in tile):
            raise InputError(f"{where}: tile {tile!r}, expected [rows, columns]")
    return tuple((int(rows), int(columns)) for rows, columns in tiles)
