"""The adapters, against the real packages where they are installed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from games.chunk_selection.value import EvidenceModel, default_model
from hlo_frontend.errors import InputError

QUERY = "Which river flows through the city where Ada Lindqvist was born?"
TEXTS = [
    "Ada Lindqvist (1871-1940) was a painter born in Torsby.",
    "Torsby is a town in the north. The river Klar flows through Torsby.",
    "Painting is an art with colours on canvas, known since antiquity.",
    "A river is a natural stream of water that flows towards a sea or a lake.",
]
TITLES = ["Ada Lindqvist", "Torsby", "Painting", "River"]


class Letters:
    """Embeddings of letter counts: enough to see that they are used."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts):
        return [[float(text.count(letter)) for letter in "aeiourtsn"] for text in texts]

    def embed_query(self, text):
        self.asked.append(text)
        return self.embed_documents([text])[0]


def doubtful() -> EvidenceModel:
    """A value that takes it for likely that there is no evidence."""
    given = default_model()
    size = given.size.copy()
    size[:, 0, 0] += 20.0
    return replace(given, size=size)


@pytest.fixture
def langchain():
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    from compiler_rl.adapters import langchain  # noqa: PLC0415

    return langchain


def documents():
    from langchain_core.documents import Document  # noqa: PLC0415

    return [
        Document(page_content=text, metadata={"title": title, "n": n})
        for n, (text, title) in enumerate(zip(TEXTS, TITLES, strict=True))
    ]


def test_langchain_compressor(langchain):
    from langchain_core.documents import BaseDocumentCompressor  # noqa: PLC0415

    compressor = langchain.ChunkSelectionCompressor(budget=30)
    assert isinstance(compressor, BaseDocumentCompressor)
    given = documents()
    found = compressor.compress_documents(given, QUERY)
    assert found
    assert all(document.page_content == TEXTS[document.metadata["n"]] for document in found)
    assert sum(document.metadata["selection"]["n_tokens"] for document in found) <= 30
    assert all("selection" not in document.metadata for document in given)
    assert compressor.compress_documents([], QUERY) == []

    compressor = langchain.ChunkSelectionCompressor(budget=30, model=doubtful())
    doubted = compressor.compress_documents(given, QUERY)
    assert all(document.metadata["selection"]["probability"] < 0.01 for document in doubted)


def test_langchain_embeddings_tokenizer_and_reranker(langchain):
    from langchain_core.embeddings import Embeddings  # noqa: PLC0415

    class Fake(Letters, Embeddings):
        pass

    embeddings = Fake()
    compressor = langchain.ChunkSelectionCompressor(
        budget=2,
        tokenizer=lambda text: 1,
        embeddings=embeddings,
        reranker=lambda query, chunks: -sum(int(chunk.id) for chunk in chunks) + 9 * len(chunks),
    )
    found = compressor.compress_documents(documents(), QUERY)
    assert {document.metadata["n"] for document in found} == {0, 1}
    assert embeddings.asked == [QUERY]

    dear = langchain.ChunkSelectionCompressor(
        budget=30, reranker=lambda query, chunks: 1 / 0, evaluation_price=100.0
    )
    plain = langchain.ChunkSelectionCompressor(budget=30)
    assert dear.compress_documents(documents(), QUERY) == plain.compress_documents(
        documents(), QUERY
    )


def test_langchain_runnable(langchain):
    step = langchain.runnable(langchain.ChunkSelectionCompressor(budget=30))
    found = step.invoke({"query": QUERY, "documents": documents()})
    assert found
    assert len(step.batch([{"query": QUERY, "documents": documents()}] * 2)) == 2


@pytest.fixture
def llama():
    pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    from compiler_rl.adapters import llama_index  # noqa: PLC0415

    return llama_index


def nodes(embedded=False):
    from llama_index.core.schema import NodeWithScore, TextNode  # noqa: PLC0415

    vectors = Letters().embed_documents(TEXTS)
    return [
        NodeWithScore(
            node=TextNode(
                text=text,
                metadata={"title": title},
                embedding=vectors[n] if embedded else None,
            ),
            score=1.0 - 0.1 * n,
        )
        for n, (text, title) in enumerate(zip(TEXTS, TITLES, strict=True))
    ]


@pytest.mark.parametrize("embedded", [False, True])
def test_llama_index_postprocessor(llama, embedded):
    from llama_index.core.schema import QueryBundle  # noqa: PLC0415

    postprocessor = llama.ChunkSelectionPostprocessor(budget=30)
    vector = Letters().embed_query(QUERY) if embedded else None
    bundle = QueryBundle(QUERY, embedding=vector)
    given = nodes(embedded)
    found = postprocessor.postprocess_nodes(given, query_bundle=bundle)
    assert found
    assert {node.node.node_id for node in found} <= {node.node.node_id for node in given}
    assert all(0 <= node.score <= 1 for node in found)
    dear = llama.ChunkSelectionPostprocessor(
        budget=30, reranker=lambda query, chunks: 1 / 0, evaluation_price=100.0
    )
    assert dear.postprocess_nodes(given, query_bundle=bundle) == found
    doubting = llama.ChunkSelectionPostprocessor(budget=30, model=doubtful())
    assert all(node.score < 0.01 for node in doubting.postprocess_nodes(given, query_bundle=bundle))
    assert postprocessor.postprocess_nodes([], query_bundle=bundle) == []
    assert postprocessor.postprocess_nodes(given, query_str=QUERY)
    with pytest.raises(InputError, match="no query"):
        postprocessor.postprocess_nodes(given)
