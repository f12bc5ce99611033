"""Chunk selection in LlamaIndex: a node postprocessor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from baselines.chunk_selection.configuration import EVALUATION_PRICE
from compiler_rl.select import select
from games.chunk_selection.chunk import Chunk
from games.chunk_selection.problem import ALL_WEIGHT
from hlo_frontend.errors import InputError


class ChunkSelectionPostprocessor(BaseNodePostprocessor):
    """Keeps the nodes that answer the query within a budget of tokens, in reading order."""

    budget: int = Field(description="tokens")
    tokenizer: Callable[[str], int] | None = Field(
        default=None, description="number of tokens of a text; words and signs if None"
    )
    reranker: Any = Field(
        default=None, description="judges whole contexts, (query, chunks) -> float"
    )
    evaluations: int | None = Field(
        default=None,
        description="cap on contexts that the reranker sees; by the configuration agent if None",
    )
    evaluation_price: float = Field(
        default=EVALUATION_PRICE,
        description="percent of the evidence that an evaluation has to bring for that agent",
    )
    position_weights: list[float] | None = Field(
        default=None, description="how well each position of the context is read"
    )
    all_weight: float = Field(default=ALL_WEIGHT, description="worth of having all evidence")
    cost_weight: float | None = Field(
        default=0.0, description="price of the whole budget; by the configuration agent if None"
    )
    model: Any = Field(default=None, description="the learned value; the package's if None")

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex serialises it."""
        return "ChunkSelectionPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        """The chosen nodes in order, each with its expected share of the evidence as score."""
        if query_bundle is None:
            raise InputError("postprocess_nodes: no query; pass query_bundle or query_str")
        if not nodes:
            return []
        chunks = []
        for place, node in enumerate(nodes):
            title = node.node.metadata.get("title")
            chunks.append(
                Chunk(
                    id=str(place),
                    text=node.node.get_content(metadata_mode=MetadataMode.NONE),
                    score=node.score,
                    # `make_chunks` turns it into an array, and checks it.
                    embedding=node.node.embedding,  # type: ignore[arg-type]
                    title=title if isinstance(title, str) else "",
                )
            )
        embedded = all(chunk.embedding is not None for chunk in chunks)
        found = select(
            query_bundle.query_str,
            chunks,
            self.budget,
            tokenizer=self.tokenizer,
            query_embedding=query_bundle.embedding if embedded else None,
            reranker=self.reranker,
            evaluations=self.evaluations,
            evaluation_price=self.evaluation_price,
            position_weights=self.position_weights,
            all_weight=self.all_weight,
            cost_weight=self.cost_weight,
            model=self.model,
        )
        return [
            NodeWithScore(node=nodes[int(chunk.id)].node, score=reason.probability)
            for chunk, reason in zip(found.chunks, found.trace.taken, strict=True)
        ]
