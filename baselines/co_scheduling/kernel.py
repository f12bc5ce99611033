"""Simulated annealing of a pipeline's structure, order and shares: the native part.

A state is the chunks of each part, the path of each nano-batch, and phase and level of each slot;
every move is judged by the exact simulation of all layers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from games.co_scheduling.cost import Ints, Work
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DECODE,
    DOWN,
    DYNAMIC,
    GATHER,
    KQV,
    MAX_NANO,
    NET_D,
    NET_O,
    NO_INTERFERENCE,
    OUT,
    PARTS,
    PREFILL,
    SLOTS,
    UP_GATE,
)
from games.co_scheduling.simulator import make_order, simulate

UInt64 = npt.NDArray[np.uint64]

# Cumulative shares of the kinds of moves; what is left moves a chunk or toggles a path.
LEVEL_MOVE = 0.35
ORDER_MOVE = 0.85
LAG_MOVE = 0.92
SHIFT_MOVE = 0.95
ONE_STEP = 0.7  # of the level moves go one level up or down
EXCHANGE = 0.3  # of the level moves also move the level of another resource, the other way
TOGGLE = 0.15  # of the structural moves change a path
LEVELS_ONLY, LEVELS_AND_ORDER, EVERYTHING = range(3)
REACH = 3  # places that a slot moves in its order

_KQV, _DECODE, _PREFILL = int(Work.KQV), int(Work.DECODE), int(Work.PREFILL)
_GATHER, _O_GATHERED, _O_PARTIAL = int(Work.GATHER), int(Work.O_GATHERED), int(Work.O_PARTIAL)
_GATHER_O, _REDUCE = int(Work.GATHER_O), int(Work.REDUCE)
_UP_GATE, _DOWN = int(Work.UP_GATE), int(Work.DOWN)


@njit(cache=True, nogil=True)
def uniform(random: UInt64) -> float:
    """The next number in [0, 1) of splitmix64 (Steele et al., OOPSLA 2014)."""
    random[0] += np.uint64(0x9E3779B97F4A7C15)
    z = random[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, nogil=True)
def fill_work(
    seconds: Floats, totals: Ints, chunks: Ints, path: Ints, network: bool, work: Floats
) -> None:
    """Fills work f64[ALL_SLOTS] from chunks i64[2, MAX_NANO, PARTS] and path i64[MAX_NANO].

    `totals` is (decode tokens, prefill tokens, tokens of a chunk).
    """
    for slot in range(ALL_SLOTS):
        work[slot] = 0.0
    taken = np.zeros(2, np.int64)
    tokens = np.zeros(2, np.int64)
    for nano in range(MAX_NANO):
        base = nano * SLOTS
        every = 0
        for part in range(PARTS):
            for sort in range(2):
                upto = min(totals[sort], taken[sort] + chunks[sort, nano, part] * totals[2])
                tokens[sort] = upto - taken[sort]
                taken[sort] = upto
            both = tokens[0] + tokens[1]
            every += both
            work[base + KQV + part] = seconds[_KQV, both]
            work[base + DECODE + part] = seconds[_DECODE, tokens[0]]
            work[base + PREFILL + part] = seconds[_PREFILL, tokens[1]]
            if path[nano] == 1 and network:
                work[base + GATHER + part] = seconds[_GATHER, both]
        gathered = path[nano] == 1 and network
        work[base + OUT] = seconds[_O_GATHERED if gathered else _O_PARTIAL, every]
        work[base + NET_O] = seconds[_GATHER_O if gathered else _REDUCE, every]
        work[base + UP_GATE] = seconds[_UP_GATE, every]
        work[base + DOWN] = seconds[_DOWN, every]
        work[base + NET_D] = seconds[_REDUCE, every]


@njit(cache=True, nogil=True)
def _move_in_order(phase: Floats, order: Ints, length: Ints, random: UInt64) -> tuple[int, float]:
    """(slot, phase) that puts a slot somewhere near in the cyclic order of its resource."""
    resource = int(3 * uniform(random))
    n = length[resource]
    if n < 2:
        return -1, 0.0
    place = int(n * uniform(random))
    slot = order[resource, place]
    hop = 1 + int(min(REACH, n - 1) * uniform(random))
    if uniform(random) < 0.5:
        hop = -hop
    # Between the slot that it jumps over last and the one after that, in unrolled phases.
    near, far = place + hop, place + hop + (1 if hop > 0 else -1)
    x, y = order[resource, near % n], order[resource, far % n]
    low = phase[x] - math.floor(phase[x]) + near // n
    high = phase[y] - math.floor(phase[y]) + far // n
    return slot, math.floor(phase[slot]) + low + (high - low) * (0.25 + 0.5 * uniform(random))


class Static(NamedTuple):
    """What no move changes: fields of the problem, and (decode, prefill, chunk) tokens."""

    seconds: Floats
    totals: Ints
    speed: Floats
    mode: int
    layers: int
    network: bool


class State(NamedTuple):
    """What moves change."""

    chunks: Ints  # [2, MAX_NANO, PARTS] of decode and of prefill tokens
    path: Ints  # [MAX_NANO] 1 for a nano-batch that gathers
    phase: Floats  # [ALL_SLOTS]
    level: Ints  # [ALL_SLOTS]


@njit(cache=True, nogil=True)
def _assign(target: Floats, source: Floats) -> None:
    """`target[:] = source`, which takes much longer to compile."""
    for x in range(len(source)):
        target[x] = source[x]


@njit(cache=True, nogil=True)
def _keep(best: State, state: State) -> None:
    for sort in range(2):
        for nano in range(MAX_NANO):
            for part in range(PARTS):
                best.chunks[sort, nano, part] = state.chunks[sort, nano, part]
    for nano in range(MAX_NANO):
        best.path[nano] = state.path[nano]
    for slot in range(ALL_SLOTS):
        best.phase[slot] = state.phase[slot]
        best.level[slot] = state.level[slot]


@njit(cache=True, nogil=True)
def anneal(
    static: Static,
    state: State,
    kept: State,
    value: float,
    best: float,
    moves: int,
    temperature: float,
    scope: int,
    random: UInt64,
) -> tuple[float, float]:
    """Takes moves at a temperature; (value of the state, best value).

    Args:
        static: the problem.
        state: changed in place.
        kept: the best state so far, changed in place.
        value, best: seconds of all layers, of either; inf if it cannot be executed.
        moves: how many to try.
        temperature: seconds.
        scope: what may change: LEVELS_ONLY, LEVELS_AND_ORDER or EVERYTHING.
        random: u64[1] state of the generator.
    """
    seconds, totals, speed = static.seconds, static.totals, static.speed
    mode, layers, network = static.mode, static.layers, static.network
    chunks, path, phase, level = state.chunks, state.path, state.phase, state.level
    work = np.zeros(ALL_SLOTS)
    order = np.zeros((3, ALL_SLOTS), np.int64)
    length = np.zeros(3, np.int64)
    shift = np.zeros(ALL_SLOTS, np.int64)
    nothing = np.zeros((0, 0))
    old_phase = np.zeros(ALL_SLOTS)
    old_work = np.zeros(ALL_SLOTS)
    fill_work(seconds, totals, chunks, path, network, work)
    make_order(work, phase, order, length, shift)
    for _ in range(moves):
        choice = uniform(random)
        if scope == LEVELS_ONLY:
            choice *= LEVEL_MOVE
        slot = -1
        kind = 0  # 1 level, 2 phase, 3 all phases, 4 chunks, 5 path
        old_level = 0
        other = -1
        other_level = 0
        sort = giver = taker = 0
        if choice < LEVEL_MOVE:
            if mode == NO_INTERFERENCE:
                continue
            first = 1 if mode == DYNAMIC else 0
            resource = first + int((3 - first) * uniform(random))
            if length[resource] == 0:
                continue
            slot = order[resource, int(length[resource] * uniform(random))]
            old_level = level[slot]
            if uniform(random) < ONE_STEP:
                level[slot] += 1 if uniform(random) < 0.5 else -1
            else:
                level[slot] = 1 + int(LEVELS * uniform(random))
            if level[slot] < 1 or level[slot] > LEVELS or level[slot] == old_level:
                level[slot] = old_level
                continue
            if uniform(random) < EXCHANGE:
                resource = first + (resource - first + 1) % (3 - first)
                if length[resource] > 0:
                    other = order[resource, int(length[resource] * uniform(random))]
                    other_level = level[other]
                    level[other] += 1 if level[slot] < old_level else -1
                    level[other] = min(max(level[other], 1), LEVELS)
            kind = 1
        elif choice < ORDER_MOVE:
            slot, place = _move_in_order(phase, order, length, random)
            if slot < 0:
                continue
            old_phase[slot] = phase[slot]
            phase[slot] = place
            kind = 2
        elif choice < LAG_MOVE:
            _assign(old_phase, phase)
            nano = int(MAX_NANO * uniform(random))
            lag = 0.4 * (uniform(random) - 0.5)
            for at in range(nano * SLOTS, (nano + 1) * SLOTS):
                phase[at] += lag
            kind = 3
        elif choice < SHIFT_MOVE:
            resource = int(3 * uniform(random))
            if length[resource] == 0:
                continue
            slot = order[resource, int(length[resource] * uniform(random))]
            old_phase[slot] = phase[slot]
            phase[slot] += 1.0 if uniform(random) < 0.5 else -1.0
            kind = 2
        else:
            if scope < EVERYTHING:
                continue
            _assign(old_work, work)
            if network and uniform(random) < TOGGLE:
                giver = int(MAX_NANO * uniform(random))
                path[giver] = 1 - path[giver]
                kind = 5
            else:
                sort = int(2 * uniform(random))
                giver = int(MAX_NANO * PARTS * uniform(random))
                taker = int(MAX_NANO * PARTS * uniform(random))
                from_nano, from_part = giver // PARTS, giver % PARTS
                to_nano, to_part = taker // PARTS, taker % PARTS
                if giver == taker or chunks[sort, from_nano, from_part] == 0:
                    continue
                chunks[sort, from_nano, from_part] -= 1
                chunks[sort, to_nano, to_part] += 1
                kind = 4
            fill_work(seconds, totals, chunks, path, network, work)
        if kind > 1:
            make_order(work, phase, order, length, shift)
        bar = value - temperature * math.log(1.0 - uniform(random))
        tried = simulate(
            work, level, phase, order, length, shift,
            speed, mode, layers, bar, False, nothing, nothing,
        )  # fmt: skip
        if tried <= bar:
            value = tried
            if tried < best:
                best = tried
                _keep(kept, state)
            continue
        if kind == 1:
            level[slot] = old_level
            if other >= 0:
                level[other] = other_level
        elif kind == 2:
            phase[slot] = old_phase[slot]
        elif kind == 3:
            _assign(phase, old_phase)
        else:
            if kind == 5:
                path[giver] = 1 - path[giver]
            else:
                chunks[sort, giver // PARTS, giver % PARTS] += 1
                chunks[sort, taker // PARTS, taker % PARTS] -= 1
            _assign(work, old_work)
        if kind > 1:
            make_order(work, phase, order, length, shift)
    return value, best
