"""Chunk selection in LangChain: a document compressor, and a runnable for chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import ConfigDict

from baselines.chunk_selection.configuration import EVALUATION_PRICE
from compiler_rl.select import select
from games.chunk_selection.chunk import Chunk
from games.chunk_selection.problem import ALL_WEIGHT


class ChunkSelectionCompressor(BaseDocumentCompressor):
    """Keeps the documents that answer the query within a budget of tokens, in reading order.

    Attributes:
        budget: tokens.
        tokenizer: number of tokens of a text; words and signs if None.
        embeddings: embeds query and documents; texts alone are looked at if None.
        reranker: judges whole contexts, `(query, chunks) -> float`; the learned value if None.
        evaluations: cap on contexts that the reranker sees; by the configuration agent if None.
        evaluation_price, position_weights, all_weight, cost_weight, model: see
            `compiler_rl.select.select`.
        score_key: metadata that holds the retriever's score, where documents have it.
    """

    budget: int
    tokenizer: Callable[[str], int] | None = None
    embeddings: Embeddings | None = None
    reranker: Any = None
    evaluations: int | None = None
    evaluation_price: float = EVALUATION_PRICE
    position_weights: list[float] | None = None
    all_weight: float = ALL_WEIGHT
    cost_weight: float | None = 0.0
    model: Any = None
    score_key: str = "score"

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The chosen documents in order; `metadata["selection"]` says why each was taken."""
        del callbacks
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        vectors = asked = None
        if self.embeddings is not None:
            vectors = self.embeddings.embed_documents(texts)
            asked = self.embeddings.embed_query(query)
        chunks = []
        for place, document in enumerate(documents):
            score = document.metadata.get(self.score_key)
            chunks.append(
                Chunk(
                    id=str(place),
                    text=document.page_content,
                    score=float(score) if isinstance(score, int | float) else None,
                    # `make_chunks` turns it into an array, and checks it.
                    embedding=None if vectors is None else vectors[place],  # type: ignore[arg-type]
                    title=_text(document.metadata.get("title")),
                )
            )
        found = select(
            query,
            chunks,
            self.budget,
            tokenizer=self.tokenizer,
            query_embedding=asked,
            reranker=self.reranker,
            evaluations=self.evaluations,
            evaluation_price=self.evaluation_price,
            position_weights=self.position_weights,
            all_weight=self.all_weight,
            cost_weight=self.cost_weight,
            model=self.model,
        )
        result = []
        for chunk, reason in zip(found.chunks, found.trace.taken, strict=True):
            document = documents[int(chunk.id)]
            metadata = {**document.metadata, "selection": reason.to_json()}
            result.append(document.model_copy(update={"metadata": metadata}))
        return result


def runnable(compressor: ChunkSelectionCompressor) -> Runnable[dict[str, Any], list[Document]]:
    """A step of a chain: `{"query": ..., "documents": [...]}` in, the chosen documents out."""

    def step(given: dict[str, Any]) -> list[Document]:
        return list(compressor.compress_documents(given["documents"], given["query"]))

    return RunnableLambda(step)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
