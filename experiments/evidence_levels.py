"""Training of the learned value, second step: how much evidence there is among the candidates.

What ranks sets is learned before, and stays. Then come, by logistic regression on the features of
the query, the score of there being no evidence, with the retriever's rank in the scores of all
others, and for each size of the evidence the probability that it is all there is. Both multiply the
probabilities of all sets of a query, or of a size, alike.

How hard the questions of another data set are, no training on others tells. A few dozen questions
with their evidence do: `calibrated` moves the levels of a finished value to what they show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from experiments.evidence_examples import Example, weights_of
from experiments.retrieval_sets import FULL
from games.chunk_selection.value import MOST, NOBODY, EvidenceModel, set_scores

Floats = npt.NDArray[np.float64]

DECAY = 0.01  # of squared weights: less helps on data sets learned from, and harms on others
# Of squared changes to a finished value, those that all questions share and those by a question's
# features, divided by the number of questions: many are trusted more.
CHANGE_OF_ALL, CHANGE = 0.05, 0.5
PART = 5.0  # examples that the finished value's shares count for


def levelled(model: EvidenceModel, examples: Sequence[Example]) -> EvidenceModel:
    """The model with its levels fitted to the examples."""
    weight = weights_of(examples)
    query = np.stack([example.features.query for example in examples])
    sizes = np.array([len(example.evidence) for example in examples])
    recall = np.array([example.recall for example in examples])
    by_size = np.stack([_size_scores(model, example) for example in examples], axis=1)
    size, complete = model.size.copy(), np.zeros_like(model.complete)
    # The first feature of a query is always 1: its weight does not decay.
    decay = np.full(query.shape[1], DECAY)
    decay[0] = 0.0
    for k, offset in enumerate(logsumexp(by_size[:, :, 1:], axis=2)):
        size[k, :, 0] = -_logistic(query, offset, sizes > 0, weight, decay)
    part = np.zeros(MOST + 1)
    for number in range(1, MOST + 1):
        of_size = sizes == number
        full = recall[of_size] >= FULL
        if not of_size.any():
            continue
        zero = np.zeros(len(full))
        complete[:, :, number] = _logistic(query[of_size], zero, full, weight[of_size], decay)
        if not full.all():
            part[number] = np.average(recall[of_size][~full], weights=weight[of_size][~full])
    return replace(model, size=size, complete=complete, part=part)


def calibrated(model: EvidenceModel, examples: Sequence[Example], questions: int) -> EvidenceModel:
    """The model with its levels moved to what examples of so many questions show.

    What changes are the score of there being no evidence, and the probability that a set is all of
    it, by the features of the query, and both for each size of the evidence alike in all questions.
    """
    weight = weights_of(examples)
    query = np.stack([example.features.query for example in examples])
    sizes = np.array([len(example.evidence) for example in examples])
    recall = np.array([example.recall for example in examples])
    size, complete, part = model.size.copy(), model.complete.copy(), model.part.copy()
    by_size = np.stack([_size_scores(model, example) for example in examples], axis=1)
    for k, scores in enumerate(by_size):
        none, each = _change_of_sizes(query, scores, sizes, weight, questions)
        size[k, :, 0] += none
        size[k, 0, 1:] += each
    some = sizes > 0
    if some.any():
        of_size = np.eye(MOST + 1)[sizes[some]][:, 1:]
        offset = (query[some] * model.complete[0][:, sizes[some]].T).sum(axis=1)
        change = _logistic(
            np.hstack([query[some], of_size]),
            offset,
            recall[some] >= FULL,
            weight[some],
            _change_decay(query.shape[1], questions),
        )
        complete[:, :, 1:] += change[: query.shape[1], None]
        complete[:, 0, 1:] += change[query.shape[1] :]
    for number in range(1, MOST + 1):
        shares = recall[(sizes == number) & (recall < FULL)]
        part[number] = (PART * part[number] + shares.sum()) / (PART + len(shares))
    return replace(model, size=size, complete=complete, part=part)


def sharpened(model: EvidenceModel, factor: float) -> EvidenceModel:
    """The model with what candidates and pairs add to the scores of sets times a factor."""

    def times(network: Mapping[str, Floats]) -> dict[str, Floats]:
        return {
            name: value * factor if name in ("out", "skip") else value
            for name, value in network.items()
        }

    return replace(model, candidate=times(model.candidate), pair=times(model.pair))


def _size_scores(model: EvidenceModel, example: Example) -> Floats:
    """f64[K, MOST + 1]: log of the summed weights of all sets of each size."""
    members, unary, pair, size = model.set_terms(example.features)
    count = (members != NOBODY).sum(axis=1)
    found = np.full((len(unary), MOST + 1), -np.inf)
    for k, (u, w, b) in enumerate(zip(unary, pair, size, strict=True)):
        scores = set_scores(members, u, w, b)
        for number in range(int(count.max()) + 1):
            found[k, number] = logsumexp(scores[count == number])
    return found


def _change_decay(width: int, questions: int) -> Floats:
    """f64[width + MOST], of changes by the features of a query and by the size of the evidence."""
    decay = np.full(width + MOST, CHANGE_OF_ALL / questions)
    decay[1:width] = CHANGE / questions
    return decay


def _change_of_sizes(
    query: Floats, scores: Floats, sizes: npt.NDArray[np.int64], weight: Floats, questions: int
) -> tuple[Floats, Floats]:
    """(f64[QUERY], f64[MOST]): what to add to the score of size 0 for each feature, and to others.

    So that the softmax of the scores f64[Q, MOST + 1] is the probability of the size.
    """
    width = query.shape[1]
    decay = _change_decay(width, questions)
    label = np.eye(MOST + 1)[sizes]

    def loss(t: Floats) -> tuple[float, Floats]:
        none = (query @ t[:width])[:, None]
        moved = scores + np.hstack([none, np.tile(t[width:], (len(query), 1))])
        log_p = moved - logsumexp(moved, axis=1, keepdims=True)
        wrong = weight[:, None] * (np.exp(log_p) - label)
        value = -(weight * log_p[label > 0]).sum() + (decay * t**2).sum()
        gradient = np.concatenate([query.T @ wrong[:, 0], wrong[:, 1:].sum(axis=0)])
        return float(value), gradient + 2.0 * decay * t

    found = minimize(loss, np.zeros(width + MOST), jac=True, method="L-BFGS-B").x
    return found[:width], found[width:]


def _logistic(
    query: Floats, offset: Floats, label: npt.NDArray[np.bool_], weight: Floats, decay: Floats
) -> Floats:
    """f64[QUERY]: weights t by which sigmoid(offset + query t) is the probability of the label."""

    def loss(t: Floats) -> tuple[float, Floats]:
        score = offset + query @ t
        wrong = weight * (expit(score) - label)
        value = (weight * (np.logaddexp(0.0, score) - label * score)).sum() + (decay * t**2).sum()
        return float(value), query.T @ wrong + 2.0 * decay * t

    found: Floats = minimize(loss, np.zeros(query.shape[1]), jac=True, method="L-BFGS-B").x
    return found
