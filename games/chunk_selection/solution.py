"""A selection: which chunks, in which order; what it is expected to miss, and a bound on that.

With G the evidence among the candidates, r(G) the share of all of the evidence that it is, and c(i)
the share of chunk i's text that the selection S has (1 if i is in it, else what others repeat of
it, at most 1):

    loss(S) = E[1 - r(G) mean of c over G] + all_weight E[1 - [r(G) = 1] min of c over G]
              + cost_weight tokens / B

The first term is expected missing recall, the second the probability that something is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from games.chunk_selection.problem import ChunkSelectionProblem, ranked
from games.chunk_selection.value import NOBODY
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """Indices of the chosen candidates in the order of the context."""

    order: tuple[int, ...]

    def tokens(self, problem: ChunkSelectionProblem) -> int:
        """What it costs."""
        return int(problem.tokens[list(self.order)].sum())


@dataclass(frozen=True)
class Worth:
    """What a selection is expected to hold: `recall`, `all_found` (a probability), `loss`."""

    recall: float
    all_found: float
    loss: float


def covered(problem: ChunkSelectionProblem, order: Sequence[int]) -> Floats:
    """f64[N]: share of each candidate's text that the chosen ones have."""
    return np.minimum(problem.overlap[:, list(order)].sum(axis=1), 1.0)


def worth(problem: ChunkSelectionProblem, order: Sequence[int]) -> Worth:
    """What the chosen candidates are expected to hold."""
    share = covered(problem, order)
    there = problem.members != NOBODY
    found = np.where(there, share[np.where(there, problem.members, 0)], 0.0)
    mean = found.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    least = np.where(there, found, 1.0).min(axis=1)
    recall = float(problem.recall @ mean)
    everything = float(problem.complete @ least)
    tokens = int(problem.tokens[list(order)].sum())
    loss = (
        1.0
        - recall
        + problem.all_weight * (1.0 - everything)
        + problem.cost_weight * tokens / problem.budget
    )
    return Worth(recall, everything, loss)


def losses_with(problem: ChunkSelectionProblem, order: Sequence[int]) -> Floats:
    """f64[N]: the loss of the chosen candidates and one more, for each candidate."""
    there = problem.members != NOBODY
    shares = np.minimum(problem.overlap[:, list(order)].sum(axis=1)[:, None] + problem.overlap, 1.0)
    found = shares.T[:, np.where(there, problem.members, 0)]
    mean = (found * there).sum(axis=2) / np.maximum(there.sum(axis=1), 1)
    least = np.where(there, found, 1.0).min(axis=2)
    tokens = int(problem.tokens[list(order)].sum()) + problem.tokens
    return (
        1.0
        - mean @ problem.recall
        + problem.all_weight * (1.0 - least @ problem.complete)
        + problem.cost_weight * tokens / problem.budget
    )


def objective(problem: ChunkSelectionProblem, selection: Selection) -> float:
    """The loss; lower is better. The order does not count."""
    return worth(problem, selection.order).loss


def lower_bound(problem: ChunkSelectionProblem) -> float:
    """A loss that no selection is below, from a fractional knapsack.

    Coverage is subadditive and a minimum is no more than a mean, so each candidate brings at most
    the shares of what its text covers, in both terms.
    """
    held = problem.recall + problem.all_weight * problem.complete
    gain = problem.shared_out(held) @ problem.overlap
    gain -= problem.cost_weight * problem.tokens / problem.budget
    fits = (problem.tokens <= problem.budget) & (gain > 0)
    order = np.argsort(-(gain / problem.tokens)[fits], kind="stable")
    tokens, gain = problem.tokens[fits][order], gain[fits][order]
    room = np.clip(problem.budget - (np.cumsum(tokens) - tokens), 0, tokens)
    most = float((gain * room / tokens).sum())
    return 1.0 + problem.all_weight - min(most, float(held.sum()))


def arranged(
    problem: ChunkSelectionProblem,
    selection: Selection,
    position_weights: Sequence[float] | None = None,
) -> Selection:
    """The same chunks in the order that puts what is probably evidence where it is read best.

    Args:
        position_weights: how well each position is read; the likeliest chunk goes to the largest,
            which maximises their product in sum (rearrangement inequality). Positions beyond the
            end of the list have the last weight. None reads the first position best.

    Raises:
        InputError: a weight is not finite, or there is none.
    """
    chosen = [selection.order[i] for i in ranked(problem.marginals[list(selection.order)])]
    if position_weights is None:
        return Selection(tuple(chosen))
    wrong = InputError("position_weights: expected finite numbers, one for each position")
    try:
        weights = [float(weight) for weight in position_weights]
    except (TypeError, ValueError):
        raise wrong from None
    if not weights or not np.isfinite(weights).all():
        raise wrong
    weights += [weights[-1]] * (len(chosen) - len(weights))
    order = [0] * len(chosen)
    for chunk, place in zip(chosen, ranked(weights[: len(chosen)]), strict=True):
        order[place] = chunk
    return Selection(tuple(order))
