"""CP-SAT on the 0-1 relaxation: a mapping, and a bound that no mapping beats.

The linear relaxation comes first: it finds the windows and the rounded rows that matter
(`lp.py`). Then CP-SAT solves the relaxation (`relaxation.py`) with these rows; windows that its
solutions break are added, and it goes on. Where that does not end soon, large-neighbourhood search
improves the mapping: most buffers keep what the best mapping gives them, and CP-SAT decides about
the others. What is left of the time is for the whole, asked only for what is better than that.

Each solution's stays get better copy windows (`retiming.py`) and offsets (`placement.py`), and
what the mapping is worth is what the simulator says. So the bound is the relaxation's, and the
objective a real mapping's.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from baselines.memory_mapping.lp import solve_linear
from baselines.memory_mapping.msa import msa
from baselines.memory_mapping.placement import place
from baselines.memory_mapping.relaxation import Relaxation, Row
from baselines.memory_mapping.retiming import retime
from games.base import Result
from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.solution import Mapping, lower_bound, objective

TOLERANCE = 1e-4  # relative gap between objective and bound that counts as proved
UNITS = 2e7  # of time in the all-slow program: the resolution of whole numbers
LARGEST = 2**60
WINDOWS_A_ROUND = 200

LINEAR_SHARE = 0.3  # of the time, for the linear relaxation
NEIGHBOURHOOD_SHARE = 0.5  # of what is left then, for large-neighbourhood search
# CP-SAT's deterministic seconds for a first look at the whole, and for one neighbourhood.
FIRST_LOOK, ONE_NEIGHBOURHOOD = 0.3, 0.15
FIRST_FREE = 12  # buffers that are free in a neighbourhood at first
FULL_WEIGHT = 2e-3  # of the whole program's time in traffic: a buffer that counts as one
MOST_FAILURES = 30  # neighbourhoods in a row without a better mapping
TIGHTEN = 0.98  # of the room at full steps, for mappings, where no offsets were found


def cp_sat(problem: MemoryMappingProblem, *, time_limit: float, seed: int = 0) -> Result[Mapping]:
    """The best mapping that CP-SAT finds, with its bound; one thread.

    The MSA-like mapping is where it starts from, so it is never worse than that. Where the time
    limit does not end it, it is deterministic. Ctrl-C ends it like the time limit.
    """
    started = time.perf_counter()
    heuristic = msa(problem, time_limit=time_limit, seed=seed)
    search = _Search(problem, started, started + time_limit, seed, heuristic)
    with contextlib.suppress(KeyboardInterrupt):
        search.run()
    return Result(
        method="cp_sat",
        solution=search.mapping,
        objective=search.value,
        bound=search.bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=search.proved,
        curve=tuple(search.curve),
        detail={
            "solves": search.solves,
            "windows": len(search.windows),
            "linear_bound": search.linear_bound,
        },
    )


@dataclass(frozen=True)
class _Found:
    """What one run of CP-SAT came to.

    Attributes:
        bound: seconds; valid for the problem if nothing was fixed.
        values: f64[columns] of the best solution, None if there is none.
        relaxed: its objective in the relaxation, seconds.
        finished: it did not run out of time.
    """

    bound: float
    values: Floats | None
    relaxed: float
    finished: bool


@dataclass(frozen=True)
class _Rows:
    """Rows `sum of coefficient * column >= bound` in whole numbers, one after another.

    Attributes:
        first: i64[N + 1] where each row starts.
        columns, coefficients: i64[first[-1]].
        bounds: i64[N].
    """

    first: Ints
    columns: Ints
    coefficients: Ints
    bounds: Ints

    @classmethod
    def of(cls, rows: Sequence[Row], in_seconds: Bools, scale: float) -> _Rows:
        """Rounds so that what keeps the rows keeps these: columns in seconds are in `scale`."""
        lengths = [len(row.columns) for row in rows]
        columns = np.array([c for row in rows for c in row.columns], dtype=np.int64)
        exact = np.array([c for row in rows for c in row.coefficients], dtype=np.float64)
        rounded = np.where(in_seconds[columns], exact, np.ceil(exact / scale)).astype(np.int64)
        bounds = np.floor(np.array([row.bound for row in rows]) / scale).astype(np.int64)
        return cls(np.concatenate([[0], np.cumsum(lengths)]), columns, rounded, bounds)

    def add_to(
        self, model: cp_model.CpModel, columns: Sequence[Any], lower: Ints, upper: Ints
    ) -> None:
        """Adds the rows that columns between these values could break."""
        if not len(self.bounds):
            return
        fixed = lower[self.columns] == upper[self.columns]
        least = self.coefficients * np.where(
            self.coefficients > 0, lower[self.columns], upper[self.columns]
        )
        owed = self.bounds - np.add.reduceat(np.where(fixed, least, 0), self.first[:-1])
        open_ = np.add.reduceat(np.where(fixed, 0, least), self.first[:-1])
        for row in np.flatnonzero(open_ < owed):
            part = slice(self.first[row], self.first[row + 1])
            free = ~fixed[part]
            chosen = [columns[column] for column in self.columns[part][free]]
            terms = cp_model.LinearExpr.weighted_sum(chosen, self.coefficients[part][free])
            model.add_linear_constraint(terms, int(owed[row]), LARGEST)


class _Search:
    """The best mapping, the bound, and the rows so far."""

    def __init__(
        self,
        problem: MemoryMappingProblem,
        started: float,
        deadline: float,
        seed: int,
        heuristic: Result[Mapping],
    ) -> None:
        self.problem = problem
        self.started, self.deadline = started, deadline
        self.seed = seed
        self.mapping, self.value = heuristic.solution, heuristic.objective
        self.curve = [(time.perf_counter() - started, self.value)]
        self.bound = self.linear_bound = lower_bound(problem)
        self.windows: set[tuple[int, int]] = set()
        self.solves = 0
        self.rng = np.random.default_rng(seed)
        traffic = np.bincount(
            problem.access_buffer, weights=problem.access_slow, minlength=problem.num_buffers
        )
        self.weight = np.minimum(traffic / (FULL_WEIGHT * problem.all_slow), 1.0)

    @property
    def proved(self) -> bool:
        """Whether the mapping is optimal within the tolerance."""
        return self.value <= self.bound * (1 + TOLERANCE)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.perf_counter()

    def run(self) -> None:
        """Improves mapping and bound until they meet or the time is over."""
        if self.proved or self.left <= 0:
            return
        self.relaxation = Relaxation(self.problem)
        self.squeeze = np.ones(len(self.relaxation.room))
        linear = solve_linear(self.relaxation, LINEAR_SHARE * self.left)
        self.linear_bound = linear.bound
        self.bound = max(self.bound, linear.bound)
        self.in_seconds = np.array(self.relaxation.seconds)
        # Each column in seconds may be up to a unit too high: keep that far below the tolerance.
        units = max(UNITS, int(self.in_seconds.sum()) * 1e5)
        self.unit = self.problem.all_slow / units
        logic = [*self.relaxation.logic, *linear.cuts]
        self.rows = [
            _Rows.of(logic, self.in_seconds, 1.0),
            _Rows.of(self.relaxation.timing, self.in_seconds, self.unit),
        ]
        self._add_windows({(0, self.problem.num_steps), *linear.windows})
        self._whole(FIRST_LOOK)
        if not self.proved and linear.values is not None:
            self._neighbourhoods(linear.values, self.left * (1 - NEIGHBOURHOOD_SHARE))
        self._whole(math.inf)

    def _whole(self, deterministic: float) -> None:
        """Solves the whole relaxation, adding windows, until it is settled or time is over."""
        while not self.proved and self.left > 0.05:
            found = self._solve(None, deterministic, self._offer)
            self.bound = max(self.bound, found.bound)
            if not found.finished:
                return
            if found.values is None or not self._add_broken(found.values):
                return

    def _neighbourhoods(self, linear: Floats, spare: float) -> None:
        """Large-neighbourhood search until `spare` seconds are left or it no longer pays."""
        size = float(FIRST_FREE)
        failures = 0
        own = self._own_columns()
        while not self.proved and self.left > max(spare, 0.05) and failures < MOST_FAILURES:
            values = self.relaxation.values_of(self.mapping)
            free = self._free_buffers(round(size), values, linear, own, failures % 2 == 0)
            fixed = np.ones(len(values), dtype=np.bool_)
            fixed[np.concatenate([own[buffer] for buffer in np.flatnonzero(free)])] = False
            used = self.problem.access_step[free[self.problem.access_buffer]]
            fixed[self.relaxation.elapsed[used]] = False
            fixed[self.relaxation.stall] = False
            before = self.value
            found = self._solve(fixed, ONE_NEIGHBOURHOOD, None)
            if found.values is not None:
                self._offer(found.values, found.relaxed)
                self._add_broken(found.values)
            if self.value < before * (1 - TOLERANCE / 100):
                failures = 0
            else:
                failures += 1
                # Larger ones where they are easy, smaller ones where they are not.
                size *= 1.15 if found.finished else 0.9
            size = min(max(size, 4.0), float(self.problem.num_buffers))

    def _own_columns(self) -> list[Ints]:
        """For each buffer its columns."""
        relaxation = self.relaxation
        own: list[list[int]] = [
            [event.column for event in events] + stays
            for events, stays in zip(relaxation.events, relaxation.stays, strict=True)
        ]
        for copy in relaxation.copies_in:
            own[copy.buffer] += copy.started.tolist()
        for out in relaxation.copies_out:
            own[out.buffer] += [out.column, *out.held.tolist()]
        return [np.unique(columns) for columns in own]

    def _free_buffers(
        self, size: int, values: Floats, linear: Floats, own: list[Ints], near: bool
    ) -> Bools:
        """bool[V]: about `size` buffers used near a random step, or where the linear one differs.

        Args:
            size: number of buffers; those that hardly matter count less.
            values: f64[columns] of the best mapping.
            linear: f64[columns] of the linear relaxation.
            own: columns of each buffer.
            near: all buffers near the step are candidates, not only those that differ.
        """
        problem = self.problem
        step = int(self.rng.integers(problem.num_steps))
        distance = np.full(problem.num_buffers, np.inf)
        np.minimum.at(distance, problem.access_buffer, np.abs(problem.access_step - step))
        distance += self.rng.random(problem.num_buffers)
        if not near:
            differs = np.array([np.abs(values[columns] - linear[columns]).max() for columns in own])
            distance[differs < 0.1] += 2 * problem.num_steps
        order = np.argsort(distance)
        free = np.zeros(problem.num_buffers, dtype=np.bool_)
        free[order[np.cumsum(self.weight[order]) <= size]] = True
        return free

    def _offer(self, values: Floats, relaxed: float) -> None:
        """Makes a mapping of a solution, and keeps it if it is the best."""
        if relaxed >= self.value:
            return
        stays = retime(self.problem, self.relaxation.stays_of(values))
        if objective(self.problem, Mapping(tuple(stays))) >= self.value:
            return
        placed = place(self.problem, stays, seed=self.seed)
        if placed is None:
            for row, (columns, sizes, limit) in enumerate(self.relaxation.room):
                if sizes @ values[columns] > TIGHTEN * self.squeeze[row] * limit:
                    self.squeeze[row] *= TIGHTEN
            return
        self.mapping, self.value = placed, objective(self.problem, placed)
        self.curve.append((time.perf_counter() - self.started, self.value))

    def _add_broken(self, values: Floats) -> bool:
        """Adds the windows that a solution breaks; whether there are new ones."""
        return self._add_windows(set(self.relaxation.broken_windows(values, WINDOWS_A_ROUND)))

    def _add_windows(self, windows: set[tuple[int, int]]) -> bool:
        new = sorted(windows - self.windows)
        if new:
            self.windows.update(new)
            rows = [self.relaxation.window(*window) for window in new]
            self.rows.append(_Rows.of(rows, self.in_seconds, self.unit))
        return bool(new)

    def _squeezed(self) -> _Rows:
        """The room of the steps that are to be filled less, so that there are offsets."""
        rows = [
            Row(columns.tolist(), (-sizes).tolist(), -limit * float(share))
            for (columns, sizes, limit), share in zip(
                self.relaxation.room, self.squeeze, strict=True
            )
            if share < 1
        ]
        return _Rows.of(rows, self.in_seconds, 1.0)

    def _solve(
        self,
        fixed: Bools | None,
        deterministic: float,
        offer: Callable[[Floats, float], None] | None,
    ) -> _Found:
        """Runs CP-SAT on the relaxation, for what is better than the best mapping.

        Args:
            fixed: bool[columns] that keep the values of the best mapping; None for the whole
                problem. With it, the room of steps is that which offsets were found for.
            deterministic: CP-SAT's deterministic seconds.
            offer: called with (values, objective) of each solution.
        """
        self.solves += 1
        relaxation = self.relaxation
        in_seconds = self.in_seconds
        count = int(in_seconds.sum())
        unit, constant = self.unit, float(relaxation.constant.sum())
        scale = np.where(in_seconds, unit, 1.0)
        lower = np.floor(np.array(relaxation.lower) / scale).astype(np.int64)
        upper = np.ceil(np.array(relaxation.upper) / scale).astype(np.int64)
        hint = np.ceil(relaxation.values_of(self.mapping) / scale - 1e-9).astype(np.int64)
        if fixed is not None:
            lower[fixed] = upper[fixed] = hint[fixed]
        model = cp_model.CpModel()
        columns = [
            model.new_int_var(low, high, "")
            for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
        ]
        for rows in self.rows:
            rows.add_to(model, columns, lower, upper)
        if fixed is not None:
            self._squeezed().add_to(model, columns, lower, upper)
        total = sum(columns[index] for index in np.flatnonzero(in_seconds))
        # Nothing is asked for that is better by less than half of the tolerance.
        aim = self.value * (1 - TOLERANCE / 2)
        model.add(total <= math.floor((aim - constant) / unit) + count)
        model.minimize(total)
        for column, value in zip(columns, hint.tolist(), strict=True):
            model.add_hint(column, value)

        def values_by(value: Callable[[cp_model.IntVar], int]) -> Floats:
            return np.array([value(column) for column in columns]) * scale

        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = self.seed
        solver.parameters.linearization_level = 2
        solver.parameters.relative_gap_limit = TOLERANCE / 5
        solver.parameters.max_time_in_seconds = max(self.left, 0.05)
        if deterministic < math.inf:
            solver.parameters.max_deterministic_time = deterministic
        watch = _Watch(
            lambda each: (
                offer and offer(values_by(each.value), each.objective_value * unit + constant)
            )
        )
        status = solver.solve(model, watch)
        finished = status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
        if status == cp_model.INFEASIBLE:
            return _Found(aim, None, math.inf, finished)
        bound = min((solver.best_objective_bound - count) * unit + constant, aim)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return _Found(bound, None, math.inf, finished)
        relaxed = solver.objective_value * unit + constant
        return _Found(bound, values_by(solver.value), relaxed, finished)


class _Watch(cp_model.CpSolverSolutionCallback):
    """Calls a function at each solution."""

    def __init__(self, call: Callable[[cp_model.CpSolverSolutionCallback], object]) -> None:
        super().__init__()
        self.call = call

    def on_solution_callback(self) -> None:
        self.call(self)
