"""The state of the memory-mapping game; `rules.py` says what it means."""

from __future__ import annotations

from dataclasses import dataclass

import jax

SLOTS = WINDOW = 64  # equal, so that one loop serves both
NUM_ACTIONS = 6
DROP, KEEP, KEEP_WRITE_BACK, COPY_LATE, COPY_EARLY, COPY_LOOP = range(NUM_ACTIONS)

NO_LEVEL = -1.0  # the slot's write-back is done, or there is none
LONG_AGO = -(2**20)  # a place in the window before all others
EPSILON = 1e-7  # of the all-slow time: work smaller than this is rounding


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """Stays in fast memory; each field has shape [SLOTS].

    Attributes:
        buffer: i32, -1 for a slot that was never used.
        offset, size: i32 bytes.
        end: i32 first unit in which the room is free, NEVER while that is not known.
        alive: bool the stay may go on with the buffer's next access.
        dirty: bool slow memory does not have the data, and no write-back has started.
        copied_out: bool a write-back has started; the stay cannot be written any more.
        level: f32 drained work at which the write-back is done, NO_LEVEL if it is or there is none.
        due: i32 unit by which the write-back is done.
        hold: i32 first unit after the loop that holds the stay, 0 if none does.
        worth: f32 time that the stay saves if it goes on.
    """

    buffer: jax.Array
    offset: jax.Array
    size: jax.Array
    end: jax.Array
    alive: jax.Array
    dirty: jax.Array
    copied_out: jax.Array
    level: jax.Array
    due: jax.Array
    hold: jax.Array
    worth: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Queues:
    """Copies in the window; each field has shape [WINDOW], the last entry is the current unit.

    Attributes:
        idle: f32 idle time of slow memory in the unit, 0 for the current one.
        work_in, work_out: f32 time of the copies that start with the unit.
        due_in, due_out: f32 level that must be drained before the unit starts.
        due_in_start: i32 place in the window of the start of the last copy that `due_in` is for.
    """

    idle: jax.Array
    work_in: jax.Array
    work_out: jax.Array
    due_in: jax.Array
    due_out: jax.Array
    due_in_start: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Offers:
    """What can be done with the access that is to move, for each action where it says so.

    Attributes:
        legal: bool[NUM_ACTIONS].
        start: i32[NUM_ACTIONS] unit in which a new stay starts.
        offset: i32[NUM_ACTIONS] its offset, bytes.
        kills: f32[NUM_ACTIONS] worth of the stays that cannot go on because of it.
        wait: f32[NUM_ACTIONS] time that the program waits for copies, estimated.
        write_back: bool[NUM_ACTIONS] a write-back starts with the next unit.
        own: i32[] slot that holds the buffer, or writes it back; -1 if there is none.
        extend: bool[] KEEP goes on with that slot, instead of a new stay.
        held, dirty, awaiting: bool[] a loop holds that slot; flags of it.
    """

    legal: jax.Array
    start: jax.Array
    offset: jax.Array
    kills: jax.Array
    wait: jax.Array
    write_back: jax.Array
    own: jax.Array
    extend: jax.Array
    held: jax.Array
    dirty: jax.Array
    awaiting: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """The state before a move.

    Attributes:
        move: i32[] index of the move.
        slots, queues, offers: see there.
        horizon: i32[] stays that ended by this unit may be forgotten.
        backlog_in, backlog_out: f32[] copy work queued when the window starts.
        stall: f32[] stalls in the window so far.
        saved, fast: f32[] slow-memory time saved and fast-memory time spent in the current unit.
        front: f32[] level of write-backs that are done before those starting in this unit are.
        pending: f32[] work of the write-backs that start with the next unit.
    """

    move: jax.Array
    slots: Slots
    queues: Queues
    offers: Offers
    horizon: jax.Array
    backlog_in: jax.Array
    backlog_out: jax.Array
    stall: jax.Array
    saved: jax.Array
    fast: jax.Array
    front: jax.Array
    pending: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """What a move did, for the solution; units are indices of units.

    Attributes:
        slot: i32[] slot of the access, -1 if slow memory served it.
        new: bool[] a stay starts in that slot.
        start, ready: i32[] of a new stay; equal for a stay without a copy-in.
        copied_in: bool[] a new stay has a copy-in.
        offset: i32[] bytes, of the stay.
        held_to: i32[] first unit after the loop that holds the stay, 0 if none does.
        copy_out: bool[] a write-back starts with the next unit.
        done_now: bool[SLOTS] slots whose write-back the move waited for.
        done: bool[SLOTS] slots whose write-back is done when the next unit starts.
    """

    slot: jax.Array
    new: jax.Array
    start: jax.Array
    ready: jax.Array
    copied_in: jax.Array
    offset: jax.Array
    held_to: jax.Array
    copy_out: jax.Array
    done_now: jax.Array
    done: jax.Array
