"""The line of moves: what the rules need to know of a problem, as padded arrays.

A *unit* is a step of the problem that has a move, together with the steps without one that follow
it: those cost the same under every mapping, so only their idle time and their limits count.
Copies and stays start and end at the borders of units. Every border of a loop's body is a border
of units; a step there without an access gets an empty move.

Loops restrict the game where that keeps it simple, never the other way round: what is legal here
is legal by the rules of `solution.py`.

- A stay inside an iteration, or outside of all loops, has its copies at its own level. A write-back
  is done before the schedule enters or leaves a loop.
- *Holding*: a buffer that is in fast memory before a loop and used in it stays there for the whole
  body. Dirty data that the loop uses can only be held, so it is kept before the loop only where
  holding is legal. `COPY_LOOP` copies a buffer in before the loop to hold it.
- A buffer has one loop that can hold it at a time, the outermost that it enters from outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.memory_mapping.problem import Ints, MemoryMappingProblem
from games.memory_mapping.solution import crosses_border

NEVER = 2**30  # a unit or a limit that nothing reaches
NO_BUFFER = -1

Columns = dict[str, npt.NDArray[Any]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Move:
    """What is known of an access before the game.

    Times are fractions of the problem's all-slow time; units and buffers are indices; limits are
    bytes, the highest end of the buffer's place in fast memory that is legal, 0 where nothing is.

    Attributes:
        unit: i32; `last` marks the last move of its unit.
        buffer: i32, -1 for an empty move. `access` is the problem's access, -1 if there is none.
        size: i32 bytes.
        slow, fast: f32 time of the access in either memory.
        work: f32 time of one copy of the buffer at the level of this move.
        writes, defines: bool as in the problem.
        needed: bool somebody reads what the buffer holds after this move.
        extends: bool a stay in fast memory that ends here may go on to the next use.
        keep_limit: i32 to stay dirty in fast memory until the next use.
        write_back_limit: i32 to start a write-back with the next unit.
        write_back_by: i32 unit by which that write-back is done.
        place_limit: i32 to start a stay here.
        copy_from: i32 first unit in which a copy-in may start, NEVER if there is none.
        next_unit: i32 unit of the buffer's next move, NEVER if there is none.
        worth: f32 time that the buffer's next use saves if it finds it in fast memory.
        hold_end: i32 first unit after the loop that this move enters, 0 if it enters none.
        hold_writes: bool that loop writes the buffer.
        hold_limit, hold_dirty_limit: i32 to hold the buffer, clean or dirty before the loop.
        hold_done: i32 first unit of the loop; a copy for it is done there.
        hold_from: i32 first unit in which a copy-in for holding may start.
        hold_loop: i32 loop around the loop, the level of that copy.
        hold_work: f32 time of that copy.
        held_needed, held_extends: bool as above, for the loop's last move of a held buffer.
        plan: f32 in 0..1: how much a plan that knows all of the program wants this access in
            fast memory (`plan.py`).
        plan_next: f32 the same for the buffer's next access.
        rest: f32 what the plan saves from this move on without the help of what is in fast memory.
    """

    unit: jax.Array
    last: jax.Array
    access: jax.Array
    buffer: jax.Array
    size: jax.Array
    slow: jax.Array
    fast: jax.Array
    work: jax.Array
    writes: jax.Array
    defines: jax.Array
    needed: jax.Array
    extends: jax.Array
    keep_limit: jax.Array
    write_back_limit: jax.Array
    write_back_by: jax.Array
    place_limit: jax.Array
    copy_from: jax.Array
    next_unit: jax.Array
    worth: jax.Array
    hold_end: jax.Array
    hold_writes: jax.Array
    hold_limit: jax.Array
    hold_dirty_limit: jax.Array
    hold_done: jax.Array
    hold_from: jax.Array
    hold_loop: jax.Array
    hold_work: jax.Array
    held_needed: jax.Array
    held_extends: jax.Array
    plan: jax.Array
    plan_next: jax.Array
    rest: jax.Array
    worth_dirty: jax.Array
    rent: jax.Array
    cost_in: jax.Array
    cost_out: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unit:
    """What is known of each unit; shape [N] like the moves, padded.

    Attributes:
        step: i32 its first step, the one with moves.
        loop: i32 innermost loop, -1 if none.
        limit: i32 bytes of fast memory that values may use in all of its steps.
        compute: f32 time of arithmetic of its first step.
        slow: f32 slow-memory time of its first step with every access in slow memory.
        idle: f32 idle time of slow memory in its other steps.
    """

    step: jax.Array
    loop: jax.Array
    limit: jax.Array
    compute: jax.Array
    slow: jax.Array
    idle: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """A problem as the rules see it.

    Attributes:
        whole, real: i32[N, ...] and f32[N, ...] the columns of `Move`, in two tables because that
            is faster to read a row from: those that count or tell, and those that measure.
        units: the table of units, padded to the same length N of the bucket.
        num_moves, num_units: i32[] how many rows are real.
        scale: f32[] what an access saves in fast memory, on average.
    """

    whole: jax.Array
    real: jax.Array
    units: Unit
    num_moves: jax.Array
    num_units: jax.Array
    scale: jax.Array

    @property
    def length(self) -> int:
        """N."""
        return self.whole.shape[0]

    def row(self, index: jax.Array) -> Move:
        """One move."""
        whole, real = self.whole[index], self.real[index]
        values = {name: whole[i] for i, name in enumerate(_WHOLE)}
        values |= {name: whole[len(_WHOLE) + i] > 0 for i, name in enumerate(_FLAGS)}
        values |= {name: real[i] for i, name in enumerate(_REAL)}
        return Move(**values)


def bucket(count: int) -> int:
    """The padded length for that many moves: 64, 96, 128, 192, 256, ..."""
    length = 64
    while length < count:
        length = length * 3 // 2 if length & (length - 1) == 0 else length // 3 * 4
    return length


@dataclass(frozen=True)
class _Access:
    """One access of a buffer on the line; `index` is the problem's, -1 for the end of a loop.

    The latter stands for the moment after a loop at which a result of the program that the loop
    holds can start its way to slow memory.
    """

    index: int
    buffer: int
    step: int
    writes: bool
    defines: bool


def make_rows(problem: MemoryMappingProblem) -> tuple[Columns, Columns]:
    """The columns of `Move` (the plan's are empty) and `Unit`, without padding."""
    line = _Line(problem)
    rows: list[dict[str, float]] = []
    for v in range(problem.num_buffers):
        rows += line.rows_of(v)
    busy = {int(row["unit"]) for row in rows}
    rows += [dict(_EMPTY, unit=u) for u in range(len(line.unit_step)) if u not in busy]
    rows.sort(key=lambda r: (r["unit"], r["writes"], -r["size"], r["buffer"]))
    for row, following in itertools.pairwise(rows):
        row["last"] = row["unit"] != following["unit"]
    rows[-1]["last"] = True
    return {name: np.array([row[name] for row in rows]) for name in _EMPTY}, line.units()


_EMPTY: dict[str, float] = {
    "unit": 0,
    "last": True,
    "access": -1,
    "buffer": NO_BUFFER,
    "size": 0,
    "slow": 0.0,
    "fast": 0.0,
    "work": 0.0,
    "writes": False,
    "defines": False,
    "needed": False,
    "extends": False,
    "keep_limit": 0,
    "write_back_limit": 0,
    "write_back_by": NEVER,
    "place_limit": 0,
    "copy_from": NEVER,
    "next_unit": NEVER,
    "worth": 0.0,
    "hold_end": 0,
    "hold_writes": False,
    "hold_limit": 0,
    "hold_dirty_limit": 0,
    "hold_done": 0,
    "hold_from": NEVER,
    "hold_loop": -1,
    "hold_work": 0.0,
    "held_needed": False,
    "held_extends": False,
    "plan": 0.0,
    "plan_next": 0.0,
    "rest": 0.0,
    "worth_dirty": 0.0,
    "rent": 0.0,
    "cost_in": 0.0,
    "cost_out": 0.0,
}


_FLAGS = [name for name, value in _EMPTY.items() if isinstance(value, bool)]
_REAL = [name for name, value in _EMPTY.items() if isinstance(value, float)]
_WHOLE = [name for name in _EMPTY if name not in _FLAGS and name not in _REAL]


class _Line:
    """A problem with its units; makes the rows of one buffer's moves."""

    def __init__(self, problem: MemoryMappingProblem) -> None:
        self.problem = problem
        steps = problem.num_steps
        border = np.zeros(steps + 1, dtype=np.bool_)
        border[problem.access_step] = True
        border[problem.loop_start] = True
        border[problem.loop_end] = True
        border[0] = True
        self.unit_step: Ints = np.flatnonzero(border[:-1])
        # Also for the position after the last step.
        self.unit_of: Ints = np.searchsorted(self.unit_step, np.arange(steps + 1), side="left")
        self.limit: Ints = np.minimum.reduceat(problem.limit, self.unit_step)
        self.loop: Ints = problem.step_loop[self.unit_step]
        changes = np.append(np.flatnonzero(np.diff(self.loop)) + 1, len(self.loop))
        self.run_end: Ints = changes[
            np.searchsorted(changes, np.arange(len(self.loop)), side="right")
        ]

    def units(self) -> Columns:
        problem = self.problem
        slow = problem.fixed_slow + np.bincount(
            problem.access_step, weights=problem.access_slow, minlength=problem.num_steps
        )
        idle = np.maximum(problem.compute, slow) - slow
        idle[self.unit_step] = 0.0
        scale = problem.all_slow
        return {
            "step": self.unit_step.astype(np.int32),
            "loop": self.loop.astype(np.int32),
            "limit": self.limit.astype(np.int32),
            "compute": (problem.compute[self.unit_step] / scale).astype(np.float32),
            "slow": (slow[self.unit_step] / scale).astype(np.float32),
            "idle": (np.add.reduceat(idle, self.unit_step) / scale).astype(np.float32),
        }

    def rows_of(self, buffer: int) -> list[dict[str, float]]:
        problem = self.problem
        accesses = self._accesses(buffer)
        size = int(problem.size[buffer])
        rows = []
        for position, access in enumerate(accesses):
            unit = self._unit(access)
            loop = self._loop(access)
            after = accesses[position + 1] if position + 1 < len(accesses) else None
            slow = float(problem.access_slow[access.index]) if access.index >= 0 else 0.0
            fast = float(problem.access_fast[access.index]) if access.index >= 0 else 0.0
            needed = self._needed(access, after, loop)
            row = dict(
                _EMPTY,
                unit=unit,
                access=access.index,
                buffer=buffer,
                size=size,
                slow=slow / problem.all_slow,
                fast=fast / problem.all_slow,
                work=self._work(buffer, loop),
                writes=access.writes,
                defines=access.defines,
                needed=needed,
                place_limit=0 if self._at_border(access) else int(self.limit[unit]),
                copy_from=self._copy_from(accesses, position),
                next_unit=NEVER if after is None else self._unit(after),
                write_back_by=int(self.run_end[unit]),
            )
            if unit + 1 < self.run_end[unit]:
                row["write_back_limit"] = int(self.limit[unit : unit + 2].min())
            if after is not None and not after.defines and self._loop(after) == loop:
                row["extends"] = True
                row["keep_limit"] = self._tightest(unit, self._unit(after))
            rows.append(row)
        self._add_holding(accesses, rows)
        return rows

    def _accesses(self, buffer: int) -> list[_Access]:
        problem = self.problem
        found = [
            _Access(
                index,
                buffer,
                int(problem.access_step[index]),
                bool(problem.access_writes[index]),
                bool(problem.access_defines[index]),
            )
            for index in range(problem.first_access[buffer], problem.first_access[buffer + 1])
        ]
        loop = self._loop(found[-1])
        if problem.live_out[buffer] and loop >= 0:
            while problem.loop_parent[loop] >= 0:
                loop = int(problem.loop_parent[loop])
            end = int(problem.loop_end[loop])
            if end < problem.num_steps and problem.step_loop[end] < 0:
                found.append(_Access(-1, buffer, end, False, False))
        return found

    def _add_holding(self, accesses: list[_Access], rows: list[dict[str, float]]) -> None:
        """Fills the columns of holding: see the module's docstring."""
        problem = self.problem
        buffer = accesses[0].buffer
        free = 0  # accesses before this one are in a loop that may hold the buffer already
        for position, access in enumerate(accesses):
            before = accesses[position - 1] if position else None
            entered = self._entered(before, access)
            if position < free or entered < 0 or access.defines:
                continue
            if before is None and not problem.initial[buffer]:
                continue
            home = int(problem.loop_parent[entered])
            end = int(problem.loop_end[entered])
            inside = [p for p in range(position, len(accesses)) if accesses[p].step < end]
            last = inside[-1]
            after = accesses[last + 1] if last + 1 < len(accesses) else None
            unit, end_unit = int(rows[position]["unit"]), int(self.unit_of[end])
            limit = dirty_limit = self._tightest(unit, end_unit)
            stays = after is not None and not after.defines and self._loop(after) == home
            needed = self._needed(accesses[last], after, home)
            if needed and stays and after is not None:
                dirty_limit = min(limit, self._tightest(end_unit, self._unit(after)))
            elif needed:
                dirty_limit = 0
            writes = any(accesses[p].writes for p in inside)
            if writes:
                limit = dirty_limit
            if limit == 0:
                continue
            free = last + 1
            rows[position].update(
                hold_end=end_unit,
                hold_writes=writes,
                hold_limit=limit,
                hold_dirty_limit=dirty_limit,
                hold_done=int(self.unit_of[problem.loop_start[entered]]),
                hold_loop=home,
                hold_work=self._work(buffer, home),
                hold_from=self._hold_from(accesses, position, home),
            )
            rows[last].update(held_needed=needed, held_extends=stays)
            if before is not None and self._loop(before) == home:
                previous = rows[position - 1]
                previous["extends"] = True
                previous["keep_limit"] = min(
                    dirty_limit, self._tightest(int(previous["unit"]), unit)
                )

    def _hold_from(self, accesses: list[_Access], position: int, home: int) -> int:
        """A copy at the level of `home` reads what was written last, in this iteration of it."""
        begin = 0
        if home >= 0:
            begin = int(self.unit_of[self.problem.loop_start[home]])
            if crosses_border(self.problem, accesses[0].buffer, home):
                begin += 1
        for before in accesses[:position]:
            if before.writes or self._loop(before) != home:
                begin = max(begin, self._unit(before) + 1)
        return begin

    def _copy_from(self, accesses: list[_Access], position: int) -> int:
        """Copies read what was written last, and stay in the iteration of their use."""
        access = accesses[position]
        buffer = access.buffer
        loop = self._loop(access)
        if access.defines or (position == 0 and not self.problem.initial[buffer]):
            return NEVER
        begin = 0
        if loop >= 0:
            # A stay of a whole body would be the same in every iteration: another stay.
            crosses = any(crosses_border(self.problem, buffer, k) for k in self._around(loop))
            begin = int(self.unit_of[self.problem.loop_start[loop]]) + crosses
        for before in accesses[:position]:
            if before.writes or self._loop(before) != loop:
                begin = max(begin, self._unit(before) + 1)
        return begin

    def _needed(self, access: _Access, after: _Access | None, loop: int) -> bool:
        """Whether data that the buffer holds after an access at the level of `loop` is read."""
        problem = self.problem
        if after is None:
            if problem.live_out[access.buffer]:
                return True
        elif not after.defines or self._entered(access, after) >= 0:
            return True
        return any(
            crosses_border(problem, access.buffer, k)
            and (after is None or after.step >= problem.loop_end[k])
            for k in self._around(loop)
        )

    def _entered(self, before: _Access | None, access: _Access) -> int:
        """The outermost loop around the access that is not around the one before it."""
        outside = set() if before is None else set(self._around(self._loop(before)))
        entered = [loop for loop in self._around(self._loop(access)) if loop not in outside]
        return entered[-1] if entered else -1

    def _at_border(self, access: _Access) -> bool:
        return any(
            access.step == self.problem.loop_start[k]
            and crosses_border(self.problem, access.buffer, k)
            for k in self._around(self._loop(access))
        )

    def _around(self, loop: int) -> Iterator[int]:
        """The loop and those around it, the innermost first."""
        while loop >= 0:
            yield loop
            loop = int(self.problem.loop_parent[loop])

    def _unit(self, access: _Access) -> int:
        return int(self.unit_of[access.step])

    def _loop(self, access: _Access) -> int:
        return int(self.problem.step_loop[access.step])

    def _work(self, buffer: int, loop: int) -> float:
        runs = 1.0 if loop < 0 else float(self.problem.loop_executions[loop])
        return float(runs * self.problem.copy_seconds[buffer] / self.problem.all_slow)

    def _tightest(self, first: int, end: int) -> int:
        """The least limit in units [first, end)."""
        return int(self.limit[first:end].min(initial=NEVER))


def make_arrays(moves: Columns, units: Columns, length: int) -> Arrays:
    """The tables, padded to the length with empty moves, and with zeros for units."""
    count = len(moves["unit"])
    whole = np.tile(np.array([_EMPTY[name] for name in (*_WHOLE, *_FLAGS)], np.int32), (length, 1))
    real = np.zeros((length, len(_REAL)), dtype=np.float32)
    for i, name in enumerate((*_WHOLE, *_FLAGS)):
        whole[:count, i] = moves[name]
    for i, name in enumerate(_REAL):
        real[:count, i] = moves[name]
    rest = length - len(units["step"])
    return Arrays(
        whole=jnp.asarray(whole),
        real=jnp.asarray(real),
        units=Unit(**{name: jnp.asarray(np.pad(units[name], (0, rest))) for name in units}),
        num_moves=jnp.int32(count),
        num_units=jnp.int32(len(units["step"])),
        scale=jnp.float32((moves["slow"] - moves["fast"]).mean()),
    )
