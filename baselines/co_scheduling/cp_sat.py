"""CP-SAT: the best strictly periodic schedule with fixed shares, of one structure or of many.

Every layer starts one period after the one before, so that all layers together take (layers - 1)
periods and the length of one layer. For a given period, the schedule goes round a circle: a
nano-operation stands at a place in [0, period), so many rounds after the first. The period is found
by bisection, and then the length is made least. A schedule of DYNAMIC is searched as one of STATIC,
which the former only makes faster.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from baselines.co_scheduling.heuristics import two_stage
from baselines.co_scheduling.lp import chain_seconds, lp_bound
from baselines.co_scheduling.plans import Plan, adapted
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
    Structure,
)
from games.co_scheduling.solution import (
    Pipeline,
    evaluate,
    lower_bound,
    make_pipeline,
    objective,
)
from games.co_scheduling.structures import alone, candidates, spread_phases

TOLERANCE = 1e-3
UNITS = 20_000_000  # a second; durations are rounded down, so that bounds hold
ROUNDS = 3  # a nano-operation is so many rounds after the first at most
LENGTH_SHARE = 0.15  # of the time is kept for the length of a layer
LEAST_SECONDS = 0.02  # of a call of the solver


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
    """The best strictly periodic schedule: of the structure of `start`, of all of them if None.

    All of them are the cuts of `structures.candidates`, of the two-stage heuristic and of the plans
    for other batches; each is asked for a schedule that beats the best so far, in rounds with more
    and more time for each.

    `bound` holds for every pipeline of every structure; `detail["periodic_bound"]` is seconds a
    layer of any strictly periodic schedule of these structures with fixed shares,
    `detail["proved_periodic"]` says whether none has a period that is better than what was found
    by more than `TOLERANCE`; `structures` counts them, `open` those about which it is not known.
    """
    started = time.perf_counter()
    search = _Search(problem, seed, workers, started, started + time_limit)
    if start is not None:
        search.take(start)
        search.open = [_Open(problem, start.structure, start.phase, start.level)]
        search.open[0].high = _steady(problem, start)
    else:
        first = two_stage(problem, time_limit=time_limit, seed=seed).solution
        search.take(first)
        plans = [Plan(s, spread_phases(problem, s), alone()) for s in candidates(problem)]
        plans += [Plan(first.structure, first.phase, first.level), *adapted(problem)]
        search.open = sorted(
            (_Open(problem, plan.structure, plan.phase, plan.level) for plan in plans),
            key=lambda each: each.least,
        )
    count = len(search.open)
    closed: list[float] = []
    with contextlib.suppress(KeyboardInterrupt):
        while search.open and search.left() > 0:
            share = search.left() / len(search.open)
            still = []
            for each in search.open:
                search.improve(each, time.perf_counter() + share)
                if search.beaten(each):
                    closed.append(each.least)
                else:
                    still.append(each)
            search.open = still
    return Result(
        method="cp_sat",
        solution=search.best,
        objective=search.value,
        bound=max(lower_bound(problem), lp_bound(problem)),
        wall_s=time.perf_counter() - started,
        curve=tuple(search.curve),
        detail={
            "periodic_bound": min(
                search.value, *closed, *(each.least for each in search.open), math.inf
            ),
            "proved_periodic": not search.open,
            "structures": count,
            "open": len(search.open),
        },
    )


def _steady(problem: CoSchedulingProblem, pipeline: Pipeline) -> float:
    """Units between two layers in the middle of a pipeline."""
    half = problem.layers // 2
    if half == 0:
        return math.inf
    short = replace(problem, layers=problem.layers - half)
    parts = pipeline.structure, pipeline.phase, pipeline.level
    long = evaluate(problem, *parts) * problem.layers
    return (long - evaluate(short, *parts) * short.layers) / half * UNITS


class _Open:
    """A structure, and what is known of its strictly periodic schedules.

    Attributes:
        least: seconds a layer that none of them beats.
        low, high: no schedule has a shorter period, one has this one; units.
        phase, level: a first order and shares, or those of the best that was found.
    """

    def __init__(
        self, problem: CoSchedulingProblem, structure: Structure, phase: Floats, level: Ints
    ) -> None:
        self.problem = problem
        self.structure = structure
        self.phase = phase
        self.level = level
        self.chain = chain_seconds(problem, structure)
        self.low = math.floor(lp_bound(_fixed_shares(problem), structure) * UNITS)
        self.high = math.inf

    @property
    def least(self) -> float:
        """Of all layers but one a period, and the longest nano-batch of the last."""
        layers = self.problem.layers
        return ((layers - 1) * self.low / UNITS + self.chain) / layers

    def period(self, seconds: float) -> int:
        """The longest period, in units, of a schedule of so many seconds a layer."""
        layers = self.problem.layers
        if layers == 1:
            return math.floor(seconds * UNITS)
        return math.floor((seconds * layers - self.chain) / (layers - 1) * UNITS)


def _fixed_shares(problem: CoSchedulingProblem) -> CoSchedulingProblem:
    """The problem that the models are of: DYNAMIC shares are searched as STATIC ones."""
    return problem if problem.mode == NO_INTERFERENCE else replace(problem, mode=STATIC)


class _Search:
    """The best schedule so far, and the models: one for each structure and period."""

    def __init__(
        self,
        problem: CoSchedulingProblem,
        seed: int,
        workers: int,
        started: float,
        deadline: float,
    ) -> None:
        self.problem = problem
        self.seed = seed
        self.workers = workers
        self.started = started
        self.deadline = deadline
        self.shared = problem.mode != NO_INTERFERENCE
        self.open: list[_Open] = []
        self.value = math.inf
        self.curve: list[tuple[float, float]] = []

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.perf_counter()

    def take(self, pipeline: Pipeline | None) -> None:
        """Takes it if it is better."""
        if pipeline is not None and objective(self.problem, pipeline) < self.value:
            self.best = pipeline
            self.value = objective(self.problem, pipeline)
            self.curve.append((time.perf_counter() - self.started, self.value))

    def beaten(self, each: _Open) -> bool:
        """Whether no schedule of the structure has a much shorter period than the best."""
        return each.low >= min(each.high, each.period(self.value)) * (1 - TOLERANCE)

    def improve(self, each: _Open, until: float) -> None:
        """Bisects the period of a structure below that of the best, until that time."""
        until = min(until, self.deadline)
        high: float = min(each.high, each.period(self.value))
        low, found = each.low, None
        # First whether it is any better at all, which is mostly not so.
        period = math.ceil(high * (1 - TOLERANCE))
        while low < high * (1 - TOLERANCE):
            budget = (until - time.perf_counter()) * (1 - LENGTH_SHARE) / 2
            if budget < LEAST_SECONDS:
                break
            status, round_ = self.solve(each, period, budget, shortest=False)
            if round_ is not None:
                found = round_
                self.keep(each, round_)
                high = min(period, each.high)
            else:
                # Search goes on above; the bound follows only what was proved. (A schedule can be
                # stretched: where a period has none, no shorter one has.)
                low = period
                if status == cp_model.INFEASIBLE:
                    each.low = period
            period = int(low + high) // 2
        budget = min(until, self.deadline) - time.perf_counter()
        if each.high < math.inf and budget > LEAST_SECONDS:
            period = math.ceil(each.high) if found is None else found.period
            _, round_ = self.solve(each, period, budget, shortest=True)
            if round_ is not None:
                self.keep(each, round_)

    def keep(self, each: _Open, found: _Round) -> None:
        """Takes the schedule, and goes on from it."""
        each.phase, each.level = found.phase, found.level
        pipeline = make_pipeline(self.problem, each.structure, found.phase, found.level)
        if pipeline is not None:
            each.high = min(each.high, _steady(self.problem, pipeline))
            self.take(pipeline)

    def solve(
        self, each: _Open, period: int, time_limit: float, *, shortest: bool
    ) -> tuple[cp_model.CpSolverStatus, _Round | None]:
        """A schedule of that period, or of the least length of a layer with it."""
        cp = cp_model.CpModel()
        work = each.structure.work(self.problem)
        slots = [int(slot) for slot in np.flatnonzero(work > 0)]
        levels = range(1, LEVELS + 1) if self.shared else (LEVELS,)
        # Linear expressions, whose arithmetic the library's types do not cover.
        place: dict[int, Any] = {}
        begin: dict[int, Any] = {}
        end: dict[int, Any] = {}
        level: dict[int, Any] = {}
        intervals: list[tuple[int, cp_model.IntervalVar]] = []
        for slot in slots:
            # Units at each of its levels.
            speed = self.problem.speed[SPEED[slot % SLOTS]]
            took = [math.floor(work[slot] * UNITS / speed[k]) for k in levels]
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
        for slot, before, same_layer in _precedences(slots):
            cp.add(begin[slot] + (0 if same_layer else period) >= end[before])
        # A circle has no first place: the first slot has it.
        cp.add(begin[slots[0]] == 0)
        if shortest:
            first = cp.new_int_var(-ROUNDS * period, 0, "")
            last = cp.new_int_var(0, (ROUNDS + 2) * period, "")
            for slot in slots:
                cp.add(first <= begin[slot])
                cp.add(last >= end[slot])
            cp.minimize(last - first)
        for slot in slots:
            phase = each.phase[slot] - each.phase[slots[0]]
            cp.add_hint(place[slot], min(int((phase - math.floor(phase)) * period), period - 1))
            if slot in level:
                cp.add_hint(level[slot], int(each.level[slot]))
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = time_limit
        solver.parameters.random_seed = self.seed
        solver.parameters.num_workers = self.workers
        status = solver.solve(cp)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return status, None
        phase, level_of = np.zeros(ALL_SLOTS), np.full(ALL_SLOTS, LEVELS, dtype=np.int64)
        for slot in slots:
            phase[slot] = solver.value(begin[slot]) / period
            if slot in level:
                level_of[slot] = solver.value(level[slot])
        return status, _Round(period, phase, level_of)


def _precedences(slots: list[int]) -> list[tuple[int, int, bool]]:
    """(slot, what comes before it, whether that is of the same layer)."""
    there = set(slots)
    found = []
    for slot in slots:
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
