"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from games.chunk_selection import picture
from games.chunk_selection.made_up import question
from games.chunk_selection.problem import ChunkSelectionProblem, from_jsonl, make_problem
from games.chunk_selection.solution import Selection
from hlo_frontend.errors import InputError


def read_instance(
    chunks: str | None = None,
    *,
    query: str | None = None,
    budget: int = 256,
    generated: int | None = None,
) -> ChunkSelectionProblem:
    """A question and its candidate chunks as JSON lines, or a made-up one by its seed.

    Raises:
        InputError: not exactly one of `chunks` with `query`, and `generated`.
    """
    if (chunks is None) == (generated is None) or (chunks is None) != (query is None):
        raise InputError("chunk_selection: expected chunks and query, or generated")
    if generated is not None:
        return make_problem(*question(generated), budget)
    return from_jsonl(str(query), Path(str(chunks)), budget)


def draw_solution(
    instance: Mapping[str, Any],
    problem: ChunkSelectionProblem,
    solution: Selection,
    path: Path,
    *,
    method: str,
) -> None:
    """The picture of a solution of `read_instance(**instance)`."""
    del instance, method
    picture.draw(problem, solution, path, others={})
