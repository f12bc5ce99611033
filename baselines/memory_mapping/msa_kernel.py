"""The inner loops of the MSA-like heuristic: copy pools, the heap, and the search for a start."""

from __future__ import annotations

import numba
import numpy as np

from games.memory_mapping.problem import Bools, Floats, Ints

# Rows of the table of stays.
START, END, OFFSET, SIZE = 0, 1, 2, 3
# Rows of a copy pool's windows.
BEGIN, DONE = 0, 1
# Rows of a copy pool's seconds: the work of a copy, and where its queue is finished with it.
WORK, FINISH = 0, 1

EXPLORED_EARLIER_STARTS = 100  # XLA's kNumExploredDecreasingIntervals
ROUNDING = 1e-12

NO_START, NO_BANDWIDTH, NO_ROOM = -1, -2, -3


@numba.njit(cache=True)
def copy_fits(
    windows: Ints, seconds: Floats, count: int, supply: Floats, begin: int, done: int, work: float
) -> bool:
    """Whether a first-in first-out queue has time for one more copy; XLA's `ConsumeResource`.

    Args:
        windows: i64[2, N] begin and done of the pool's copies, in the order of the queue.
        seconds: f64[2, N].
        count: number of copies in the pool.
        supply: f64[T + 1] seconds that pass before each position.
        begin, done, work: the new copy.
    """
    at = np.searchsorted(windows[BEGIN, :count], begin, side="right")
    finish = supply[begin]
    if at > 0:
        finish = max(finish, seconds[FINISH, at - 1])
    finish += work
    slack = ROUNDING * supply[-1]
    if finish > supply[done] + slack:
        return False
    for k in range(at, count):
        finish = max(finish, supply[windows[BEGIN, k]]) + seconds[WORK, k]
        if finish <= seconds[FINISH, k]:
            return True
        if finish > supply[windows[DONE, k]] + slack:
            return False
    return True


@numba.njit(cache=True)
def add_copy(
    windows: Ints, seconds: Floats, count: int, supply: Floats, begin: int, done: int, work: float
) -> None:
    """Puts a copy into the pool; the tables must have room for it."""
    at = np.searchsorted(windows[BEGIN, :count], begin, side="right")
    for k in range(count, at, -1):
        windows[:, k] = windows[:, k - 1]
        seconds[:, k] = seconds[:, k - 1]
    windows[BEGIN, at], windows[DONE, at] = begin, done
    seconds[WORK, at] = work
    for k in range(at, count + 1):
        finish = supply[windows[BEGIN, k]]
        if k > 0:
            finish = max(finish, seconds[FINISH, k - 1])
        seconds[FINISH, k] = finish + seconds[WORK, k]


@numba.njit(cache=True)
def outstanding(windows: Ints, count: int, begin: int, done: int) -> int:
    """Number of the pool's copies whose window meets [begin, done)."""
    result = 0
    for k in range(count):
        if windows[BEGIN, k] >= done:
            break
        if windows[DONE, k] > begin:
            result += 1
    return result


@numba.njit(cache=True)
def find_offset(
    stays: Ints, count: int, used: Ints, limit: Ints, start: int, end: int, size: int, wanted: int
) -> int:
    """Best-fit offset for `size` bytes in steps [start, end), or -1.

    Args:
        stays: i64[4, N] table of the stays so far.
        count: number of them.
        used: i64[T] bytes that they take.
        limit: i64[T] bytes there are.
        wanted: the only offset that will do, or -1 for any.
    """
    ceiling = limit[start]
    for step in range(start, end):
        ceiling = min(ceiling, limit[step])
        if used[step] + size > limit[step]:
            return -1
    low = np.empty(count, np.int64)
    high = np.empty(count, np.int64)
    found = 0
    for k in range(count):
        if stays[START, k] < end and start < stays[END, k]:
            low[found] = stays[OFFSET, k]
            high[found] = stays[OFFSET, k] + stays[SIZE, k]
            if wanted >= 0 and low[found] < wanted + size and wanted < high[found]:
                return -1
            found += 1
    if wanted >= 0:
        return wanted if wanted + size <= ceiling else -1
    order = np.argsort(low[:found])
    best, best_gap = -1, np.int64(2**62)
    floor = 0
    for k in order:
        gap = min(low[k], ceiling) - floor
        if size <= gap < best_gap:
            best, best_gap = floor, gap
        floor = max(floor, high[k])
    # Above everything there is room without end, up to the ceiling: the last choice.
    if best < 0 and floor + size <= ceiling:
        best = floor
    return best


@numba.njit(cache=True)
def longest_offset(
    stays: Ints,
    count: int,
    used: Ints,
    limit: Ints,
    start: int,
    ends: Ints,
    size: int,
) -> int:
    """Offset that is free from `start` to the latest possible of `ends` (ascending), or -1."""
    for k in range(len(ends) - 1, -1, -1):
        offset = find_offset(stays, count, used, limit, start, ends[k], size, -1)
        if offset >= 0:
            return offset
    return -1


@numba.njit(cache=True)
def find_prefetch(
    stays: Ints,
    num_stays: int,
    used: Ints,
    limit: Ints,
    ends: Ints,
    size: int,
    windows: Ints,
    seconds: Floats,
    num_copies: int,
    supply: Floats,
    allowed: Bools,
    earliest: int,
    done: int,
    work: float,
    saved: float,
    ratios: Floats,
    longest: float,
    most_outstanding: int,
) -> tuple[int, int]:
    """(start, offset) of a prefetch, or (why not, -1).

    Tries starts as `CostAnalysisPrefetchIntervalPicker` does: first where the time until `done`
    is closest to the preferred multiple of the copy's, then later and earlier ones in turn.

    Args:
        ends: i64[K] ends of the stay, ascending: the needed one, then later uses.
        allowed: bool[T + 1] positions at the loop level of the copy.
        earliest: first position from which slow memory has the data.
        done: the copy's deadline.
        work: seconds of the copy.
        saved: seconds that the use itself gets shorter by the prefetch.
        ratios: minimum and preferred overlap as multiples of `work`.
        longest: seconds that a copy may overlap at most.
    """
    last = done
    while last >= earliest and not (
        allowed[last] and supply[done] - supply[last] + saved >= ratios[0] * work
    ):
        last -= 1
    first = earliest
    while first < last and not (allowed[first] and supply[done] - supply[first] <= longest):
        first += 1
    if first > last:
        return NO_START, -1
    middle = first
    for start in range(first, last + 1):
        if allowed[start] and abs(supply[done] - supply[start] - ratios[1] * work) < abs(
            supply[done] - supply[middle] - ratios[1] * work
        ):
            middle = start
    later, earlier = middle, middle - 1
    least_step = (supply[done] - supply[first]) / EXPLORED_EARLIER_STARTS
    next_is_later = True
    reason = NO_START
    while later <= last or earlier >= first:
        if (next_is_later and later <= last) or earlier < first:
            start = later
            later += 1
        else:
            start = earlier
            earlier -= 1
            # Once all later starts are tried, take larger steps back.
            if later > last:
                while earlier >= first and supply[start] - supply[earlier] < least_step:
                    earlier -= 1
        next_is_later = not next_is_later
        if not allowed[start]:
            continue
        if not copy_fits(windows, seconds, num_copies, supply, start, done, work) or (
            outstanding(windows, num_copies, start, done) >= most_outstanding
        ):
            reason = min(reason, NO_BANDWIDTH)
            continue
        offset = longest_offset(stays, num_stays, used, limit, start, ends, size)
        if offset >= 0:
            return start, offset
        reason = NO_ROOM
    return reason, -1
