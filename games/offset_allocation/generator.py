"""Problems made up: tight ones that are known to fit, and ones shaped like neural networks.

Each is a function of its arguments and a seed alone.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from games.offset_allocation.problem import Ints, OffsetProblem


def training_problem(seed: int) -> OffsetProblem:
    """A tight rectangle or a network, of 40 to 90 buffers, with room for any stack of them."""
    random = np.random.default_rng(seed)
    if random.random() < 0.5:
        problem = tight(
            seed,
            buffers=int(random.integers(40, 91)),
            times=int(random.integers(20, 80)),
            capacity=4096,
        )
    else:
        problem = network(
            seed, layers=int(random.integers(14, 30)), training=bool(random.random() < 0.5)
        )
    return replace(problem, capacity=int(problem.aligned_size.sum()))


def test_problems(count: int) -> list[tuple[str, OffsetProblem]]:
    """(name, problem) of `count` problems of another kind: larger, drawn from other seeds."""
    chosen = []
    for number in range(count):
        seed = 1_000_000 + number
        if number % 2 == 0:
            problem = tight(seed, buffers=160, times=120, capacity=2**20, alignment=512)
        else:
            problem = network(seed, layers=50, training=number % 4 == 1)
        kind = "tight" if number % 2 == 0 else "network"
        problem = replace(problem, capacity=int(problem.aligned_size.sum()))
        chosen.append((f"{kind} {number}", problem))
    return chosen


def tight(
    seed: int, *, buffers: int, times: int, capacity: int, alignment: int = 1
) -> OffsetProblem:
    """A rectangle of `times` by `capacity` cut into buffers by guillotine: packing wastes nothing.

    The largest load is the capacity at every time, so the capacity is the best peak.

    Args:
        seed: of the cuts.
        buffers: number of pieces; fewer if nothing is left to cut.
        times: length of the time axis.
        capacity: bytes, a multiple of the alignment.
        alignment: bytes; all sizes are multiples.
    """
    random = np.random.default_rng(seed)
    pieces = [(0, times, 0, capacity // alignment)]
    while len(pieces) < buffers:
        area = np.array([(end - start) * (top - bottom) for start, end, bottom, top in pieces])
        cuttable = area > 1
        if not cuttable.any():
            break
        weight = np.where(cuttable, area, 0)
        k = int(random.choice(len(pieces), p=weight / weight.sum()))
        start, end, bottom, top = pieces[k]
        in_time = end - start > 1 and (top - bottom == 1 or random.random() < 0.5)
        if in_time:
            cut = int(random.integers(start + 1, end))
            pieces[k] = (start, cut, bottom, top)
            pieces.append((cut, end, bottom, top))
        else:
            cut = int(random.integers(bottom + 1, top))
            pieces[k] = (start, end, bottom, cut)
            pieces.append((start, end, cut, top))
    table = np.array(pieces)[random.permutation(len(pieces))]
    return _problem(
        table[:, 0], table[:, 1], (table[:, 3] - table[:, 2]) * alignment, capacity, alignment
    )


def network(
    seed: int, *, layers: int, training: bool = False, slack: float = 0.05
) -> OffsetProblem:
    """Activations, scratch space and residual connections of a network run layer by layer.

    Widths change by powers of two every few layers, as in convolutional networks. Whether the
    buffers fit is not known.

    Args:
        seed: of the shape.
        layers: number of layers.
        training: a backward pass follows that needs half of the activations again.
        slack: capacity beyond the largest load, as a fraction of it.
    """
    random = np.random.default_rng(seed)
    steps = 2 * layers if training else layers
    rows: list[tuple[int, int, int]] = []
    width = 2 ** int(random.integers(12, 16))
    for layer in range(layers):
        if random.random() < 0.2:
            width = int(np.clip(width * 2.0 ** random.integers(-1, 2), 2**10, 2**18))
        size = 64 * ceil(width * random.choice([1.0, 1.0, 0.75, 1.5]) / 64)
        until = layer + 2
        if random.random() < 0.35:  # a skip connection
            until += int(random.integers(1, 6))
        if training and random.random() < 0.5:  # read by the layer's backward step
            until = max(until, steps - layer)
        rows.append((layer, min(until, steps), size))
        if random.random() < 0.6:  # the layer's own scratch space
            rows.append((layer, layer + 1, 64 * int(random.integers(1, 2 + size // 64))))
        if random.random() < 0.15:  # branches that join some layers later
            for _ in range(int(random.integers(1, 4))):
                end = min(layer + int(random.integers(2, 8)), steps)
                rows.append((layer, end, 64 * ceil(size / 64 / random.integers(2, 5))))
        if training:  # the gradient that flows back through the layer
            back = steps - 1 - layer
            rows.append((back, min(back + 2, steps), size))
    table = np.array(rows)
    return _problem(table[:, 0], table[:, 1], table[:, 2], slack=slack)


def _problem(
    lower: Ints,
    upper: Ints,
    size: Ints,
    capacity: int | None = None,
    alignment: int = 1,
    slack: float = 0.0,
) -> OffsetProblem:
    ids = tuple(f"b{k}" for k in range(len(size)))
    if capacity is None:
        loose = OffsetProblem(ids, lower, upper, size, 1, alignment)
        capacity = ceil(loose.max_load[0] * (1 + slack))
    return OffsetProblem(ids, lower, upper, size, capacity, alignment)
