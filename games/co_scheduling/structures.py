"""Structures worth a try, and a first order of their nano-operations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DECODE,
    GATHER,
    KQV,
    MAX_NANO,
    NET_D,
    OUT,
    PARTS,
    PREFILL,
    RESOURCE,
    SLOTS,
    CoSchedulingProblem,
    Structure,
    cut,
)

# Shares of the batch that the nano-batches get; NanoFlow's deployed cut is 640 of 2048 tokens.
CUTS = ((1.0,), (0.5, 0.5), (0.4, 0.6), (0.3125, 0.6875), (1 / 3, 1 / 3, 1 / 3), (0.25,) * 4)


def chunk_counts(
    problem: CoSchedulingProblem, shares: tuple[float, ...], parts: int, *, mixed: bool
) -> Ints:
    """i64[2, MAX_NANO, PARTS]: decode and prefill chunks of each part.

    Args:
        problem: whose batch is cut.
        shares: of the batch, one for each nano-batch.
        parts: of each nano-batch.
        mixed: each part has decode and prefill tokens as the batch has them; else prefill tokens
            come after all decode tokens.
    """
    sorts = np.array([0] * problem.chunks[0] + [1] * problem.chunks[1])
    if mixed:
        # Evenly spread: the k-th of n chunks of a sort belongs at (k + 1/2) / n.
        places = [(np.arange(n) + 0.5) / max(n, 1) for n in problem.chunks]
        sorts = sorts[np.argsort(np.concatenate(places), kind="stable")]
    sizes = np.repeat(np.array(shares) / parts, parts)
    borders = np.rint(np.cumsum(sizes) * len(sorts)).astype(np.int64)
    counts = np.zeros((2, MAX_NANO, PARTS), dtype=np.int64)
    low = 0
    for place, high in enumerate(borders):
        for sort in sorts[low:high]:
            counts[sort, place // parts, place % parts] += 1
        low = high
    return counts


def candidates(problem: CoSchedulingProblem) -> Iterator[Structure]:
    """Cuts into one to four nano-batches, with parts or without, for either path; no doubles."""
    paths = ((False, False), (True, False), (True, True)) if problem.network else ((False, False),)
    seen = set()
    for shares, mixed, parts, (first, others) in product(CUTS, (False, True), (1, 2), paths):
        counts = chunk_counts(problem, shares, parts, mixed=mixed)
        gathered = np.array([first] + [others] * (MAX_NANO - 1))
        structure = cut(problem, counts[0], counts[1], gathered)
        there = counts.sum(axis=(0, 2)) > 0
        key = (counts.tobytes(), (gathered & there).tobytes())
        if key not in seen:
            seen.add(key)
            yield structure


def nanoflow(problem: CoSchedulingProblem) -> Structure:
    """Two nano-batches cut like NanoFlow's, the first one gathered, each in two parts."""
    counts = chunk_counts(problem, CUTS[3], PARTS, mixed=False)
    return cut(problem, counts[0], counts[1], np.array([True, False, False, False]))


def nanoflow_reduced(problem: CoSchedulingProblem) -> Structure:
    """NanoFlow's cut with all-reduces only."""
    counts = chunk_counts(problem, CUTS[3], PARTS, mixed=False)
    return cut(problem, counts[0], counts[1], np.zeros(MAX_NANO, dtype=np.bool_))


def two_halves(problem: CoSchedulingProblem) -> Structure:
    """Two nano-batches of the same size."""
    counts = chunk_counts(problem, CUTS[1], 1, mixed=False)
    return cut(problem, counts[0], counts[1], np.zeros(MAX_NANO, dtype=np.bool_))


def spread_phases(problem: CoSchedulingProblem, structure: Structure, lag: float = 1.0) -> Floats:
    """f64[ALL_SLOTS]: each nano-batch goes through its layer at an even pace in one round.

    The nano-batches follow one another at equal distances, `lag` times what spreads them evenly.
    Slots that are not there have phases too, so that they know their place once they are.
    """
    work = structure.work(problem).reshape(MAX_NANO, SLOTS)
    present = np.flatnonzero(work.sum(axis=1) > 0)
    phase = np.zeros((MAX_NANO, SLOTS))
    for nano in range(MAX_NANO):
        begin = np.zeros(SLOTS)
        begin[KQV + 1] = work[nano, KQV]
        for part in range(PARTS):
            for slot, before in ((DECODE, KQV), (PREFILL, DECODE), (GATHER, PREFILL)):
                begin[slot + part] = begin[before + part] + work[nano, before + part]
        begin[OUT] = max(begin[GATHER + part] + work[nano, GATHER + part] for part in range(PARTS))
        for slot in range(OUT + 1, SLOTS):
            begin[slot] = begin[slot - 1] + work[nano, slot - 1]
        total = begin[NET_D] + work[nano, NET_D]
        if total > 0:
            phase[nano] = begin / total
        else:
            phase[nano] = np.arange(SLOTS) / SLOTS
        # Just below a whole round, so that rounding does not put the last after the next first.
        phase[nano] = 0.999 * phase[nano] + lag * nano / max(len(present), 1)
    return phase.ravel()


def fixed_levels(compute: int, memory: int, network: int) -> Ints:
    """i64[ALL_SLOTS]: the same level for all slots of a resource."""
    levels = np.array([compute, memory, network])
    return np.asarray(levels[RESOURCE[np.arange(ALL_SLOTS) % SLOTS]], dtype=np.int64)


def alone() -> Ints:
    """i64[ALL_SLOTS]: the whole device for each."""
    return fixed_levels(LEVELS, LEVELS, LEVELS)


def recut(problem: CoSchedulingProblem, given: Structure) -> Structure:
    """A structure of this batch whose parts have the shares that they have in another's."""
    counts = np.zeros((2, MAX_NANO, PARTS), dtype=np.int64)
    both = (given.decode + given.prefill).astype(np.float64)
    for sort, tokens in enumerate((given.decode, given.prefill)):
        # Where the other batch has none of a sort, each part gets its share of all tokens.
        share = (tokens if tokens.any() else both).astype(np.float64).ravel()
        upto = np.rint(np.cumsum(share / share.sum()) * problem.chunks[sort])
        counts[sort] = np.diff(upto, prepend=0).astype(np.int64).reshape(MAX_NANO, PARTS)
    return cut(problem, counts[0], counts[1], given.gathered)


def count_chunks(problem: CoSchedulingProblem, structure: Structure) -> Ints:
    """i64[2, MAX_NANO, PARTS]: the chunks that `cut` made the structure of."""
    return np.stack([-(-structure.decode // problem.chunk), -(-structure.prefill // problem.chunk)])
