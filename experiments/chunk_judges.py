"""Judges of whole contexts, in the place of a reranker that nobody has here.

Two know the evidence, but for noise; one is a real model's similarity, which does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from baselines.chunk_selection.tree_search import ScoreSets
from experiments.retrieval_pools import Pool
from experiments.retrieval_sets import FULL, recall
from games.chunk_selection.problem import ChunkSelectionProblem

NOISE = 0.1  # of a score, beside what the context holds of the evidence, 0..1
DILUTION = 0.9  # of a judge that reads worse with each chunk


def evidence(pool: Pool, problem: ChunkSelectionProblem) -> Callable[[Sequence[int]], float]:
    """What a set of candidates holds: its recall, and whether that is all, 1 at most."""
    known: dict[tuple[int, ...], float] = {}

    def held(order: Sequence[int]) -> float:
        key = tuple(sorted(order))
        if key not in known:
            share = recall(pool.question, [pool.passages[i] for i in key])
            worth = share + problem.all_weight * (share >= FULL)
            known[key] = worth / (1.0 + problem.all_weight)
        return known[key]

    return held


def by_evidence(
    pool: Pool, problem: ChunkSelectionProblem, seed: Sequence[int], dilution: float = 1.0
) -> ScoreSets:
    """The evidence times `dilution` for each chunk, with noise of each chunk and of each set.

    The same set has the same noise.
    """
    held = evidence(pool, problem)
    liked = np.random.default_rng(seed).normal(size=problem.size)

    def score(orders: Sequence[tuple[int, ...]]) -> list[float]:
        scores = []
        for order in orders:
            of_set = np.random.default_rng([*seed, *sorted(order)]).normal()
            of_chunks = liked[list(order)].sum() / np.sqrt(len(order))
            noise = NOISE * (of_set + of_chunks) / np.sqrt(2.0)
            scores.append(held(order) * dilution ** len(order) + noise)
        return scores

    return score


def by_dense_evidence(pool: Pool, problem: ChunkSelectionProblem, seed: Sequence[int]) -> ScoreSets:
    """The same for a model that is distracted by all that is no evidence."""
    return by_evidence(pool, problem, seed, DILUTION)


def by_embedding(pool: Pool, problem: ChunkSelectionProblem, seed: Sequence[int]) -> ScoreSets:
    """Similarity of the query and the mean embedding of the context, by tokens."""
    del seed  # no noise
    vectors = np.stack([np.asarray(chunk.embedding) for chunk in problem.chunks])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weighed = vectors * problem.tokens[:, None]
    asked = np.asarray(pool.query_embedding)
    asked = asked / np.linalg.norm(asked)

    def score(orders: Sequence[tuple[int, ...]]) -> list[float]:
        sums = [weighed[list(order)].sum(axis=0) for order in orders]
        return [float(each @ asked / np.linalg.norm(each)) for each in sums]

    return score
