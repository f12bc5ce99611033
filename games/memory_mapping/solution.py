"""A mapping: the stays of buffers in fast memory, its objective, and a bound on any mapping's.

The rules that a legal mapping keeps (the validator checks each on its own):

1. Room: `offset` is a multiple of the alignment, `offset + size` is within the limit of every
   step of the stay, and stays that share a step share no byte.
2. A stay without a copy-in starts at a step that defines the buffer; nothing older is needed.
3. A copy-in runs during [start, done) and the stay starts with it. The buffer is valid in slow
   memory at `start` and nothing writes it before `done`. Reads before `done` are from slow memory.
4. A copy-out runs during [start, done) within the stay, after the stay's last write and after its
   copy-in is done. From `done` on the buffer is valid in slow memory too.
5. Whoever reads slow memory (an access left there, a copy-in, a live-out at the end) finds it
   valid; a write in fast memory makes it invalid until a copy-out is done.
6. Loops: a stay lies inside one iteration of a loop body, or covers the whole body, or is outside
   of it; its copies belong to the same loop level. A buffer that a loop accesses and that lives
   across its border, but not in fast memory there, is valid in slow memory: at the start of the
   body if it lives before the loop, at the end of the body in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from games.memory_mapping.problem import Bools, MemoryMappingProblem
from games.memory_mapping.simulator import simulate
from hlo_frontend.program import CopyWindow


@dataclass(frozen=True)
class FastInterval:
    """One stay of a buffer in fast memory: it holds `offset..offset+size` in steps [start, end).

    `buffer` is an index of the problem's buffers; steps are the problem's. A copy window
    [start, done) may be empty: the program then waits for the whole copy.
    """

    buffer: int
    start: int
    end: int
    offset: int
    copy_in: CopyWindow | None = None
    copy_out: CopyWindow | None = None

    @property
    def ready(self) -> int:
        """The first step whose access of the buffer is served by fast memory."""
        return self.start if self.copy_in is None else self.copy_in.done


@dataclass(frozen=True)
class Mapping:
    """A solution of the game: what is in fast memory; everything else is in slow memory."""

    intervals: tuple[FastInterval, ...]

    def accesses_in_fast(self, problem: MemoryMappingProblem) -> Bools:
        """bool[A]: which accesses fast memory serves."""
        result = np.zeros(problem.num_accesses, dtype=np.bool_)
        for interval in self.intervals:
            begin, end = problem.first_access[interval.buffer : interval.buffer + 2]
            steps = problem.access_step[begin:end]
            low, high = np.searchsorted(steps, [interval.ready, interval.end])
            result[begin + low : begin + high] = True
        return result

    def interval_executions(self, problem: MemoryMappingProblem) -> list[float]:
        """How often the copies of each stay run: the executions of the loop that it is in."""
        return [
            1.0 if loop < 0 else float(problem.loop_executions[loop])
            for loop in (interval_loop(problem, i) for i in self.intervals)
        ]


def interval_loop(problem: MemoryMappingProblem, interval: FastInterval) -> int:
    """The innermost loop in one of whose iterations the stay lies, -1 if none (rule 6).

    A stay of exactly a whole body belongs to the level outside, if the buffer lives across the
    body's border: it is then the same stay in every iteration.
    """
    loop = int(problem.step_loop[interval.start]) if interval.start < problem.num_steps else -1
    while loop >= 0 and not _inside(problem, interval, loop):
        loop = int(problem.loop_parent[loop])
    return loop


def _inside(problem: MemoryMappingProblem, interval: FastInterval, loop: int) -> bool:
    start, end = int(problem.loop_start[loop]), int(problem.loop_end[loop])
    if interval.start < start or interval.end > end:
        return False
    whole = interval.start == start and interval.end == end
    return not (whole and crosses_border(problem, interval.buffer, loop))


def crosses_border(problem: MemoryMappingProblem, buffer: int, loop: int) -> bool:
    """Whether the buffer holds data before the loop's body starts or after it ends.

    A parameter or a constant is in slow memory from the start, wherever it is first read.
    """
    return bool(
        problem.initial[buffer]
        or problem.live_start[buffer] < problem.loop_start[loop]
        or problem.live_end[buffer] > problem.loop_end[loop]
    )


def objective(problem: MemoryMappingProblem, mapping: Mapping) -> float:
    """Modelled seconds of the program under the mapping, stalls included."""
    return simulate(problem, mapping).total


def lower_bound(problem: MemoryMappingProblem) -> float:
    """Seconds that no mapping beats: the better of two simple relaxations.

    Either every access is in fast memory and no copy is needed, or arithmetic is free and slow
    memory only carries what it must. That is, for what a buffer holds before anything redefines
    it, if it comes from slow memory, and for what it holds at last, if that must end there: its
    accesses, or if that is less one copy.
    """
    steps = problem.num_steps
    fast = np.bincount(problem.access_step, weights=problem.access_fast, minlength=steps)
    everything_fast = float(np.maximum(problem.compute, problem.fixed_slow + fast).sum())
    buffer = problem.access_buffer
    upto = np.concatenate([[0], np.cumsum(problem.access_defines)])
    before = upto[problem.first_access]
    definitions = upto[1:] - before[buffer]  # of the same buffer, up to and with this access
    first = problem.initial[buffer] & (definitions == 0)
    last = problem.live_out[buffer] & (definitions == np.diff(before)[buffer]) & ~first
    traffic = float(problem.fixed_slow.sum())
    for part in (first, last):
        accesses = np.bincount(
            buffer, weights=problem.access_slow * part, minlength=problem.num_buffers
        )
        traffic += float(np.minimum(accesses, problem.copy_seconds).sum())
    return max(everything_fast, traffic)


def occupancy(problem: MemoryMappingProblem, intervals: Sequence[FastInterval]) -> np.ndarray:
    """i64[T]: bytes of fast memory in use during each step."""
    change = np.zeros(problem.num_steps + 1, dtype=np.int64)
    for interval in intervals:
        change[interval.start] += problem.size[interval.buffer]
        change[interval.end] -= problem.size[interval.buffer]
    return np.cumsum(change)[:-1]
