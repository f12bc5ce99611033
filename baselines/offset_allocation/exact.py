"""Lowering the peak by exact search (`search.py`), until it is low enough or proved lowest.

Most of the search goes to the *target*, the lowest height that is not yet ruled out; the rest to
heights between it and the best peak so far, halved as long as they are reached, so that there is
something to show where the target is not reached in time.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count

import numpy as np

from baselines.offset_allocation.heuristics import first_fit
from baselines.offset_allocation.incumbent import Incumbent
from baselines.offset_allocation.search import (
    INFEASIBLE,
    RUNNING,
    SOLVED,
    UNIT,
    advance,
    make_search,
    write_offsets,
)
from games.base import Result
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets

TURN = 10  # nodes for each buffer before the next turn
BETWEEN = 4  # every so many turns, one is for a height between the target and the best peak
FINE = 0.002  # of the target: a difference in height that is not halved further
SLICE_SECONDS = 0.05  # between two looks at the clock
FIRST_SLICE = 200  # nodes


def exact(
    problem: OffsetProblem, *, time_limit: float, seed: int = 0, nodes: int | None = None
) -> Result[Offsets]:
    """The lowest peak, proved lowest where time allows.

    Args:
        problem: its capacity does not matter.
        time_limit: seconds.
        seed: of the restarts.
        nodes: a budget in decisions instead of the time limit; it makes the result deterministic.

    Ctrl-C has the same effect as the time limit.
    """
    best = Incumbent(problem)
    start = first_fit(problem, time_limit=time_limit).solution
    best.offer("first_fit_by_size", start.offset)
    descent = Descent(best, 0, seed, time_limit, nodes)
    descent.run(workers=1)
    return best.result("exact", bound=float(descent.bound), **descent.detail())


def lower_peak(
    problem: OffsetProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Offsets | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Offsets]:
    """The exact search as an improver of a given solution.

    Args:
        problem: its capacity does not matter.
        time_limit: seconds.
        seed: of the restarts.
        start: a solution without overlaps; first fit's by default.
        moves: a budget in decisions instead of the time limit; it makes the result deterministic.
        stop: ends the search when another thread sets it.
    """
    best = Incumbent(problem)
    first = first_fit(problem, time_limit=time_limit).solution if start is None else start
    best.offer("start", first.offset)
    descent = Descent(best, 0, seed, time_limit, moves, stop)
    descent.run(workers=1)
    return best.result("lower_peak", bound=float(descent.bound), **descent.detail())


class Descent:
    """A search for a peak of at most `enough` bytes, or failing that for the lowest.

    Attributes:
        bound: bytes; no peak is lower.
        nodes: decisions taken so far.
    """

    def __init__(
        self,
        best: Incumbent,
        enough: int,
        seed: int,
        time_limit: float,
        nodes: int | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.best = best
        self.problem = best.problem
        self.enough = enough
        self.bound = best.problem.max_load[0]
        self.nodes = 0
        self._limit = math.inf if nodes is None else nodes
        self._deadline = best.started + time_limit if nodes is None else math.inf
        self._seed = seed
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()

    @property
    def target(self) -> int:
        """Bytes to aim for."""
        return max(self.bound, self.enough)

    def run(self, workers: int) -> None:
        """Searches in so many threads until the target is reached or the budget is used up."""
        with contextlib.suppress(KeyboardInterrupt):
            if workers == 1:
                _Worker(self, self._seed).work()
                return
            with ThreadPoolExecutor(workers) as pool:
                futures = [
                    pool.submit(_Worker(self, self._seed * workers + k).work)
                    for k in range(workers)
                ]
                try:
                    wait(futures)
                finally:
                    self._stop.set()
                for future in futures:
                    future.result()

    def over(self) -> bool:
        """Whether to stop."""
        return (
            self.best.peak <= self.target
            or self.nodes >= self._limit
            or time.perf_counter() >= self._deadline
            or self._stop.is_set()
        )

    def left(self) -> float:
        """Decisions that the budget allows."""
        return self._limit - self.nodes

    def ruled_out(self, height: int) -> None:
        """No peak is that low."""
        with self._lock:
            self.bound = max(self.bound, height + 1)

    def spent(self, nodes: int) -> None:
        """Counts the decisions of a worker."""
        with self._lock:
            self.nodes += nodes

    def detail(self) -> dict[str, object]:
        """For the result."""
        return {"nodes": self.nodes, "infeasible": self.bound > self.problem.capacity}


class _Attempt:
    """A search for a packing of some height."""

    def __init__(self, problem: OffsetProblem, height: int, seed: int) -> None:
        self.height = height
        self.nodes = 0
        self.search = make_search(
            problem.lower, problem.upper, problem.size, height, problem.alignment, seed
        )


class _Worker:
    """One thread's share of a descent."""

    def __init__(self, descent: Descent, seed: int) -> None:
        self.descent = descent
        self.seed = seed
        self.turn = TURN * (len(descent.problem.ids) + 1)
        self.slice = FIRST_SLICE
        self.goal: _Attempt | None = None
        self.between: _Attempt | None = None
        self.failed = 0  # highest height between that was given up
        self.patience = 2 * self.turn  # nodes for a height between

    def work(self) -> None:
        """Takes turns until the descent is over."""
        for turn in count():
            if self.descent.over():
                return
            if turn % BETWEEN or not self._halve():
                self._aim()

    def _aim(self) -> None:
        target = self.descent.target
        if self.goal is None or self.goal.height != target:
            self.goal = _Attempt(self.descent.problem, target, self.seed)
        self._search(self.goal)

    def _halve(self) -> bool:
        """A turn for a height between target and best peak; False if there is none."""
        target, peak = self.descent.target, int(self.descent.best.peak)
        fine = max(1, int(FINE * target))
        if peak - target <= fine:
            return False
        if self.between is None or self.between.height >= peak:
            low = max(target, self.failed)
            if peak - low <= fine:  # give those that failed another chance, with more patience
                low = target
                self.patience *= 2
            self.between = _Attempt(self.descent.problem, (low + peak) // 2, self.seed)
        status = self._search(self.between)
        if status != RUNNING or self.between.nodes >= self.patience:
            self.failed = 0 if status == SOLVED else self.between.height
            self.between = None
        return True

    def _search(self, attempt: _Attempt) -> int:
        """A turn, in slices of time."""
        descent, status = self.descent, RUNNING
        end = attempt.nodes + self.turn
        while status == RUNNING and attempt.nodes < end and not descent.over():
            nodes = int(min(self.slice, end - attempt.nodes, descent.left()))
            started = time.perf_counter()
            status = advance(attempt.search, nodes)
            seconds = max(time.perf_counter() - started, 1e-6)
            self.slice = max(1, int(min(2 * self.slice, nodes * SLICE_SECONDS / seconds)))
            attempt.nodes += nodes
            descent.spent(nodes)
        if status == SOLVED:
            offsets = np.zeros(len(descent.problem.ids), dtype=np.int64)
            write_offsets(attempt.search, offsets)
            descent.best.offer("exact", offsets)
        elif status == INFEASIBLE:
            # Without alignment, heights are sums of sizes: multiples of their common divisor.
            unit = int(attempt.search.counters[UNIT]) if descent.problem.alignment == 1 else 1
            descent.ruled_out(attempt.height // unit * unit + unit - 1)
        return status
