"""Chunk selection on a data set that was left out of training, over several trainings.

    python -m experiments.bench_chunk_transfer NAME=PATH[+PATH...][:CUT]@BUDGETS ... [--seeds 3]

Recall of `select`, or of windows the spans of which a part is there: `in-domain` by a value that
has not seen the question, but others of its data set; `zero-shot` by one that has seen nothing of
its data set. Sets with a common first path are one data set. One training moves a figure by as much
as what is asked here, so that the mean over trainings counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import mean

from compiler_rl.select import find
from experiments.bench_chunk_selection import Bench, measure_trainings
from experiments.chunk_evaluation import measured
from experiments.common import Cell, Results, markdown_table, run

NAME = "chunk_transfer"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    measure_trainings(__doc__, NAME, _measure, report, arguments)


def _measure(bench: Bench, config: Cell) -> Cell:
    """The mean recall of both kinds of values over all questions of a set."""
    name, seed = config["set"], config["seed"]
    key = "touched" if config["cut"] else "recall"
    within, without = [], []
    away = bench.model(bench.family(name), seed)
    for pool, part in zip(bench.pools(name), bench.fold(name).tolist(), strict=True):
        own = pool.problem(config["budget"], bench.model(part, seed))
        other = pool.problem(config["budget"], away, features=own.features)
        within.append(measured(pool, own, find)[key])
        without.append(measured(pool, other, find)[key])
    return {"questions": len(within), "in_domain": mean(within), "zero_shot": mean(without)}


def report(results: Results) -> str:
    """The table under a heading."""
    return "\n\n".join(["# Recall on a data set that was left out of training", table(results)])


def table(results: Results) -> str:
    """A row a set and budget: the mean over trainings, with the least and the largest."""
    rows = []
    columns: dict[str, list[dict[str, float]]] = {}
    for cell in results.cells:
        config = cell["config"]
        columns.setdefault(f"{config['set']} @{config['budget']}", []).append(cell["result"])
    for name, found in columns.items():
        lost = [each["in_domain"] - each["zero_shot"] for each in found]
        rows.append(
            [
                name,
                f"{found[0]['questions']}",
                f"{len(found)}",
                *(
                    f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
                    for values in (
                        [each["in_domain"] for each in found],
                        [each["zero_shot"] for each in found],
                        lost,
                    )
                ),
            ]
        )
    header = ["set", "questions", "trainings", "in-domain", "zero-shot", "lost"]
    return markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(run(main))
