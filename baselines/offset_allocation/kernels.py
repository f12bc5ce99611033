"""Packing kernels in numba, for callers that pack thousands of times.

Everything here works on plain int64 arrays: buffer `i` is alive in the half-open interval
`[lower[i], upper[i])` of any integer time axis and needs `size[i]` bytes (or any other unit); two
buffers alive at a common time must not share a byte. Empty buffers and empty lifetimes are allowed
and land at offset 0. The functions can be called from other `@njit` code, and allocate memory in
proportion to the number of pairs that do overlap, never to the square of the number of buffers.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from baselines.offset_allocation.search import (
    SOLVED,
    Integer,
    advance,
    argsort,
    make_search,
    write_offsets,
)

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# Pairs are listed while they are fewer than buffers**2 / DENSE. Beyond that it is faster to scan
# the placed buffers in order of offset and to stop at the first gap that fits.
DENSE = 32


@njit(cache=True)
def _overlap_pairs(lower: Int64, upper: Int64) -> int:
    """Number of unordered pairs alive at a common time, in O(n log n)."""
    by_start = argsort(lower)
    by_end = argsort(upper)
    started = pairs = 0
    for ended in range(lower.size):
        # All that started before this one ends, and have not ended before, overlap it.
        while started < lower.size and lower[by_start[started]] < upper[by_end[ended]]:
            started += 1
        pairs += started - ended - 1
    return pairs


@njit(cache=True)
def _earlier_overlaps(rank: Int64, lower: Int64, upper: Int64) -> tuple[Int64, Int32]:
    """For each buffer, the overlapping ones of lower rank: (first[n + 1], list of buffers)."""
    n = rank.size
    by_start = argsort(lower)
    first = np.zeros(n + 1, np.int64)
    live = np.empty(n, np.int32)
    listed = np.empty(0, np.int32)
    for fill in range(2):  # count, then fill
        alive = 0
        for i in by_start:
            if upper[i] <= lower[i]:
                continue
            k = 0
            while k < alive:
                j = live[k]
                if upper[j] <= lower[i]:
                    alive -= 1
                    live[k] = live[alive]
                    continue
                later = i if rank[j] < rank[i] else j
                if fill:
                    first[later] -= 1
                    listed[first[later]] = j if later == i else i
                else:
                    first[later] += 1
                k += 1
            live[alive] = i
            alive += 1
        if not fill:
            # Ends of the lists; filling moves each down to the list's start.
            for i in range(n):
                first[i + 1] += first[i]
            listed = np.empty(first[n], np.int32)
    return first, listed


@njit(cache=True)
def _fit_sparse(
    order: Int64, lower: Int64, upper: Int64, size: Int64, offsets_out: Int64, best: bool
) -> Integer:
    n = order.size
    rank = np.empty(n, np.int64)
    for k in range(n):
        rank[order[k]] = k
    first, listed = _earlier_overlaps(rank, lower, upper)
    starts = np.empty(n, np.int64)
    ends = np.empty(n, np.int64)
    peak = 0
    for i in order:
        count = 0
        for k in range(first[i], first[i + 1]):
            j = listed[k]
            start, end = offsets_out[j], offsets_out[j] + size[j]
            if start == end:
                continue
            # Insertion sort by offset: the lists are short, or the dense scan would run.
            at = count
            while at > 0 and starts[at - 1] > start:
                starts[at] = starts[at - 1]
                ends[at] = ends[at - 1]
                at -= 1
            starts[at] = start
            ends[at] = end
            count += 1
        offset = 0
        gap, gap_size = -1, np.int64(0)
        for k in range(count):
            if starts[k] - offset >= size[i] and (gap < 0 or starts[k] - offset < gap_size):
                gap, gap_size = offset, starts[k] - offset
                if not best:
                    break
            offset = max(offset, ends[k])
        if gap >= 0:
            offset = gap
        offsets_out[i] = offset
        peak = max(peak, offset + size[i])
    return peak


@njit(cache=True)
def _fit_dense(
    order: Int64, lower: Int64, upper: Int64, size: Int64, offsets_out: Int64, best: bool
) -> Integer:
    placed = np.empty(order.size, np.int32)  # in order of offset
    count = 0
    peak = 0
    for i in order:
        offset = 0
        if upper[i] > lower[i] and size[i] > 0:
            gap, gap_size = -1, np.int64(0)
            for k in range(count):
                j = placed[k]
                if lower[j] < upper[i] and lower[i] < upper[j]:
                    free = offsets_out[j] - offset
                    if free >= size[i] and (gap < 0 or free < gap_size):
                        gap, gap_size = offset, free
                        if not best:
                            break
                    offset = max(offset, offsets_out[j] + size[j])
            if gap >= 0:
                offset = gap
            low, high = 0, count
            while low < high:
                middle = (low + high) // 2
                if offsets_out[placed[middle]] < offset:
                    low = middle + 1
                else:
                    high = middle
            for k in range(count, low, -1):
                placed[k] = placed[k - 1]
            placed[low] = i
            count += 1
        offsets_out[i] = offset
        peak = max(peak, offset + size[i])
    return peak


@njit(cache=True)
def _fit(
    order: Int64, lower: Int64, upper: Int64, size: Int64, offsets_out: Int64, best: bool
) -> Integer:
    n = order.size
    if _overlap_pairs(lower, upper) * DENSE < n * n:
        return _fit_sparse(order, lower, upper, size, offsets_out, best)
    return _fit_dense(order, lower, upper, size, offsets_out, best)


@njit(cache=True)
def first_fit_order(
    order: Int64, lower: Int64, upper: Int64, size: Int64, offsets_out: Int64
) -> Integer:
    """Places the buffers in the given order, each at the lowest offset where it fits.

    Args:
        order: a permutation of the buffers.
        lower: first time at which each buffer is alive.
        upper: first time at which it is alive no more.
        size: bytes of each buffer, >= 0.
        offsets_out: receives the offset of each buffer, in bytes.

    Returns:
        The peak: bytes from offset 0 to the top of the highest buffer.
    """
    return _fit(order, lower, upper, size, offsets_out, False)


@njit(cache=True)
def best_fit_order(
    order: Int64, lower: Int64, upper: Int64, size: Int64, offsets_out: Int64
) -> Integer:
    """The same, each buffer in the smallest gap where it fits, or above all others."""
    return _fit(order, lower, upper, size, offsets_out, True)


@njit(cache=True)
def max_load(lower: Int64, upper: Int64, size: Int64) -> Integer:
    """Most bytes alive at one time: a lower bound on any peak."""
    load = peak = np.int64(0)
    by_start = argsort(lower)
    by_end = argsort(upper)
    ended = 0
    for i in by_start:
        if upper[i] > lower[i]:
            while upper[by_end[ended]] <= lower[i]:
                j = by_end[ended]
                load -= size[j] if upper[j] > lower[j] else 0
                ended += 1
            load += size[i]
            peak = max(peak, load)
    return peak


@njit(cache=True)
def pack(
    lower: Int64, upper: Int64, size: Int64, capacity: int, node_limit: int, seed: int
) -> tuple[bool, Int64]:
    """Fits the buffers into the capacity: first fit in a few orders, then exact search.

    Args:
        lower: first time at which each buffer is alive.
        upper: first time at which it is alive no more.
        size: bytes of each buffer, >= 0.
        capacity: bytes that no buffer may exceed.
        node_limit: decisions of the exact search, about a microsecond for each 200 buffers; with
            0 only first fit is tried.
        seed: of the exact search's restarts.

    Returns:
        (True, offsets) if the buffers fit; (False, offsets of the lowest first fit) if they were
        not made to fit, which is no proof that they cannot be.
    """
    n = size.size
    best = np.zeros(n, np.int64)
    offsets = np.zeros(n, np.int64)
    key = np.empty(n, np.int64)
    best_peak: Integer = np.int64(-1)
    for heuristic in range(3):
        for i in range(n):
            length = upper[i] - lower[i]
            if heuristic == 0:
                key[i] = -size[i]
            elif heuristic == 1:
                key[i] = -int(min(float(size[i]) * length, 4e18))
            else:
                key[i] = -length
        peak = first_fit_order(argsort(key), lower, upper, size, offsets)
        if best_peak < 0 or peak < best_peak:
            best_peak = peak
            best, offsets = offsets, best
        if peak <= capacity:
            return True, best
    if node_limit == 0 or max_load(lower, upper, size) > capacity:
        return False, best
    alive = offsets
    for i in range(n):
        if size[i] > capacity:
            return False, best
        alive[i] = size[i] if upper[i] > lower[i] else 0
    search = make_search(lower, upper, alive, capacity, 1, seed)
    if advance(search, node_limit) != SOLVED:
        return False, best
    for i in range(n):
        best[i] = 0
    write_offsets(search, best)
    return True, best
