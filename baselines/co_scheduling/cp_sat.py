"""CP-SAT: the best strictly periodic schedule of a structure with fixed shares.

Every layer starts one period after the one before, so that all layers together take (layers - 1)
periods and the length of one layer. For a given period, the schedule goes round a circle: a
nano-operation stands at a place in [0, period), so many rounds after the first. The period is found
by bisection, and then the length is made least. A schedule of DYNAMIC is searched as one of STATIC,
which the former only makes faster.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from baselines.co_scheduling.heuristics import two_stage
from baselines.co_scheduling.lp import chain_seconds, lp_bound
from games.base import Result
from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    NO_INTERFERENCE,
    OUT,
    PARTS,
    RESOURCE,
    SLOTS,
    SPEED,
    STATIC,
    CoSchedulingProblem,
)
from games.co_scheduling.solution import Pipeline, lower_bound, make_pipeline, objective

TOLERANCE = 1e-3
UNITS = 10_000_000  # a second
ROUNDS = 3  # a nano-operation is so many rounds after the first at most
LENGTH_SHARE = 0.15  # of the time is kept for the length of a layer


@dataclass(frozen=True)
class _Round:
    """A periodic schedule: period in units, phases and levels of the slots."""

    period: int
    phase: Floats
    level: Ints


def cp_sat(
    problem: CoSchedulingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Pipeline | None = None,
    workers: int = 1,
) -> Result[Pipeline]:
    """The best periodic schedule of the structure of `start` (of the two-stage heuristic if None).

    `bound` holds for every pipeline of every structure; `detail["periodic_bound"]` is seconds a
    layer of any strictly periodic schedule of this structure with fixed shares, and
    `detail["proved_periodic"]` says whether the period is within `TOLERANCE` of the least.
    """
    started = time.perf_counter()
    if start is None:
        start = two_stage(problem, time_limit=time_limit, seed=seed).solution
    best = start
    curve = [(time.perf_counter() - started, objective(problem, best))]
    search = _Search(problem, start, seed, workers)

    def left() -> float:
        return started + time_limit - time.perf_counter()

    def take(found: _Round) -> None:
        nonlocal best
        pipeline = make_pipeline(problem, start.structure, found.phase, found.level)
        if pipeline is not None and objective(problem, pipeline) < objective(problem, best):
            best = pipeline
            curve.append((time.perf_counter() - started, objective(problem, best)))

    ideal = problem if problem.mode == NO_INTERFERENCE else search.static
    low = math.floor(lp_bound(ideal, start.structure) * UNITS)
    high = math.ceil(objective(problem, start) * UNITS) + search.count
    proved, found = low, None
    while low < high * (1 - TOLERANCE) and left() > LENGTH_SHARE * time_limit:
        period = (low + high) // 2
        budget = max((left() - LENGTH_SHARE * time_limit) / 2, 0.05)
        status, round_ = search.solve(period, budget, shortest=False)
        if round_ is not None:
            high, found = period, round_
            take(round_)
        else:
            # Search goes on above; the bound follows only what was proved. (A schedule can be
            # stretched: where a period has none, no shorter one has.)
            low = period
            if status == cp_model.INFEASIBLE:
                proved = period
    if found is not None and left() > 0:
        _, round_ = search.solve(found.period, left(), shortest=True)
        if round_ is not None:
            take(round_)
    value = objective(problem, best)
    # Durations are rounded up by a unit each at most.
    period_bound = max(proved - search.count, 0) / UNITS
    periodic = (problem.layers - 1) * period_bound + chain_seconds(problem, start.structure)
    return Result(
        method="cp_sat",
        solution=best,
        objective=value,
        bound=max(lower_bound(problem), lp_bound(problem)),
        wall_s=time.perf_counter() - started,
        curve=tuple(curve),
        detail={
            "periodic_bound": periodic / problem.layers,
            "proved_periodic": proved >= high * (1 - TOLERANCE),
        },
    )


class _Search:
    """Periodic schedules of one structure, one model for each period."""

    def __init__(
        self, problem: CoSchedulingProblem, start: Pipeline, seed: int, workers: int
    ) -> None:
        self.problem = problem
        self.start = start
        self.seed = seed
        self.workers = workers
        work = start.structure.work(problem)
        self.slots = [int(slot) for slot in np.flatnonzero(work > 0)]
        self.count = len(self.slots)
        self.shared = problem.mode != NO_INTERFERENCE
        levels = range(1, LEVELS + 1) if self.shared else (LEVELS,)
        # Units that each slot takes at each of its levels.
        self.took = {
            slot: [
                math.ceil(work[slot] * UNITS / problem.speed[SPEED[slot % SLOTS], k])
                for k in levels
            ]
            for slot in self.slots
        }

    @property
    def static(self) -> CoSchedulingProblem:
        """The problem that the model is of."""
        given = self.problem
        return CoSchedulingProblem(
            given.name,
            given.seconds,
            given.decode_tokens,
            given.prefill_tokens,
            given.layers,
            STATIC,
            given.speed,
            given.network,
            given.devices,
            given.chunk,
        )

    def solve(
        self, period: int, time_limit: float, *, shortest: bool
    ) -> tuple[cp_model.CpSolverStatus, _Round | None]:
        """A schedule of that period, or of the least length of a layer with it."""
        cp = cp_model.CpModel()
        # Linear expressions, whose arithmetic the library's types do not cover.
        place: dict[int, Any] = {}
        begin: dict[int, Any] = {}
        end: dict[int, Any] = {}
        level: dict[int, Any] = {}
        intervals: list[tuple[int, cp_model.IntervalVar]] = []
        for slot in self.slots:
            took = self.took[slot]
            place[slot] = cp.new_int_var(0, period - 1, "")
            turn = cp.new_int_var(-ROUNDS, ROUNDS, "")
            begin[slot] = place[slot] + period * turn
            length: Any
            if self.shared:
                level[slot] = cp.new_int_var(1, LEVELS, "")
                length = cp.new_int_var(min(took), min(max(took), period), "")
                cp.add_element(level[slot] - 1, took, length)
            else:
                length = took[0]
                if length > period:
                    return cp_model.INFEASIBLE, None
            end[slot] = begin[slot] + length
            for copy in range(2):
                over = cp.new_int_var(copy * period, (copy + 2) * period, "")
                interval = cp.new_interval_var(place[slot] + copy * period, length, over, "")
                intervals.append((slot, interval))
        for resource in range(3):
            cp.add_no_overlap([i for slot, i in intervals if RESOURCE[slot % SLOTS] == resource])
        if self.shared:
            demands = [level[slot] for slot, _ in intervals]
            cp.add_cumulative([interval for _, interval in intervals], demands, LEVELS)
        for slot, before, same_layer in self._precedences():
            cp.add(begin[slot] + (0 if same_layer else period) >= end[before])
        # A circle has no first place: the first slot has it.
        cp.add(begin[self.slots[0]] == 0)
        if shortest:
            first = cp.new_int_var(-ROUNDS * period, 0, "")
            last = cp.new_int_var(0, (ROUNDS + 2) * period, "")
            for slot in self.slots:
                cp.add(first <= begin[slot])
                cp.add(last >= end[slot])
            cp.minimize(last - first)
        for slot in self.slots:
            phase = self.start.phase[slot] - self.start.phase[self.slots[0]]
            cp.add_hint(place[slot], min(int((phase - math.floor(phase)) * period), period - 1))
            if slot in level:
                cp.add_hint(level[slot], int(self.start.level[slot]))
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = time_limit
        solver.parameters.random_seed = self.seed
        solver.parameters.num_workers = self.workers
        status = solver.solve(cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return status, None
        phase, levels = np.zeros(ALL_SLOTS), np.full(ALL_SLOTS, LEVELS, dtype=np.int64)
        for slot in self.slots:
            phase[slot] = solver.value(begin[slot]) / period
            if slot in level:
                levels[slot] = solver.value(level[slot])
        return status, _Round(period, phase, levels)

    def _precedences(self) -> list[tuple[int, int, bool]]:
        """(slot, what comes before it, whether that is of the same layer)."""
        there = set(self.slots)
        found = []
        for slot in self.slots:
            base, kind = slot - slot % SLOTS, slot % SLOTS
            sort = kind // PARTS
            if kind >= OUT:
                before = range(base, slot)
            elif sort == 0:
                found += [(slot, x, False) for x in range(base + OUT, base + SLOTS) if x in there]
                continue
            else:
                # Both attentions come after KQV, and the gather after all.
                before = range(base + kind % PARTS, base + (PARTS if sort < 3 else kind), PARTS)
            found += [(slot, x, True) for x in before if x in there]
        return found
