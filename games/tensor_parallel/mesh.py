"""Meshes of devices, and what collectives on their axes cost.

Times are alpha + beta * bytes on the wire of one device, as in Alpa (Zheng et al., OSDI 2022,
section 4.2; Thakur et al., IJHPCA 2005): an all-gather or a reduce-scatter of B bytes in all moves
(n-1)/n B, an all-reduce twice that, an all-to-all (n-1)/n of the B/n bytes that a device has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hlo_frontend.errors import InputError

GIB = 2**30
ALPHA = 1e-6  # seconds to start a collective


@dataclass(frozen=True)
class Device:
    """One device: published peak (flop/s, bf16), memory (bytes), links (bytes/s, one direction)."""

    peak_flops: float
    memory: int
    bandwidth: float


# Google Cloud's TPU system architecture pages, NVIDIA's H100 SXM data sheet.
DEVICES = {
    "v4": Device(275e12, 32 * GIB, 150e9),
    "v5e": Device(197e12, 16 * GIB, 100e9),
    "v5p": Device(459e12, 95 * GIB, 300e9),
    "v6e": Device(918e12, 32 * GIB, 200e9),
    "h100": Device(989e12, 80 * GIB, 450e9),
}


@dataclass(frozen=True)
class Mesh:
    """A mesh of one or two axes.

    Attributes:
        shape: devices along each axis.
        names: of the axes.
        alpha: seconds to start a collective on each axis.
        beta: seconds a byte on each axis.
        peak_flops: of a device.
        memory: bytes of a device.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    peak_flops: float
    memory: int

    @property
    def devices(self) -> int:
        """How many there are."""
        total = 1
        for size in self.shape:
            total *= size
        return total

    def all_gather(self, axis: int, num_bytes: float) -> float:
        """Seconds; of B bytes after it. A reduce-scatter of as many takes as long."""
        n = self.shape[axis]
        return self.alpha[axis] + self.beta[axis] * (n - 1) / n * num_bytes if n > 1 else 0.0

    def all_reduce(self, axis: int, num_bytes: float) -> float:
        """Seconds; of B bytes on each device."""
        n = self.shape[axis]
        return self.alpha[axis] + self.beta[axis] * 2 * (n - 1) / n * num_bytes if n > 1 else 0.0

    def all_to_all(self, axis: int, num_bytes: float) -> float:
        """Seconds; of B bytes on each device."""
        n = self.shape[axis]
        return self.alpha[axis] + self.beta[axis] * (n - 1) / n * num_bytes if n > 1 else 0.0


def parse_mesh(
    text: str,
    chip: str = "v5e",
    memory: int | None = None,
    alpha: float = ALPHA,
    links: Sequence[float] | None = None,
) -> Mesh:
    """The mesh of `1x8` or `2x4`: axes `dp` and `mp`.

    Args:
        text: devices along each axis.
        chip: of DEVICES.
        memory: bytes of a device; the chip's if None.
        alpha: seconds to start a collective.
        links: bytes a second along each axis; the chip's if None.

    Raises:
        InputError: no such mesh or chip, or links that are not one positive rate for each axis.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip())
    shape = tuple(int(size) for size in match.groups()) if match else (0,)
    if min(shape) < 1 or max(shape) > 4096:
        raise InputError(f"--mesh {text}: expected data x model devices, such as 1x8 or 2x4")
    if chip not in DEVICES:
        raise InputError(f"--chip {chip}: expected one of {', '.join(DEVICES)}")
    device = DEVICES[chip]
    rates = tuple(links) if links is not None else (device.bandwidth,) * len(shape)
    if len(rates) != len(shape) or not all(rate > 0 for rate in rates):
        raise InputError(
            f"--links {','.join(f'{rate / 1e9:g}' for rate in rates)}: expected a positive rate for"
            f" each of {len(shape)} axes, such as 25,100"
        )
    return Mesh(
        shape=shape,
        names=("dp", "mp"),
        alpha=(alpha,) * len(shape),
        beta=tuple(1 / rate for rate in rates),
        peak_flops=device.peak_flops,
        memory=device.memory if memory is None else memory,
    )
