"""Is what the value expects of a selection what the selection holds, and a value that knows better.

The calibration error is that of the probability of all of the evidence, over `BINS` bins of equal
width, weighted by their questions (Guo et al. 2017). Few questions have some by chance: beside it
is what is to be expected of a value that is right about every probability. Skill is the Brier score
against that of always saying the mean: 1 is perfect, 0 is no use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from compiler_rl.select import find
from experiments.chunk_evaluation import drawn_pools, measured
from experiments.common import Cell
from experiments.evidence_examples import Example
from experiments.evidence_levels import calibrated, sharpened
from experiments.retrieval_pools import Pool
from experiments.retrieval_sets import folds
from experiments.train_chunk_selection import example_of, fewer
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import worth
from games.chunk_selection.value import EvidenceModel, default_model
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]

BINS = 10
FEWEST_QUESTIONS = 10
FOLDS = 3
# By how much a value's scores may have to be flattened, chosen by the probabilities of selections
# for at most so many questions; of the squared logarithm, divided by the number of questions.
FACTORS, CHECKED, FLATTENED = (0.4, 0.6, 0.8, 1.0), 100, 0.5
LEAST_CHANCE = 1e-3  # in the logarithms of the loss


@dataclass(frozen=True)
class Calibrated:
    """A value that was calibrated on the questions of a set.

    `before` is of the value that there was, `after` of values calibrated without the question that
    they are measured on, `model` of all questions.
    """

    name: str
    questions: int
    model: EvidenceModel
    before: Calibration
    after: Calibration


def calibrate_set(
    path: Path,
    budget: int,
    *,
    queries: int | None = None,
    dense: bool = True,
    seed: int = 0,
    model: EvidenceModel | None = None,
) -> Calibrated:
    """Calibrates a value on the questions of a set, and says what that brings.

    Args:
        path: what `retrieval_sets.load` reads.
        budget: tokens of the selections.
        queries: only so many questions, drawn at random.
        dense: sentence embeddings, where their package is there.
        seed: of the draws.
        model: the learned value to begin with; the package's if None.

    Raises:
        InputError: no such set, too few questions, or a budget that no chunk is within.
    """
    name, pools = drawn_pools(path, queries=queries, dense=dense, seed=seed)
    if len(pools) < FEWEST_QUESTIONS:
        raise InputError(f"{path}: {len(pools)} questions, expected at least {FEWEST_QUESTIONS}")
    if not any(pool.fits(budget) for pool in pools):
        raise InputError(f"budget {budget}: smaller than every candidate of every question")
    given = model or default_model()
    taught = lessons(pools, seed)
    part = folds(len(pools), FOLDS, seed)
    without = [
        calibrate(
            given, [each for each, own in zip(taught, part, strict=True) if own != fold], budget
        )
        for fold in range(FOLDS)
    ]
    before: list[Measured] = []
    after: list[Measured] = []
    for pool, fold in zip(pools, part, strict=True):
        if not pool.fits(budget):
            continue
        for rows, value in ((before, given), (after, without[fold])):
            rows.append(selected(pool, pool.problem(budget, value, features=pool.features)))
    return Calibrated(
        name=name,
        questions=len(pools),
        model=calibrate(given, taught, budget),
        before=calibration([tally(before)]),
        after=calibration([tally(after)]),
    )


@dataclass(frozen=True)
class Lesson:
    """A question with all of its candidates, and with the best few; its examples."""

    pools: tuple[Pool, ...]
    examples: tuple[Example, ...]


def lessons(pools: Sequence[Pool], seed: int) -> list[Lesson]:
    """Of each question."""
    draw = np.random.default_rng(seed)
    taught = []
    for pool in pools:
        few = [fewer(pool, draw) for _ in range(3)]
        examples = [example_of(each, texts=False) for each in (pool, *few[:2])]
        taught.append(Lesson((pool, few[0]), (*examples, example_of(few[2], texts=True))))
    return taught


def calibrate(model: EvidenceModel, taught: Sequence[Lesson], budget: int) -> EvidenceModel:
    """The model with its levels moved to what these questions show, and as flat as they want it."""
    examples = [example for lesson in taught for example in lesson.examples]

    def tried(factor: float) -> tuple[float, EvidenceModel]:
        value = calibrated(sharpened(model, factor), examples, len(taught))
        found = [
            selected(pool, pool.problem(budget, value, features=pool.features))
            for lesson in taught[:CHECKED]
            for pool in lesson.pools
            if pool.fits(budget)
        ]
        losses = [
            -math.log(max(row.chance if row.there else 1.0 - row.chance, LEAST_CHANCE))
            for row in found
        ]
        change = FLATTENED * math.log(factor) ** 2 / len(taught)
        return float(np.mean(losses or 0.0)) + change, value

    return min((tried(factor) for factor in FACTORS), key=lambda each: each[0])[1]


class Measured(NamedTuple):
    """Of a selection: the probability of all of the evidence, whether it is there, expected recall,
    recall.
    """

    chance: float
    there: float
    expected: float
    recall: float


def selected(pool: Pool, problem: ChunkSelectionProblem) -> Measured:
    """What `select` chooses, measured."""
    result = find(problem)
    held = measured(pool, problem, lambda _: result)
    value = worth(problem, result.solution.order)
    return Measured(value.all_found, held["all_gold"], value.recall, held["recall"])


def tally(rows: Sequence[Measured]) -> Cell:
    """Sums over questions, of each bin of probabilities or of all; those of two sets add up."""
    chance, there, expected, recall = np.array(rows, dtype=np.float64).T
    bins = np.minimum((chance * BINS).astype(np.int64), BINS - 1)

    def each(values: Floats) -> list[float]:
        return np.bincount(bins, values, minlength=BINS).round(4).tolist()

    return {
        "questions": len(rows),
        "expected": float(expected.sum()),
        "recall": float(recall.sum()),
        "missed": float(((chance - there) ** 2).sum()),
        "chance": each(chance),
        "there": each(there),
        "spread": each(chance * (1.0 - chance)),
    }


class Calibration(NamedTuple):
    """Figures of the questions of some tallies; see the module's text."""

    expected: float
    recall: float
    chance: float
    there: float
    error: float
    by_chance: float
    skill: float


def calibration(tallies: Sequence[Cell]) -> Calibration:
    """Of tallies of different questions."""

    def total(name: str) -> Floats:
        return np.sum([each[name] for each in tallies], axis=0, dtype=np.float64)

    questions = float(total("questions"))
    chance, there = total("chance"), total("there")
    mean = float(there.sum()) / questions
    always = questions * mean * (1.0 - mean)
    return Calibration(
        expected=float(total("expected")) / questions,
        recall=float(total("recall")) / questions,
        chance=float(chance.sum()) / questions,
        there=mean,
        error=float(np.abs(chance - there).sum()) / questions,
        # The mean distance of a normal variable from its mean.
        by_chance=float(np.sqrt(2.0 / math.pi * total("spread")).sum()) / questions,
        skill=1.0 - float(total("missed")) / always if always > 0 else 0.0,
    )
