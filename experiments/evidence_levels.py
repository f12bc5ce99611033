"""Training of the learned value, second step: how much evidence there is among the candidates.

What ranks sets is learned before, and stays. Then come, by logistic regression on the features of
the query, the score of there being no evidence, with the retriever's rank in the scores of all
others, and for each size of the evidence the probability that it is all there is. Both multiply the
probabilities of all sets of a query, or of a size, alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from experiments.evidence_examples import Example, weights_of
from experiments.retrieval_sets import FULL
from games.chunk_selection.value import MOST, EvidenceModel, set_scores

Floats = npt.NDArray[np.float64]

DECAY = 0.01  # of squared weights: less helps on data sets learned from, and harms on others


def levelled(model: EvidenceModel, examples: Sequence[Example]) -> EvidenceModel:
    """The model with its levels fitted to the examples."""
    weight = weights_of(examples)
    query = np.stack([example.features.query for example in examples])
    sizes = np.array([len(example.evidence) for example in examples])
    recall = np.array([example.recall for example in examples])
    any_score = np.stack([_any_score(model, example) for example in examples], axis=1)
    size, complete = model.size.copy(), np.zeros_like(model.complete)
    for k, offset in enumerate(any_score):
        size[k, :, 0] = -_logistic(query, offset, sizes > 0, weight)
    part = np.zeros(MOST + 1)
    for number in range(1, MOST + 1):
        of_size = sizes == number
        full = recall[of_size] >= FULL
        if not of_size.any():
            continue
        zero = np.zeros(len(full))
        complete[:, :, number] = _logistic(query[of_size], zero, full, weight[of_size])
        if not full.all():
            part[number] = np.average(recall[of_size][~full], weights=weight[of_size][~full])
    return replace(model, size=size, complete=complete, part=part)


def _any_score(model: EvidenceModel, example: Example) -> Floats:
    """f64[K]: log of the summed weights of all sets that are not empty."""
    members, unary, pair, size = model.set_terms(example.features)
    return np.array(
        [
            logsumexp(set_scores(members[1:], u, w, b))
            for u, w, b in zip(unary, pair, size, strict=True)
        ]
    )


def _logistic(
    query: Floats, offset: Floats, label: npt.NDArray[np.bool_], weight: Floats
) -> Floats:
    """f64[QUERY]: weights t by which sigmoid(offset + query t) is the probability of the label.

    The first feature of a query is always 1: its weight does not decay.
    """
    decay = np.full(query.shape[1], DECAY)
    decay[0] = 0.0

    def loss(t: Floats) -> tuple[float, Floats]:
        score = offset + query @ t
        wrong = weight * (expit(score) - label)
        value = (weight * (np.logaddexp(0.0, score) - label * score)).sum() + (decay * t**2).sum()
        return float(value), query.T @ wrong + 2.0 * decay * t

    found: Floats = minimize(loss, np.zeros(query.shape[1]), jac=True, method="L-BFGS-B").x
    return found
