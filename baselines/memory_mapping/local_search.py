"""Local search: simulated annealing over stays in fast memory, from any mapping."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from baselines.memory_mapping import local_search_kernel as kernel
from baselines.memory_mapping.placement import least_room, pack_under, place
from games.base import Result
from games.memory_mapping.problem import Ints, MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping, objective
from hlo_frontend.program import CopyWindow

# Shares of the whole budget: one annealing from hot to cold each. From nothing the first is a quick
# one; from a start the second is from nothing, and the better one goes on.
CYCLES = (1 / 7, 2 / 7, 2 / 7, 2 / 7)
CYCLES_FROM_START = (1 / 5, 1 / 5, 1 / 5, 1 / 5, 1 / 5)
# Where cycles start by turns, in savings of a typical second of traffic. Some programs need the hot
# ones, others gain by ones that stay near the incumbent; see experiments/README.md.
HOT = (1.0, 0.1)
WARM = 0.1  # of that unit: where the strict cycle starts
# How much more room stays without offsets are offered, to learn how far they are from fitting.
SHORTAGES = (1.005, 1.01, 1.02, 1.03, 1.05, 1.08, 1.12, 1.2)
PACKINGS = 40  # tries for each
SLICES = 64  # of a cycle: temperatures, and looks at the clock
SLICE_SECONDS = 0.1
FIRST_SLICE = 16  # moves
COOLING = 1e4  # hot / cold


@dataclass
class Incumbent:
    """The best mapping so far and when it was found."""

    started: float
    mapping: Mapping
    objective: float
    curve: list[tuple[float, float]]

    def offer(self, problem: MemoryMappingProblem, mapping: Mapping) -> bool:
        """Takes the mapping if it is better."""
        value = objective(problem, mapping)
        if value >= self.objective:
            return False
        self.mapping, self.objective = mapping, value
        self.curve.append((time.perf_counter() - self.started, value))
        return True


def local_search(
    problem: MemoryMappingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Mapping | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Mapping]:
    """Simulated annealing from `start` (from everything in slow memory if None).

    Args:
        time_limit: seconds; with `moves` given it only ends the search early.
        moves: budget in moves, instead of the time limit; the same moves and seed give the same
            mapping.
        stop: ends the search early when another thread sets it.

    Ctrl-C ends the search like the time limit: the best mapping so far is returned.
    """
    started = time.perf_counter()
    first = Mapping(()) if start is None else start
    best = Incumbent(started, first, objective(problem, first), [])
    best.curve.append((0.0, best.objective))
    done = 0
    if problem.num_accesses:
        deadline = started + time_limit if moves is None else math.inf
        search = Search(problem, seed, deadline, stop or threading.Event())
        with contextlib.suppress(KeyboardInterrupt):
            search.run(best, moves)
        done = search.moves
    return Result(
        method="annealing",
        solution=best.mapping,
        objective=best.objective,
        wall_s=time.perf_counter() - started,
        curve=tuple(best.curve),
        detail={"moves": done},
    )


class Search:
    """The annealing state of one problem and what it needs between slices."""

    def __init__(
        self, problem: MemoryMappingProblem, seed: int, deadline: float, stop: threading.Event
    ) -> None:
        self.problem = problem
        self.deadline = deadline
        self.stop = stop
        self.moves = 0
        self.strict = False
        self.crowded = False
        self.static = kernel.make_static(problem)
        self.seeds = np.random.default_rng(seed)
        slow = problem.fixed_slow + np.bincount(
            problem.access_step, weights=problem.access_slow, minlength=problem.num_steps
        )
        # What an access can save alone at most: no more than makes its step bound by arithmetic.
        excess = np.maximum(slow - problem.compute, 0.0)[problem.access_step]
        gain = np.minimum(problem.access_slow - problem.access_fast, excess)
        total = np.bincount(problem.access_buffer, weights=gain, minlength=problem.num_buffers)
        self.order = np.argsort(-total / problem.size, kind="stable")
        share = gain / gain.sum() if gain.sum() > 0 else np.full(len(gain), 1 / len(gain))
        self.heavy = self.seeds.choice(len(gain), size=8192, p=share).astype(np.int64)
        # The saving of a typical second of traffic is what a move that matters changes.
        self.typical = float((gain**2).sum() / gain.sum()) if gain.sum() > 0 else 1e-9

    def run(self, best: Incumbent, moves: int | None) -> None:
        """All cycles, each from the incumbent, but for one from nothing beside a given start.

        A cycle does not leave a bad start for good, and does not find back to a good one. Where
        offsets were hard to find, the last one goes into every gap: strictly, and not so hot that
        it would forget what it starts from.
        """
        search = self
        nothing = Mapping(())
        cycles = CYCLES_FROM_START if best.mapping.intervals else CYCLES
        for index, share in enumerate(cycles):
            hot = HOT[index % len(HOT)] * self.typical
            if index == len(cycles) - 1 and self.crowded:
                search, hot = self._strict_copy(), WARM * self.typical
            start = nothing if index == 1 and cycles is CYCLES_FROM_START else best.mapping
            if moves is None:
                left = self.deadline - time.perf_counter()
                seconds = left * share / sum(cycles[index:])
                self.moves += search.cycle(best, start, hot, None, seconds)
            else:
                self.moves += search.cycle(best, start, hot, int(moves * share), math.inf)
            if self._over():
                break

    def _over(self) -> bool:
        return self.stop.is_set() or time.perf_counter() >= self.deadline

    def cycle(
        self, best: Incumbent, start: Mapping, hot: float, moves: int | None, seconds: float
    ) -> int:
        """One annealing from hot to cold, from a mapping, for `moves` or else `seconds`.

        Returns the number of moves made.
        """
        wishes = wishes_of(self.problem, start.intervals)
        state = self.load(wishes)
        value = float(state.total[0])
        begun = time.perf_counter()
        done, size, progress = 0, FIRST_SLICE, 0.0
        try:
            while progress < 1.0 and not self._over():
                temperature = hot * COOLING**-progress
                if moves is not None:
                    size = min(max(1, moves // SLICES), moves - done)
                before = time.perf_counter()
                value = self.anneal(state, wishes, value, size, temperature)
                now = time.perf_counter()
                done += size
                progress = (now - begun) / seconds if moves is None else done / moves
                if moves is None:
                    # Slices follow the clock: moves are slower where memory is crowded.
                    aim = min(SLICE_SECONDS, seconds / SLICES)
                    size = max(1, min(4 * size, int(size * aim / (now - before))))
        except KeyboardInterrupt:
            self.stop.set()
        best.offer(self.problem, self._mapping(wishes))
        return done

    def _mapping(self, wishes: Ints) -> Mapping:
        """The wishes as a mapping with offsets."""
        stays = stays_of(self.problem, self.load(wishes))
        if self.strict:
            return Mapping(tuple(stays))
        mapping = place(self.problem, stays)
        if mapping is not None:
            return mapping
        # No offsets for all of them. From now on the loose mode leaves as much room as was
        # missing; from this state, keep the most profitable stays that find a gap.
        self.crowded = True
        limit = self.static.steps[kernel.LIMIT]
        limit[:] = (limit / self._shortage(stays)).astype(np.int64)
        return Mapping(tuple(stays_of(self.problem, self._strict_copy().load(wishes))))

    def _shortage(self, stays: list[FastInterval]) -> float:
        """By how much more room the stays would find offsets."""
        buffer = np.array([stay.buffer for stay in stays])
        start = np.array([stay.start for stay in stays])
        end = np.array([stay.end for stay in stays])
        size, room = self.problem.size[buffer], least_room(self.problem.limit, start, end)
        for more in SHORTAGES[:-1]:
            if pack_under(start, end, size, (room * more).astype(np.int64), PACKINGS, 0)[0]:
                return more
        return SHORTAGES[-1]

    def _strict_copy(self) -> Search:
        """The same search in strict mode, where the limits are the problem's own."""
        twin = copy(self)
        twin.strict = True
        twin.static = kernel.make_static(self.problem)
        return twin

    def load(self, wishes: Ints) -> kernel.State:
        """The state of these wishes; in strict mode the best stays find their offset first."""
        state = kernel.make_state(self.problem, strict=self.strict)
        state.access[: kernel.NUM_WISHES] = wishes
        kernel.load_wishes(self.static, state, self.order)
        return state

    def anneal(
        self,
        state: kernel.State,
        wishes: Ints,
        value: float,
        moves: int,
        temperature: float,
    ) -> float:
        """Moves at one temperature; `wishes` and the returned objective are the best so far."""
        seed = int(self.seeds.integers(2**31))
        return float(
            kernel.anneal(self.static, state, self.heavy, wishes, value, moves, temperature, seed)
        )


def wishes_of(problem: MemoryMappingProblem, stays: Sequence[FastInterval]) -> Ints:
    """i64[NUM_WISHES, A]: stays as the kernel wants them."""
    wishes = np.full((kernel.NUM_WISHES, problem.num_accesses), kernel.NONE)
    wishes[[kernel.IN_FAST, kernel.JOIN]] = 0
    for stay in stays:
        low, high = problem.first_access[stay.buffer : stay.buffer + 2]
        first, end = low + np.searchsorted(problem.access_step[low:high], [stay.ready, stay.end])
        if first == end:
            continue
        wishes[kernel.IN_FAST, first:end] = 1
        wishes[kernel.JOIN, first + 1 : end] = 1
        wishes[kernel.WANT_OFFSET, first] = stay.offset
        if stay.copy_in is not None:
            wishes[kernel.WANT_IN, first] = stay.copy_in.start
            loop = problem.step_loop[problem.access_step[first]]
            if (
                loop >= 0
                and stay.ready <= problem.loop_start[loop]
                and problem.access_step[end - 1] < problem.loop_end[loop] <= stay.end
            ):
                wishes[kernel.WANT_IN, first] = kernel.HOISTED - stay.copy_in.start
        if stay.copy_out is not None:
            wishes[kernel.WANT_OUT, first] = stay.copy_out.start
            wishes[kernel.WANT_FREE, first] = stay.copy_out.done
    return wishes


def stays_of(problem: MemoryMappingProblem, state: kernel.State) -> list[FastInterval]:
    """The stays of a state; in loose mode their offsets are still 0."""
    return [
        FastInterval(
            buffer=int(problem.access_buffer[key]),
            start=int(state.access[kernel.BEGIN, key]),
            end=int(state.access[kernel.END, key]),
            offset=max(int(state.access[kernel.OFFSET, key]), 0),
            copy_in=None
            if state.access[kernel.IN_START, key] < 0
            else CopyWindow(
                int(state.access[kernel.IN_START, key]), int(state.access[kernel.READY, key])
            ),
            copy_out=None
            if state.access[kernel.OUT_START, key] < 0
            else CopyWindow(
                int(state.access[kernel.OUT_START, key]), int(state.access[kernel.OUT_DONE, key])
            ),
        )
        for key in range(problem.num_accesses)
        if state.access[kernel.LAST, key] >= 0
    ]
