"""Small programs, random ones, random legal mappings of them, and their mapping files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from games.memory_mapping.chips import Chip
from games.memory_mapping.mapping_file import to_json
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import FastInterval, Mapping
from hlo_frontend.program import Buffer, CopyWindow, Loop, Program, Step, Use, Value

UNIT = 16
# Copies, memory traffic and arithmetic of the programs below all take about as long.
CHIP = Chip(
    name="toy",
    peak_flops=1e3,
    slow_bandwidth=100.0,
    fast_bandwidth=2000.0,
    fast_bytes=16 * UNIT,
    memory_space=1,
    alignment=UNIT,
    clock_hz=1e9,
)


class ProgramBuilder:
    """Collects steps, loops and values; `build` makes the cross-referenced tables."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.loops: list[Loop] = []
        self.values: list[Value] = []
        self.flags: list[tuple[bool, bool, int | None]] = []

    def step(
        self, name: str, flops: float = 0.0, scoped: int = 0, other: int = 0, loop: int = -1
    ) -> int:
        runs, outer = 1, loop
        while outer >= 0:
            runs *= self.loops[outer].trip_count
            outer = self.loops[outer].parent
        self.steps.append(Step(name, "fusion", "main", loop, runs, flops, 0.0, other, None, scoped))
        return len(self.steps) - 1

    def loop(self, start: int, end: int, trips: int, parent: int = -1) -> int:
        self.loops.append(Loop(f"while.{len(self.loops)}", start, end, trips, True, parent))
        return len(self.loops) - 1

    def buffer(
        self, initial: bool = False, live_out: bool = False, fixed_space: int | None = None
    ) -> int:
        self.flags.append((initial, live_out, fixed_space))
        return len(self.flags) - 1

    def value(
        self,
        buffer: int,
        size: int,
        def_step: int,
        uses: list[int],
        updates: tuple[int, ...] = (),
        name: str | None = None,
        use_bytes: int | None = None,
    ) -> int:
        initial = self.flags[buffer][0] and not updates
        self.values.append(
            Value(
                name=name or f"{self.steps[def_step].name}.v{len(self.values)}",
                index=(),
                shape=f"s8[{size}]{{0}}",
                size=size,
                buffer=buffer,
                def_step=def_step,
                def_bytes=0 if initial else size,
                uses=tuple(
                    Use(step, k, (), size if use_bytes is None else use_bytes)
                    for k, step in enumerate(sorted(uses))
                ),
                memory_space=0,
                parameter=0 if initial else -1,
                updates=updates,
            )
        )
        return len(self.values) - 1

    def build(self) -> Program:
        buffers = []
        values: list[list[int]] = [[] for _ in self.flags]
        for i, value in enumerate(self.values):
            values[value.buffer].append(i)
        for index, (initial, live_out, fixed_space) in enumerate(self.flags):
            own = values[index]
            steps = [self.values[i].def_step for i in own]
            steps += [use.step for i in own for use in self.values[i].uses]
            start, end = 0 if initial else min(steps), max(steps)
            for loop in self.loops:
                # What a loop finds and uses it uses in every iteration.
                if start < loop.start and any(loop.start <= s < loop.end for s in steps):
                    end = max(end, loop.end - 1)
            buffers.append(
                Buffer(
                    values=tuple(own),
                    size=max(self.values[i].size for i in own),
                    live_start=start,
                    live_end=len(self.steps) - 1 if live_out else end,
                    initial=initial,
                    live_out=live_out,
                    fixed_space=fixed_space,
                )
            )
        return Program(
            name="toy",
            source="toy.txt",
            fingerprint="f00d",
            scheduled=True,
            steps=tuple(self.steps),
            values=tuple(self.values),
            buffers=tuple(buffers),
            loops=tuple(self.loops),
            assignment=None,
        )


def random_program(rng: np.random.Generator) -> Program:
    """Straight-line code with up to three loops, nested at random, and a dozen alias classes."""
    make = ProgramBuilder()
    count = int(rng.integers(6, 40))
    most_flops = int(rng.choice([50, 300, 2000]))  # the less, the longer copies queue
    spans: list[tuple[int, int]] = []
    for _ in range(int(rng.integers(0, 4))):
        start = int(rng.integers(1, count - 2))
        end = int(rng.integers(start + 2, count + 1))
        # Disjoint from each other loop, or strictly inside or around it.
        if all(
            end <= s or start >= e or s < start < end < e or start < s < e < end for s, e in spans
        ):
            spans.append((start, end))
    spans.sort(key=lambda span: (span[0], -span[1]))
    for start, end in spans:
        around = [k for k, loop in enumerate(make.loops) if loop.start < start < loop.end]
        make.loop(start, end, int(rng.integers(1, 5)), around[-1] if around else -1)
    for t in range(count):
        around = [k for k, loop in enumerate(make.loops) if loop.start <= t < loop.end]
        costs = rng.random() < 0.7
        make.step(
            f"op.{t}",
            flops=float(rng.integers(0, most_flops)) if costs else 0.0,
            scoped=int(rng.integers(0, 6 * UNIT)) if rng.random() < 0.2 else 0,
            other=int(rng.integers(0, 50)) if rng.random() < 0.2 else 0,
            loop=around[-1] if around else -1,
        )
    for _ in range(int(rng.integers(1, 20))):
        home = int(rng.integers(-1, len(make.loops)))
        first, last = _body(make.loops, home, count)
        level = [t for t in range(first, last) if make.steps[t].loop == home]
        if not level:
            continue
        initial = bool(rng.random() < 0.4)
        buffer = make.buffer(
            initial,
            live_out=bool(home == -1 and rng.random() < 0.3),
            fixed_space=2 if rng.random() < 0.05 else None,
        )
        size = int(rng.integers(1, 5 * UNIT))
        # The first definition is at the level itself; whatever loop reads it finds it.
        begin = 0 if initial and home == -1 else int(rng.choice(level))
        steps = sorted({int(t) for t in rng.integers(begin, last, rng.integers(1, 7))} - {begin})
        cut = sorted(int(t) for t in rng.integers(0, len(steps) + 1, 2)) if steps else [0, 0]
        value = make.value(buffer, size, begin, steps[: cut[0]])
        for low, high in ((cut[0], cut[1]), (cut[1], len(steps))):
            if low < high:
                value = make.value(
                    buffer,
                    int(rng.integers(1, size + 1)),
                    steps[low],
                    steps[low + 1 : high],
                    updates=(value,) if rng.random() < 0.8 or initial else (),
                )
    if not make.values:
        make.value(make.buffer(), UNIT, 0, [1])
    make.step("tuple")
    return make.build()


def _body(loops: list[Loop], loop: int, count: int) -> tuple[int, int]:
    return (0, count) if loop < 0 else (loops[loop].start, loops[loop].end)


def random_problem(rng: np.random.Generator) -> tuple[Program, MemoryMappingProblem]:
    program = random_program(rng)
    while not any(value.uses or value.def_bytes for value in program.values):
        program = random_program(rng)
    return program, from_program(program, CHIP, int(rng.integers(6, 17)) * UNIT)


def random_mapping(rng: np.random.Generator, problem: MemoryMappingProblem) -> Mapping:
    """A legal mapping: legal stays of each buffer on its own, kept where they find room."""
    proposals: list[FastInterval] = []
    for buffer in range(problem.num_buffers):
        if rng.random() < 0.8:
            proposals += _Stays(rng, problem, buffer).intervals
    rng.shuffle(proposals)
    placed: list[FastInterval] = []
    for stay in proposals:
        size = problem.size[stay.buffer]
        room = int(problem.limit[stay.start : stay.end].min()) - size
        beside = [p for p in placed if p.start < stay.end and stay.start < p.end]
        tops = [p.offset + int(problem.size[p.buffer]) for p in beside]
        anywhere = int(rng.integers(0, max(room, 0) // problem.alignment + 1)) * problem.alignment
        free = [
            offset
            for offset in sorted({0, anywhere, *tops})
            if offset <= room
            and all(
                offset + size <= p.offset or top <= offset
                for p, top in zip(beside, tops, strict=True)
            )
        ]
        if free:
            offset = free[0] if rng.random() < 0.7 else int(rng.choice(free))
            placed.append(
                FastInterval(stay.buffer, stay.start, stay.end, offset, stay.copy_in, stay.copy_out)
            )
    return Mapping(tuple(placed))


class _Stays:
    """Random stays of one buffer, at offset 0, that keep rules 2 to 6.

    After each stay that writes there is a copy-out, unless nobody reads any more: slow memory is
    valid wherever the buffer is not in fast memory, so each stay may be dropped for itself.
    """

    def __init__(
        self, rng: np.random.Generator, problem: MemoryMappingProblem, buffer: int
    ) -> None:
        self.rng = rng
        self.problem = problem
        self.buffer = buffer
        self.intervals: list[FastInterval] = []
        begin, end = problem.first_access[buffer : buffer + 2]
        self.accesses = {
            int(problem.access_step[a]): (
                bool(problem.access_writes[a]),
                bool(problem.access_defines[a]),
            )
            for a in range(begin, end)
        }
        self.level(-1)

    def level(self, loop: int) -> None:
        """Adds stays of the loop's level and of the levels inside of it."""
        problem, rng = self.problem, self.rng
        first, last = (
            (0, problem.num_steps)
            if loop < 0
            else (int(problem.loop_start[loop]), int(problem.loop_end[loop]))
        )
        inner = [
            (int(problem.loop_start[k]), int(problem.loop_end[k]), int(k))
            for k in np.flatnonzero(problem.loop_parent == loop)
        ]
        positions = [p for p in range(first, last + 1) if not any(s < p < e for s, e, _ in inner)]
        # (start, end, writes, defines, loop or -1) of the accesses at this level; an inner loop
        # counts as one access.
        items: list[tuple[int, int, bool, bool, int]] = []
        for s, e, k in inner:
            within = [flags for t, flags in self.accesses.items() if s <= t < e]
            if within:
                items.append((s, e, any(writes for writes, _ in within), False, k))
        for t, (writes, defines) in self.accesses.items():
            if first <= t < last and not any(s <= t < e for s, e, _ in inner):
                items.append((t, t + 1, writes, defines, -1))
        items.sort()
        crosses = bool(
            loop >= 0
            and (
                problem.initial[self.buffer]
                or problem.live_start[self.buffer] < first
                or problem.live_end[self.buffer] > last
            )
        )
        home = not crosses
        bound = first  # no copy-in starts earlier
        i = 0
        while i < len(items):
            start, end, writes, defines, child = items[i]
            only_here = child >= 0 and not self.lives_before(child)
            if only_here or rng.random() < 0.4:
                if child >= 0:
                    self.level(child)
                if writes or child >= 0:
                    bound = end
                i += 1
                continue
            k = int(rng.integers(i, min(len(items), i + 4)))
            while k > i and items[k][4] >= 0 and not self.lives_before(items[k][4]):
                k -= 1
            window = None
            if not defines:
                window = self.window([p for p in positions if bound <= p <= start])
                start = window.start
            limit = items[k + 1][0] if k + 1 < len(items) else last
            end = int(rng.choice([p for p in positions if items[k][1] <= p <= limit]))
            written = [item[1] for item in items[i : k + 1] if item[2]]
            copy_out = None
            unread = home and k + 1 == len(items) and not problem.live_out[self.buffer]
            if (written and not (unread and rng.random() < 0.7)) or rng.random() < 0.1:
                after = max(written, default=items[i][1])
                copy_out = self.window([p for p in positions if after <= p <= end])
            if crosses and (start, end) == (first, last):
                # That would be a stay of the level outside.
                for item in items[i : k + 1]:
                    if item[4] >= 0:
                        self.level(item[4])
            else:
                self.intervals.append(FastInterval(self.buffer, start, end, 0, window, copy_out))
            bound = end
            i = k + 1

    def window(self, positions: list[int]) -> CopyWindow:
        start, done = sorted(int(p) for p in self.rng.choice(positions, 2))
        return CopyWindow(start, done)

    def lives_before(self, loop: int) -> bool:
        return bool(
            self.problem.initial[self.buffer]
            or self.problem.live_start[self.buffer] < self.problem.loop_start[loop]
        )


def mapping_file(
    program: Program, problem: MemoryMappingProblem, mapping: Mapping
) -> dict[str, Any]:
    """What `json.load` makes of the mapping's file."""
    written = to_json(program, problem, CHIP, mapping, method="by hand")
    data: dict[str, Any] = json.loads(json.dumps(written))
    return data
