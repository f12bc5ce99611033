"""The rules of the memory-mapping game, as pure functions of JAX over a small state.

The moves are the accesses in the order of the schedule; within a step reads come before writes
and large buffers before small ones. A move says where its access is served:

- DROP: from slow memory. Data that only fast memory holds is first written back, and the program
  waits for it. What the buffer held in fast memory is given up.
- KEEP: from fast memory, without a copy-in ("NoCopy" in the paper): a definition gets a place in
  fast memory, any other access finds the buffer there and its stay goes on, at the same offset.
- KEEP_WRITE_BACK: the same, and a copy to slow memory starts with the next unit. Legal where the
  data is needed later and slow memory does not have it.
- COPY_LATE: from fast memory, with a prefetch that starts as late as it can without a stall.
- COPY_EARLY: the same with a start that has twice the idle time that the copy needs, or where
  there is no such start the one that makes the program wait least.
- COPY_LOOP: the same with a prefetch before the loop that the access is in; the buffer then stays
  in fast memory for all of the loop.

An offset is the best fit among 0 and the ends of other stays. Every move is legal as a mapping, by
the rules in `solution.py`, whatever is played after it: dirty data keeps its room until it is
written back, so DROP is legal except where a loop holds the buffer, and there KEEP is. So there is
never a dead end, and nothing to back up from ("drop-backup" in the paper).

What the state leaves out: stays that ended long ago. It holds SLOTS stays and looks WINDOW units
back; a copy-in cannot start earlier than that, nor than the end of a stay that had to be
forgotten, and where each slot holds data that is needed nothing new comes to fast memory.

Rewards are exact: copies are replayed as the simulator does (`simulator.py`) over the window with
every move, so the rewards of a game add up to its modelled saving, as a fraction of the all-slow
time. Levels of copy work count what has been drained of a queue since the window's first unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from games.memory_mapping.moves import NEVER, NO_BUFFER, Arrays, Move
from games.memory_mapping.offers import make_offers
from games.memory_mapping.state import (
    COPY_LATE,
    COPY_LOOP,
    DROP,
    EPSILON,
    KEEP_WRITE_BACK,
    LONG_AGO,
    NO_LEVEL,
    SLOTS,
    WINDOW,
    Queues,
    Slots,
    State,
    Trace,
)


def init(arrays: Arrays) -> State:
    """The state before the first move: fast memory is empty, no copy runs."""
    slots = Slots(
        buffer=jnp.full(SLOTS, NO_BUFFER, jnp.int32),
        offset=jnp.zeros(SLOTS, jnp.int32),
        size=jnp.zeros(SLOTS, jnp.int32),
        end=jnp.zeros(SLOTS, jnp.int32),
        alive=jnp.zeros(SLOTS, jnp.bool_),
        dirty=jnp.zeros(SLOTS, jnp.bool_),
        copied_out=jnp.zeros(SLOTS, jnp.bool_),
        level=jnp.full(SLOTS, NO_LEVEL, jnp.float32),
        due=jnp.full(SLOTS, NEVER, jnp.int32),
        hold=jnp.zeros(SLOTS, jnp.int32),
        worth=jnp.zeros(SLOTS),
    )
    zeros = jnp.zeros(WINDOW)
    queues = Queues(
        idle=zeros,
        work_in=zeros,
        work_out=zeros,
        due_in=zeros,
        due_out=zeros,
        due_in_start=jnp.full(WINDOW, LONG_AGO, jnp.int32),
    )
    first, zero = jnp.int32(0), jnp.float32(0.0)
    return State(
        move=first,
        slots=slots,
        queues=queues,
        offers=make_offers(arrays, first, slots, queues, first, zero, zeros),
        horizon=first,
        backlog_in=zero,
        backlog_out=zero,
        stall=zero,
        saved=zero,
        fast=zero,
        front=zero,
        pending=zero,
    )


def legal_actions(arrays: Arrays, state: State) -> jax.Array:
    """bool[NUM_ACTIONS]; see `games.base.Game`."""
    del arrays
    return state.offers.legal


def step(arrays: Arrays, state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """(next state, reward, done); see `games.base.Game`. The action must be legal."""
    following, reward, done, _ = play_move(arrays, state, action)
    return following, reward, done


def play_move(
    arrays: Arrays, state: State, action: jax.Array
) -> tuple[State, jax.Array, jax.Array, Trace]:
    """`step`, with what is needed to write the move down."""
    row = arrays.row(jnp.minimum(state.move, arrays.length - 1))
    active = state.move < arrays.num_moves
    over = state.move + 1 >= arrays.num_moves
    served, reward, replay, trace = _serve(arrays, state, row, action)
    moved, spare, more, done = _advance(arrays, served, replay, row.unit, over)
    following: State = jax.tree.map(lambda a, b: jnp.where(row.last, a, b), moved, served)
    following = jax.tree.map(lambda a, b: jnp.where(active, a, b), following, state)
    move = jnp.minimum(state.move + 1, arrays.num_moves)
    following = replace(
        following,
        move=move,
        offers=make_offers(
            arrays,
            move,
            following.slots,
            following.queues,
            following.horizon,
            following.backlog_in,
            jnp.where(row.last, spare, replay.spare),
        ),
    )
    reward = jnp.where(active, reward + jnp.where(row.last, more, 0.0), 0.0)
    trace = replace(
        trace,
        slot=jnp.where(active, trace.slot, -1),
        done_now=trace.done_now & active,
        done=done & row.last & active,
    )
    return following, reward, over, trace


def _serve(
    arrays: Arrays, state: State, row: Move, action: jax.Array
) -> tuple[State, jax.Array, _Replay, Trace]:
    """The move itself, before time goes on: (state, reward, copies replayed, trace)."""
    slots, queues, offers = state.slots, state.queues, state.offers
    unit = row.unit
    in_fast = action != DROP
    extend = in_fast & (action <= KEEP_WRITE_BACK) & offers.extend
    new = in_fast & ~extend
    copy = action >= COPY_LATE
    start = offers.start[action]
    write_back = offers.write_back[action]
    on_slot = jnp.arange(SLOTS)

    # A new stay takes the slot of one that ended long ago; one that may go on is worth a delay.
    forget = slots.end + jnp.where(slots.alive, WINDOW, 0)
    forget = jnp.argmin(jnp.where(slots.end < NEVER, forget, NEVER))
    own = on_slot == offers.own
    slot = jnp.where(extend, offers.own, forget)
    offset = jnp.where(extend, slots.offset[slot], offers.offset[action])

    enters = (row.hold_end > 0) & ~offers.held
    hold = jnp.where(extend & offers.held, slots.hold[slot], 0)
    hold = jnp.where((extend & enters) | (action == COPY_LOOP), row.hold_end, hold)
    within = (hold > 0) & (row.next_unit < hold)
    needed = jnp.where(hold > 0, row.held_needed, row.needed)
    extends = jnp.where(hold > 0, row.held_extends, row.extends)
    dirty = (row.writes | (extend & offers.dirty)) & ~write_back & (needed | within)
    level = jnp.where(extend, slots.level[slot], NO_LEVEL)
    total_out = state.backlog_out + queues.work_out.sum() + state.pending + row.work
    level = jnp.where(write_back, total_out, level)
    end = jnp.where(hold > 0, hold, unit + 1)
    open_ended = dirty | within | (level >= 0)

    chosen = in_fast & (on_slot == slot)

    def put(field: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(chosen, value, field)

    horizon = jnp.where(new, jnp.maximum(slots.end[slot], state.horizon), state.horizon)
    shares = (slots.offset < offset + row.size) & (offset < slots.offset + slots.size)
    given_up = ~extend & own
    alive = slots.alive & ~given_up & ~(new & shares & (slots.end < NEVER))

    # A stay that does not go on has its write-back done by now; DROP may have to start it.
    written = (action == DROP) & offers.dirty & ~row.defines
    awaited = ~extend & offers.awaiting
    awaited_level = jnp.where(own, slots.level, NO_LEVEL).max()
    young = awaited & (awaited_level > state.front)
    work = row.work
    pushed = written | young
    front = jnp.where(pushed, state.front + work, state.front)
    behind = (slots.level > state.front) & jnp.where(young, slots.level < awaited_level, True)
    due = jnp.where(pushed, front, jnp.where(awaited, awaited_level, 0.0))
    old_level = jnp.where(pushed & behind, slots.level + work, slots.level)
    # Whatever is before it in the queue is done as well.
    with_it = (old_level >= 0) & (old_level <= due) & ~own
    given_back = (written | awaited) & own
    done_now = with_it | given_back
    old_level = jnp.where(done_now, NO_LEVEL, old_level)
    old_end = jnp.where(with_it, unit + 1, jnp.where(given_back, unit, slots.end))

    slots = Slots(
        buffer=put(slots.buffer, row.buffer),
        offset=put(slots.offset, offset),
        size=put(slots.size, row.size),
        end=put(old_end, jnp.where(open_ended, NEVER, end)),
        alive=put(alive, extends | within | dirty),
        dirty=put(slots.dirty & ~given_up, dirty),
        copied_out=put(slots.copied_out, write_back | (extend & slots.copied_out[slot])),
        level=put(old_level, level),
        due=put(slots.due, jnp.where(write_back, row.write_back_by, slots.due[slot])),
        hold=put(slots.hold, hold),
        worth=put(slots.worth, row.worth),
    )

    # The copy-in enters its queue; what waits behind it is done that much later.
    place = jnp.arange(WINDOW)
    origin = unit - (WINDOW - 1)
    ready = jnp.where(action == COPY_LOOP, row.hold_done, unit)
    begins, ends = start - origin, ready - origin
    added = jnp.where(copy, jnp.where(action == COPY_LOOP, row.hold_work, work), 0.0)
    work_in = queues.work_in + jnp.where(place == begins, added, 0.0)
    due_in = queues.due_in + jnp.where(queues.due_in_start > begins, added, 0.0)
    level_in = state.backlog_in + jnp.where(place <= begins, work_in, 0.0).sum()
    newest = copy & (place == ends) & (begins >= queues.due_in_start)
    due_in = jnp.where(newest, level_in, due_in)
    due_in_start = jnp.where(newest, begins, queues.due_in_start)
    queues = replace(
        queues,
        work_in=work_in,
        work_out=queues.work_out.at[-1].add(jnp.where(written, work, 0.0)),
        due_in=due_in,
        due_in_start=due_in_start,
        due_out=queues.due_out.at[-1].max(due),
    )
    replay = _replay(state.backlog_in, state.backlog_out, queues)
    stall = replay.stall.sum()

    before = elapsed(arrays, unit, state.saved, state.fast)
    saved = state.saved + jnp.where(in_fast, row.slow, 0.0)
    fast = state.fast + jnp.where(in_fast, row.fast, 0.0)
    reward = before - elapsed(arrays, unit, saved, fast) - (stall - state.stall)
    following = State(
        move=state.move,
        slots=slots,
        queues=queues,
        offers=offers,
        horizon=horizon,
        backlog_in=state.backlog_in,
        backlog_out=state.backlog_out,
        stall=stall,
        saved=saved,
        fast=fast,
        front=front,
        pending=state.pending + jnp.where(write_back, work, 0.0),
    )
    trace = Trace(
        slot=jnp.where(in_fast, slot, -1),
        new=new,
        start=start,
        ready=jnp.where(copy, ready, start),
        copied_in=copy,
        offset=offset,
        held_to=hold,
        copy_out=write_back,
        done_now=done_now,
        done=jnp.zeros(SLOTS, jnp.bool_),
    )
    return following, reward, replay, trace


def elapsed(arrays: Arrays, unit: jax.Array, saved: jax.Array, fast: jax.Array) -> jax.Array:
    """Time of the unit's first step, without stalls."""
    slow = jnp.maximum(arrays.units.slow[unit] - saved, 0.0)
    return jnp.maximum(arrays.units.compute[unit], slow + fast)


@dataclass(frozen=True)
class _Replay:
    """What the copies did in the window, f32[WINDOW]: after each unit, but for `stall`, `spare`."""

    stall: jax.Array
    spare: jax.Array
    left_in: jax.Array
    left_out: jax.Array
    drained_in: jax.Array
    drained_out: jax.Array


def _replay(backlog_in: jax.Array, backlog_out: jax.Array, queues: Queues) -> _Replay:
    """The simulator's two queues over the window: see `simulator.drain`."""

    def unit(carry: tuple[jax.Array, ...], at: Queues) -> tuple[tuple[jax.Array, ...], Any]:
        left_in, left_out, drained_in, drained_out = carry
        left_in, left_out = left_in + at.work_in, left_out + at.work_out
        need_in = jnp.clip(at.due_in - drained_in, 0.0, left_in)
        shared_out = jnp.minimum(need_in, left_out)
        left_in, left_out = left_in - need_in, left_out - shared_out
        need_out = jnp.clip(at.due_out - drained_out - shared_out, 0.0, left_out)
        shared_in = jnp.minimum(need_out, left_in)
        left_in, left_out = left_in - shared_in, left_out - need_out
        stall = need_in + shared_out + need_out + shared_in
        done_in, done_out = _share(at.idle, left_in, left_out)
        by_out = shared_out + need_out + done_out
        carry = (
            left_in - done_in,
            left_out - done_out,
            drained_in + need_in + shared_in + done_in,
            drained_out + by_out,
        )
        return carry, (stall, at.idle + stall - by_out, *carry)

    zero = jnp.float32(0.0)
    start = (backlog_in, backlog_out, zero, zero)
    _, trail = jax.lax.scan(unit, start, queues)  # type: ignore[arg-type]
    return _Replay(*trail)


def _share(idle: jax.Array, left_in: jax.Array, left_out: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Work that each queue gets done in idle time: half of it while both have some."""
    both = jnp.minimum(left_in, left_out)
    rest = jnp.maximum(idle - both, idle / 2.0)
    return jnp.minimum(left_in, rest), jnp.minimum(left_out, rest)


def _advance(
    arrays: Arrays, state: State, replay: _Replay, unit: jax.Array, over: jax.Array
) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """The next unit starts, or the program ends.

    Returns:
        The state, `spare` of the new window, the reward, bool[SLOTS] write-backs that are done.
    """
    slots, queues = state.slots, state.queues
    lasts = elapsed(arrays, unit, state.saved, state.fast)
    slow = jnp.maximum(arrays.units.slow[unit] - state.saved, 0.0)
    idle = lasts - slow + arrays.units.idle[unit]
    done_in, done_out = _share(idle, replay.left_in[-1], replay.left_out[-1])
    left_in = replay.left_in[-1] - done_in
    left_out = replay.left_out[-1] - done_out + state.pending

    # Levels count from the start of the window, which moves on by one unit.
    gone_in, gone_out = replay.drained_in[0], replay.drained_out[0]
    drained_out = replay.drained_out[-1] + done_out - gone_out
    awaiting = slots.level >= 0
    level = jnp.where(awaiting, jnp.maximum(slots.level - gone_out, 0.0), NO_LEVEL)

    # Write-backs that are done, by themselves or because their time or their room ends.
    following = jnp.minimum(unit + 1, arrays.units.limit.shape[0] - 1)
    too_high = slots.offset + slots.size > arrays.units.limit[following]
    forced = awaiting & (too_high | (slots.due <= unit + 1))
    due = jnp.maximum(jnp.where(forced, level, 0.0).max(), drained_out)
    done = awaiting & ((level <= due + EPSILON) | over)
    due_out = jnp.where(done, level, 0.0).max()
    need = jnp.clip(due_out - drained_out, 0.0, left_out)
    stall = need + jnp.minimum(need, left_in)

    end = jnp.where(done, unit + 1, slots.end)
    slots = replace(
        slots,
        level=jnp.where(done, NO_LEVEL, level),
        end=end,
        alive=slots.alive & ~((end <= unit + 1) & too_high),
    )

    def shift(field: jax.Array, newest: jax.Array | float) -> jax.Array:
        return jnp.concatenate([field[1:], jnp.asarray(newest, field.dtype)[None]])

    spare = shift(replay.spare.at[-1].add(idle - done_out), 0.0)
    moved = State(
        move=state.move,
        slots=slots,
        offers=state.offers,
        queues=Queues(
            idle=shift(queues.idle.at[-1].set(idle), 0.0),
            work_in=shift(queues.work_in, 0.0),
            work_out=shift(queues.work_out, state.pending),
            due_in=shift(jnp.maximum(queues.due_in - gone_in, 0.0), 0.0),
            due_out=shift(jnp.maximum(queues.due_out - gone_out, 0.0), due_out),
            due_in_start=shift(jnp.maximum(queues.due_in_start - 1, LONG_AGO), LONG_AGO),
        ),
        horizon=state.horizon,
        backlog_in=replay.left_in[0],
        backlog_out=replay.left_out[0],
        stall=state.stall - replay.stall[0] + stall,
        saved=jnp.zeros_like(state.saved),
        fast=jnp.zeros_like(state.fast),
        front=state.backlog_out + queues.work_out.sum() - gone_out,
        pending=jnp.zeros_like(state.pending),
    )
    return moved, spare, jnp.where(over, -(left_in + left_out), -stall), done
