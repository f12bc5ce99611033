"""What the rules allow the next access, and how each action would be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from games.memory_mapping.moves import NEVER, Arrays, Move
from games.memory_mapping.state import (
    DROP,
    EPSILON,
    NUM_ACTIONS,
    SLOTS,
    WINDOW,
    Offers,
    Queues,
    Slots,
)


def make_offers(
    arrays: Arrays,
    move: jax.Array,
    slots: Slots,
    queues: Queues,
    horizon: jax.Array,
    backlog_in: jax.Array,
    spare: jax.Array,
) -> Offers:
    """The offers for a move.

    Args:
        arrays: the problem.
        move: i32[] index of the move; after the last one only DROP is legal.
        slots, queues, horizon, backlog_in: of the state before the move.
        spare: f32[WINDOW] time of each unit in which copies to fast memory can run: idle time and
            stalls, less what write-backs take.
    """
    row = arrays.row(jnp.minimum(move, arrays.length - 1))
    unit = row.unit
    of_buffer = slots.buffer == row.buffer
    own = (slots.alive | (slots.level >= 0)) & of_buffer
    has = (own & slots.alive).any()
    dirty = (own & slots.dirty).any()
    out = (own & slots.copied_out).any()
    awaiting = (own & (slots.level >= 0)).any()
    held = jnp.where(own, slots.hold, 0).max() > unit
    enters = (row.hold_end > 0) & ~held

    # Where a stay may go on.
    here = arrays.units.limit[unit]
    top = jnp.where(own, slots.offset + slots.size, 0).max()
    unsaved = (dirty | row.writes) & row.needed
    writable = ~(out & (row.writes | (enters & row.hold_writes)))
    extend = has & (held | (~row.defines & writable))
    highest = jnp.minimum(here, jnp.where(unsaved, row.keep_limit, NEVER))
    hold_limit = jnp.where(dirty, row.hold_dirty_limit, row.hold_limit)
    highest = jnp.where(enters, hold_limit, highest)
    goes_on = extend & (held | (top <= highest))
    goes_out = extend & ~held & ~enters & unsaved & (top <= row.write_back_limit)

    # How high a new stay may reach, for each action. An update of copied-in data is kept, or
    # written back at once.
    copy_back = row.writes & row.needed & (row.keep_limit == 0)
    keep = jnp.minimum(jnp.where(row.needed, row.keep_limit, here), row.place_limit)
    back = jnp.minimum(jnp.where(row.needed, row.write_back_limit, 0), row.place_limit)
    copy = jnp.where(row.writes & row.needed, row.keep_limit, here)
    copy = jnp.where(copy_back, row.write_back_limit, copy)
    limits = jnp.stack([jnp.int32(0), keep, back, copy, copy, row.hold_limit])

    units = unit - (WINDOW - 1) + jnp.arange(WINDOW)
    known = jnp.maximum(units, 0)
    worth = jnp.where(slots.alive & ~own, slots.worth, 0.0)
    limit = arrays.units.limit[known]
    view = _look(row, slots, queues, worth, limit, backlog_in, spare)
    reach = view.candidates + row.size
    free_from = jnp.where(reach <= limits[:, None], view.free_from, NEVER)
    earliest = free_from.min(axis=1)

    can_place = (slots.end < NEVER).any() & (row.size > 0)
    places = row.defines & ~held & can_place & (earliest <= unit)

    # A copy-in reads slow memory, and a buffer has one stay at a time.
    own_end = jnp.where(of_buffer, slots.end, 0).max()
    begin = jnp.maximum(jnp.maximum(own_end, horizon), jnp.maximum(units[0], 0))
    copies = can_place & ~row.defines & ~held & ~(dirty & enters) & ~(goes_on & ~enters)
    loops = arrays.units.loop[known]
    valid = copies & (units >= jnp.maximum(begin, jnp.maximum(row.copy_from, earliest[3])))
    valid &= loops == loops[-1]
    in_use = _starts(view, valid, row.work, WINDOW - 1)
    entry = jnp.clip(row.hold_done - units[0], 0, WINDOW - 1)
    valid = copies & enters & (units >= jnp.maximum(begin, jnp.maximum(row.hold_from, earliest[5])))
    valid &= (units <= row.hold_done) & ((loops == row.hold_loop) | (units == row.hold_done))
    # Work that starts together is done in the order in which it is due.
    valid &= queues.work_in == 0
    in_loop = _starts(view, valid, row.hold_work, entry)
    loop_place = jnp.where(in_loop.in_time, in_loop.late, in_loop.early)

    legal = jnp.stack(
        [
            ~held & ~(dirty & enters & ~row.defines),
            jnp.where(row.defines & ~held, places[1], goes_on),
            jnp.where(row.defines & ~held, places[2], goes_out),
            in_use.in_time,
            in_use.any & ~(in_use.in_time & (in_use.early == in_use.late)),
            in_loop.any,
        ]
    )
    active = move < arrays.num_moves
    legal = jnp.where(active, legal, jnp.arange(NUM_ACTIONS) == DROP)
    start = jnp.stack([in_use.late, in_use.early, loop_place]) + units[0]
    start = jnp.concatenate([jnp.full(3, unit), start])

    # Of the offsets that are free the one that ends stays of least worth, then the best fit.
    fits = free_from <= start[:, None]
    cost = jnp.where(fits, view.killed, jnp.inf)
    kills = cost.min(axis=1)
    gap = jnp.minimum(view.ceiling, limits[:, None]) - view.candidates
    choice = jnp.argmin(jnp.where(cost <= kills[:, None], gap, NEVER), axis=1)
    wait = jnp.stack([jnp.float32(0.0), in_use.wait, jnp.where(in_loop.in_time, 0.0, in_loop.wait)])
    dropped = jnp.where(dirty | awaiting, row.work, 0.0)
    return Offers(
        legal=legal,
        start=start,
        offset=view.candidates[choice],
        kills=kills,
        wait=jnp.concatenate([dropped[None], jnp.zeros(2), wait]),
        write_back=jnp.stack([False, False, True, copy_back, copy_back, False]) & active,
        own=jnp.where(own.any(), jnp.argmax(own), -1).astype(jnp.int32),
        extend=extend,
        held=held,
        dirty=dirty,
        awaiting=awaiting,
    )


@dataclass(frozen=True)
class _View:
    """Room and bandwidth, as the move finds them.

    Copies that are queued are all done in time after work w is added in place s of the window, if
    `busy[s] + w <= room[s]`; the work itself is if `busy[s] + level[s] + w <= clock[d]` for the
    place d before which it is due. Write-backs are taken to run as they do without it.

    Attributes:
        candidates: i32[SLOTS + 1] offsets: 0 and the ends of other stays.
        free_from: i32[SLOTS + 1] unit from which on the buffer has room there.
        killed: f32[SLOTS + 1] worth of the stays that cannot go on if it is placed there.
        ceiling: i32[SLOTS + 1] where the next stay above begins, NEVER if none does.
        clock: f32[WINDOW] time for copies before the unit.
        level: f32[WINDOW] work of all copies that start up to the unit.
        busy: f32[WINDOW] clock at which they are done, less that level.
        room: f32[WINDOW] the least `clock[e] - due_in[e]` of copies that start later.
    """

    candidates: jax.Array
    free_from: jax.Array
    killed: jax.Array
    ceiling: jax.Array
    clock: jax.Array
    level: jax.Array
    busy: jax.Array
    room: jax.Array


def _look(
    row: Move,
    slots: Slots,
    queues: Queues,
    worth: jax.Array,
    limit: jax.Array,
    backlog_in: jax.Array,
    spare: jax.Array,
) -> _View:
    """One loop over slots and the units of the window, in which candidates and units are vectors.

    That is several times faster here than reductions of matrices.
    """
    candidates = jnp.concatenate([jnp.zeros(1, jnp.int32), slots.offset + slots.size])
    reach = candidates + row.size
    place = jnp.arange(WINDOW)

    def look(carry: tuple[Any, ...], at: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        free_from, killed, ceiling, room, clock, level, idle_at = carry
        slot, unit, queue, worth, limit, spare = at
        shares = (candidates < slot.offset + slot.size) & (slot.offset < reach)
        free_from = jnp.maximum(free_from, jnp.where(shares, slot.end, 0))
        free_from = jnp.maximum(free_from, jnp.where(reach > limit, unit + 1, 0))
        killed += jnp.where(shares, worth, 0.0)
        above = (slot.offset >= reach) & (slot.alive | (slot.end > row.unit))
        ceiling = jnp.minimum(ceiling, jnp.where(above, slot.offset, NEVER))
        later = queue.due_in_start > place
        room = jnp.minimum(room, jnp.where(later, clock - queue.due_in, jnp.inf))
        # The queue is idle at most until the clock shows what it does when work comes.
        idle_at = jnp.maximum(idle_at, clock - level)
        level += queue.work_in
        now = (clock, level, jnp.maximum(idle_at, clock - level))
        return (free_from, killed, ceiling, room, clock + spare, level, idle_at), now

    zero = jnp.float32(0.0)
    start = (
        jnp.zeros(SLOTS + 1, jnp.int32),
        jnp.zeros(SLOTS + 1),
        jnp.full(SLOTS + 1, NEVER),
        jnp.full(WINDOW, jnp.inf),
        zero,
        backlog_in,
        zero,
    )
    units = jnp.maximum(row.unit - (WINDOW - 1) + place, 0)
    carry, trail = jax.lax.scan(look, start, (slots, units, queues, worth, limit, spare))
    free_from, killed, ceiling, room = carry[:4]
    clock, level, busy = trail
    return _View(candidates, free_from, killed, ceiling, clock, level, busy, room)


@dataclass(frozen=True)
class _Starts:
    """Places in the window for the start of a copy.

    Attributes:
        any: bool[] there is one.
        in_time: bool[] there is one that makes nothing wait.
        late: i32[] the latest such one.
        early: i32[] the latest one with twice the time that is needed, or with the most.
        wait: f32[] how long the program then waits, about.
    """

    any: jax.Array
    in_time: jax.Array
    late: jax.Array
    early: jax.Array
    wait: jax.Array


def _starts(view: _View, valid: jax.Array, work: jax.Array, due: jax.Array | int) -> _Starts:
    """Starts in valid places for a copy that is due at one."""
    place = jnp.arange(WINDOW)
    valid = valid & (view.busy + work <= view.room + EPSILON)
    time = view.clock[due] - view.busy - view.level
    in_time = valid & (time >= work - EPSILON)
    most = jnp.where(valid, time, -jnp.inf).max()
    ample = valid & (time >= jnp.minimum(2.0 * work, most) - EPSILON)
    early = jnp.where(ample, place, 0).max()
    return _Starts(
        any=valid.any(),
        in_time=in_time.any(),
        late=jnp.where(in_time, place, 0).max(),
        early=early,
        wait=jnp.maximum(work - time[early], 0.0),
    )
