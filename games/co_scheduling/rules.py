"""The rules in JAX: cut the batch, then put the nano-operations into one cyclic order.

The first `MENUS` moves choose from menus: the nano-batches' shares, whether decode and prefill
tokens are mixed, the parts, the paths, and how far the nano-batches follow one another. Every later
move puts the next nano-operation of one nano-batch (they come in the order of its layer) next in
the round, with a level: action `nano * LEVELS + level - 1`. A nano-batch that lags begins its
round amid the layer before. So every game ends in an order that can be executed.

The reward comes at the end: log(sequential seconds / seconds), from an event-driven simulation of
`UNROLLED` layers, gone on with at the pace of the last ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    COMPUTE,
    DECODE,
    DYNAMIC,
    GATHER,
    KQV,
    MAX_NANO,
    NO_INTERFERENCE,
    OUT,
    PARTS,
    PREFILL,
    RESOURCE,
    SLOTS,
    SPEED,
    UP_GATE,
    CoSchedulingProblem,
    Structure,
    cut,
)
from games.co_scheduling.solution import lower_bound, whole
from games.co_scheduling.structures import CUTS, chunk_counts, spread_phases

PATHS = ((False, False), (True, False), (True, True))  # first nano-batch, the others
LAGS = (1.0, 0.5, 0.75, 0.0)  # of an even distance between nano-batches
MENU = (len(CUTS), 2, PARTS, len(PATHS), len(LAGS))
MENUS = len(MENU)
STRUCTURES = MENU[0] * MENU[1] * MENU[2] * MENU[3]
NUM_ACTIONS = MAX_NANO * LEVELS
UNROLLED = 12  # layers that are simulated
_SETTLED = 6  # the pace is that of the layers from this one
_ROUNDS = 4  # to so many after it
_DONE = 1e-5  # of an operation's work: the rest is rounding
_MASKED = -1e9
_EXPECTED_GAP = 1.25  # over the lower bound: what a game comes to, more or less
_LEVEL_WEIGHT = 1.0  # of the prior, a level away from the usual
_PLACE_WEIGHT = 60.0  # of the prior, a round away from an even pace
_USUAL = np.array([5.0, 3.0, 2.0])  # levels of compute, memory and network


def _needs() -> np.ndarray:
    """bool[SLOTS, SLOTS]: [s, b] slot s of a nano-batch waits for slot b."""
    needs = np.zeros((SLOTS, SLOTS), dtype=np.bool_)
    for part in range(PARTS):
        needs[DECODE + part, KQV + part] = needs[PREFILL + part, KQV + part] = True
        needs[GATHER + part, [DECODE + part, PREFILL + part]] = True
        needs[KQV + part, UP_GATE + 1 :] = True
    needs[OUT, DECODE:OUT] = True
    for slot in range(OUT + 1, SLOTS):
        needs[slot, OUT:slot] = True
    return needs


_NEEDS = np.kron(np.eye(MAX_NANO, dtype=np.bool_), _needs()).astype(np.bool_)
_OF = RESOURCE[np.arange(ALL_SLOTS) % SLOTS]
_ROW = SPEED[np.arange(ALL_SLOTS) % SLOTS]
_FIRST = np.arange(ALL_SLOTS) % SLOTS < PARTS  # these wait for the layer before


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """One problem; times in units of the sequential layer. All problems have the same shapes.

    Attributes:
        work: f32[STRUCTURES, ALL_SLOTS] 0 for what is not there.
        place: f32[STRUCTURES, MAX_NANO, SLOTS] where in its layer the r-th slot of a nano-batch
            begins at an even pace, 2 beyond the last.
        order: i32[STRUCTURES, MAX_NANO, SLOTS] the r-th slot of a nano-batch.
        count: i32[STRUCTURES, MAX_NANO] slots that are there.
        speed: f32[4, LEVELS + 1].
        mode, layers: i32[].
        network: bool[].
        value: f32[] what a game brings, more or less.
    """

    work: jax.Array
    place: jax.Array
    order: jax.Array
    count: jax.Array
    speed: jax.Array
    mode: jax.Array
    layers: jax.Array
    network: jax.Array
    value: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The state before a move.

    Attributes:
        move: i32[] index of the move.
        choice: i32[MENUS] what the menus gave.
        placed: i32[MAX_NANO] nano-operations in the order.
        phase: f32[ALL_SLOTS], level: i32[ALL_SLOTS] of those.
    """

    move: jax.Array
    choice: jax.Array
    placed: jax.Array
    phase: jax.Array
    level: jax.Array


def structure_of(problem: CoSchedulingProblem, choice: Ints) -> Structure:
    """The structure that the menus gave."""
    counts = chunk_counts(problem, CUTS[choice[0]], int(choice[2]) + 1, mixed=bool(choice[1]))
    first, others = PATHS[choice[3]]
    return cut(problem, counts[0], counts[1], np.array([first] + [others] * (MAX_NANO - 1)))


def make_arrays(problem: CoSchedulingProblem) -> Arrays:
    """The problem as the rules see it."""
    scale = float(whole(problem).work(problem).sum())
    work: list[Floats] = []
    place = np.full((STRUCTURES, MAX_NANO, SLOTS), 2.0)
    order = np.zeros((STRUCTURES, MAX_NANO, SLOTS), dtype=np.int32)
    count = np.zeros((STRUCTURES, MAX_NANO), dtype=np.int32)
    for index, choice in enumerate(np.ndindex(*MENU[:-1])):
        structure = structure_of(problem, np.array(choice))
        slots = structure.work(problem)
        phases = spread_phases(problem, structure, lag=0.0).reshape(MAX_NANO, SLOTS)
        work.append(slots / scale)
        for nano in range(MAX_NANO):
            there = np.flatnonzero(slots.reshape(MAX_NANO, SLOTS)[nano] > 0)
            there = there[np.argsort(phases[nano, there], kind="stable")]
            count[index, nano] = len(there)
            order[index, nano, : len(there)] = there
            place[index, nano, : len(there)] = phases[nano, there]
    expected = np.log(scale / (_EXPECTED_GAP * lower_bound(problem)))
    return Arrays(
        work=jnp.asarray(np.array(work), jnp.float32),
        place=jnp.asarray(place, jnp.float32),
        order=jnp.asarray(order),
        count=jnp.asarray(count),
        speed=jnp.asarray(problem.speed, jnp.float32),
        mode=jnp.asarray(problem.mode, jnp.int32),
        layers=jnp.asarray(problem.layers, jnp.int32),
        network=jnp.asarray(problem.network),
        value=jnp.asarray(max(expected, 0.0), jnp.float32),
    )


def init(arrays: Arrays) -> State:
    """The state before the first move."""
    del arrays
    return State(
        move=jnp.zeros((), jnp.int32),
        choice=jnp.zeros(MENUS, jnp.int32),
        placed=jnp.zeros(MAX_NANO, jnp.int32),
        phase=jnp.zeros(ALL_SLOTS, jnp.float32),
        level=jnp.full(ALL_SLOTS, LEVELS, jnp.int32),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Offer:
    """The next nano-operation of each nano-batch, shapes [MAX_NANO].

    Attributes:
        left: bool there is one.
        slot: i32 in all slots.
        phase: f32 what it would get.
        due: f32 where in the round it would be at an even pace.
        total: i32[] nano-operations of a round.
        structure: i32[] index of the structure.
    """

    left: jax.Array
    slot: jax.Array
    phase: jax.Array
    due: jax.Array
    total: jax.Array
    structure: jax.Array


def offer(arrays: Arrays, state: State) -> Offer:
    """What can be put into the order next, once the menus are over."""
    choice = state.choice
    structure = ((choice[0] * MENU[1] + choice[1]) * MENU[2] + choice[2]) * MENU[3] + choice[3]
    count = arrays.count[structure]
    place = arrays.place[structure]
    nano = jnp.arange(MAX_NANO)
    nanos = (count > 0).sum()
    lag = jnp.asarray(LAGS)[choice[4]] * nano / jnp.maximum(nanos, 1)
    # Places beyond 1 - lag are of the layer before: the round begins with them.
    begin = (place < 1.0 - lag[:, None]).sum(axis=1)
    begin = jnp.minimum(begin, count)
    rank = (begin + state.placed) % jnp.maximum(count, 1)
    total = count.sum()
    before = rank >= begin
    return Offer(
        left=state.placed < count,
        slot=nano * SLOTS + arrays.order[structure, nano, rank],
        phase=state.placed.sum() / jnp.maximum(total, 1) + before,
        due=(place[nano, rank] + lag) % 1.0,
        total=total,
        structure=structure,
    )


def legal_actions(arrays: Arrays, state: State) -> jax.Array:
    """bool[NUM_ACTIONS]."""
    actions = jnp.arange(NUM_ACTIONS)
    menu = jnp.asarray(MENU).at[3].set(jnp.where(arrays.network, len(PATHS), 1))
    chosen = actions < menu[jnp.minimum(state.move, MENUS - 1)]
    can = offer(arrays, state)
    compute = jnp.asarray(_OF)[can.slot] == COMPUTE
    # A level without effect: only the highest, so that there are no two ways to say one thing.
    none = (arrays.mode == NO_INTERFERENCE) | ((arrays.mode == DYNAMIC) & compute)
    level = actions % LEVELS + 1
    placed = can.left[actions // LEVELS] & ((level == LEVELS) | ~none[actions // LEVELS])
    return jnp.where(state.move < MENUS, chosen, placed)


@jax.jit
def is_over(arrays: Arrays, state: State) -> jax.Array:
    """bool[]: everything is in the order."""
    return (state.move >= MENUS) & (state.placed.sum() >= offer(arrays, state).total)


def step(arrays: Arrays, state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """(state, reward, done)."""
    ended = is_over(arrays, state)
    after = place(arrays, state, action)
    over = is_over(arrays, after)
    wanted = over & ~ended
    seconds = simulate(arrays, after, offer(arrays, after).structure, wanted)
    return after, jnp.where(wanted, -jnp.log(seconds), 0.0), over


@jax.jit
def place(arrays: Arrays, state: State, action: jax.Array) -> State:
    """The state after an action, without its reward."""
    choosing = state.move < MENUS
    can = offer(arrays, state)
    nano = action // LEVELS
    menu = jnp.minimum(state.move, MENUS - 1)
    slot = can.slot[nano]
    return State(
        move=state.move + 1,
        choice=jnp.where(choosing, state.choice.at[menu].set(action), state.choice),
        placed=jnp.where(choosing, state.placed, state.placed.at[nano].add(1)),
        phase=jnp.where(choosing, state.phase, state.phase.at[slot].set(can.phase[nano])),
        level=jnp.where(choosing, state.level, state.level.at[slot].set(action % LEVELS + 1)),
    )


def simulate(arrays: Arrays, state: State, structure: jax.Array, wanted: jax.Array) -> jax.Array:
    """f32[]: time of a layer, all layers considered; 1 if it is not wanted."""
    work = arrays.work[structure]
    there = work > 0
    layers = jnp.minimum(arrays.layers, UNROLLED)
    needs = jnp.asarray(_NEEDS) & there[None, :]
    of, row = jnp.asarray(_OF), jnp.asarray(_ROW)
    classes = jnp.arange(3)
    first = jnp.argmin(jnp.where(there & (of == COMPUTE), state.phase, jnp.inf))
    shared = arrays.mode != NO_INTERFERENCE
    dynamic = arrays.mode == DYNAMIC
    counts = jnp.where(dynamic, classes != COMPUTE, True) & shared

    def going(at: tuple[jax.Array, ...]) -> jax.Array:
        done = at[2]
        return wanted & (there & (done < layers)).any()

    def event(at: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        now, started, done, running, rest, low, high = at
        key = started + state.phase
        open_ = there & (started < layers)
        head = jnp.argmin(
            jnp.where(open_[None, :] & (of[None, :] == classes[:, None]), key[None, :], jnp.inf),
            axis=1,
        )
        layer = started[head]
        least = jnp.where(jnp.asarray(_FIRST)[head], layer, layer + 1)
        ready = (~needs[head] | (done[None, :] >= least[:, None])).all(axis=1)
        ready &= open_[head] & (of[head] == classes) & (running < 0)
        level = state.level[head]
        used = jnp.where(counts & (running >= 0), state.level[running], 0).sum()
        starts = jnp.zeros(3, jnp.bool_)
        for c in jnp.argsort(jnp.where(ready, key[head], jnp.inf)):
            room = ~counts[c] | (used + level[c] <= LEVELS)
            go = ready[c] & room
            used = used + jnp.where(go & counts[c], level[c], 0)
            starts = starts.at[c].set(go)
        running = jnp.where(starts, head, running)
        rest = jnp.where(starts, work[head], rest)
        started = started.at[head].add(starts.astype(jnp.int32))
        begun = starts & (head == first)
        low = jnp.where((begun & (layer == _SETTLED)).any(), now, low)
        high = jnp.where((begun & (layer == _SETTLED + _ROUNDS)).any(), now, high)

        busy = running >= 0
        levels = jnp.where(busy, state.level[running], 0)
        left = (LEVELS - levels[1:].sum()) / LEVELS
        rate = arrays.speed[row[running], levels]
        rate = jnp.where(dynamic & (classes == COMPUTE), left, rate)
        rate = jnp.where(shared, rate, 1.0)
        # What is done within rounding of the first is done with it.
        needed = jnp.where(busy & (rate > 0), rest / jnp.maximum(rate, 1e-9), jnp.inf)
        pass_ = needed.min()
        rest = rest - pass_ * rate
        ended = busy & (rest <= _DONE * work[running])
        done = done.at[jnp.where(ended, running, ALL_SLOTS)].add(1, mode="drop")
        running = jnp.where(ended, -1, running)
        return now + pass_, started, done, running, rest, low, high

    zero = jnp.zeros((), jnp.float32)
    none = jnp.zeros(ALL_SLOTS, jnp.int32)
    start = (zero, none, none, jnp.full(3, -1, jnp.int32), jnp.zeros(3), zero, zero)
    now, *_, low, high = jax.lax.while_loop(going, event, start)  # type: ignore[arg-type]
    more = (arrays.layers - layers) * (high - low) / _ROUNDS
    return jnp.where(wanted, (now + more) / arrays.layers, 1.0)


def observe(arrays: Arrays, state: State) -> dict[str, Any]:
    """Features of the next nano-operations, f32[MAX_NANO], and of the move, f32[]."""
    can = offer(arrays, state)
    work = arrays.work[can.structure]
    placed = jnp.where(state.placed.sum() > 0, state.placed / jnp.maximum(can.total, 1), 0.0)
    features = {
        "left": can.left,
        "work": work[can.slot],
        "resource": jnp.asarray(_OF)[can.slot],
        "due": can.due,
        "placed": placed,
        "load": jax.ops.segment_sum(work, jnp.asarray(_OF), num_segments=3),
        "menu": jnp.minimum(state.move, MENUS),
        "mode": arrays.mode,
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in features.items()}


def prior_logits(arrays: Arrays, state: State) -> jax.Array:
    """f32[NUM_ACTIONS]: the nano-batch that is furthest behind an even pace, usual levels."""
    can = offer(arrays, state)
    actions = jnp.arange(NUM_ACTIONS)
    late = state.placed.sum() / jnp.maximum(can.total, 1) - can.due
    usual = jnp.asarray(_USUAL)[jnp.asarray(_OF)[can.slot]]
    nano, level = actions // LEVELS, actions % LEVELS + 1
    logits = _PLACE_WEIGHT * late[nano] - _LEVEL_WEIGHT * jnp.abs(level - usual[nano])
    logits = jnp.where(state.move < MENUS, 0.0, logits)
    return jnp.where(legal_actions(arrays, state), logits, _MASKED)


def prior_value(arrays: Arrays, state: State) -> jax.Array:
    """f32[]: what a game brings, more or less."""
    return jnp.where(is_over(arrays, state), 0.0, arrays.value)
