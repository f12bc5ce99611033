"""CP-SAT: the best strictly periodic schedule of a structure with fixed shares.

Every layer starts one period after the one before. All of what can overlap is in three consecutive
rounds, so that the model has three copies of each nano-operation, tied by the period, which is a
variable. The makespan of L layers is then (L - 1) periods and the length of one layer. A schedule
of DYNAMIC is searched as one of STATIC, which the former only makes faster.
"""

from __future__ import annotations

import math
import time

import numpy as np
from ortools.sat.python import cp_model

from baselines.co_scheduling.heuristics import two_stage
from baselines.co_scheduling.lp import lp_bound
from games.base import Result
from games.co_scheduling.device import LEVELS
from games.co_scheduling.problem import (
    ALL_SLOTS,
    KQV,
    NO_INTERFERENCE,
    OUT,
    PARTS,
    RESOURCE,
    SLOTS,
    SPEED,
    CoSchedulingProblem,
)
from games.co_scheduling.solution import Pipeline, lower_bound, make_pipeline, objective

TOLERANCE = 1e-3
UNITS = 10_000_000  # a second
COPIES = 3


def cp_sat(
    problem: CoSchedulingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Pipeline | None = None,
    workers: int = 1,
) -> Result[Pipeline]:
    """The best periodic schedule of the structure of `start` (of the two-stage heuristic if None).

    `bound` holds for every pipeline of every structure; `detail["periodic_bound"]` is CP-SAT's own,
    seconds a layer of any strictly periodic schedule of this structure with fixed shares.
    """
    started = time.perf_counter()
    if start is None:
        start = two_stage(problem, time_limit=time_limit, seed=seed).solution
    best = start
    model = _Model(problem, start)
    solver = cp_model.CpSolver()
    left = time_limit - (time.perf_counter() - started)
    solver.parameters.max_time_in_seconds = max(left, 0.01)
    solver.parameters.random_seed = seed
    solver.parameters.num_workers = workers
    status = solver.solve(model.cp)
    periodic = 0.0
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        found = model.pipeline(solver)
        if found is not None and objective(problem, found) < objective(problem, best):
            best = found
        # Durations are rounded up, so that the bound is too large by that at most.
        rounding = model.count * problem.layers
        periodic = (solver.best_objective_bound - rounding) / UNITS / problem.layers
    value = objective(problem, best)
    return Result(
        method="cp_sat",
        solution=best,
        objective=value,
        bound=max(lower_bound(problem), lp_bound(problem)),
        wall_s=time.perf_counter() - started,
        curve=((time.perf_counter() - started, value),),
        detail={
            "status": solver.status_name(status),
            "periodic_bound": max(periodic, 0.0),
            "proved_periodic": status == cp_model.OPTIMAL,
        },
    )


class _Model:
    """Variables of the periodic schedule; times in 1 / UNITS seconds."""

    def __init__(self, problem: CoSchedulingProblem, start: Pipeline) -> None:
        self.problem = problem
        self.given = start
        self.cp = cp = cp_model.CpModel()
        work = start.structure.work(problem)
        self.slots = [int(slot) for slot in np.flatnonzero(work > 0)]
        self.count = len(self.slots)
        horizon = 3 * math.ceil(objective(problem, start) * UNITS) + 3 * self.count
        period = self.period = cp.new_int_var(1, horizon, "period")
        self.begin = {s: cp.new_int_var(0, horizon, f"begin{s}") for s in self.slots}
        self.level: dict[int, cp_model.IntVar] = {}
        self.end: dict[int, cp_model.IntVar] = {}
        length: dict[int, cp_model.IntVar | int] = {}
        shared = problem.mode != NO_INTERFERENCE
        for slot in self.slots:
            if shared:
                speed = problem.speed[SPEED[slot % SLOTS]]
                took = [math.ceil(work[slot] * UNITS / speed[k]) for k in range(1, LEVELS + 1)]
                self.level[slot] = level = cp.new_int_var(1, LEVELS, f"level{slot}")
                length[slot] = chosen = cp.new_int_var(min(took), max(took), f"length{slot}")
                cp.add_element(level - 1, took, chosen)
            else:
                length[slot] = math.ceil(work[slot] * UNITS)
            self.end[slot] = cp.new_int_var(0, horizon, f"end{slot}")
            cp.add(self.end[slot] <= COPIES * period)
        intervals = []
        for copy in range(COPIES):
            for slot in self.slots:
                if copy:
                    begin = cp.new_int_var(0, COPIES * horizon, "")
                    end = cp.new_int_var(0, 2 * COPIES * horizon, "")
                    cp.add(begin == self.begin[slot] + copy * period)
                else:
                    begin, end = self.begin[slot], self.end[slot]
                intervals.append((slot, cp.new_interval_var(begin, length[slot], end, "")))
        for resource in range(3):
            cp.add_no_overlap([i for slot, i in intervals if RESOURCE[slot % SLOTS] == resource])
        if shared:
            cp.add_cumulative(
                [interval for _, interval in intervals],
                [self.level[slot] for slot, _ in intervals],
                LEVELS,
            )
        self._precede()
        last = cp.new_int_var(0, horizon, "last")
        cp.add_max_equality(last, list(self.end.values()))
        cp.minimize((problem.layers - 1) * period + last)
        self._hint()

    def _precede(self) -> None:
        cp, there = self.cp, set(self.slots)
        for slot in self.slots:
            base, kind = slot - slot % SLOTS, slot % SLOTS
            if kind < KQV + PARTS:
                # The layer before, one period earlier.
                for last in range(base + OUT, base + SLOTS):
                    if last in there:
                        cp.add(self.begin[slot] + self.period >= self.end[last])
            elif kind < OUT:
                for before in range(base + kind % PARTS, slot, PARTS):
                    both_attend = {2, 4} == {(before - base) // 2 * 2, kind // 2 * 2}
                    if before in there and not both_attend:
                        cp.add(self.begin[slot] >= self.end[before])
            else:
                for before in range(base, slot):
                    if before in there:
                        cp.add(self.begin[slot] >= self.end[before])

    def _hint(self) -> None:
        """A round in the middle of the given timetable, or close to one."""
        middle = self.problem.layers // 2
        given = self.given
        if middle + 1 >= self.problem.layers:
            return
        begin, end = given.start[:, middle], given.end[:, middle]
        least = np.nanmin(begin)
        for slot in self.slots:
            self.cp.add_hint(self.begin[slot], round((begin[slot] - least) * UNITS))
            self.cp.add_hint(self.end[slot], round((end[slot] - least) * UNITS))
            if slot in self.level:
                self.cp.add_hint(self.level[slot], int(given.level[slot]))
        first = self.slots[0]
        round_ = given.start[first, middle + 1] - given.start[first, middle]
        self.cp.add_hint(self.period, round(round_ * UNITS))

    def pipeline(self, solver: cp_model.CpSolver) -> Pipeline | None:
        period = solver.value(self.period)
        phase = np.zeros(ALL_SLOTS)
        level = np.full(ALL_SLOTS, LEVELS, dtype=np.int64)
        for slot in self.slots:
            phase[slot] = solver.value(self.begin[slot]) / period
            if slot in self.level:
                level[slot] = solver.value(self.level[slot])
        return make_pipeline(self.problem, self.given.structure, phase, level)
