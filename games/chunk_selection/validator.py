"""Checks selections on its own: plain Python over the problem's data, nothing of the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection

TOLERANCE = 1e-6


def validate(problem: ChunkSelectionProblem, selection: Selection) -> list[str]:
    """Every broken rule as one line; [] for a valid selection."""
    faults = []
    used = 0
    seen = set()
    for index in selection.order:
        if isinstance(index, bool) or not isinstance(index, int):
            faults.append(f"{index!r} is no index of a candidate")
        elif not 0 <= index < len(problem.chunks):
            faults.append(f"there is no candidate {index}")
        elif index in seen:
            faults.append(f"candidate {index} is chosen twice")
        else:
            seen.add(index)
            used += problem.chunks[index].n_tokens or 0
    if used > problem.budget:
        faults.append(f"{used} tokens, the budget is {problem.budget}")
    return faults


def expected_loss(problem: ChunkSelectionProblem, selection: Selection) -> float:
    """The loss by the definition in `solution.py`, one hypothesis after the other."""
    missing = problem.all_weight + 1.0
    for row, recall, complete in zip(
        problem.members.tolist(), problem.recall.tolist(), problem.complete.tolist(), strict=True
    ):
        shares = []
        for member in row:
            if member < 0:
                continue
            repeated = sum(float(problem.overlap[member][chosen]) for chosen in selection.order)
            shares.append(min(1.0, repeated))
        missing -= recall * sum(shares) / len(shares)
        missing -= problem.all_weight * complete * min(shares)
    used = sum(problem.chunks[chosen].n_tokens or 0 for chosen in selection.order)
    return missing + problem.cost_weight * used / problem.budget


def validate_rows(
    problem: ChunkSelectionProblem, rows: Sequence[Mapping[str, Any]], loss: float
) -> list[str]:
    """Every fault of the lines written for a selection: ids, texts, costs, and the stated loss."""
    places = {chunk.id: place for place, chunk in enumerate(problem.chunks)}
    faults = []
    order = []
    for row in rows:
        place = places.get(row["id"])
        if place is None:
            faults.append(f"there is no candidate {row['id']!r}")
            continue
        order.append(place)
        if row["text"] != problem.chunks[place].text:
            faults.append(f"{row['id']}: another text than the candidate's")
        if row["n_tokens"] != problem.chunks[place].n_tokens:
            faults.append(f"{row['id']}: {row['n_tokens']} tokens, the candidate has another count")
    selection = Selection(tuple(order))
    faults += validate(problem, selection)
    if not faults and abs(expected_loss(problem, selection) - loss) > TOLERANCE:
        faults.append(f"loss {loss}, by the definition {expected_loss(problem, selection)}")
    return faults
