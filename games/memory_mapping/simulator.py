"""Modelled seconds of a mapping, after XLA's `RuntimeSimulator`, in one native pass.

Rules (xla/service/memory_space_assignment/simulator.cc): copies wait in two first-in first-out
queues, slow->fast and fast->slow. They drain in the idle time of the slow memory, at its full
bandwidth, or at half of it each while both queues hold work. Before a step at which a copy must
be done, the program stalls until that copy has drained. What is still in the queues after the
last step is drained at the end: the program is over when its results are in slow memory.

The amount of work is weighted like everything else (`problem.py`): a copy inside a loop body is
as much work as all its executions. (XLA drains the idle time of one iteration and multiplies only
elapsed time, and leaves out the wait at the end.) Copies that start before the same step enter
their queue in the order in which they must be done, then by buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

from games.memory_mapping.problem import Floats, Ints, MemoryMappingProblem

if TYPE_CHECKING:
    from games.memory_mapping.solution import Mapping


@dataclass(frozen=True)
class Timeline:
    """What happens when: all seconds are weighted by executions.

    Attributes:
        elapsed: f64[T] seconds of each step, without stalls.
        stall: f64[T + 1] seconds that the program waits for copies before each step; the last
            entry is the wait at the end of the program.
        backlog_in, backlog_out: f64[T] seconds of copy work queued when the step starts.
    """

    elapsed: Floats
    stall: Floats
    backlog_in: Floats
    backlog_out: Floats

    @property
    def total(self) -> float:
        """Modelled seconds of the program."""
        return float(self.elapsed.sum() + self.stall.sum())


def simulate(problem: MemoryMappingProblem, mapping: Mapping) -> Timeline:
    """Replays a legal mapping. Which rules it keeps is the validator's business, not this one's."""
    slow, fast = traffic(problem, mapping)
    elapsed = np.maximum(problem.compute, slow + fast)
    stall, backlog_in, backlog_out = drain(
        elapsed,
        elapsed - slow,
        *copy_queue(problem, mapping, outwards=False),
        *copy_queue(problem, mapping, outwards=True),
    )
    return Timeline(elapsed, stall, backlog_in, backlog_out)


def traffic(problem: MemoryMappingProblem, mapping: Mapping) -> tuple[Floats, Floats]:
    """(slow f64[T], fast f64[T]): seconds of memory traffic of each step in either memory."""
    slow = problem.fixed_slow.copy()
    fast = np.zeros(problem.num_steps)
    in_fast = mapping.accesses_in_fast(problem)
    np.add.at(slow, problem.access_step[~in_fast], problem.access_slow[~in_fast])
    np.add.at(fast, problem.access_step[in_fast], problem.access_fast[in_fast])
    return slow, fast


def copy_queue(
    problem: MemoryMappingProblem, mapping: Mapping, *, outwards: bool
) -> tuple[Ints, Ints, Floats]:
    """The copies of one direction in the order of their queue: (start, done, seconds of work)."""
    rows = sorted(
        (window.start, window.done, interval.buffer, weight)
        for interval, weight in zip(
            mapping.intervals, mapping.interval_executions(problem), strict=True
        )
        if (window := interval.copy_out if outwards else interval.copy_in) is not None
    )
    return (
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[3] * problem.copy_seconds[row[2]] for row in rows], dtype=np.float64),
    )


@numba.njit(cache=True)
def share_idle(idle: float, work_in: float, work_out: float) -> tuple[float, float]:
    """Seconds of work done on the two queues in `idle` seconds of free bandwidth."""
    both = min(work_in, work_out)
    if idle <= 2.0 * both:
        return idle / 2.0, idle / 2.0
    rest = idle - 2.0 * both
    return min(work_in, both + rest), min(work_out, both + rest)


@numba.njit(cache=True)
def drain_to(target: float, work: float, other: float) -> tuple[float, float]:
    """Stall until `work` is down to `target`: (seconds of stall, work done on the other queue)."""
    need = work - target
    if need <= 0.0:
        return 0.0, 0.0
    shared = min(need, other)
    return need + shared, shared


@numba.njit(cache=True)
def drain(
    elapsed: Floats,
    idle: Floats,
    in_start: Ints,
    in_done: Ints,
    in_work: Floats,
    out_start: Ints,
    out_done: Ints,
    out_work: Floats,
) -> tuple[Floats, Floats, Floats]:
    """(stall, backlog_in, backlog_out) of `Timeline`; both queues come in their own order."""
    num_steps = len(elapsed)
    stall = np.zeros(num_steps + 1)
    backlog_in = np.zeros(num_steps)
    backlog_out = np.zeros(num_steps)
    # Work behind copy k in its queue is (entered so far) - (entered up to and with k).
    in_upto = np.cumsum(in_work)
    out_upto = np.cumsum(out_work)
    in_by_done = np.argsort(in_done, kind="mergesort")
    out_by_done = np.argsort(out_done, kind="mergesort")
    entered_in = entered_out = 0.0
    next_in = next_out = due_in = due_out = 0
    work_in = work_out = 0.0
    for step in range(num_steps + 1):
        while next_in < len(in_start) and in_start[next_in] <= step:
            work_in += in_work[next_in]
            entered_in = in_upto[next_in]
            next_in += 1
        while next_out < len(out_start) and out_start[next_out] <= step:
            work_out += out_work[next_out]
            entered_out = out_upto[next_out]
            next_out += 1
        target_in = work_in
        while due_in < len(in_done) and in_done[in_by_done[due_in]] <= step:
            target_in = min(target_in, entered_in - in_upto[in_by_done[due_in]])
            due_in += 1
        target_out = work_out
        while due_out < len(out_done) and out_done[out_by_done[due_out]] <= step:
            target_out = min(target_out, entered_out - out_upto[out_by_done[due_out]])
            due_out += 1
        if step == num_steps:
            target_in = target_out = 0.0
        seconds, shared = drain_to(target_in, work_in, work_out)
        work_in = min(work_in, target_in)
        work_out -= shared
        more, shared = drain_to(target_out, work_out, work_in)
        work_out = min(work_out, target_out)
        work_in -= shared
        stall[step] = seconds + more
        if step < num_steps:
            backlog_in[step] = work_in
            backlog_out[step] = work_out
            done_in, done_out = share_idle(idle[step], work_in, work_out)
            work_in -= done_in
            work_out -= done_out
    return stall, backlog_in, backlog_out
