"""Chunk selection: is what the value expects of a selection what the selection holds?

    python -m experiments.bench_chunk_calibration NAME=PATH[+PATH...][:CUT]@BUDGETS ...

For the selection of `select`, by values that have not seen the question (cross-fitted) or anything
of its data set (zero-shot): the probability that it holds all of the evidence and the share of the
evidence that it is expected to hold, against what it holds; with all candidates, with the
retriever's best alone, and with texts alone.

The calibration error is that of the probability, over `BINS` bins of equal width, weighted by their
questions (Guo et al. 2017). Few questions have some by chance: beside it is what is to be expected
of a value that is right about every probability. Skill is the Brier score against that of always
saying the mean: 1 is perfect, 0 is no use. Of several trainings each figure is the mean.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from compiler_rl.select import find
from experiments.bench_chunk_selection import Bench, measure_trainings, problem_of
from experiments.chunk_evaluation import measured
from experiments.common import Cell, Results, markdown_table, run
from experiments.retrieval_pools import TOP, Pool
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import worth

Floats = npt.NDArray[np.float64]

NAME = "chunk_calibration"
BINS = 10
VALUES = ("cross-fitted", "zero-shot")
ALL = "all"  # the sets together


def texts_of(pool: Pool) -> Pool:
    """Without embeddings and scores."""
    plain = tuple(replace(chunk, embedding=None, score=None) for chunk in pool.chunks)
    return replace(pool, chunks=plain, query_embedding=None)


GIVEN: dict[str, Callable[[Pool], Pool]] = {
    f"{TOP}": lambda pool: pool,
    "10": lambda pool: pool.best(10),
    "4": lambda pool: pool.best(4),
    f"{TOP}, texts": texts_of,
    "4, texts": lambda pool: texts_of(pool.best(4)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    measure_trainings(__doc__, NAME, _measure, report, arguments)


def _measure(bench: Bench, config: Cell) -> Cell:
    """For each kind of value and of candidates, what `tally` keeps of the questions."""
    name, seed = config["set"], config["seed"]
    away = bench.model(bench.family(name), seed)
    found: dict[str, dict[str, list[Measured]]] = {
        value: {given: [] for given in GIVEN} for value in VALUES
    }
    for whole, part in zip(bench.pools(name), bench.fold(name).tolist(), strict=True):
        for given, restrict in GIVEN.items():
            pool = restrict(whole)
            if min(chunk.n_tokens or 0 for chunk in pool.chunks) > config["budget"]:
                continue
            own = problem_of(pool, config["budget"], bench.model(part, seed))
            other = problem_of(pool, config["budget"], away, features=own.features)
            for value, problem in zip(VALUES, (own, other), strict=True):
                found[value][given].append(_selected(pool, problem))
    return {
        value: {given: tally(rows) for given, rows in kinds.items()}
        for value, kinds in found.items()
    }


class Measured(NamedTuple):
    """Of a selection: the probability of all of the evidence, whether it is there, expected recall,
    recall.
    """

    chance: float
    there: float
    expected: float
    recall: float


def _selected(pool: Pool, problem: ChunkSelectionProblem) -> Measured:
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
    """Figures of the questions of some tallies; errors as in the module's text."""

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


def table(results: Results) -> str:
    """A row for each value, set and kind of candidates, and those of all sets together."""
    return _table(results, [*_names(results), ALL])


def short_table(results: Results) -> str:
    """The README's rows: all sets together."""
    return _table(results, [ALL])


def _names(results: Results) -> list[str]:
    return list(dict.fromkeys(_name(cell) for cell in results.cells))


def _name(cell: Cell) -> str:
    return f"{cell['config']['set']} @{cell['config']['budget']}"


def _table(results: Results, names: Iterable[str]) -> str:
    seeds = sorted({cell["config"]["seed"] for cell in results.cells})
    rows = []
    for name in names:
        for value in VALUES:
            for given in GIVEN:
                trained = [
                    calibration(
                        [
                            cell["result"][value][given]
                            for cell in results.cells
                            if cell["config"]["seed"] == seed and name in (ALL, _name(cell))
                        ]
                    )
                    for seed in seeds
                ]
                mean = Calibration(*np.mean(trained, axis=0))
                rows.append(
                    [
                        name,
                        value,
                        given,
                        f"{mean.expected:.2f} / {mean.recall:.2f}",
                        f"{mean.chance:.2f} / {mean.there:.2f}",
                        f"{mean.error:.3f}",
                        f"{mean.by_chance:.3f}",
                        f"{mean.skill:.2f}",
                    ]
                )
    header = [
        *("set", "value", "candidates", "recall, expected / true", "all, expected / true"),
        *("calibration error", "by chance", "skill"),
    ]
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """The table under a heading."""
    return "\n\n".join(["# What the value expects, and what is there", table(results)])


if __name__ == "__main__":
    sys.exit(run(main))
