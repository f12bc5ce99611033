"""What a scorer's answers say about where the evidence is.

The learned value has hypotheses of the evidence with a probability each. A score of a set says
something about all of them: what the set is worth if a hypothesis holds is known, and the better
the scores so far go in a line with that, the likelier the hypothesis. Neither the scale of the
scores nor their noise has to be known, so any scorer will do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from baselines.chunk_selection.kernels import greedy, make_data
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import covered
from games.chunk_selection.value import NOBODY

Floats = npt.NDArray[np.float64]

LOOKED_AT = 256  # hypotheses; the others together have a probability of 1 %
NOISE = 0.05  # of the scores' variance that no hypothesis is asked to explain
RIDGE = 1e-2  # of a hypothesis under which all sets so far are worth the same
ALIKE = 1e-12  # scores that differ by less, of the largest, say nothing
POWER = 0.5  # of the tokens in greedy's rate


class Belief:
    """The hypotheses of a problem and how likely the scores so far make each."""

    def __init__(self, problem: ChunkSelectionProblem) -> None:
        kept = slice(LOOKED_AT)
        self._problem = problem
        self._members = problem.members[kept]
        self._there = self._members != NOBODY
        self._count = np.maximum(self._there.sum(axis=1), 1)
        probability = np.maximum(problem.probability[kept], 1e-12)
        # Of a hypothesis that holds: the share of all evidence that it is, and the chance of all.
        self._recall = problem.recall[kept] / probability
        self._complete = problem.complete[kept] / probability
        self._prior = np.log(probability)
        self._data = make_data(problem)._replace(members=np.ascontiguousarray(self._members))
        self._worth: list[Floats] = []
        self._scores: list[float] = []
        self._single: dict[int, tuple[int, ...]] = {}
        self._log: Floats | None = None  # posterior, up to a constant

    def worth(self, order: Sequence[int]) -> Floats:
        """f64[hypotheses]: what a set is worth if one holds, 1 + all_weight at most."""
        share = covered(self._problem, order)
        found = np.where(self._there, share[np.where(self._there, self._members, 0)], 0.0)
        least = np.where(self._there, found, 1.0).min(axis=1)
        return np.asarray(
            self._recall * found.sum(axis=1) / self._count
            + self._problem.all_weight * self._complete * least
        )

    def promised(self, order: Sequence[int]) -> Floats:
        """f64[hypotheses]: what taking a hypothesis instead of a set would bring on average.

        That is the probability of the hypothesis times what the set misses if it holds; 0 where the
        budget does not allow it.
        """
        tokens = np.where(self._there, self._problem.tokens[self._members], 0).sum(axis=1)
        missed = self._recall + self._problem.all_weight * self._complete - self.worth(order)
        gain = np.exp(self._prior) * np.maximum(missed, 0.0)
        return np.where(tokens <= self._problem.budget, gain, 0.0)

    def add(self, order: Sequence[int], score: float) -> None:
        """A scored set."""
        self._worth.append(self.worth(order))
        self._scores.append(score)
        self._log = None

    def weights(self, temperature: float = 1.0) -> Floats:
        """f64[hypotheses], in sum 1: the posterior to the power of 1 / temperature."""
        if self._log is None:
            self._log = self._prior + self._likelihood()
        weight = np.exp((self._log - self._log.max()) / temperature)
        return np.asarray(weight / weight.sum())

    def _likelihood(self) -> Floats:
        """f64[hypotheses]: log likelihood of a line from a set's worth to its score.

        The line is fitted for each hypothesis, the noise about it normal.
        """
        nothing = np.zeros_like(self._prior)
        if len(self._scores) < 2:
            return nothing
        worth, scores = np.stack(self._worth), np.array(self._scores)
        worth -= worth.mean(axis=0)
        # Any finite score must do, so nothing is squared before it is about 1.
        scores /= max(float(np.abs(scores).max()), np.finfo(np.float64).tiny)
        scores -= scores.mean()
        largest = float(np.abs(scores).max())
        if largest <= ALIKE:
            return nothing
        scores /= largest
        spread = float(scores @ scores)
        slope = np.maximum(scores @ worth, 0.0)  # a worse score for more worth: no sign
        explained = slope**2 / ((worth**2).sum(axis=0) + RIDGE) / spread
        left = np.maximum(1.0 - explained, 0.0) + NOISE
        return np.asarray(-0.5 * len(scores) * np.log(left))

    def expected(self) -> Floats:
        """f64[N]: expected share of the evidence that each candidate is, scores considered."""
        share = self.weights() * (self._recall + self._problem.all_weight * self._complete)
        result = np.zeros(self._problem.size)
        parts = np.broadcast_to((share / self._count)[:, None], self._there.shape)
        np.add.at(result, self._members[self._there], parts[self._there])
        return result

    def best(self, weights: Floats) -> tuple[int, ...]:
        """The greedy choice if the hypotheses f64[hypotheses] have these weights; may be empty."""
        data = self._data._replace(recall=weights * self._recall, complete=weights * self._complete)
        order, _, _ = greedy(data, np.zeros(self._problem.size, dtype=np.bool_), POWER)
        return tuple(int(i) for i in order)

    def draw(self, random: np.random.Generator, temperature: float) -> tuple[int, ...]:
        """The greedy choice for one hypothesis, drawn by its weight (Thompson 1933)."""
        weights = self.weights(temperature)
        drawn = int(random.choice(len(weights), p=weights))
        if drawn not in self._single:
            one = np.zeros(len(weights))
            one[drawn] = 1.0
            self._single[drawn] = self.best(one)
        return self._single[drawn]
