"""Random small legal problems, the rules of `solution.py` as a plain checker, and brute force.

`random_problem(seed, ...)` draws a problem with (nested) loops, in-place updates, several
definitions of one buffer, live-outs, parameters, scoped limits and partial reads; `problems()` is
the same as a hypothesis strategy. `broken_rules` is written on its own, straight from the rules:
it shares no code with the solvers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from hypothesis import strategies

from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping
from hlo_frontend.program import CopyWindow

READ, UPDATE, DEFINE = "read", "update", "define"


def make_problem(
    *,
    compute: list[float],
    buffers: list[dict],
    capacity: int,
    loops: list[tuple[int, int, int, int]] = (),
    limit: list[int] | None = None,
    fixed_slow: list[float] | None = None,
    alignment: int = 1,
    slow_bandwidth: float = 1.0,
) -> MemoryMappingProblem:
    """A problem written out by hand.

    Args:
        compute: seconds of one execution of each step.
        buffers: `{"size", "accesses": [(step, READ | UPDATE | DEFINE, bytes or None)], "initial",
            "live_out"}`; bytes None stands for the size.
        loops: (start, end, trip count, parent), parents first.
    """
    num_steps = len(compute)
    step_loop = np.full(num_steps, -1)
    loop_executions = np.ones(len(loops))
    for index, (start, end, trips, parent) in enumerate(loops):
        step_loop[start:end] = index
        loop_executions[index] = trips * (loop_executions[parent] if parent >= 0 else 1.0)
    weight = np.where(step_loop >= 0, np.append(loop_executions, 1.0)[step_loop], 1.0)
    rows = []
    live = []
    for index, buffer in enumerate(buffers):
        steps = [access[0] for access in buffer["accesses"]]
        start = 0 if buffer.get("initial") else min(steps)
        end = num_steps if buffer.get("live_out") else max(steps) + 1
        for first, last, _, _ in loops[::-1]:
            inside = first <= start and end <= last
            if not inside and start < last and first < end:
                start, end = min(start, first), max(end, last)
        live.append((start, end))
        for step, kind, bytes_ in sorted(buffer["accesses"]):
            seconds = weight[step] * (buffer["size"] if bytes_ is None else bytes_)
            rows.append((step, index, seconds / slow_bandwidth, kind))
    return MemoryMappingProblem(
        name="random",
        fingerprint="0" * 64,
        capacity=capacity,
        alignment=alignment,
        slow_bandwidth=slow_bandwidth,
        compute=weight * np.array(compute, dtype=np.float64),
        fixed_slow=weight * np.array(fixed_slow or [0.0] * num_steps, dtype=np.float64),
        limit=np.array(limit or [capacity] * num_steps, dtype=np.int64),
        step_loop=step_loop.astype(np.int64),
        program_step=np.arange(num_steps),
        loop_start=np.array([loop[0] for loop in loops], dtype=np.int64),
        loop_end=np.array([loop[1] for loop in loops], dtype=np.int64),
        loop_parent=np.array([loop[3] for loop in loops], dtype=np.int64),
        loop_executions=loop_executions,
        size=np.array([buffer["size"] for buffer in buffers], dtype=np.int64),
        live_start=np.array([start for start, _ in live], dtype=np.int64),
        live_end=np.array([end for _, end in live], dtype=np.int64),
        initial=np.array([bool(buffer.get("initial")) for buffer in buffers]),
        live_out=np.array([bool(buffer.get("live_out")) for buffer in buffers]),
        program_buffer=np.arange(len(buffers)),
        first_access=np.searchsorted([row[1] for row in rows], np.arange(len(buffers) + 1)).astype(
            np.int64
        ),
        access_step=np.array([row[0] for row in rows], dtype=np.int64),
        access_buffer=np.array([row[1] for row in rows], dtype=np.int64),
        access_slow=np.array([row[2] for row in rows], dtype=np.float64),
        access_fast=np.array([row[2] / 20 for row in rows], dtype=np.float64),
        access_writes=np.array([row[3] != READ for row in rows]),
        access_defines=np.array([row[3] == DEFINE for row in rows]),
    )


def random_problem(
    seed: int, *, steps: int = 6, buffers: int = 3, loops: bool = True, unit: int = 4
) -> MemoryMappingProblem:
    """A random problem; sizes are 1..8 units, so that few fit into the fast memory at once."""
    rng = np.random.default_rng(seed)
    nests: list[tuple[int, int, int, int]] = []
    if loops and steps >= 3 and rng.random() < 0.6:
        start = int(rng.integers(0, steps - 1))
        end = int(rng.integers(start + 2, steps + 1))
        nests.append((start, end, int(rng.integers(2, 5)), -1))
        if end - start >= 3 and rng.random() < 0.5:
            inner = int(rng.integers(start, end - 1))
            nests.append((inner, int(rng.integers(inner + 1, end + 1)), 3, 0))
        elif end + 2 <= steps and rng.random() < 0.5:
            nests.append((end, steps, 2, -1))
    rows = []
    for _ in range(buffers):
        initial = bool(rng.random() < 0.5)
        # A buffer that a loop's body defines lives in one iteration of it, as in HLO.
        inside = not initial and nests and rng.random() < 0.4
        low, high = (nests[rng.integers(len(nests))])[:2] if inside else (0, steps)
        count = int(rng.integers(1, min(4, high - low) + 1))
        chosen = sorted(int(step) for step in rng.choice(np.arange(low, high), count, False))
        if not initial and not inside:
            outside = [s for s in range(steps) if not any(a <= s < b for a, b, _, _ in nests)]
            chosen = [s for s in chosen if outside and s > outside[0]]
            chosen = [*outside[:1], *chosen]
        if not chosen:
            continue
        if inside:
            inner = [n for n in nests if n[:2] != (low, high) and low <= n[0] and n[1] <= high]
            if any(a <= chosen[0] < b for a, b, _, _ in inner):
                chosen = [s for s in chosen if any(a <= s < b for a, b, _, _ in inner)]
        size = int(rng.integers(1, 9)) * unit
        kinds = rng.choice([READ, UPDATE, DEFINE], len(chosen), p=[0.65, 0.2, 0.15])
        if not initial:
            kinds[0] = DEFINE
        accesses = []
        for step, kind in zip(chosen, kinds, strict=True):
            part = None if rng.random() < 0.6 else int(rng.integers(1, 2 * size + 1))
            accesses.append((step, str(kind), part))
        rows.append(
            {
                "size": size,
                "accesses": accesses,
                "initial": initial,
                "live_out": not inside and bool(rng.random() < 0.3),
            }
        )
    if not rows:
        return random_problem(seed + 100003, steps=steps, buffers=buffers, loops=loops, unit=unit)
    largest = max(row["size"] for row in rows)
    total = sum(row["size"] for row in rows)
    capacity = int(rng.integers(largest // unit, total // unit + 1)) * unit
    return make_problem(
        compute=[float(v) for v in rng.exponential(3.0 * unit, steps) * (rng.random(steps) < 0.7)],
        buffers=rows,
        capacity=capacity,
        loops=nests,
        limit=[
            capacity if rng.random() < 0.8 else int(rng.integers(0, capacity // unit + 1)) * unit
            for _ in range(steps)
        ],
        fixed_slow=[float(v) for v in rng.exponential(unit, steps) * (rng.random(steps) < 0.3)],
        alignment=unit,
    )


def problems(*, steps: int = 8, buffers: int = 5) -> strategies.SearchStrategy:
    """Random problems of up to this size, with a readable seed."""
    return strategies.builds(
        random_problem,
        strategies.integers(0, 2**20),
        steps=strategies.integers(2, steps),
        buffers=strategies.integers(1, buffers),
    )


def big_problem(seed: int, *, steps: int, buffers: int) -> MemoryMappingProblem:
    """A problem of the size of a real program: a chain of steps with weights and activations."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(buffers):
        start = int(rng.integers(0, steps - 4))
        weight = index % 2 == 0
        reads = start + 1 + np.unique(rng.geometric(0.3, rng.integers(1, 4)).cumsum())
        accesses = [] if weight else [(start, DEFINE, None)]
        accesses += [(int(s), READ, None) for s in reads if s < steps]
        if accesses:
            rows.append(
                {
                    "size": int(rng.lognormal(5.0, 1.0)) * 4 + 4,
                    "accesses": accesses,
                    "initial": weight,
                    "live_out": not weight and bool(rng.random() < 0.02),
                }
            )
    slow = np.zeros(steps)
    for row in rows:
        for step, _, _ in row["accesses"]:
            slow[step] += row["size"]
    return make_problem(
        compute=[float(v) for v in slow * rng.lognormal(-0.5, 1.0, steps)],
        buffers=rows,
        capacity=40000,
        alignment=4,
    )


# --- the rules -------------------------------------------------------------------------------


def broken_rules(problem: MemoryMappingProblem, mapping: Mapping) -> list[str]:
    """Every broken rule of `solution.py`, [] for a legal mapping."""
    errors = []
    steps = problem.num_steps
    for i, a in enumerate(mapping.intervals):
        size = int(problem.size[a.buffer])
        if not 0 <= a.start < a.end <= steps:
            errors.append(f"1: stay {a} is no interval of steps")
            continue
        if a.offset % problem.alignment or a.offset < 0:
            errors.append(f"1: offset of {a}")
        if any(a.offset + size > problem.limit[t] for t in range(a.start, a.end)):
            errors.append(f"1: {a} is above the limit")
        for b in mapping.intervals[:i]:
            if max(a.start, b.start) < min(a.end, b.end):
                if b.buffer == a.buffer:
                    errors.append(f"1: two stays of one buffer at once: {a}, {b}")
                low = max(a.offset, b.offset)
                if low < min(a.offset + size, b.offset + int(problem.size[b.buffer])):
                    errors.append(f"1: {a} and {b} share bytes")
    for v in range(problem.num_buffers):
        errors += _broken_of_buffer(problem, v, [i for i in mapping.intervals if i.buffer == v])
    return errors


def _broken_of_buffer(
    problem: MemoryMappingProblem, v: int, stays: list[FastInterval]
) -> list[str]:
    errors = []
    steps = problem.num_steps
    rows = range(problem.first_access[v], problem.first_access[v + 1])
    access = {int(problem.access_step[r]): r for r in rows}
    writes = {t for t, r in access.items() if problem.access_writes[r]}
    defines = {t for t, r in access.items() if problem.access_defines[r]}
    if any(not 0 <= s.start < s.end <= steps for s in stays):
        return []
    for stay in stays:
        ready = stay.start if stay.copy_in is None else stay.copy_in.done
        if stay.copy_in is None:
            if stay.start not in defines:
                errors.append(f"2: {stay} starts with nothing")
        elif stay.copy_in.start != stay.start or not stay.start <= ready <= stay.end:
            errors.append(f"3: window of {stay}")
        elif any(stay.start <= t < ready for t in writes):
            errors.append(f"3: written during the copy-in of {stay}")
        if stay.copy_out is not None:
            start, done = stay.copy_out.start, stay.copy_out.done
            if not ready <= start <= done <= stay.end:
                errors.append(f"4: window of {stay}")
            if any(start <= t < stay.end for t in writes):
                errors.append(f"4: written after the copy-out of {stay} started")
    # Rule 5: walk the line; `valid` is the slow copy's state at each position.
    valid = bool(problem.initial[v])
    valid_at = []
    for p in range(steps + 1):
        copied_out = [s for s in stays if s.copy_out is not None and s.copy_out.done == p]
        valid |= any(s.start < p for s in copied_out)
        valid_at.append(valid)
        if any(s.copy_in is not None and s.copy_in.start == p for s in stays) and not valid:
            errors.append(f"5: copy-in of buffer {v} at {p} reads rubbish")
        valid |= bool(copied_out)  # after the copy-in of the same stay, if they share a position
        if p == steps:
            break
        if p in access:
            served = [s for s in stays if (s.copy_in.done if s.copy_in else s.start) <= p < s.end]
            if not served and p not in defines and not valid:
                errors.append(f"5: access of buffer {v} at {p} reads rubbish in slow memory")
            if p in writes:
                valid = not served
    if problem.live_out[v] and not valid:
        errors.append(f"5: live-out buffer {v} is not in slow memory at the end")
    # Rule 6.
    for loop in range(len(problem.loop_start)):
        low, high = int(problem.loop_start[loop]), int(problem.loop_end[loop])
        before = problem.initial[v] or problem.live_start[v] < low
        crosses = before or problem.live_end[v] > high
        used = any(low <= t < high for t in access)
        covered = False
        for stay in stays:
            inside = low <= stay.start and stay.end <= high
            covers = stay.start <= low and stay.end >= high
            covered |= covers
            if not (inside or covers or stay.end <= low or stay.start >= high):
                errors.append(f"6: {stay} crosses the border of loop {loop}")
            own = inside and not (covers and crosses)
            for window in (stay.copy_in, stay.copy_out):
                ends = () if window is None else (window.start, window.done)
                if not own and any(low < p < high for p in ends):
                    errors.append(f"6: a copy of {stay} is on another level, inside loop {loop}")
        if (
            used
            and not covered
            and ((before and not valid_at[low]) or (crosses and not valid_at[high]))
        ):
            errors.append(f"6: buffer {v} is not in slow memory at the border of loop {loop}")
    return errors


# --- brute force -----------------------------------------------------------------------------


def legal_sets_of_stays(
    problem: MemoryMappingProblem, v: int, budget: int = 200_000
) -> list[tuple[FastInterval, ...]]:
    """Every legal set of stays of one buffer (offset 0), up to moves that are plainly worse.

    A stay ends right after its last access or with its copy-out; a copy-in is done right before
    the first access that it serves, or at a loop's start.
    """
    steps = problem.num_steps
    rows = range(problem.first_access[v], problem.first_access[v + 1])
    access = [int(problem.access_step[r]) for r in rows]
    marks = sorted({*access, *(int(s) for s in problem.loop_start)})
    ends = sorted({*(t + 1 for t in access), *(int(e) for e in problem.loop_end)})
    single: list[FastInterval] = []
    for r in rows:
        if problem.access_defines[r]:
            single += [FastInterval(v, int(problem.access_step[r]), e, 0) for e in ends]
    for done in marks:
        for start in range(done + 1):
            window = CopyWindow(start, done)
            single += [FastInterval(v, start, e, 0, copy_in=window) for e in ends]
    single = [s for s in single if s.ready < s.end]
    with_out = []
    for s in single:
        for start in range(s.ready, steps + 1):
            for done in range(start, steps + 1):
                if done >= s.end or done >= start:
                    end = max(s.end, done)
                    with_out.append(
                        FastInterval(v, s.start, end, 0, s.copy_in, CopyWindow(start, done))
                    )
    usable = []
    for s in {*single, *with_out}:
        mapping = Mapping((s,))
        if not mapping.accesses_in_fast(problem).any():
            continue
        own = [
            e
            for e in broken_rules(problem, mapping)
            if not e.startswith("5") and "not in slow" not in e
        ]
        if not own:
            usable.append(s)
    usable.sort(key=lambda s: (s.start, s.end))
    result: list[tuple[FastInterval, ...]] = []
    count = 0

    def extend(chosen: tuple[FastInterval, ...], at: int) -> None:
        nonlocal count
        count += 1
        assert count < budget, "the problem is too large for brute force"
        if not _broken_of_buffer(problem, v, list(chosen)):
            result.append(chosen)
        for k in range(at, len(usable)):
            if not chosen or usable[k].start >= chosen[-1].end:
                extend((*chosen, usable[k]), k + 1)

    extend((), 0)
    return result


def brute_force(problem: MemoryMappingProblem, budget: int = 300_000) -> tuple[float, Mapping]:
    """(seconds, mapping) of the best legal mapping, offsets by trying every order of stays."""
    from games.memory_mapping.simulator import simulate  # noqa: PLC0415

    choices = [legal_sets_of_stays(problem, v) for v in range(problem.num_buffers)]
    size = int(np.prod([len(c) for c in choices], dtype=np.float64))
    assert size < budget, f"{size} combinations are too many for brute force"
    candidates = []
    for combination in itertools.product(*choices):
        mapping = Mapping(tuple(itertools.chain.from_iterable(combination)))
        candidates.append((simulate(problem, mapping).total, mapping))
    candidates.sort(key=lambda row: row[0])
    for value, mapping in candidates:
        for placed in _placements(problem, mapping):
            return value, placed
    raise AssertionError("the empty mapping is always legal")


def _placements(problem: MemoryMappingProblem, mapping: Mapping) -> Iterator[Mapping]:
    """Packings by first-fit, one for each order in which it fits: exhaustive for few stays."""
    for order in itertools.permutations(range(len(mapping.intervals))):
        placed: dict[int, FastInterval] = {}
        for i in order:
            stay = mapping.intervals[i]
            size = int(problem.size[stay.buffer])
            offset = 0
            others = sorted(
                (o.offset, o.offset + int(problem.size[o.buffer]))
                for o in placed.values()
                if max(o.start, stay.start) < min(o.end, stay.end)
            )
            for low, high in others:
                if low - offset >= size:
                    break
                offset = max(offset, high)
            if offset + size > problem.limit[stay.start : stay.end].min():
                break
            placed[i] = FastInterval(
                stay.buffer, stay.start, stay.end, offset, stay.copy_in, stay.copy_out
            )
        else:
            yield Mapping(tuple(placed[i] for i in range(len(mapping.intervals))))
