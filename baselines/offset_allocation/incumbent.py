"""The best solution so far of a solver that improves on it."""

from __future__ import annotations

import threading
import time

import numpy as np

from games.base import Result
from games.offset_allocation.problem import Ints, OffsetProblem
from games.offset_allocation.solution import Offsets


class Incumbent:
    """The lowest peak so far, who found it and when; threads may offer to it."""

    def __init__(self, problem: OffsetProblem) -> None:
        self.problem = problem
        self.started = time.perf_counter()
        self.offsets: Ints = np.zeros(0, dtype=np.int64)
        self.peak: float = np.inf
        self.method = ""
        self.curve: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def offer(self, method: str, offsets: Ints) -> None:
        """Takes the offsets if their peak is lower."""
        peak = float((offsets + self.problem.size).max(initial=0))
        with self._lock:
            if peak < self.peak:
                self.offsets, self.peak, self.method = offsets.copy(), peak, method
                self.curve.append((time.perf_counter() - self.started, peak))

    def result(
        self, method: str, *, bound: float | None = None, **detail: object
    ) -> Result[Offsets]:
        """What the solver made of the problem; `bound` in bytes."""
        return Result(
            method=method,
            solution=Offsets(self.offsets),
            objective=self.peak,
            bound=bound,
            wall_s=time.perf_counter() - self.started,
            proved_optimal=bound is not None and self.peak <= bound,
            curve=tuple(self.curve),
            detail=detail,
        )
