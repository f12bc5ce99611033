"""Selectors by ranking or greedy choice, as they are in use or published.

All fill the budget and skip what does not fit. `value_greedy` and `beam` work on the game's own
loss, the others on scores, similarities and links alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from baselines.chunk_selection import kernels
from baselines.chunk_selection.kernels import greedy, make_data
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem, ranked
from games.chunk_selection.solution import Selection, covered, objective
from games.chunk_selection.value import NOBODY

Floats = npt.NDArray[np.float64]

MMR_WEIGHT = 0.5  # LangChain's default
DPP_SHARPNESS = 4.0
DIVERSITY = 0.3
BRIDGE_WEIGHT = 0.4
POWERS = (0.0, 0.5, 1.0)  # of the cost in greedy's rate
BEAM_WIDTH = 8


def _timed(
    method: str,
    problem: ChunkSelectionProblem,
    pick: Callable[[], tuple[Sequence[int], int]],
) -> Result[Selection]:
    """`pick` gives (order, evaluations of the loss)."""
    started = time.perf_counter()
    order, evaluations = pick()
    selection = Selection(tuple(int(i) for i in order))
    return Result(
        method=method,
        solution=selection,
        objective=objective(problem, selection),
        wall_s=time.perf_counter() - started,
        detail={"evaluations": evaluations},
    )


def fill(problem: ChunkSelectionProblem, order: Sequence[int]) -> list[int]:
    """Those of the order, from its start, that fit."""
    chosen, left = [], problem.budget
    for index in order:
        if problem.tokens[index] <= left:
            chosen.append(int(index))
            left -= int(problem.tokens[index])
    return chosen


def _steps(
    problem: ChunkSelectionProblem,
    rate: Callable[[list[int]], Floats],
    stops: bool = False,
) -> list[int]:
    """Adds the fitting candidate with the best rate f64[N] given the chosen ones, one at a time.

    With `stops` it ends where no rate is positive.
    """
    chosen: list[int] = []
    left = problem.budget
    open_ = np.ones(problem.size, dtype=np.bool_)
    while True:
        open_ &= problem.tokens <= left
        if not open_.any():
            return chosen
        rates = np.where(open_, rate(chosen), -np.inf)
        best = int(np.argmax(rates))
        if stops and rates[best] <= 0:
            return chosen
        chosen.append(best)
        open_[best] = False
        left -= int(problem.tokens[best])


def _scaled(scores: Floats) -> Floats:
    """f64[N] in 0..1."""
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.ones(len(scores))


def dense_fill(
    problem: ChunkSelectionProblem, *, time_limit: float = 0.0, seed: int = 0
) -> Result[Selection]:
    """By similarity to the query: what a vector store does."""
    del time_limit, seed
    order = ranked(problem.features.dense)
    return _timed("dense_fill", problem, lambda: (fill(problem, order), 0))


def hybrid_fill(
    problem: ChunkSelectionProblem, *, time_limit: float = 0.0, seed: int = 0
) -> Result[Selection]:
    """By the retriever's score, or by fused ranks where it gave none."""
    del time_limit, seed
    order = ranked(problem.features.score)
    return _timed("hybrid_fill", problem, lambda: (fill(problem, order), 0))


def mmr(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 0.0,
    seed: int = 0,
    weight: float = MMR_WEIGHT,
    hybrid: bool = False,
) -> Result[Selection]:
    """Maximal marginal relevance (Carbonell and Goldstein 1998): relevance less the largest
    similarity to what is chosen. `hybrid` takes the retriever's score for relevance.
    """
    del time_limit, seed
    features = problem.features
    relevance = _scaled(features.score) if hybrid else features.dense

    def rate(chosen: list[int]) -> Floats:
        nearest = features.similarity[:, chosen].max(axis=1) if chosen else 0.0
        return weight * relevance - (1 - weight) * nearest

    return _timed("mmr", problem, lambda: (_steps(problem, rate), 0))


def dpp(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 0.0,
    seed: int = 0,
    sharpness: float = DPP_SHARPNESS,
) -> Result[Selection]:
    """Greedy MAP of a determinantal point process (Chen, Zhang and Zhou 2018, algorithm 1).

    The kernel is quality(i) similarity(i, j) quality(j), quality = exp(sharpness / 2 * score).
    """
    del time_limit, seed

    def pick() -> tuple[list[int], int]:
        quality = np.exp(sharpness / 2 * _scaled(problem.features.score))
        kernel = problem.features.similarity * quality[:, None] * quality[None, :]
        variance = np.diag(kernel).copy()
        rows = np.zeros((0, problem.size))
        chosen: list[int] = []
        left = problem.budget
        open_ = np.ones(problem.size, dtype=np.bool_)
        while True:
            open_ &= problem.tokens <= left
            if not open_.any():
                return chosen, 0
            best = int(np.argmax(np.where(open_, variance, -np.inf)))
            root = np.sqrt(max(float(variance[best]), 1e-12))
            row = (kernel[best] - rows[:, best] @ rows) / root
            rows = np.vstack([rows, row])
            variance = np.maximum(variance - row**2, 0.0)
            chosen.append(best)
            open_[best] = False
            left -= int(problem.tokens[best])

    return _timed("dpp", problem, pick)


def submodular(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 0.0,
    seed: int = 0,
    diversity: float = DIVERSITY,
    power: float = 0.5,
) -> Result[Selection]:
    """Cost-benefit greedy of a monotone submodular utility (Lin and Bilmes 2010).

    Score, saturated by similarity to what is chosen, and coverage of the query's terms.
    """
    del time_limit, seed
    features = problem.features
    relevance = _scaled(features.score)

    def rate(chosen: list[int]) -> Floats:
        nearest = np.zeros(problem.size)
        gain = features.coverage
        if chosen:
            nearest = features.similarity[:, chosen].max(axis=1)
            gain = (features.joint[:, chosen] - features.coverage[chosen]).min(axis=1)
        benefit = relevance * (1 - np.clip(nearest, 0, 1)) + diversity * np.maximum(gain, 0)
        return benefit / problem.tokens**power

    return _timed("submodular", problem, lambda: (_steps(problem, rate), 0))


def adagres(
    problem: ChunkSelectionProblem, *, time_limit: float = 0.0, seed: int = 0
) -> Result[Selection]:
    """AdaGReS (arXiv 2512.25052): relevance less redundancy, its weight set from the instance.

    The weight balances both sums for the number of chunks that the budget holds on average; the
    greedy ends where no gain is positive.
    """
    del time_limit, seed
    features = problem.features
    held = max(problem.budget / float(problem.tokens.mean()), 2.0)
    off = features.similarity[~np.eye(problem.size, dtype=np.bool_)]
    alike = max(float(off.mean()), 1e-6) if len(off) else 1.0
    weight = max(float(features.dense.mean()), 0.0) / ((held - 1) / 2 * alike)

    def rate(chosen: list[int]) -> Floats:
        return features.dense - weight * features.similarity[:, chosen].sum(axis=1)

    return _timed("adagres", problem, lambda: (_steps(problem, rate, stops=True), 0))


def bridge_greedy(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 0.0,
    seed: int = 0,
    weight: float = BRIDGE_WEIGHT,
    power: float = 0.5,
) -> Result[Selection]:
    """The submodular greedy with a bonus for what is linked to a chosen chunk: its title is named
    there, or both share names that the query has not.
    """
    del time_limit, seed
    features = problem.features
    relevance = _scaled(features.score)

    def rate(chosen: list[int]) -> Floats:
        if not chosen:
            return (relevance + DIVERSITY * features.coverage) / problem.tokens**power
        nearest = features.similarity[:, chosen].max(axis=1)
        gain = (features.joint[:, chosen] - features.coverage[chosen]).min(axis=1)
        bridge = (features.links[:, chosen] * relevance[chosen]).max(axis=1)
        benefit = relevance * (1 - np.clip(nearest, 0, 1)) + DIVERSITY * np.maximum(gain, 0)
        return (benefit + weight * bridge) / problem.tokens**power

    return _timed("bridge_greedy", problem, lambda: (_steps(problem, rate), 0))


def value_greedy(
    problem: ChunkSelectionProblem, *, time_limit: float = 0.0, seed: int = 0
) -> Result[Selection]:
    """Greedy on the game's loss; the best of three: by gain, by gain per token, and between.

    It ends where nothing lowers the loss, which a cost of tokens makes come early.
    """
    del time_limit, seed

    def pick() -> tuple[Sequence[int], int]:
        data = make_data(problem)
        best: tuple[float, Sequence[int]] = (np.inf, ())
        evaluations = 0
        for power in POWERS:
            order, losses, count = greedy(data, np.zeros(problem.size, dtype=np.bool_), power)
            evaluations += int(count)
            if len(order) and losses[-1] < best[0]:
                best = (float(losses[-1]), order.tolist())
        return best[1], evaluations

    return _timed("value_greedy", problem, pick)


def beam(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 0.0,
    seed: int = 0,
    width: int = BEAM_WIDTH,
) -> Result[Selection]:
    """Beam search over sets: every addition to every set of the beam, equal sets merged."""
    del time_limit, seed

    def pick() -> tuple[Sequence[int], int]:
        order, _, evaluations = kernels.beam(make_data(problem), width)
        return order.tolist(), int(evaluations)

    return _timed("beam", problem, pick)


class BatchLoss:
    """The losses of many sets at once."""

    def __init__(self, problem: ChunkSelectionProblem) -> None:
        self._problem = problem
        there = problem.members != NOBODY
        self._members = np.where(there, problem.members, 0)
        self._there = there
        self._share = there / np.maximum(there.sum(axis=1, keepdims=True), 1)

    def __call__(self, sets: Sequence[Sequence[int]]) -> Floats:
        """f64[len(sets)]."""
        problem = self._problem
        share = np.stack([covered(problem, each) for each in sets])
        tokens = np.array([int(problem.tokens[list(each)].sum()) for each in sets])
        found = share[:, self._members]
        mean = (found * self._share).sum(axis=2) @ problem.recall
        least = np.where(self._there, found, 1.0).min(axis=2) @ problem.complete
        loss: Floats = 1.0 - mean + problem.all_weight * (1.0 - least)
        return loss + problem.cost_weight * tokens / problem.budget
