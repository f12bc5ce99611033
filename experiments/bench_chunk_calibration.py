"""Chunk selection: is what the value expects of a selection what the selection holds?

    python -m experiments.bench_chunk_calibration NAME=PATH[+PATH...][:CUT]@BUDGETS ...

For the selection of `select`: the probability that it holds all of the evidence and the share of
the evidence that it is expected to hold, against what it holds; with all candidates, with the
retriever's best alone, and with texts alone. By values that have not seen the question
(cross-fitted) or anything of its data set (zero-shot), and by the latter calibrated on QUESTIONS
other questions of the set, as `compiler-rl calibrate` does.

For the errors see `experiments.chunk_calibration`. Of several trainings each figure is the mean.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from experiments.bench_chunk_selection import Bench, measure_trainings
from experiments.chunk_calibration import (
    Calibration,
    Lesson,
    Measured,
    calibrate,
    calibration,
    lessons,
    selected,
    tally,
)
from experiments.common import Cell, Results, markdown_table, run
from experiments.retrieval_pools import TOP, Pool

NAME = "chunk_calibration"
QUESTIONS = 50
VALUES = ("cross-fitted", "zero-shot", "calibrated")
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
    own_lessons, part_of = lessons(bench.pools(name), seed), bench.fold(name)
    others = [_drawn(own_lessons, part_of != fold, seed) for fold in range(part_of.max() + 1)]
    told = [calibrate(away, drawn, config["budget"]) for drawn in others]
    found: dict[str, dict[str, list[Measured]]] = {
        value: {given: [] for given in GIVEN} for value in VALUES
    }
    for whole, part in zip(bench.pools(name), part_of.tolist(), strict=True):
        for given, restrict in GIVEN.items():
            pool = restrict(whole)
            if not pool.fits(config["budget"]):
                continue
            own = pool.problem(config["budget"], bench.model(part, seed))
            make = partial(pool.problem, config["budget"], features=own.features)
            problems = (own, make(away), make(told[part]))
            for value, problem in zip(VALUES, problems, strict=True):
                found[value][given].append(selected(pool, problem))
    return {
        value: {given: tally(rows) for given, rows in kinds.items()}
        for value, kinds in found.items()
    }


def _drawn(taught: Sequence[Lesson], allowed: npt.NDArray[np.bool_], seed: int) -> list[Lesson]:
    """Of so many questions among those that are allowed."""
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(allowed))[:QUESTIONS]
    return [taught[index] for index in drawn]


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
