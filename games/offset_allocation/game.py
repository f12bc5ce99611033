"""The offset-allocation game as `games.base.Game` describes one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.offset_allocation import rules, solution, validator
from games.offset_allocation.problem import Ints, OffsetProblem
from games.offset_allocation.solution import Offsets, stack

LARGEST_HEIGHT = 2**29  # units; the sum of two stays within 30 bits
SMALLEST_BUCKET = 32


class OffsetAllocation:
    """Satisfies `games.base.Game`; what each part does is written there."""

    name = "offset_allocation"
    unit = "bytes"
    init = staticmethod(rules.init)
    legal_actions = staticmethod(rules.legal_actions)
    step = staticmethod(rules.step)
    observe = staticmethod(rules.observe)
    prior_logits = staticmethod(rules.prior_logits)
    prior_value = staticmethod(rules.prior_value)
    objective = staticmethod(solution.objective)
    lower_bound = staticmethod(solution.lower_bound)
    validate = staticmethod(validator.validate)

    def arrays(self, problem: OffsetProblem) -> rules.Arrays:
        """The problem padded to its bucket, its buffers by start and then by size x lifetime."""
        count = len(problem.ids)
        taken = problem.aligned_size
        unit = max(int(np.gcd.reduce(np.append(taken, problem.size))), 1)
        while int(taken.sum()) // unit > LARGEST_HEIGHT:
            unit *= 2
        length = (problem.upper - problem.lower).astype(np.float64)
        rank = np.lexsort((-problem.size * length, problem.lower))
        times = np.unique(problem.lower)
        first = np.searchsorted(times, problem.lower)
        last = np.searchsorted(times, problem.upper)
        size, taken = -(-problem.size // unit), -(-taken // unit)
        load = np.zeros(len(times) + 1, dtype=np.int64)
        np.add.at(load, first, taken)
        np.subtract.at(load, last, taken)
        padding = bucket(count) - count

        def padded(values: npt.NDArray[np.generic], dtype: type) -> jax.Array:
            return jnp.asarray(np.pad(values[rank], (0, padding)), dtype=dtype)

        load = np.cumsum(load)[:-1]
        span = max(float(problem.upper.max(initial=0) - problem.lower.min(initial=0)), 1.0)
        return rules.Arrays(
            buffer=padded(np.arange(count), np.int32),
            first=padded(first, np.int32),
            last=padded(last, np.int32),
            size=padded(size, np.int32),
            taken=padded(taken, np.int32),
            length=padded(length / span, np.float32),
            load=jnp.asarray(np.pad(load, (0, bucket(count) - len(load))), dtype=np.int32),
            num_buffers=jnp.int32(count),
            bound=jnp.int32(problem.max_load[0] // unit),
            reference=jnp.int32(-(-first_fit_by_size(problem) // unit)),
            slack=jnp.int32((taken - size).max(initial=0)),
            unit=jnp.float32(unit),
        )

    def num_actions(self, arrays: rules.Arrays) -> int:
        """The same for every problem."""
        del arrays
        return rules.NUM_ACTIONS

    def solution(self, problem: OffsetProblem, actions: npt.ArrayLike) -> Offsets:
        """The offsets that the actions make, one for each buffer; exact to the byte."""
        arrays = self.arrays(problem)
        count = len(problem.ids)
        played = np.zeros(arrays.size.shape[0], dtype=np.int32)
        played[:count] = np.asarray(actions)[:count]
        picked, _ = jax.device_get(_play(arrays, jnp.asarray(played)))
        return stack(problem, np.asarray(arrays.buffer)[picked[:count]].tolist())


def bucket(count: int) -> int:
    """Length of the arrays for so many buffers: a power of two or one and a half times it."""
    length = SMALLEST_BUCKET
    while length < count:
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length


def first_fit_by_size(problem: OffsetProblem) -> int:
    """Peak in bytes where each buffer, the largest first, goes to the lowest place that is free."""
    taken = problem.aligned_size
    offset = np.zeros(len(taken), dtype=np.int64)
    placed: Ints = np.zeros(0, dtype=np.int64)  # in order of offset
    for k in np.argsort(-problem.size, kind="stable"):
        meets = placed[
            (problem.lower[placed] < problem.upper[k]) & (problem.upper[placed] > problem.lower[k])
        ]
        below = np.maximum.accumulate(np.append(0, (offset + taken)[meets]))
        gap = np.append(offset[meets], np.iinfo(np.int64).max) - below
        offset[k] = below[np.argmax(gap >= taken[k])]
        placed = np.insert(placed, np.searchsorted(offset[placed], offset[k]), k)
    return int((offset + problem.size).max(initial=0))


_play = jax.jit(rules.play)

GAME = OffsetAllocation()
