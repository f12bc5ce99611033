"""The learned value: a probability for each small set of candidates that it is the evidence.

    log P(G) = b(|G|) + sum of u(i) - RETRIEVER log(1 + rank of i) for i in G
               + sum of w(i, j) for pairs in G - log Z

over hypotheses G of up to MOST candidates: what there is of the evidence among the candidates. u
and w are small networks on the features of a candidate and of a pair, b is linear in those of the
query. They are learned without the term of the retriever's rank. That comes in afterwards, because
what they know is of other data sets than the query's. Part of the evidence may not be among the
candidates: that G is all of it has a probability of its own, logistic in the features of the query
for each size of G. That, and b of no evidence at all, are learned last; they change how sure the
value is, hardly which set it likes best. What a selection is worth follows by expectation over G
(`solution.py`), so it is not additive: a second hop is worth little without the first. The weights
come from `python -m experiments.train_chunk_selection`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from games.chunk_selection.features import CANDIDATE, PAIR, QUERY, Features, rank_of
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

SCHEMA = "compiler-rl/evidence-model/2"
MOST = 4  # candidates in a hypothesis
TRIPLES, QUADS = 18, 11  # of so many best candidates
KEPT = 768  # hypotheses of a query; the others together are too improbable to matter
RETRIEVER = 0.3  # chosen by recall on data sets left out of training, see experiments/README.md
NOBODY = -1


@dataclass(frozen=True)
class Hypotheses:
    """What the evidence among the candidates may be.

    Attributes:
        members: i32[H, MOST] padded by -1.
        probability: f64[H]. They add up to at most 1; the rest is that of no evidence among the
            candidates, and of hypotheses left out.
        complete: f64[H] the probability of the hypothesis and of its being all of the evidence.
        recall: f64[H] the probability of the hypothesis times the share of all of the evidence that
            it is expected to be.
    """

    members: Ints
    probability: Floats
    complete: Floats
    recall: Floats


@dataclass(frozen=True)
class EvidenceModel:
    """An ensemble of K models; the first axis of each array is the model.

    `mean`, `scale`: of the features of candidates f64[CANDIDATE] and pairs f64[PAIR]; the networks
    have one hidden layer of tanh; `size` and `complete` f64[K, QUERY, MOST + 1]; `part`
    f64[MOST + 1] is the share of the evidence that a set of a size is where it is not all of it.
    """

    candidate: Mapping[str, Floats]
    pair: Mapping[str, Floats]
    size: Floats
    complete: Floats
    part: Floats

    def scores(self, features: Features) -> tuple[Floats, Floats, Floats]:
        """(u f64[K, N], w f64[K, N, N], b f64[K, MOST + 1])."""
        unary = _network(self.candidate, features.candidate)
        pair = _network(self.pair, features.pair)
        return unary, pair, features.query @ self.size

    def set_terms(self, features: Features) -> tuple[Ints, Floats, Floats, Floats]:
        """The hypotheses that are looked at, the first the empty one, and `scores` with the
        retriever's rank in u.
        """
        unary, pair, size = self.scores(features)
        unary -= RETRIEVER * np.log1p(rank_of(features.score))
        return enumerate_sets(unary.mean(axis=0)), unary, pair, size

    def hypotheses(self, features: Features) -> Hypotheses:
        """The most probable hypotheses of a query, by the mean of the ensemble."""
        members, unary, pair, size = self.set_terms(features)
        sizes = (members != NOBODY).sum(axis=1)
        each = np.stack(
            [
                _softmax(set_scores(members, u, w, b))
                for u, w, b in zip(unary, pair, size, strict=True)
            ]
        )
        everything = 1.0 / (1.0 + np.exp(-(features.query @ self.complete)))[:, sizes]
        probability = each.mean(axis=0)
        complete = (each * everything).mean(axis=0)
        recall = complete + (probability - complete) * self.part[sizes]
        best = np.argsort(-probability, kind="stable")
        best = best[sizes[best] > 0][:KEPT]
        return Hypotheses(members[best], probability[best], complete[best], recall[best])


def _network(weights: Mapping[str, Floats], features: npt.NDArray[np.floating[Any]]) -> Floats:
    """f64[K, ...] of features f64[..., F]."""
    flat = (features.reshape(-1, features.shape[-1]) - weights["mean"]) / weights["scale"]
    hidden = np.tanh(flat @ weights["in"] + weights["in_bias"][:, None])
    out = (hidden @ weights["out"][..., None])[..., 0] + (flat @ weights["skip"].T).T
    return out.reshape(len(weights["in"]), *features.shape[:-1])


def enumerate_sets(unary: Floats) -> Ints:
    """i32[H, MOST] of the hypotheses that are looked at, padded by -1; the first is the empty one.

    All single candidates and pairs; triples and quadruples of those with the best u.
    """
    count = len(unary)
    order = np.argsort(-unary, kind="stable").astype(np.int32)
    parts = [np.full((1, MOST), NOBODY, dtype=np.int32)]
    for size, most in ((1, count), (2, count), (3, TRIPLES), (4, QUADS)):
        chosen = order[: min(most, count)]
        places = _combinations(len(chosen), size)
        rows = np.full((len(places), MOST), NOBODY, dtype=np.int32)
        rows[:, :size] = chosen[places]
        parts.append(rows)
    return np.concatenate(parts)


@cache
def _combinations(count: int, size: int) -> npt.NDArray[np.int64]:
    found = list(itertools.combinations(range(count), size))
    return np.array(found, dtype=np.int64).reshape(len(found), size)


def set_scores(members: Ints, unary: Floats, pair: Floats, size: Floats) -> Floats:
    """f64[H]: log P up to a constant."""
    there = members != NOBODY
    at = np.where(there, members, 0)
    total = (unary[at] * there).sum(axis=1) + size[there.sum(axis=1)]
    for a, b in itertools.combinations(range(MOST), 2):
        total += pair[at[:, a], at[:, b]] * (there[:, a] & there[:, b])
    return total


def _softmax(logits: Floats) -> Floats:
    weight = np.exp(logits - logits.max())
    return weight / weight.sum()


def to_json(model: EvidenceModel) -> dict[str, Any]:
    """The model as JSON data."""

    def plain(values: Mapping[str, Floats]) -> dict[str, Any]:
        return {name: np.round(value, 5).tolist() for name, value in values.items()}

    return {
        "schema": SCHEMA,
        "candidate": plain(model.candidate),
        "pair": plain(model.pair),
        "size": np.round(model.size, 5).tolist(),
        "complete": np.round(model.complete, 5).tolist(),
        "part": np.round(model.part, 5).tolist(),
    }


def from_json(data: Any, source: str) -> EvidenceModel:
    """The model of such data.

    Raises:
        InputError: it is something else, or of features that this version does not have.
    """
    try:
        if data["schema"] != SCHEMA:
            raise InputError(f"{source}: schema {data['schema']}, expected {SCHEMA}")
        parts = [
            {name: np.array(value, dtype=np.float64) for name, value in data[part].items()}
            for part in ("candidate", "pair")
        ]
        size, complete, part = (
            np.array(data[name], dtype=np.float64) for name in ("size", "complete", "part")
        )
        widths = (len(parts[0]["mean"]), len(parts[1]["mean"]), size.shape[1], complete.shape[1])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{source}: not an evidence model ({error!r})") from error
    if widths != (CANDIDATE, PAIR, QUERY, QUERY):
        raise InputError(f"{source}: made for other features; train it again")
    return EvidenceModel(parts[0], parts[1], size, complete, part)


def load_model(path: Path) -> EvidenceModel:
    """The model of a file.

    Raises:
        InputError: it cannot be read, or is no model.
    """
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not JSON ({error})") from error


@cache
def default_model() -> EvidenceModel:
    """The model that comes with the package."""
    text = files("games.chunk_selection").joinpath("evidence_model.json").read_text()
    return from_json(json.loads(text), "evidence_model.json")
