"""A solver in a process of its own, beside what the caller does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from games.base import Baseline, Result

LOOK = 0.2  # seconds between two looks for Ctrl-C


@contextmanager
def aside(solver: Baseline, problem: Any, time_limit: float, seed: int) -> Iterator[Future[Any]]:
    """A solver in a process of its own, which ends with the block at the latest."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    try:
        yield pool.submit(_run_aside, solver, problem, time.time() + time_limit, seed)
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _run_aside(solver: Baseline, problem: Any, deadline: float, seed: int) -> Result[Any]:
    """Runs in the process; what it takes to start counts too."""
    return solver(problem, time_limit=max(deadline - time.time(), 0.1), seed=seed)


def result_of(future: Future[Any], seconds: float) -> Result[Any] | None:
    """What the solver found, None if it is not done in time or was ended."""
    deadline = time.perf_counter() + seconds
    try:
        # In short waits: a library's handler of Ctrl-C may restart a long one.
        while not future.done() and (left := deadline - time.perf_counter()) > 0:
            wait([future], timeout=min(LOOK, left))
        found: Result[Any] = future.result(timeout=0)
    except (TimeoutError, BrokenProcessPool, KeyboardInterrupt):
        return None
    return found
