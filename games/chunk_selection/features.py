"""What the learned value sees: numbers of each candidate, of each pair, and of the query.

Scalars that mean the same for every embedding model and every corpus: ranks, scores against the
best and the spread of the candidates, shares of the query covered, links between texts. Raw
embeddings are no features; there are too few questions to learn from. What is alike for all
candidates of a query is no feature of a candidate: a value that looks at it tells data sets apart,
and does worse on others. So features of candidates are centred: a corpus of long texts, or of
texts full of names, is none by that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from games.chunk_selection.chunk import Chunk, embedding_of
from games.chunk_selection.text import Texts, read_texts, words
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]

CANDIDATE = 27
PAIR = 18
QUERY = 10

_COMPARES = re.compile(
    r"\b(both|same|which|or|older|younger|earlier|later|first|more|between|than|common)\b", re.I
)
_PERSON = re.compile(r"\bwho|whose|whom\b", re.I)
_TIME = re.compile(r"\bwhen|year|date|century\b", re.I)
_AMOUNT = re.compile(r"\bhow (many|much)|number|percent|total\b", re.I)
_NEAR = 6  # candidates that are strong enough to lead on to others
_SHARP = 6.0  # softmax over scores in units of their spread


@dataclass(frozen=True)
class Features:
    """Of one query with N candidates.

    Attributes:
        candidate: f64[N, CANDIDATE], each of mean 0.
        pair: f32[N, N, PAIR], symmetric in the first two axes.
        query: f64[QUERY].
        overlap: f64[N, N] share of i's text that is word for word in j.
        similarity: f64[N, N] cosine of embeddings if there are any, else of tf-idf vectors.
        dense: f64[N] similarity of query and candidate, likewise.
        score: f64[N] the retriever's scores, or the fused ranks of what is known.
        coverage: f64[N] share of the query's terms.
        joint: f64[N, N] the same for pairs.
        links: f64[N, N] mentions of titles and shared names, for the bridge baseline.
    """

    candidate: Floats
    pair: npt.NDArray[np.float32]
    query: Floats
    overlap: Floats
    similarity: Floats
    dense: Floats
    score: Floats
    coverage: Floats
    joint: Floats
    links: Floats


def make_features(
    query: str, chunks: Sequence[Chunk], query_embedding: npt.ArrayLike | None = None
) -> Features:
    """The features of a query and its candidates.

    Args:
        query: the question.
        chunks: the candidates; where all have embeddings, and the query has one, both are used.
        query_embedding: f64[d], by the model that embedded the chunks.

    Raises:
        InputError: an embedding of the query that does not fit the chunks'.
    """
    texts = read_texts(query, [c.text for c in chunks], [c.title for c in chunks])
    similarity, dense = texts.similarity, texts.cosine
    embeddings = [c.embedding for c in chunks if c.embedding is not None]
    has_dense = False
    if len(embeddings) == len(chunks):
        unit = _unit(np.stack(embeddings))
        similarity = unit @ unit.T
        if query_embedding is not None:
            asked = embedding_of(query_embedding, "query")
            if len(asked) != unit.shape[1]:
                raise InputError(
                    f"query: embedding of length {len(asked)}, those of the chunks have"
                    f" {unit.shape[1]}; embed both with one model"
                )
            dense = unit @ _unit(asked[None])[0]
            has_dense = True
    scores = [c.score for c in chunks if c.score is not None]
    channels = [texts.bm25, dense]
    if len(scores) == len(chunks):
        score = np.array(scores)
    else:
        score = sum((1.0 / (60.0 + 1.0 + rank_of(channel)) for channel in channels), np.zeros(1))
    candidate = _candidate(texts, chunks, dense, score, similarity)
    query_row = np.array(
        [
            1.0,
            float(bool(_COMPARES.search(query))),
            min(texts.query_names, 5) / 3.0,
            np.log1p(len(words(query))) - 2.5,
            float(np.max(dense)),
            float(np.std(dense)) * 10.0,
            float(has_dense),
            float(np.max(texts.coverage)),
            np.log(len(chunks)) - 4.0,
            float((texts.overlap.sum(axis=1) > 1.2).mean()),
        ]
    )
    kinds = np.stack(
        [
            bool(_PERSON.search(query)) * texts.people,
            bool(_TIME.search(query)) * texts.years,
            bool(_AMOUNT.search(query)) * texts.numbers,
        ],
        axis=1,
    )
    candidate = np.concatenate([candidate, kinds], axis=1)
    return Features(
        candidate=candidate - candidate.mean(axis=0),
        pair=_pair(texts, dense, score, similarity, query_row),
        query=query_row,
        overlap=texts.overlap,
        similarity=similarity,
        dense=dense,
        score=score,
        coverage=texts.coverage,
        joint=texts.joint,
        links=np.maximum(texts.mentions, texts.mentions.T) + 0.5 * np.tanh(texts.shared_names),
    )


def _unit(vectors: Floats) -> Floats:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def rank_of(scores: Floats) -> Floats:
    """f64[N]: 0 for the best; ties share the mean, so that the order given does not matter."""
    higher = (scores[None, :] > scores[:, None] + 1e-12).sum(axis=1)
    equal = (np.abs(scores[None, :] - scores[:, None]) <= 1e-12).sum(axis=1)
    return higher + (equal - 1) / 2.0


def _spread(scores: Floats) -> Floats:
    """f64[N]: distance to the best in standard deviations; 0 for the best."""
    return (scores - scores.max()) / max(float(scores.std()), 1e-9)


def _log_rank(scores: Floats) -> Floats:
    return np.log1p(rank_of(scores)) / 2.0


def _strength(score: Floats, dense: Floats, bm25: Floats) -> Floats:
    """f64[N]: how much a candidate is worth following; the best has about 1."""
    fused = -(_log_rank(score) + _log_rank(dense) + _log_rank(bm25))
    weight = np.exp(fused)
    return weight / max(float(weight.max()), 1e-9)


def _candidate(
    texts: Texts, chunks: Sequence[Chunk], dense: Floats, score: Floats, similarity: Floats
) -> Floats:
    strength = _strength(score, dense, texts.bm25)
    off = 1.0 - np.eye(len(chunks))
    near = similarity * off
    bridge_to = (texts.mentions * strength[:, None]).max(axis=0)  # a strong text has its title
    bridge_from = (texts.mentions.T * strength[:, None]).max(axis=0)
    named = texts.title_named
    # What a linked text leads to is new where the query does not name it already.
    bridge_new = bridge_to * (1.0 - named)
    shared = np.tanh(texts.shared_names / 3.0) * off
    top = np.argsort(-strength, kind="stable")[:_NEAR]
    tokens = np.array([float(c.n_tokens or 1) for c in chunks])
    missing = np.maximum(texts.joint - texts.coverage[:, None], 0.0)  # what j adds to i
    columns = [
        np.maximum(_spread(dense), -5.0) / 2.0,
        dense - dense.max(),
        _log_rank(dense),
        np.maximum(_spread(texts.bm25), -5.0) / 2.0,
        texts.bm25 / max(float(texts.bm25.max()), 1e-9),
        _log_rank(texts.bm25),
        _log_rank(score),
        np.maximum(_spread(score), -5.0) / 2.0,
        (score - score.min()) / max(float(np.ptp(score)), 1e-9),
        _log_rank(texts.cosine),
        texts.coverage,
        texts.bigrams,
        texts.title_asked,
        named,
        texts.names_asked,
        np.log(tokens) - 4.5,
        bridge_to,
        bridge_from,
        bridge_new,
        (shared * strength[:, None]).max(axis=0),
        (near * strength[:, None]).max(axis=0),
        near[top].mean(axis=0),
        (missing[top] * strength[top][:, None]).max(axis=0),
        strength,
    ]
    return np.stack(columns, axis=1)


def _pair(
    texts: Texts, dense: Floats, score: Floats, similarity: Floats, query: Floats
) -> npt.NDArray[np.float32]:
    strength = _strength(score, dense, texts.bm25)
    either = np.maximum(texts.mentions, texts.mentions.T)
    mutual = np.minimum(texts.mentions, texts.mentions.T)
    # i leads to j: j is new to the query, i is strong.
    leads = texts.mentions * (1.0 - texts.title_named)[None, :] * strength[:, None]
    leads = np.maximum(leads, leads.T)
    gain = texts.joint - np.maximum(texts.coverage[:, None], texts.coverage[None, :])
    named = texts.title_named[:, None] + texts.title_named[None, :]
    weak = np.minimum(strength[:, None], strength[None, :])
    strong = np.maximum(strength[:, None], strength[None, :])
    duplicate = np.maximum(texts.overlap, texts.overlap.T)
    shared = np.tanh(texts.shared_names / 3.0)
    asked = texts.title_asked[:, None] * texts.title_asked[None, :]
    compares = query[1]
    off = similarity[~np.eye(len(dense), dtype=bool)]
    centre, width = (float(off.mean()), float(off.std())) if len(off) else (0.0, 1.0)
    columns = [
        np.clip((similarity - centre) / max(width, 1e-9), -3.0, 5.0) / 3.0,
        texts.similarity,
        either,
        mutual,
        leads,
        shared,
        shared * strong,
        gain,
        texts.joint,
        duplicate,
        texts.same_title,
        (named == 2).astype(np.float64),
        (named == 1).astype(np.float64) * either,
        weak,
        strong,
        asked,
        compares * (named == 2),
        compares * gain,
    ]
    return np.stack(np.broadcast_arrays(*columns), axis=2).astype(np.float32)
