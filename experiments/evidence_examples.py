"""What the value of chunk selection is learned from: questions and the candidates that answer them.

The label of a question is the smallest set of candidates that greedily covers its evidence, each
by what it adds to the ones before: a duplicate adds nothing, so it is no evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.retrieval_sets import Passage, Question, recall
from games.chunk_selection.features import Features
from games.chunk_selection.value import MOST

LEAST_GAIN = 0.05  # of recall, to count as evidence


@dataclass(frozen=True)
class Example:
    """A question's features and the indices of the candidates that are its evidence.

    Attributes:
        features: of the question and its candidates.
        evidence: at most MOST of them.
        recall: share of all of the evidence that these are.
        group: its data set; each counts as its `weight` says, whatever its size.
        weight: of the group.
        ranks: which sets are likely is learned from it.
        levels: how likely any are is learned from it: the candidates are such as users have.
    """

    features: Features
    evidence: tuple[int, ...]
    recall: float = 1.0
    group: str = ""
    weight: float = 1.0
    ranks: bool = True
    levels: bool = True


def weights_of(examples: Sequence[Example]) -> npt.NDArray[np.float64]:
    """f64[Q] of the examples; their sum is 1."""
    sizes = Counter(example.group for example in examples)
    weight = np.array([example.weight / sizes[example.group] for example in examples])
    return weight / weight.sum()


def evidence_of(question: Question, passages: Sequence[Passage]) -> tuple[tuple[int, ...], float]:
    """The candidates that cover the evidence, by greedy marginal gain of recall; at most MOST.

    With the recall that they have together.
    """
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < MOST:
        gain = [
            recall(question, [passages[i] for i in (*chosen, new)]) - reached
            for new in range(len(passages))
        ]
        best = int(np.argmax(gain))
        if gain[best] < LEAST_GAIN:
            break
        chosen.append(best)
        reached += gain[best]
    return tuple(chosen), reached
