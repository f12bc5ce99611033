"""The regression check: a new run against an old one, cell by cell, by ratios.

Seconds are of a machine, objectives less so: a solver has become worse on an instance if its mean
objective at the same limit is larger by more than a tolerance, or if it failed where it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean, mean

from experiments.sweep.results import Row
from hlo_frontend.errors import InputError

Cell = tuple[str, str, str, float]  # game, instance in words, solver, seconds
TINY = 1e-12  # added to both sides of a ratio: objectives may be 0


@dataclass(frozen=True)
class Change:
    """One solver on one instance at one limit, over the seeds that both runs have.

    Attributes:
        cell: what.
        ratio: new mean objective by old; None if it failed in the new run.
        seconds: new mean seconds by old, likewise.
    """

    cell: Cell
    ratio: float | None
    seconds: float | None


def changes(new: Sequence[Row], old: Sequence[Row]) -> list[Change]:
    """What both runs have, and the old one solved.

    Raises:
        InputError: they have nothing in common.
    """
    before, after = _by_cell(old), _by_cell(new)
    found = []
    for cell, was in before.items():
        seeds = [seed for seed in was if seed in after.get(cell, {}) and was[seed]["error"] is None]
        pairs = [(after[cell][seed], was[seed]) for seed in seeds]
        if not pairs:
            continue
        if any(now["error"] is not None for now, _ in pairs):
            found.append(Change(cell, None, None))
            continue
        objective, seconds = (
            (mean(now[key] for now, _ in pairs) + TINY)
            / (mean(then[key] for _, then in pairs) + TINY)
            for key in ("objective", "wall_s")
        )
        found.append(Change(cell, objective, seconds))
    if not found:
        raise InputError("the two runs have no cell in common; run the same suite")
    return found


def summary(found: Sequence[Change]) -> list[list[str]]:
    """Game, solver, limit, geometric means of both ratios, number of instances; as text."""
    groups: dict[tuple[str, str, float], list[Change]] = {}
    for change in found:
        game, _, solver, limit = change.cell
        groups.setdefault((game, solver, limit), []).append(change)
    return [
        [
            game,
            solver,
            f"{limit:g} s",
            _mean([change.ratio for change in own]),
            _mean([change.seconds for change in own]),
            str(len(own)),
        ]
        for (game, solver, limit), own in sorted(groups.items())
    ]


def worse(found: Sequence[Change], tolerance: float) -> list[Change]:
    """What failed, or is worse by more than the tolerance (relative), the worst first."""
    bad = [change for change in found if change.ratio is None or change.ratio > 1 + tolerance]
    return sorted(bad, key=lambda change: -(change.ratio or float("inf")))


def _mean(ratios: Sequence[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None and ratio > 0]
    return f"{geometric_mean(known):.4f}" if known else "-"


def _by_cell(rows: Sequence[Row]) -> dict[Cell, dict[int, Row]]:
    cells: dict[Cell, dict[int, Row]] = {}
    for row in rows:
        cell = (row["game"], row["title"], row["solver"], row["time_limit"])
        cells.setdefault(cell, {})[row["seed"]] = row
    return cells
