"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from pathlib import Path

from games.chunk_selection.problem import ChunkSelectionProblem, from_jsonl


def read_instance(chunks: str, *, query: str, budget: int) -> ChunkSelectionProblem:
    """A question, and its candidate chunks as JSON lines."""
    return from_jsonl(query, Path(chunks), budget)
