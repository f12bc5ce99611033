"""Frequency caps on GPUs: NVML clock locks, or only words."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from compiler_rl.power.controller import Decision
from hlo_frontend.errors import InputError

LOWEST_MHZ = 210  # below every cap: the lock is a range
CLASSES = ("lp", "hp")


class Actuator(Protocol):
    """Puts a decision into force."""

    def apply(self, decision: Decision) -> list[str]:
        """What was done or refused, one line each."""


class DryRun:
    """Says what it would do."""

    def apply(self, decision: Decision) -> list[str]:
        """Nothing is done."""
        return [f"dry run: LP {decision.lp_mhz} MHz, HP {decision.hp_mhz} MHz"]


class Nvml:
    """Locks the clocks of this machine's GPUs, all of one class, through NVML.

    A lock that is refused (it needs administrator's rights) is reported, and tried again with the
    next decision that changes the cap; nothing is raised.
    """

    def __init__(self, kind: str, nvml: Any = None) -> None:
        """Opens NVML.

        Args:
            kind: the class of this machine's requests, lp or hp.
            nvml: the module, `pynvml` if None.

        Raises:
            InputError: no NVML, no driver or no GPU.
        """
        if kind not in CLASSES:
            raise InputError(f"--class {kind}: expected lp or hp")
        if nvml is None:
            try:
                nvml = import_module("pynvml")
            except ImportError as error:
                raise InputError(
                    "--act nvml: no module pynvml; install it with"
                    ' pip install "compiler-rl[power]", or leave --act out for a dry run'
                ) from error
        self._nvml = nvml
        self._kind = kind
        self._locked: int | None = None
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            self._devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        except nvml.NVMLError as error:
            raise InputError(f"--act nvml: {error}; leave --act out for a dry run") from error
        if not self._devices:
            raise InputError("--act nvml: no GPU on this machine; leave --act out for a dry run")

    def apply(self, decision: Decision) -> list[str]:
        """Locks the clocks where the cap changed."""
        mhz = decision.lp_mhz if self._kind == "lp" else decision.hp_mhz
        if mhz == self._locked:
            return []
        lines = []
        for number, device in enumerate(self._devices):
            try:
                self._nvml.nvmlDeviceSetGpuLockedClocks(device, LOWEST_MHZ, mhz)
            except self._nvml.NVMLError as error:
                lines.append(f"GPU {number}: {mhz} MHz refused ({error})")
        if not lines:
            self._locked = mhz
            lines.append(f"{len(self._devices)} GPUs locked to {mhz} MHz")
        else:
            self._locked = None
        return lines

    def release(self) -> list[str]:
        """Takes the locks off."""
        lines = []
        for number, device in enumerate(self._devices):
            try:
                self._nvml.nvmlDeviceResetGpuLockedClocks(device)
            except self._nvml.NVMLError as error:
                lines.append(f"GPU {number}: lock not taken off ({error})")
        self._locked = None
        return lines
