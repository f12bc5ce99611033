"""A plan of the whole program under prices: what the prior and the value of a state go by.

The linear relaxation of the problem, without offsets and with copies that wait for nothing but
idle time, falls apart into one small problem for each buffer once its constraints have prices:

- `time[u]` in [0, 1]: what a second of slow-memory traffic in unit u costs, 0 where arithmetic
  takes longer and 1 where it does not;
- `room[u]`: the rent of all of fast memory for unit u;
- `copies[u]`: a second of copying to fast memory that is done by unit u, and the other way round
  for copies to slow memory that start with it.

The best life of one buffer under prices is a small dynamic program over its accesses. Prices go up
where the lives together want too much (the subgradient method: Fisher, "The Lagrangian Relaxation
Method for Solving Integer Programming Problems", Management Science 1981); the average of the
lives along the way is nearly a solution of the relaxation, and the prices tell what it is worth to
have a buffer in fast memory at a certain point.
"""

from __future__ import annotations

import itertools
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ITERATIONS = 300
_SKIPPED = 100  # of them at the start, which the average leaves out
_AHEAD = 2  # units for which a prefetch pays rent before its use


def add_plan(moves: Columns, units: Columns) -> None:
    """Adds the columns `plan`, `plan_next`, `worth` and `rest` of `moves.Move`."""
    order = np.lexsort((np.arange(len(moves["buffer"])), moves["buffer"]))
    order = order[moves["buffer"][order] >= 0]
    buffers = moves["buffer"][order]
    first = np.concatenate([[0], np.flatnonzero(np.diff(buffers)) + 1, [len(buffers)]]).astype(
        np.int64
    )
    column = {name: moves[name][order] for name in moves}
    limit = units["limit"].astype(np.float64)
    limit = np.maximum(limit, 1.0)
    kind = np.where(column["defines"], 2, np.where(column["writes"], 1, 0)).astype(np.int64)
    holding = column["hold_end"] > 0
    served, kept, with_it, soiled, rent_now, cost_in, cost_out, without, base = _subgradient(
        first,
        column["unit"].astype(np.int64),
        kind,
        column["size"].astype(np.float64),
        (column["slow"] - column["fast"]).astype(np.float64),
        column["fast"].astype(np.float64),
        np.where(holding, column["hold_work"], column["work"]).astype(np.float64),
        (column["copy_from"] <= column["unit"]) | holding,
        column["needed"],
        column["extends"],
        units["compute"].astype(np.float64),
        units["slow"].astype(np.float64),
        units["idle"].astype(np.float64),
        limit,
    )
    for name, values in (
        ("plan", served),
        ("plan_next", kept),
        ("worth", with_it),
        ("worth_dirty", soiled),
        ("rent", rent_now),
        ("cost_in", cost_in),
        ("cost_out", cost_out),
    ):
        moves[name] = np.zeros(len(moves["buffer"]), dtype=np.float32)
        moves[name][order] = values
    # Without help from fast memory: what each buffer's life is worth from its next access on.
    count = len(moves["buffer"])
    change = np.zeros(count + 1)
    total = 0.0
    for begin, end in itertools.pairwise(first):
        total += without[begin]
        for j in range(begin, end):
            following = without[j + 1] if j + 1 < end else 0.0
            change[order[j] + 1] += following - without[j]
    left = np.cumsum(base[::-1])[::-1]
    rest = total + np.cumsum(change)[:count] + left[moves["unit"]]
    moves["rest"] = rest.astype(np.float32)


@numba.njit(cache=True)
def _lives(
    first: Ints,
    unit: Ints,
    kind: Ints,
    gain: Floats,
    rent: Floats,
    prefetch: Floats,
    copy_in: Floats,
    copy_out: Floats,
    needed: npt.NDArray[np.bool_],
    extends: npt.NDArray[np.bool_],
    value: Floats,
    choice: Ints,
) -> None:
    """Backwards over each buffer's accesses: what its best life is worth, and the best choices.

    `value[j, s]` is worth of arriving at access j in state s: 0 only in slow memory, 1 in fast
    memory too, 2 only in fast memory. `choice[j, s]` is the state after it, plus 10 if a copy-in,
    plus 20 if a copy-out is made.
    """
    after = np.zeros(3)
    for v in range(len(first) - 1):
        for j in range(first[v + 1] - 1, first[v] - 1, -1):
            # Worth of each state after the access.
            if j + 1 < first[v + 1]:
                following = value[j + 1]
            else:
                following = np.zeros(3)
            after[0] = following[0]
            if extends[j]:
                after[1] = max(following[1] - rent[j], after[0])
                after[2] = following[2] - rent[j]
            else:
                after[1] = after[0]
                after[2] = after[0] if not needed[j] else after[0] - copy_out[j]
            best_fast = max(after[1], after[0])
            for s in range(3):
                if kind[j] == 2:
                    options = (after[0], gain[j] + after[2], gain[j] + best_fast - copy_out[j])
                    marks = (0, 2, 21)
                elif kind[j] == 1:
                    if s == 0:
                        extra = prefetch[j] + copy_in[j]
                        options = (after[0], gain[j] + after[2] - extra, -np.inf)
                        marks = (0, 12, 0)
                    else:
                        out = copy_out[j] if s == 2 else 0.0
                        options = (
                            after[0] - out,
                            gain[j] + after[2],
                            gain[j] + best_fast - copy_out[j],
                        )
                        marks = (20 if s == 2 else 0, 2, 21)
                elif s == 0:
                    extra = prefetch[j] + copy_in[j]
                    options = (after[0], gain[j] + best_fast - extra, -np.inf)
                    marks = (0, 11, 0)
                elif s == 1:
                    options = (after[0], gain[j] + best_fast, -np.inf)
                    marks = (0, 1, 0)
                else:
                    options = (
                        after[0] - copy_out[j],
                        gain[j] + after[2],
                        gain[j] + best_fast - copy_out[j],
                    )
                    marks = (20, 2, 21)
                best = 0
                for option in range(1, 3):
                    if options[option] > options[best]:
                        best = option
                value[j, s] = options[best]
                choice[j, s] = marks[best]


@numba.njit(cache=True)
def _subgradient(
    first: Ints,
    unit: Ints,
    kind: Ints,
    size: Floats,
    saving: Floats,
    fast: Floats,
    work: Floats,
    copyable: npt.NDArray[np.bool_],
    needed: npt.NDArray[np.bool_],
    extends: npt.NDArray[np.bool_],
    compute: Floats,
    slow: Floats,
    idle: Floats,
    limit: Floats,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats, Floats]:
    """(served, kept, worth with the buffer in fast memory, without, base worth of each unit)."""
    accesses, units = len(unit), len(compute)
    time = np.where(slow >= compute, 1.0, 0.0)
    room = np.zeros(units)
    early = np.zeros(units)  # price of the idle time before each unit
    late = np.zeros(units)  # and of that from each unit on
    value = np.zeros((accesses, 3))
    choice = np.zeros((accesses, 3), dtype=np.int64)
    gain = np.zeros(accesses)
    rent = np.zeros(accesses)
    prefetch = np.zeros(accesses)
    copy_in = np.zeros(accesses)
    copy_out = np.zeros(accesses)
    served = np.zeros(accesses)
    kept = np.zeros(accesses)
    mean_room = np.zeros(units)
    mean_time = np.zeros(units)
    mean_early = np.zeros(units)
    mean_late = np.zeros(units)
    share = size / limit[unit]
    scale = max(saving.sum(), 1e-9) / units
    for iteration in range(ITERATIONS + 1):
        final = iteration == ITERATIONS
        if final:
            count = ITERATIONS - _SKIPPED
            room = mean_room / count
            time = mean_time / count
            early = mean_early / count
            late = mean_late / count
        total_room = np.concatenate((np.zeros(1), np.cumsum(room)))
        # A copy done by unit u is in the sums of all later units; one that starts after it in
        # those of all earlier ones.
        price_in = np.cumsum(early[::-1])[::-1]
        price_out = np.cumsum(late)
        for v in range(len(first) - 1):
            for j in range(first[v], first[v + 1]):
                u = unit[j]
                gain[j] = time[u] * saving[j] - share[j] * room[u]
                begin = max(u - _AHEAD, 0)
                prefetch[j] = share[j] * (total_room[u] - total_room[begin])
                copy_in[j] = work[j] * price_in[u] if copyable[j] else np.inf
                copy_out[j] = work[j] * price_out[u]
                if j + 1 < first[v + 1]:
                    rent[j] = share[j] * (total_room[unit[j + 1]] - total_room[u + 1])
        _lives(
            first,
            unit,
            kind,
            gain,
            rent,
            prefetch,
            copy_in,
            copy_out,
            needed,
            extends,
            value,
            choice,
        )
        if final:
            break
        used = np.zeros(units + 1)
        saved = np.zeros(units)
        spent = np.zeros(units)
        done_in = np.zeros(units)
        begun_out = np.zeros(units)
        average = iteration >= _SKIPPED
        for v in range(len(first) - 1):
            state = 0
            for j in range(first[v], first[v + 1]):
                u = unit[j]
                mark = choice[j, state]
                state = mark % 10
                is_served = state > 0
                if is_served:
                    used[u] += share[j]
                    used[u + 1] -= share[j]
                    saved[u] += saving[j]
                    spent[u] += fast[j]
                    if average:
                        served[j] += 1.0
                if 10 <= mark < 20:
                    done_in[u] += work[j]
                    begin = max(u - _AHEAD, 0)
                    used[begin] += share[j]
                    used[u] -= share[j]
                if mark >= 20:
                    begun_out[u] += work[j]
                if state > 0:
                    carried = extends[j] and j + 1 < first[v + 1]
                    if carried and state == 1:
                        carried = value[j + 1, 1] - rent[j] > value[j + 1, 0]
                    if carried:
                        used[u + 1] += share[j]
                        used[unit[j + 1]] -= share[j]
                        if average:
                            kept[j] += 1.0
                    else:
                        if state == 2 and needed[j]:
                            begun_out[u] += work[j]
                        state = 0
        usage = np.cumsum(used[:units])
        left = slow - saved  # slow traffic and what fast memory takes
        supply = np.maximum(compute - left + spent, spent) + idle
        before = np.cumsum(supply) - supply
        behind = np.cumsum(supply[::-1])[::-1] - supply
        short_in = np.cumsum(done_in) - before
        short_out = np.cumsum(begun_out[::-1])[::-1] - behind
        pace = 1.0 / np.sqrt(1.0 + iteration)
        room = np.maximum(room + pace * scale * (usage - 1.0), 0.0)
        for u in range(units):
            longest = max(compute[u], slow[u], 1e-12)
            time[u] = min(max(time[u] + pace * (left[u] - compute[u]) / longest, 0.0), 1.0)
        early = np.maximum(early + pace * 0.2 * short_in / (before[-1] + 1e-9), 0.0)
        late = np.maximum(late + pace * 0.2 * short_out / (before[-1] + 1e-9), 0.0)
        if average:
            mean_room += room
            mean_time += time
            mean_early += early
            mean_late += late
    count = ITERATIONS - _SKIPPED
    with_it = np.zeros(accesses)
    soiled = np.zeros(accesses)
    rent_now = np.zeros(accesses)
    cost_in = np.zeros(accesses)
    for j in range(accesses):
        rent_now[j] = share[j] * room[unit[j]]
        cost_in[j] = copy_in[j] + prefetch[j] if copyable[j] else 0.0
    for v in range(len(first) - 1):
        for j in range(first[v], first[v + 1] - 1):
            if extends[j]:
                with_it[j] = max(value[j + 1, 1] - rent[j] - value[j + 1, 0], 0.0)
                soiled[j] = value[j + 1, 2] - rent[j] - value[j + 1, 0]
    base = np.maximum(compute, slow) - ((1.0 - time) * compute + time * slow) + room
    return (
        served / count,
        kept / count,
        with_it,
        soiled,
        rent_now,
        cost_in,
        copy_out,
        value[:, 0].copy(),
        base,
    )
