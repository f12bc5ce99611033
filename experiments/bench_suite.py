"""Runs a named suite, and makes of it the results that are committed.

    python -m experiments.bench_suite [--suite standard] [--cells FOLDER] [--out FILE]

`standard` needs an idle machine with 2 cores and less than an hour; it goes on where it was cut
off. `compiler-rl compare FOLDER` holds a new run against the committed one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from experiments.common import RESULTS, ROOT, SCHEMA, Results, markdown_table, run
from experiments.sweep import execute, statistics
from experiments.sweep.config import ALL_GAMES, SUITES, read_sweep
from experiments.sweep.report import write_report
from experiments.sweep.results import MACHINE, Row, read_cells
from games.files import replace_file
from hlo_frontend.errors import InputError

NAME = "suite"
CONFIG = ("key", "game", "title", "solver", "time_limit", "seed")
RESULT = ("objective", "bound", "unit", "method", "wall_s", "proved", "error")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the suite's missing cells, then writes the report and the committed form.

    Raises:
        InputError: bad arguments, or a folder that cannot be gone on with.
    """
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--suite", choices=list(SUITES), default="standard")
    options.add_argument("--cells", type=Path, help="folder of the sweep; default: build/SUITE")
    options.add_argument("--out", type=Path, help="results; default: experiments/results/SUITE")
    chosen = options.parse_args(arguments)
    folder = chosen.cells or ROOT / "build" / chosen.suite
    out = chosen.out or RESULTS / f"{chosen.suite}.json"
    folder.parent.mkdir(parents=True, exist_ok=True)

    def show(progress: execute.Progress) -> None:
        print(
            f"{progress.done} of {progress.total} cells, {progress.failed} failed,"
            f" {progress.left_s:,.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    cells = read_sweep(Path(chosen.suite))
    execute.run(cells, folder, resume=True, report=show)
    for line in write_report(folder):
        print(line, file=sys.stderr)
    wanted = {cell.key for cell in cells}
    rows = [row for row in read_cells(folder)[0] if row["key"] in wanted]
    commit_form(rows, out)
    results = Results(out, NAME)
    results.write_report(
        f"# The suite `{chosen.suite}`\n\n{table(results)}\n\n{long_table(results)}"
    )


def commit_form(rows: Sequence[Row], out: Path) -> None:
    """Writes rows as results of a benchmark: what is compared, and where it was measured.

    Raises:
        InputError: rows of more than one machine, or the file cannot be written.
    """
    machines = {json.dumps({name: row[name] for name in MACHINE}) for row in rows}
    if len(machines) != 1:
        raise InputError(f"{out}: cells of {len(machines)} machines; give another --cells")
    data = {
        "schema": SCHEMA,
        "benchmark": NAME,
        "machine": json.loads(machines.pop()),
        "cells": [
            {
                "config": {name: row[name] for name in CONFIG},
                "result": {name: row[name] for name in RESULT},
                "run": {
                    "date": row["date"],
                    "commit": row["commit"],
                    "seconds": row["wall_s"],
                    "load_start": row["load"] or 0.0,
                    "load_end": row["load"] or 0.0,
                },
            }
            for row in sorted(rows, key=lambda row: [row[name] for name in CONFIG[1:]])
        ],
    }
    replace_file(out, (json.dumps(data, indent=1) + "\n").encode())


def table(results: Results) -> str:
    """For each game the mean gap of each solver to the best of the suite, at the longest limit."""
    rows = _rows(results)
    solvers = [name for name in ALL_GAMES if any(row["solver"] == name for row in rows)]
    lines = []
    for game in sorted({row["game"] for row in rows}):
        own, known, bound = _longest(rows, game)
        gaps = {solver: statistics.gaps_of(own, solver, known) for solver in solvers}
        over = mean(statistics.gap_to(known[title], bound[title]) for title in known)
        lines.append(
            [
                game,
                str(len(known)),
                f"{own[0]['time_limit']:g}",
                *(f"{mean(gap.values()):.2%}" if gap else "-" for gap in gaps.values()),
                f"{over:.2%}",
            ]
        )
    return markdown_table(["game", "instances", "s", *solvers, "best over bound"], lines)


def long_table(results: Results) -> str:
    """Every instance: the mean objective of each solver at the longest limit, best and bound."""
    rows = _rows(results)
    solvers = [name for name in ALL_GAMES if any(row["solver"] == name for row in rows)]
    lines = []
    for game in sorted({row["game"] for row in rows}):
        own, known, bound = _longest(rows, game)
        for title in known:
            cells = []
            for solver in solvers:
                values = [
                    row["objective"]
                    for row in own
                    if (row["title"], row["solver"]) == (title, solver)
                    and row["objective"] is not None
                ]
                cells.append(f"{mean(values):.6g}" if values else "-")
            lines.append([f"{game}: {title}", *cells, f"{known[title]:.6g}", f"{bound[title]:.6g}"])
    return markdown_table(["instance", *solvers, "best", "bound"], lines)


def _rows(results: Results) -> list[Row]:
    return [cell["config"] | cell["result"] for cell in results.cells]


def _longest(rows: list[Row], game: str) -> tuple[list[Row], dict[str, float], dict[str, float]]:
    """(cells at the longest limit, best objective and best bound of each instance) of a game."""
    own = [row for row in rows if row["game"] == game]
    known: dict[str, float] = {}
    bound: dict[str, float] = {}
    for row in own:
        if row["objective"] is not None:
            known[row["title"]] = min(known.get(row["title"], np.inf), row["objective"])
            bound[row["title"]] = max(bound.get(row["title"], -np.inf), row["bound"])
    limit = max(row["time_limit"] for row in own)
    return [row for row in own if row["time_limit"] == limit], known, bound


if __name__ == "__main__":
    sys.exit(run(main))
