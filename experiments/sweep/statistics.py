"""Gaps, paired comparisons and profiles of a sweep's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.sweep.results import Row

RESAMPLES = 2000
CONFIDENCE = 0.95
SAME = 1e-9  # difference of gaps that counts as a tie
LARGEST_GAP = 10.0  # a larger one, or any above an objective of 0, counts as that

Floats = npt.NDArray[np.float64]
Gaps = Mapping[tuple[str, int], float]  # by (instance in words, seed)


@dataclass(frozen=True)
class Paired:
    """One solver against another, on the instances and seeds that both were run on.

    Attributes:
        instances: that both were run on.
        wins, ties, losses: cells.
        low, high: interval of the mean difference of gaps, negative where the solver is better.
    """

    instances: int
    wins: int
    ties: int
    losses: int
    low: float
    high: float


def gap_to(objective: float, reference: float) -> float:
    """Relative distance of an objective from a reference, LARGEST_GAP at most."""
    if objective <= reference:
        return 0.0 if reference <= 0 else objective / reference - 1
    if reference <= 0:
        return LARGEST_GAP
    return min(objective / reference - 1, LARGEST_GAP)


def gaps_of(rows: Sequence[Row], solver: str, known: Mapping[str, float]) -> Gaps:
    """Gaps of a solver's cells; a cell that failed has LARGEST_GAP."""
    return {
        (row["title"], row["seed"]): LARGEST_GAP
        if row["objective"] is None
        else gap_to(row["objective"], known[row["title"]])
        for row in rows
        if row["solver"] == solver and row["title"] in known
    }


def compare(own: Gaps, other: Gaps) -> Paired | None:
    """Compares gaps cell by cell; None where no cell is in both.

    The interval is the percentile bootstrap over instances, each with all of its seeds: seeds of
    one instance are no independent evidence.
    """
    pairs: dict[str, list[float]] = {}
    for (title, seed), gap in own.items():
        if (title, seed) in other:
            pairs.setdefault(title, []).append(gap - other[title, seed])
    if not pairs:
        return None
    every = np.concatenate([np.array(each) for each in pairs.values()])
    low, high = bootstrap(np.array([np.mean(each) for each in pairs.values()]))
    wins, losses = int((every < -SAME).sum()), int((every > SAME).sum())
    return Paired(len(pairs), wins, len(every) - wins - losses, losses, low, high)


def bootstrap(values: Floats) -> tuple[float, float]:
    """Percentile interval of the mean, with a fixed seed."""
    random = np.random.default_rng(0)
    means = random.choice(values, (RESAMPLES, len(values))).mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def profile(gaps: Gaps, ratios: Floats) -> Floats:
    """Share of a solver's cells within each ratio of the reference (Dolan and Moré, 2002)."""
    values = np.sort([1 + gap for gap in gaps.values()])
    share: Floats = np.searchsorted(values, ratios + SAME, side="right") / len(values)
    return share


def anytime(
    rows: Sequence[Row], known: Mapping[str, float], times: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(mean gap of some cells at each time, whether all of them have a solution by then)."""
    table = np.full((len(rows), len(times)), np.nan)
    for number, row in enumerate(rows):
        curve = json.loads(row["curve"]) or [[row["wall_s"], row["objective"]]]
        gaps = np.array([gap_to(value, known[row["title"]]) for _, value in curve])
        at = np.searchsorted([seconds for seconds, _ in curve], times, side="right") - 1
        table[number] = np.where(at >= 0, gaps[np.maximum(at, 0)], np.nan)
    return table.mean(axis=0), ~np.isnan(table).any(axis=0)
