"""Random problems of chunk selection, and brute force over all subsets."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from games.chunk_selection.chunk import Chunk
from games.chunk_selection.problem import ChunkSelectionProblem, make_problem
from games.chunk_selection.solution import Selection
from games.chunk_selection.validator import expected_loss

_WORDS = """river bridge Paris London Danube treaty engine market stone orchard violin Vienna Ada
Turing harbour museum crater Kepler senate copper"""
WORDS = _WORDS.split()


def random_problem(
    seed: int, size: int = 8, *, cost_weight: float = 0.0, all_weight: float = 0.5
) -> ChunkSelectionProblem:
    """Texts of random words, some repeated in part, with hypotheses drawn at random."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, int(draw.integers(10, 40)))) for _ in range(size)]
    if size > 2:
        half = texts[0].split()
        texts[1] = " ".join(half[len(half) // 4 :] + texts[1].split())
    chunks = [
        Chunk(f"c{i}", text, n_tokens=int(draw.integers(1, 60)), score=float(draw.random()))
        for i, text in enumerate(texts)
    ]
    budget = max(int(draw.integers(40, 150)), min(c.n_tokens or 0 for c in chunks))
    problem = make_problem(
        "Which river has a bridge in Vienna?",
        chunks,
        budget,
        cost_weight=cost_weight,
        all_weight=all_weight,
    )
    members = []
    for _ in range(int(draw.integers(1, 24))):
        chosen = draw.permutation(size)[: int(draw.integers(1, min(size, 4) + 1))]
        members.append([*chosen.tolist(), *[-1] * (4 - len(chosen))])
    probability = draw.random(len(members))
    probability *= draw.uniform(0.3, 1.0) / probability.sum()
    complete = probability * draw.random(len(members))
    return replace(
        problem,
        members=np.array(members, dtype=np.int32),
        probability=probability,
        complete=complete,
        recall=complete + (probability - complete) * draw.random(len(members)),
    )


def best_by_force(problem: ChunkSelectionProblem) -> float:
    """The least loss of any subset within the budget, by the validator's definition."""
    best = np.inf
    for count in range(problem.size + 1):
        for chosen in itertools.combinations(range(problem.size), count):
            if problem.tokens[list(chosen)].sum() <= problem.budget:
                best = min(best, expected_loss(problem, Selection(chosen)))
    return float(best)
