"""Exact search for offsets within a capacity: place or postpone, with conflict-directed backjumps.

The problem is the one of MiniMalloc (Moffitt, "MiniMalloc: A Lightweight Memory Allocator for
Hardware-Accelerated Machine Learning", ASPLOS 2023). From there: sections, the bound that a
section's floor plus its unplaced sizes must stay within the capacity (its "section inference" and
"unallocated floor"), solutions in which nothing can move down (its "canonical" and "dominance"
rules), and several static orders tried in turn. The branching and the backjumping are our own:

- A *section* is a maximal set of buffers alive at one time. Two buffers overlap in time exactly
  when they share a section, and a buffer covers a contiguous range of sections.
- Every unplaced buffer has a lower bound `low` on its offset. The search takes an unplaced buffer
  whose bound no overlapping unplaced buffer undercuts, and branches in two: *place* it at its
  bound, with every unplaced overlapping buffer above it; or *postpone* it: it goes higher. This is
  the schedule-or-postpone branching of constraint-based scheduling (Le Pape et al., "Time-versus-
  capacity compromises in project scheduling", 1994), turned from time to offsets. Unlike a global
  bottom-up order it ties together only buffers that overlap.
- Among all solutions we look only for those that minimise `sum(weight * offset)`, with weights
  that fall with the buffer's rank. In these no buffer can move down into a gap, so a postponed
  buffer needs an *intruder*: a buffer placed later that takes part of the place it was denied.
  Until one is placed the buffer must stay above the lowest that can still come, which raises its
  bound; if none can, the branch fails. Nor does a buffer rest directly on one with the same
  sections and a higher rank, since the two could change places.
- A failure depends only on the buffers alive in a range of sections, its *conflict*. Decisions
  that changed nothing there are undone without trying their other branch. This is what keeps the
  search from enumerating one part of the timeline because another cannot be packed.
- Runs are short and restarted with another order (Gomes, Selman & Kautz, "Boosting combinatorial
  search through randomization", 1998), since their length is heavy-tailed; the lengths follow
  Luby's sequence. A run that exhausts its tree proves that nothing fits.

The search runs in slices of a number of nodes and keeps its state between them, so that the caller
can look at the clock and at Ctrl-C, and is deterministic for a given seed and number of nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Integer = int | np.int64

RUNNING, SOLVED, INFEASIBLE, FULL = 0, 1, -1, 2
LOWEST, TIGHTEST = 0, 1  # how the next buffer is selected
PLACED = np.int64(1) << 62  # the bound of a placed buffer: above all others

RESTART = 5  # nodes of the shortest run, for each buffer
NOISE = 0.15  # most places, as a share of all, that a buffer is moved down in a random order

# Indices of Search.counters.
CAPACITY, UNIT, DEPTH, TRAIL, FLOORS, OPEN, WAITING, DECISIONS, NODES, RUN, LEFT, SELECTION = range(
    12
)
COUNTERS = 12


class Search(NamedTuple):
    """A packing problem made ready for search, and the state of the search between slices.

    Sizes and offsets are in multiples of a unit of bytes, times are sections. Buffers are sorted
    by their first section; those of no bytes are absent. The stacks are as long as they must be.
    """

    caller: Int64  # [n] the caller's index of each buffer
    lower: Int64  # [n] first section
    upper: Int64  # [n] section after the last
    length: Int64  # [n] lifetime on the caller's time axis
    size: Int64  # [n] > 0
    ceiling: Int64  # [n] highest legal top (offset + size)
    rank: Int64  # [n] lower is tried first
    offset: Int64  # [n] of the placed buffers
    low: Int64  # [n] lower bound on the offset of the unplaced buffers, else PLACED
    denied: Int64  # [n] offset at which it was postponed, until an intruder comes; or -1
    stamp: Int64  # [n] last decision that saved it on the trail
    waiting: Int64  # [n] scratch: the buffers that wait for an intruder
    first: Int64  # [sections + 1] first buffer whose lower is at least the section
    live_from: Int64  # [sections + 1] where the section's buffers start in `live`
    live: Int64  # buffers alive in each section, concatenated
    load: Int64  # [sections + 1] sum of sizes
    rest: Int64  # [sections + 1] sum of unplaced sizes
    floor: Int64  # [sections + 1] lowest bound among unplaced buffers
    witness: Int64  # [sections + 1] one with that bound
    failures: Int64  # [sections + 1] how often the section's bound failed
    frames: Int64  # [depth, 9], columns below
    trail: Int64  # [.., 3] buffer, low, denied before a decision
    floors: Int64  # [.., 3] section, floor, witness before a decision
    counters: Int64  # [COUNTERS] indices above
    random: UInt64  # [1] state of the generator


# Columns of Search.frames: the buffer decided; whether its second branch is being searched; the
# lengths of the trails before the decision; the sections whose buffers the current branch's
# inference read, from and to; the conflict of the first branch, from and to.
BUFFER, POSTPONED, TRAIL_FROM, FLOORS_FROM, READ_FROM, READ_TO, CONFLICT_FROM, CONFLICT_TO = range(
    8
)


@njit(cache=True)
def argsort(key: Int64) -> Int64:
    """Stable order of increasing keys, by merging runs (numba's own sorts compile for seconds)."""
    n = key.size
    order = np.empty(n, np.int64)
    merged = np.empty(n, np.int64)
    for x in range(n):
        order[x] = x
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle = min(start + width, n)
            end = min(start + 2 * width, n)
            a, b = start, middle
            for x in range(start, end):
                if a < middle and (b == end or key[order[a]] <= key[order[b]]):
                    merged[x] = order[a]
                    a += 1
                else:
                    merged[x] = order[b]
                    b += 1
        order, merged = merged, order
        width *= 2
    return order


@njit(cache=True)
def make_search(
    lower: Int64, upper: Int64, size: Int64, capacity: int, alignment: int, seed: int
) -> Search:
    """A search for a packing, at its root (lower < upper wherever size > 0).

    Only maximal sections are kept: the buffers of any other are all in one of these. Offsets are
    sums of sizes rounded up to the alignment, so their greatest common divisor is the unit.
    """
    counters = np.zeros(COUNTERS, np.int64)
    n = 0
    unit = 0
    for i in range(size.size):
        if size[i] > 0:
            n += 1
            a, b = unit, -(-size[i] // alignment)
            while b:
                a, b = b, a % b
            unit = a
    unit = max(unit, 1) * alignment
    counters[UNIT] = unit
    index = np.empty(n, np.int64)
    k = 0
    for i in argsort(lower):
        if size[i] > 0:
            index[k] = i
            k += 1
    item = np.zeros((11, n), np.int64)
    from_section, to_section, length, units, ceiling = item[0], item[1], item[2], item[3], item[4]
    for k in range(n):
        i = index[k]
        length[k] = upper[i] - lower[i]
        units[k] = -(-size[i] // unit)
        ceiling[k] = (capacity - size[i]) // unit + units[k]
        counters[CAPACITY] = max(counters[CAPACITY], ceiling[k])
        to_section[k] = upper[i]
    sections = 0
    started = 0
    fresh = False
    for k in argsort(to_section):
        end = upper[index[k]]
        while started < n and lower[index[started]] < end:
            from_section[started] = sections
            started += 1
            fresh = True
        if fresh:  # the first end after a start closes a maximal section
            sections += 1
            fresh = False
        to_section[k] = sections
    section = np.zeros((7, sections + 1), np.int64)
    first, live_from, load, fill = section[0], section[1], section[2], section[3]
    total = 0
    for k in range(n):
        for x in range(from_section[k], to_section[k]):
            load[x] += units[k]
            live_from[x + 1] += 1
            total += 1
        first[from_section[k] + 1] = k + 1  # every section is the first of some buffer
    first[0] = 0
    live = np.empty(total, np.int64)
    pairs = 0
    for x in range(sections):
        live_from[x + 1] += live_from[x]
        fill[x] = live_from[x]
    for k in range(n):
        pairs += live_from[from_section[k] + 1] - live_from[from_section[k]]
        for x in range(from_section[k], to_section[k]):
            live[fill[x]] = k
            fill[x] += 1
    # A run without postponements saves each pair once, and so each floor at most that often. The
    # stacks are only touched as far as they are used.
    pairs += 64 * (n + sections)
    search = Search(
        index,
        from_section,
        to_section,
        length,
        units,
        ceiling,
        item[5],
        item[6],
        item[7],
        item[8],
        item[9],
        item[10],
        first,
        live_from,
        live,
        load,
        fill,
        section[4],
        section[5],
        section[6],
        np.empty((16 * n + 64, 8), np.int64),
        np.empty((pairs, 3), np.int64),
        np.empty((pairs, 3), np.int64),
        counters,
        np.array([seed], np.uint64),
    )
    reset(search)
    return search


@njit(cache=True)
def reset(s: Search) -> None:
    """Back to the root, for another run; the generator, nodes and failures go on."""
    c = s.counters
    c[DEPTH] = c[TRAIL] = c[FLOORS] = c[WAITING] = 0
    c[OPEN] = s.size.size
    for k in range(s.size.size):
        s.low[k] = 0
        s.denied[k] = -1
    for x in range(s.load.size - 1):
        s.rest[x] = s.load[x]
        s.floor[x] = 0
        s.witness[x] = s.live[s.live_from[x]]


@njit(cache=True, forceinline=True)
def _save(s: Search, k: int) -> None:
    """Puts the buffer on the trail, once in a decision."""
    c = s.counters
    if s.stamp[k] != c[DECISIONS]:
        s.stamp[k] = c[DECISIONS]
        s.trail[c[TRAIL], 0] = k
        s.trail[c[TRAIL], 1] = s.low[k]
        s.trail[c[TRAIL], 2] = s.denied[k]
        c[TRAIL] += 1


@njit(cache=True, forceinline=True)
def _lift(s: Search, k: int, j: int, top: int) -> bool:
    """Puts the unplaced buffer k above j, just placed; False if it cannot fit there."""
    intruded = s.denied[k] >= 0 and s.offset[j] < s.denied[k] + s.size[k]
    if s.low[k] <= top or intruded:
        twin = s.rank[k] < s.rank[j] and s.lower[k] == s.lower[j] and s.upper[k] == s.upper[j]
        if s.low[k] < top or intruded or twin:
            _save(s, k)
            if intruded:
                s.denied[k] = -1
                s.counters[WAITING] -= 1
            if s.low[k] <= top:
                s.low[k] = top
                if twin and s.denied[k] < 0:
                    s.denied[k] = top
                    s.counters[WAITING] += 1
    return s.low[k] + s.size[k] <= s.ceiling[k]


@njit(cache=True, forceinline=True)
def _place(s: Search, j: int) -> bool:
    s.offset[j] = s.low[j]
    s.low[j] = PLACED
    s.counters[OPEN] -= 1
    for section in range(s.lower[j], s.upper[j]):
        s.rest[section] -= s.size[j]
    top = s.offset[j] + s.size[j]
    fits = True
    for q in range(s.live_from[s.lower[j]], s.live_from[s.lower[j] + 1]):
        k = s.live[q]
        if s.low[k] != PLACED:
            fits &= _lift(s, k, j, top)
    for k in range(s.first[s.lower[j] + 1], s.first[s.upper[j]]):
        if s.low[k] != PLACED:
            fits &= _lift(s, k, j, top)
    return fits


@njit(cache=True, forceinline=True)
def _postpone(s: Search, j: int) -> None:
    """Denies j, and the equal buffers of higher rank that would go to the same place, their bound.

    Equal buffers can change places, so that of higher rank need not be below.
    """
    for q in range(s.live_from[s.lower[j]], s.live_from[s.lower[j] + 1]):
        k = s.live[q]
        if k == j or (
            s.low[k] == s.low[j]
            and s.rank[k] > s.rank[j]
            and s.denied[k] < 0
            and s.size[k] == s.size[j]
            and s.lower[k] == s.lower[j]
            and s.upper[k] == s.upper[j]
        ):
            _save(s, k)
            s.denied[k] = s.low[k]
            s.counters[WAITING] += 1


@njit(cache=True, forceinline=True)
def _lowest_intruder(s: Search, k: int) -> Integer:
    """Lowest top of an unplaced buffer that can take part of the place denied to k."""
    limit = s.denied[k] + s.size[k]
    lowest = PLACED
    for q in range(s.live_from[s.lower[k]], s.live_from[s.lower[k] + 1]):
        i = s.live[q]
        if s.low[i] < limit and i != k:
            lowest = min(lowest, s.low[i] + s.size[i])
    for i in range(s.first[s.lower[k] + 1], s.first[s.upper[k]]):
        if s.low[i] < limit:
            lowest = min(lowest, s.low[i] + s.size[i])
    return lowest


@njit(cache=True, forceinline=True)
def _infer(s: Search, j: int) -> tuple[bool, Integer, Integer]:
    """Draws the consequences of the decision on j; (consistent, the conflict's sections).

    Bounds of waiting buffers are raised to a fixed point, then the floors of all sections where a
    bound changed are brought up to date and checked.
    """
    c = s.counters
    frame = c[DEPTH] - 1
    if c[WAITING] > 0:
        count = 0
        for k in range(s.size.size):
            if s.denied[k] >= 0:
                s.waiting[count] = k
                count += 1
        changed = True
        while changed:
            changed = False
            for x in range(count):
                k = s.waiting[x]
                lowest = _lowest_intruder(s, k)
                if lowest > s.low[k]:
                    s.frames[frame, READ_FROM] = min(s.frames[frame, READ_FROM], s.lower[k])
                    s.frames[frame, READ_TO] = max(s.frames[frame, READ_TO], s.upper[k])
                    if lowest + s.size[k] > s.ceiling[k]:
                        return False, s.lower[k], s.upper[k]
                    _save(s, k)
                    s.low[k] = lowest
                    changed = True
    changed_from, changed_to = s.lower[j], s.upper[j]
    for x in range(s.frames[frame, TRAIL_FROM], c[TRAIL]):
        changed_from = min(changed_from, s.lower[s.trail[x, 0]])
        changed_to = max(changed_to, s.upper[s.trail[x, 0]])
    for section in range(changed_from, changed_to):
        if s.low[s.witness[section]] != s.floor[section] and s.rest[section] > 0:
            floor = PLACED
            witness = s.witness[section]
            for q in range(s.live_from[section], s.live_from[section + 1]):
                k = s.live[q]
                if s.low[k] < floor:
                    floor = s.low[k]
                    witness = k
                    if floor == s.floor[section]:
                        break
            s.floors[c[FLOORS], 0] = section
            s.floors[c[FLOORS], 1] = s.floor[section]
            s.floors[c[FLOORS], 2] = s.witness[section]
            c[FLOORS] += 1
            s.floor[section] = floor
            s.witness[section] = witness
            if floor + s.rest[section] > c[CAPACITY]:
                s.failures[section] += 1
                return False, section, section + 1
    return True, np.int64(0), np.int64(0)


@njit(cache=True, forceinline=True)
def _undo(s: Search, conflict_from: Integer, conflict_to: Integer) -> bool:
    """Undoes the last decision; did it change a buffer of the conflict?"""
    c = s.counters
    frame = c[DEPTH] - 1
    j = s.frames[frame, BUFFER]
    touched = s.lower[j] < conflict_to and conflict_from < s.upper[j]
    if not s.frames[frame, POSTPONED]:
        s.low[j] = s.offset[j]
        c[OPEN] += 1
        for section in range(s.lower[j], s.upper[j]):
            s.rest[section] += s.size[j]
    while c[TRAIL] > s.frames[frame, TRAIL_FROM]:
        c[TRAIL] -= 1
        k = s.trail[c[TRAIL], 0]
        touched |= s.lower[k] < conflict_to and conflict_from < s.upper[k]
        c[WAITING] += int(s.trail[c[TRAIL], 2] >= 0) - int(s.denied[k] >= 0)
        s.low[k] = s.trail[c[TRAIL], 1]
        s.denied[k] = s.trail[c[TRAIL], 2]
    while c[FLOORS] > s.frames[frame, FLOORS_FROM]:
        c[FLOORS] -= 1
        section = s.floors[c[FLOORS], 0]
        s.floor[section] = s.floors[c[FLOORS], 1]
        s.witness[section] = s.floors[c[FLOORS], 2]
    return touched


@njit(cache=True, forceinline=True)
def _select(s: Search) -> int:
    """The next buffer to decide: no overlapping unplaced buffer has a lower bound.

    LOWEST takes the lowest bound of all; TIGHTEST starts in the section with the least slack over
    its failures so far (as the dom/wdeg rule of Boussemart et al., 2004) and goes down from there.
    A tie goes to the lower rank. A buffer that waits for an intruder is never lowest: its bound is
    above the intruder's.
    """
    c = s.counters
    if c[SELECTION] == LOWEST:
        lowest = PLACED
        for k in range(s.low.size):
            lowest = min(lowest, s.low[k])
        best = -1
        for k in range(s.low.size):
            if s.low[k] == lowest and (best < 0 or s.rank[k] < s.rank[best]):
                best = k
        return best
    tightest = -1
    least = np.inf
    for section in range(s.load.size - 1):
        if s.rest[section] > 0:
            slack = 1.01 * c[CAPACITY] - s.rest[section] - s.floor[section]
            slack /= 1.0 + s.failures[section]
            if slack < least:
                least = slack
                tightest = section
    best = s.witness[tightest]
    for q in range(s.live_from[tightest], s.live_from[tightest + 1]):
        k = s.live[q]
        if s.low[k] == s.low[best] and s.rank[k] < s.rank[best]:
            best = k
    going_down = True
    while going_down:
        j = best
        for q in range(s.live_from[s.lower[j]], s.live_from[s.lower[j] + 1]):
            if s.low[s.live[q]] < s.low[best]:
                best = s.live[q]
        for k in range(s.first[s.lower[j] + 1], s.first[s.upper[j]]):
            if s.low[k] < s.low[best]:
                best = k
        going_down = best != j
    return best


@njit(cache=True, nogil=True)
def run(s: Search, nodes: int) -> int:
    """Searches on for a number of nodes.

    Returns:
        SOLVED (every buffer has its `offset`), INFEASIBLE (proved), RUNNING (the nodes are used
        up), or FULL (the stacks are, and the run cannot go on).
    """
    c = s.counters
    for _ in range(nodes):
        if c[OPEN] == 0:
            return SOLVED
        if (
            c[DEPTH] == len(s.frames)
            or c[TRAIL] + s.size.size > len(s.trail)
            or c[FLOORS] + s.load.size > len(s.floors)
        ):
            return FULL
        frame = c[DEPTH]
        s.frames[frame, BUFFER] = _select(s)
        s.frames[frame, POSTPONED] = 0
        s.frames[frame, TRAIL_FROM] = c[TRAIL]
        s.frames[frame, FLOORS_FROM] = c[FLOORS]
        c[DEPTH] += 1
        c[NODES] += 1
        consistent = False
        while not consistent:
            frame = c[DEPTH] - 1
            j = s.frames[frame, BUFFER]
            c[DECISIONS] += 1
            conflict_from, conflict_to = s.lower[j], s.upper[j]
            s.frames[frame, READ_FROM] = conflict_from
            s.frames[frame, READ_TO] = conflict_to
            if s.frames[frame, POSTPONED]:
                _postpone(s, j)
                consistent = True
            else:
                consistent = _place(s, j)
            if consistent:
                consistent, conflict_from, conflict_to = _infer(s, j)
            while not consistent:
                frame = c[DEPTH] - 1
                if _undo(s, conflict_from, conflict_to):
                    conflict_from = min(conflict_from, s.frames[frame, READ_FROM])
                    conflict_to = max(conflict_to, s.frames[frame, READ_TO])
                    if not s.frames[frame, POSTPONED]:
                        s.frames[frame, CONFLICT_FROM] = conflict_from
                        s.frames[frame, CONFLICT_TO] = conflict_to
                        s.frames[frame, POSTPONED] = 1
                        break
                    conflict_from = min(conflict_from, s.frames[frame, CONFLICT_FROM])
                    conflict_to = max(conflict_to, s.frames[frame, CONFLICT_TO])
                c[DEPTH] -= 1
                if c[DEPTH] == 0:
                    return INFEASIBLE
    return SOLVED if c[OPEN] == 0 else RUNNING


@njit(cache=True)
def uniform(state: UInt64) -> float:
    """The generator's next number in [0, 1): splitmix64 (Steele, Lea & Flood, 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return float(z >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def _luby(i: int) -> int:
    """The i-th term of Luby's sequence 1, 1, 2, 1, 1, 2, 4, ... for i >= 1."""
    while True:
        k = 1
        while (1 << k) - 1 < i:
            k += 1
        if (1 << k) - 1 == i:
            return 1 << (k - 1)
        i -= (1 << (k - 1)) - 1


# Static orders: the keys compared first to last, largest first. The first three are MiniMalloc's.
AREA, LENGTH, LOAD, SIZE, START, SECTIONS, COVER, NOISY = range(8)
ORDERS = np.array(
    [
        [LOAD, AREA, LENGTH],
        [LENGTH, AREA, LOAD],
        [LOAD, LENGTH, AREA],
        [AREA, LOAD, SIZE],
        [SIZE, AREA, LOAD],
        [COVER, LOAD, SIZE],
        [SECTIONS, AREA, SIZE],
        [START, AREA, SIZE],
    ]
)


@njit(cache=True)
def set_rank(s: Search, order: int, noise: float) -> None:
    """Ranks the buffers by one of ORDERS, each moved down by up to noise * n places."""
    n = s.size.size
    rank = s.rank
    key = np.empty(n, np.int64)
    for k in range(n):
        rank[k] = k
    for level in range(3, -1, -1):
        # The last pass, of level 0, moves the ranks of the others.
        what = NOISY if level == 0 else ORDERS[order, level - 1]
        if what == NOISY and noise == 0.0:
            break
        for k in range(n):
            if what == AREA:
                key[k] = -int(min(float(s.size[k]) * s.length[k], 4e18))
            elif what == LENGTH:
                key[k] = -s.length[k]
            elif what == LOAD:
                load = np.int64(0)
                for section in range(s.lower[k], s.upper[k]):
                    load = max(load, s.load[section])
                key[k] = -load
            elif what == SIZE:
                key[k] = -s.size[k]
            elif what == START:
                key[k] = s.lower[k]
            elif what == SECTIONS:
                key[k] = s.lower[k] - s.upper[k]
            elif what == COVER:
                key[k] = s.size[k] * (s.lower[k] - s.upper[k])
            else:
                key[k] = int(1000 * (rank[k] + noise * n * uniform(s.random)))
        # Stable, from the least significant key to the most: ties keep the order so far.
        by_rank = np.empty(n, np.int64)
        for k in range(n):
            by_rank[rank[k]] = key[k]
        order_so_far = np.empty(n, np.int64)
        for k in range(n):
            order_so_far[rank[k]] = k
        by_key = argsort(by_rank)
        for x in range(n):
            rank[order_so_far[by_key[x]]] = x


@njit(cache=True, nogil=True)
def advance(s: Search, nodes: int) -> int:
    """Searches on for a number of nodes, with restarts.

    Returns:
        SOLVED, INFEASIBLE or RUNNING, as `run`. A run that is FULL is given up.
    """
    c = s.counters
    while nodes > 0:
        if c[LEFT] <= 0:
            i = c[RUN]
            c[RUN] += 1
            c[LEFT] = RESTART * s.size.size * _luby(i + 1)
            reset(s)
            if i < 2 * len(ORDERS):
                c[SELECTION] = LOWEST if i < len(ORDERS) else TIGHTEST
                set_rank(s, i % len(ORDERS), 0.0)
            else:
                c[SELECTION] = TIGHTEST if uniform(s.random) < 1 / 3 else LOWEST
                set_rank(s, int(uniform(s.random) * len(ORDERS)), NOISE * uniform(s.random) ** 2)
        before = c[NODES]
        status = run(s, min(nodes, c[LEFT]))
        nodes -= c[NODES] - before
        c[LEFT] -= c[NODES] - before
        if status == FULL:
            c[LEFT] = 0
        elif status != RUNNING:
            return status
    return RUNNING


@njit(cache=True)
def write_offsets(s: Search, offsets_out: Int64) -> None:
    """Writes the offsets of a solved search in bytes, in the caller's order."""
    for k in range(s.size.size):
        offsets_out[s.caller[k]] = s.offset[k] * s.counters[UNIT]
