"""Event-driven simulation of a pipeline over all layers, in one native pass.

Each resource goes round its cyclic order of nano-operations, given by their phases: a slot of phase
x stands at the fraction of x in the order, and in round r it works on layer r - floor(x), where
there is such a layer. It starts as soon as its layer's predecessors are done, its resource is free,
and its share of the device is; where several wait for their shares, the earlier in the order goes
first. A greedy dispatcher takes whatever is ready on each resource instead, least layer + phase
first.

Once a round looks like one of the four before it, the rounds in between are not simulated again.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    COMPUTE,
    DYNAMIC,
    NO_INTERFERENCE,
    RESOURCE,
    SLOTS,
    SPEED,
)

_NONE = -1
_MEMORIES = 4  # rounds that the next is compared with
_CLOSE = 1e-9  # relative: rounds are equal
# Predecessors of each slot in its nano-batch; those of the first two are of the layer before.
_BEFORE = np.array(
    [
        [11, 12, -1, -1, -1, -1],  # KQV
        [11, 12, -1, -1, -1, -1],
        [0, -1, -1, -1, -1, -1],  # decode attention
        [1, -1, -1, -1, -1, -1],
        [0, -1, -1, -1, -1, -1],  # prefill attention
        [1, -1, -1, -1, -1, -1],
        [2, 4, -1, -1, -1, -1],  # gather of attention
        [3, 5, -1, -1, -1, -1],
        [2, 3, 4, 5, 6, 7],  # O
        [8, -1, -1, -1, -1, -1],  # network after O
        [8, 9, -1, -1, -1, -1],  # up and gate
        [10, -1, -1, -1, -1, -1],  # down
        [11, -1, -1, -1, -1, -1],  # network after down
    ]
)


@njit(cache=True, nogil=True)
def make_order(work: Floats, phase: Floats, order: Ints, length: Ints, shift: Ints) -> None:
    """Fills order i64[3, ALL_SLOTS], length i64[3] and shift i64[ALL_SLOTS] from the phases."""
    least = np.inf
    length[:] = 0
    for slot in range(ALL_SLOTS):
        if work[slot] > 0.0:
            least = min(least, np.floor(phase[slot]))
    for slot in range(ALL_SLOTS):
        if work[slot] <= 0.0:
            continue
        resource = RESOURCE[slot % SLOTS]
        whole = np.floor(phase[slot])
        shift[slot] = int(whole - least)
        key = phase[slot] - whole
        at = length[resource]
        while at > 0:
            other = order[resource, at - 1]
            if phase[other] - np.floor(phase[other]) <= key:
                break
            order[resource, at] = other
            at -= 1
        order[resource, at] = slot
        length[resource] += 1


@njit(cache=True, nogil=True)
def _ready(work: Floats, done: Ints, slot: int, layer: int) -> bool:
    kind = slot % SLOTS
    base = slot - kind
    wanted = layer if kind < 2 else layer + 1
    for at in range(6):
        before = _BEFORE[kind, at]
        if before < 0:
            break
        if work[base + before] > 0.0 and done[base + before] < wanted:
            return False
    return True


@njit(cache=True, nogil=True)
def simulate(
    work: Floats,
    level: Ints,
    phase: Floats,
    order: Ints,
    length: Ints,
    shift: Ints,
    speed: Floats,
    mode: int,
    layers: int,
    limit: float,
    greedy: bool,
    start: Floats,
    end: Floats,
) -> float:
    """Seconds of all layers; inf where the orders wait for each other, or beyond `limit`.

    Args:
        work: f64[ALL_SLOTS] seconds of the slots alone, 0 for what is not there.
        level: i64[ALL_SLOTS] tenths of the device.
        phase: f64[ALL_SLOTS].
        order, length, shift: what `make_order` makes of the phases.
        speed, mode, layers: of the problem.
        limit: seconds after which the result does not matter.
        greedy: dispatch what is ready, instead of the order.
        start, end: f64[ALL_SLOTS, layers] to be filled, or of no rows.
    """
    record = start.shape[0] > 0
    done = np.zeros(ALL_SLOTS, np.int64)
    started = np.zeros(ALL_SLOTS, np.int64)
    at = np.zeros(3, np.int64)
    turn = np.zeros(3, np.int64)
    left = np.zeros(3, np.int64)
    running = np.full(3, _NONE)
    waiting = np.full(3, _NONE)
    rest = np.zeros(3)
    rank = np.zeros(3)
    rate = np.zeros(3)
    seen = np.full((_MEMORIES, 9), _NONE)
    seen_rest = np.zeros((_MEMORIES, 4))
    visits = 0
    may_skip = not (greedy or record)
    total = 0
    deepest = 0
    for c in range(3):
        left[c] = length[c] * layers
        total += left[c]
        for x in range(length[c]):
            deepest = max(deepest, shift[order[c, x]])
    anchor = order[0, 0]
    now = 0.0
    while total > 0:
        # What could start: the next of each idle resource, if its layer's predecessors are done.
        for c in range(3):
            waiting[c] = _NONE
            if running[c] != _NONE or left[c] == 0:
                continue
            if greedy:
                for x in range(length[c]):
                    slot = order[c, x]
                    key = started[slot] + phase[slot]
                    if started[slot] == layers or (waiting[c] != _NONE and key >= rank[c]):
                        continue
                    if _ready(work, done, slot, started[slot]):
                        waiting[c] = slot
                        rank[c] = key
                continue
            while True:
                slot = order[c, at[c]]
                layer = turn[c] - shift[slot]
                if 0 <= layer < layers:
                    break
                at[c] += 1
                if at[c] == length[c]:
                    at[c] = 0
                    turn[c] += 1
            if _ready(work, done, slot, layer):
                waiting[c] = slot
                rank[c] = layer + phase[slot]
        began = False
        for _ in range(3):
            first = _NONE
            for c in range(3):
                if waiting[c] != _NONE and (first == _NONE or rank[c] < rank[first]):
                    first = c
            if first == _NONE:
                break
            slot = waiting[first]
            waiting[first] = _NONE
            if mode != NO_INTERFERENCE and not (mode == DYNAMIC and first == COMPUTE):
                used = level[slot]
                for c in range(3):
                    if running[c] != _NONE and not (mode == DYNAMIC and c == COMPUTE):
                        used += level[running[c]]
                if used > LEVELS:
                    continue
            layer = started[slot]
            if record:
                start[slot, layer] = now
            running[first] = slot
            rest[first] = work[slot]
            started[slot] += 1
            left[first] -= 1
            if not greedy:
                at[first] += 1
                if at[first] == length[first]:
                    at[first] = 0
                    turn[first] += 1
            began = began or slot == anchor
        # Rounds are alike only if none leaves out a layer that there is not.
        for c in range(3):
            began = began and (length[c] == 0 or turn[c] > deepest)
        if began and may_skip:
            # Compare with the last rounds; a round begins with the anchor.
            here = visits % _MEMORIES
            base = turn[0]
            for c in range(3):
                seen[here, c] = at[c]
                seen[here, 3 + c] = turn[c] - base
                seen[here, 6 + c] = running[c]
                seen_rest[here, c] = rest[c] if running[c] != _NONE else 0.0
            seen_rest[here, 3] = now
            for back in range(1, min(visits, _MEMORIES - 1) + 1):
                there = (visits - back) % _MEMORIES
                same = True
                for x in range(9):
                    same = same and seen[here, x] == seen[there, x]
                for c in range(3):
                    gap = abs(seen_rest[here, c] - seen_rest[there, c])
                    same = same and gap <= _CLOSE * work[anchor]
                if same:
                    latest = max(turn[0], turn[1], turn[2])
                    skipped = (layers - 2 - latest) // back
                    if skipped > 0:
                        now += skipped * (now - seen_rest[there, 3])
                        skipped *= back
                        for c in range(3):
                            turn[c] += skipped
                            left[c] -= skipped * length[c]
                            total -= skipped * length[c]
                        for slot in range(ALL_SLOTS):
                            if work[slot] > 0.0:
                                done[slot] += skipped
                                started[slot] += skipped
                    may_skip = False
                    break
            visits += 1
        # Until the next of those that run is done.
        used = 0
        for c in range(1, 3):
            if running[c] != _NONE:
                used += level[running[c]]
        step = np.inf
        for c in range(3):
            if running[c] == _NONE:
                continue
            if mode == NO_INTERFERENCE:
                rate[c] = 1.0
            elif mode == DYNAMIC and c == COMPUTE:
                rate[c] = (LEVELS - used) / LEVELS
            else:
                rate[c] = speed[SPEED[running[c] % SLOTS], level[running[c]]]
            if rate[c] > 0.0:
                step = min(step, rest[c] / rate[c])
        if step == np.inf:
            return np.inf
        now += step
        if now > limit:
            return np.inf
        for c in range(3):
            if running[c] == _NONE:
                continue
            rest[c] -= step * rate[c]
            if rest[c] <= _CLOSE * 1e-3 * work[running[c]]:
                slot = running[c]
                if record:
                    end[slot, done[slot]] = now
                done[slot] += 1
                running[c] = _NONE
                total -= 1
    return now
