"""Candidate pools of question sets: what a retriever hands to selection, with its features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compiler_rl.retrieval import Encoder, MiniLM, Retriever
from experiments.pseudo_questions import pseudo_questions
from experiments.retrieval_sets import (
    Cut,
    Passage,
    Question,
    QuestionSet,
    load,
    merge,
    sentences,
    windows,
)
from games.chunk_selection.chunk import Chunk, count_tokens
from games.chunk_selection.features import Features, make_features
from games.chunk_selection.problem import ChunkSelectionProblem, make_problem
from games.chunk_selection.value import EvidenceModel
from hlo_frontend.errors import InputError

TOP = 60  # candidates, as in CORAG
_SHARE = re.compile(r"0?\.\d+")


@dataclass(frozen=True)
class Pool:
    """A question and its candidates, in the retriever's order: passages and chunks, [N] each.

    `steps` are the pools of the simple questions that it is made of, where they were asked for.
    """

    question: Question
    passages: tuple[Passage, ...]
    chunks: tuple[Chunk, ...]
    query_embedding: npt.NDArray[np.float64] | None
    steps: tuple[Pool, ...] = ()

    @cached_property
    def features(self) -> Features:
        """With the embeddings."""
        return make_features(self.question.text, self.chunks, self.query_embedding)

    @cached_property
    def text_features(self) -> Features:
        """Of texts alone, without embeddings and scores."""
        plain = [replace(chunk, embedding=None, score=None) for chunk in self.chunks]
        return make_features(self.question.text, plain)

    def fits(self, budget: int) -> bool:
        """Some candidate is within the budget."""
        return min(chunk.n_tokens or 0 for chunk in self.chunks) <= budget

    def problem(
        self,
        budget: int,
        model: EvidenceModel | None = None,
        *,
        cost_weight: float = 0.0,
        features: Features | None = None,
    ) -> ChunkSelectionProblem:
        """The question under a budget, with that value; features are read anew if not given."""
        return make_problem(
            self.question.text,
            self.chunks,
            budget,
            query_embedding=self.query_embedding,
            model=model,
            cost_weight=cost_weight,
            features=features,
        )

    def untitled(self) -> Pool:
        """With texts that have lost their titles."""
        chunks = tuple(
            replace(chunk, title="", text=passage.text)
            for chunk, passage in zip(self.chunks, self.passages, strict=True)
        )
        return replace(self, chunks=chunks)

    def only(self, places: npt.NDArray[np.int64]) -> Pool:
        """With these of the candidates."""
        return Pool(
            self.question,
            tuple(self.passages[i] for i in places),
            tuple(self.chunks[i] for i in places),
            self.query_embedding,
        )

    def best(self, count: int) -> Pool:
        """With the first candidates alone."""
        return self.only(np.arange(min(count, len(self.chunks))))


def load_pools(
    name: str, encoder: Encoder | None = None, *, top: int = TOP, steps: bool = False
) -> list[Pool]:
    """The pools of the set of that name, see `load_sets`; with `steps` of its simple questions too.

    Raises:
        InputError: no such set, or packages of retrieval are missing.
    """
    given = encoder or MiniLM()
    questions = load_sets(name, given)
    pools = pools_of(questions, given, top=top)
    if not steps:
        return pools
    simple = tuple(step for question in questions.questions for step in question.steps)
    found = iter(pools_of(replace(questions, questions=simple), given, top=top) if simple else ())
    return [replace(each, steps=tuple(islice(found, len(each.question.steps)))) for each in pools]


def load_pseudo_pools(name: str, encoder: Encoder | None = None) -> list[Pool]:
    """The pools of the pseudo-questions of that set's corpus.

    Raises:
        InputError: as `load_pools`.
    """
    given = encoder or MiniLM()
    made = pseudo_questions(load_sets(name, given), given)
    return pools_of(made, given) if made.questions else []


def family_of(name: str) -> str:
    """The data set of a name for `load_sets`: its first path, however its documents are cut."""
    return name.partition(":")[0].partition("+")[0]


def load_sets(name: str, encoder: Encoder) -> QuestionSet:
    """The question set `PATH[+PATH...][:CUT]`; several are one set of all their questions.

    CUT says how documents become chunks: `128/64` are windows of 128 word pieces of the encoder, a
    new one every 64; `0.5` are whole sentences of which half is repeated by the next chunk.

    Raises:
        InputError: another form of name, or no such set.
    """
    paths, _, text = name.partition(":")
    sets = [load(Path(path), cut=_cut(text, encoder)) for path in paths.split("+")]
    return sets[0] if len(sets) == 1 else merge(paths, sets)


def _cut(text: str, encoder: Encoder) -> Cut:
    if not text:
        return sentences
    size, slash, step = text.partition("/")
    if slash and size.isdecimal() and step.isdecimal() and 0 < int(step) <= int(size):
        return lambda document: windows(encoder.pieces(document), int(size), int(step))
    if _SHARE.fullmatch(text):
        return partial(sentences, overlap=float(text))
    raise InputError(f"{text}: expected SIZE/STEP in word pieces, or an overlap such as 0.5")


def pools_of(questions: QuestionSet, encoder: Encoder | None, *, top: int = TOP) -> list[Pool]:
    """The candidates of each question by hybrid retrieval; BM25 alone without an encoder."""
    texts = questions.texts
    retriever = Retriever(texts, encoder)
    asked = None if encoder is None else encoder.encode([q.text for q in questions.questions])
    count = count_tokens if encoder is None else encoder.count_tokens
    tokens: dict[int, int] = {}
    pools = []
    for row, question in enumerate(questions.questions):
        embedding = None if asked is None else asked[row]
        best, fused = retriever.candidates(question.text, top, embedding)
        chunks = []
        for index, score in zip(best.tolist(), fused.tolist(), strict=True):
            if index not in tokens:
                tokens[index] = max(count(texts[index]), 1)
            chunks.append(
                Chunk(
                    id=str(index),
                    text=texts[index],
                    n_tokens=tokens[index],
                    score=score,
                    embedding=None if retriever.embeddings is None else retriever.embeddings[index],
                    title=questions.passages[index].title,
                )
            )
        passages = tuple(questions.passages[index] for index in best.tolist())
        pools.append(Pool(question, passages, tuple(chunks), embedding))
    return pools


def subset(pools: Sequence[Pool], which: npt.NDArray[np.bool_]) -> list[Pool]:
    """Those pools."""
    return [pool for pool, wanted in zip(pools, which, strict=True) if wanted]
