"""Why each chunk is in a selection, and what was nearly taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, losses_with, worth
from games.chunk_selection.value import NOBODY

NEARLY = 5


@dataclass(frozen=True)
class Reason:
    """Of one candidate, beside the selection.

    Attributes:
        id: of the chunk.
        n_tokens: its cost.
        probability: expected share of the evidence that it is.
        gain: what the loss would be higher without it, or lower with it if it is not chosen.
        why: the same in words.
    """

    id: str
    n_tokens: int
    probability: float
    gain: float
    why: str

    def to_json(self) -> dict[str, Any]:
        """As written."""
        return {
            "id": self.id,
            "n_tokens": self.n_tokens,
            "probability": round(self.probability, 6),
            "gain": round(self.gain, 6),
            "why": self.why,
        }


def taken(problem: ChunkSelectionProblem, selection: Selection) -> tuple[Reason, ...]:
    """A reason for each chosen chunk, in the order of the context."""
    loss = worth(problem, selection.order).loss
    partner = _partners(problem, selection.order)
    reasons = []
    for index in selection.order:
        without = [other for other in selection.order if other != index]
        gain = worth(problem, without).loss - loss
        chance = float(problem.marginals[index])
        why = f"evidence with weight {chance:.2f}"
        if index in partner:
            other, together = partner[index]
            why += f", {together:.2f} of it together with {problem.chunks[other].id}"
        repeated = float(problem.overlap[index, without].sum())
        if repeated > 0:
            why += f"; {min(repeated, 1.0):.0%} of its text is in other chosen chunks"
        reasons.append(_reason(problem, index, gain, why))
    return tuple(reasons)


def nearly_taken(
    problem: ChunkSelectionProblem, selection: Selection, count: int = NEARLY
) -> tuple[Reason, ...]:
    """The candidates left out that would lower the loss most if there were room."""
    loss = worth(problem, selection.order).loss
    losses = losses_with(problem, selection.order)
    left = problem.budget - selection.tokens(problem)
    chosen = set(selection.order)
    reasons = []
    for index in range(problem.size):
        if index in chosen:
            continue
        # The cost of tokens would be within the budget's; what is asked is what it brings.
        gain = loss - float(losses[index])
        tokens = int(problem.tokens[index])
        if tokens > problem.budget:
            why = f"larger than the whole budget ({tokens} tokens)"
        elif tokens > left:
            why = f"does not fit: {tokens} tokens, {left} are left"
        elif gain <= 0:
            why = "its tokens cost more than it brings"
        else:
            why = "search found nothing better with it"
        reasons.append(_reason(problem, index, gain, why))
    reasons.sort(key=lambda reason: -reason.gain)
    return tuple(reasons[:count])


def _reason(problem: ChunkSelectionProblem, index: int, gain: float, why: str) -> Reason:
    chunk = problem.chunks[index]
    return Reason(chunk.id, int(problem.tokens[index]), float(problem.marginals[index]), gain, why)


def _partners(problem: ChunkSelectionProblem, order: Sequence[int]) -> dict[int, tuple[int, float]]:
    """For each chosen one the chosen one that it is evidence with most often, and how often."""
    chosen = list(order)
    place = {index: row for row, index in enumerate(chosen)}
    together = np.zeros((len(chosen), len(chosen)))
    for members, probability in zip(
        problem.members.tolist(), problem.probability.tolist(), strict=True
    ):
        here = [place[m] for m in members if m != NOBODY and m in place]
        for a in here:
            for b in here:
                if a != b:
                    together[a, b] += probability
    found = {}
    for row, index in enumerate(chosen):
        best = int(np.argmax(together[row])) if len(chosen) > 1 else row
        if together[row, best] > 0.05:
            found[index] = (chosen[best], float(together[row, best]))
    return found
