"""The problem: a query, its candidate chunks, a token budget, and what the evidence may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from games.chunk_selection.chunk import (
    Chunk,
    CountTokens,
    is_count,
    make_chunks,
    read_jsonl,
)
from games.chunk_selection.features import Features, make_features
from games.chunk_selection.value import NOBODY, EvidenceModel, default_model
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

ALL_WEIGHT = 0.5
LEAST_OVERLAP = 0.1  # less common text than that is quotation, not duplication


@dataclass(frozen=True)
class ChunkSelectionProblem:
    """N candidates and H hypotheses about which of them are the evidence.

    Attributes:
        query: the question.
        chunks: the candidates.
        budget: tokens that the chosen ones may have together.
        tokens: i64[N].
        members: i32[H, MOST] candidates of each hypothesis, padded by -1.
        probability: f64[H] of each hypothesis; they add up to at most 1.
        complete: f64[H] the same, and that it is all of the evidence.
        recall: f64[H] the share of all of the evidence that it is expected to be, times its
            probability.
        overlap: f64[N, N] share of i's text that is word for word in j, 1 on the diagonal.
        all_weight: worth of having all of the evidence, against that of each share of it.
        cost_weight: price of the whole budget, in the same unit; 0 fills the budget.
        features: what baselines and the value see.
    """

    query: str
    chunks: tuple[Chunk, ...]
    budget: int
    tokens: npt.NDArray[np.int64]
    members: Ints
    probability: Floats
    complete: Floats
    recall: Floats
    overlap: Floats
    all_weight: float
    cost_weight: float
    features: Features

    @property
    def size(self) -> int:
        """N."""
        return len(self.chunks)

    @cached_property
    def marginals(self) -> Floats:
        """f64[N]: expected share of the evidence that each candidate is."""
        return self.shared_out(self.recall)

    def shared_out(self, worth: Floats) -> Floats:
        """f64[N]: the worth f64[H] of hypotheses in equal parts to their members."""
        there = self.members != NOBODY
        share = worth / np.maximum(there.sum(axis=1), 1)
        result = np.zeros(self.size)
        np.add.at(result, self.members[there], np.broadcast_to(share[:, None], there.shape)[there])
        return result


def make_problem(
    query: str,
    chunks: Iterable[str | Chunk | Mapping[str, Any]],
    budget: int,
    *,
    tokenizer: CountTokens | None = None,
    query_embedding: npt.ArrayLike | None = None,
    model: EvidenceModel | None = None,
    all_weight: float = ALL_WEIGHT,
    cost_weight: float = 0.0,
    features: Features | None = None,
) -> ChunkSelectionProblem:
    """A problem from what a user has.

    Args:
        query: the question.
        chunks: texts, `Chunk`s, or mappings; see `chunk.make_chunks`.
        budget: tokens.
        tokenizer: number of tokens of a text, for chunks without a count.
        query_embedding: f64[d] by the model of the chunks' embeddings.
        model: the learned value; the one of the package if None.
        all_weight, cost_weight: see `ChunkSelectionProblem`.
        features: of the same query and chunks, where they are known already.

    Raises:
        InputError: a bad query, bad chunks, a budget that is not positive or that no chunk is
            within, a weight that is negative or not finite.
    """
    if not isinstance(query, str) or not query.strip():
        raise InputError("query: empty; give the question as a text")
    check_budget(budget)
    for name, weight in (("all_weight", all_weight), ("cost_weight", cost_weight)):
        if not (np.isfinite(weight) and weight >= 0):
            raise InputError(f"{name} {weight}: expected a number that is not negative")
    made = make_chunks(chunks, tokenizer)
    tokens = np.array([chunk.n_tokens for chunk in made], dtype=np.int64)
    if int(tokens.min()) > budget:
        raise InputError(
            f"budget {budget}: every chunk is larger (the smallest has {int(tokens.min())} tokens);"
            " raise the budget or cut smaller chunks"
        )
    known = features or make_features(query, made, query_embedding)
    found = (model or default_model()).hypotheses(known)
    return ChunkSelectionProblem(
        query=query,
        chunks=made,
        budget=int(budget),
        tokens=tokens,
        members=found.members,
        probability=found.probability,
        complete=found.complete,
        recall=found.recall,
        overlap=np.where(known.overlap >= LEAST_OVERLAP, known.overlap, 0.0),
        all_weight=float(all_weight),
        cost_weight=float(cost_weight),
        features=known,
    )


def check_budget(budget: int) -> None:
    """Does nothing for a number of tokens.

    Raises:
        InputError: it is none.
    """
    if not is_count(budget, 1):
        raise InputError(f"budget {budget!r}: expected a positive number of tokens")


def from_jsonl(
    query: str, path: Path, budget: int, *, tokenizer: CountTokens | None = None
) -> ChunkSelectionProblem:
    """A problem whose chunks are lines of a file, each with at least `id` and `text`.

    Raises:
        InputError: as `make_problem` and `chunk.read_jsonl`.
    """
    return make_problem(query, read_jsonl(path, tokenizer), budget)


def ranked(scores: Sequence[float] | Floats) -> list[int]:
    """Indices, best score first; equal ones in their order."""
    return [int(i) for i in np.argsort(-np.asarray(scores), kind="stable")]
