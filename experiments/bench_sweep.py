"""What sweeps themselves cost: seconds for each cell that does nothing, and for a large report.

    python -m experiments.bench_sweep [--workers 1,2] [--noops 200] [--cells 2000]

`overhead` is seconds from the first finished cell to the last, for each cell after it: start-up of
the workers is beside it. `report` reads that many finished cells again, of all games that a sweep
of short runs has, and writes Parquet, Markdown and the HTML page.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from experiments.sweep import execute
from experiments.sweep.config import CellConfig, read_sweep
from experiments.sweep.report import write_report
from experiments.sweep.results import read_cells
from games.files import replace_file
from hlo_frontend.errors import InputError

NAME = "sweep"


def nothing(cell: CellConfig) -> dict[str, Any]:
    """A cell that does nothing."""
    del cell
    return {"objective": 1.0, "bound": 1.0, "unit": "", "method": "nothing", "wall_s": 0.0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing and writes the results.

    Raises:
        InputError: bad arguments.
    """
    options = parser(__doc__, RESULTS / "sweep.json", 1.0)
    options.add_argument("--workers", default="1,2", help="default: %(default)s")
    options.add_argument("--noops", type=int, default=200, help="default: %(default)s")
    options.add_argument("--cells", type=int, default=2000, help="default: %(default)s")
    chosen = options.parse_args(arguments)
    if not all(part.isdecimal() and int(part) > 0 for part in chosen.workers.split(",")):
        raise InputError(f"--workers {chosen.workers}: expected numbers such as 1,2")
    results = Results(chosen.out, NAME)
    for workers, seed in itertools.product(
        map(int, chosen.workers.split(",")), range(chosen.seeds)
    ):
        config = {"part": "overhead", "workers": workers, "cells": chosen.noops, "run": seed}
        results.measure(config, partial(overhead, chosen.noops, workers))
    for seed in range(chosen.seeds):
        config = {"part": "report", "workers": 1, "cells": chosen.cells, "run": seed}
        results.measure(config, partial(reload, chosen.cells, chosen.time_limit))
    results.write_report(f"# What sweeps cost\n\n{table(results)}")


def overhead(count: int, workers: int) -> Cell:
    """Seconds of start-up, and for each cell after the first `workers`."""
    cells = [
        CellConfig("offset_allocation", {"generated": number}, "nothing", 1.0, 0)
        for number in range(count)
    ]
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        execute.run(
            cells,
            Path(folder) / "sweep",
            workers=workers,
            report=lambda progress: times.append(time.perf_counter()),
            measure=nothing,
        )
    # Every worker starts with its first cell.
    return {
        "start_s": times[workers - 1] - started,
        "cell_s": (times[-1] - times[workers - 1]) / (count - workers),
    }


def reload(count: int, time_limit: float) -> Cell:
    """Seconds to read cells again and to report on them.

    The cells are those of the suite `smoke` with shorter limits, each repeated under other seeds,
    its objective moved a little, until there are enough.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "sweep"
        cells = [
            replace(cell, time_limit=time_limit)
            for cell in read_sweep(Path("smoke"))
            if cell.solver != "portfolio"
        ]
        execute.run(cells, folder)
        random = np.random.default_rng(0)
        made = len(cells)
        for seed in itertools.count(1):
            for cell in cells:
                if made >= count:
                    break
                record = json.loads((folder / "cells" / f"{cell.key}.json").read_bytes())
                other = replace(cell, seed=seed)
                record |= {"seed": seed, "key": other.key}
                record["objective"] *= 1 + 0.1 * float(random.random())
                replace_file(folder / "cells" / f"{other.key}.json", json.dumps(record).encode())
                solution = (folder / "solutions" / f"{cell.key}.txt").read_bytes()
                replace_file(folder / "solutions" / f"{other.key}.txt", solution)
                made += 1
            if made >= count:
                break
        started, computed = time.perf_counter(), time.process_time()
        rows, _ = read_cells(folder)
        read = time.perf_counter()
        notes = write_report(folder)
        done = time.perf_counter()
        cpu = time.process_time() - computed
        if notes or len(rows) < count:
            raise InputError(f"a report on {len(rows)} cells said: {notes}")
        return {"read_s": read - started, "all_s": done - started, "cpu_s": cpu}


def table(results: Results) -> str:
    """The medians over the runs."""

    def median(part: str, workers: int, key: str) -> float:
        return float(
            np.median(
                [
                    cell["result"][key]
                    for cell in results.cells
                    if (cell["config"]["part"], cell["config"]["workers"]) == (part, workers)
                ]
            )
        )

    settings = dict.fromkeys(
        (cell["config"]["part"], cell["config"]["workers"], cell["config"]["cells"])
        for cell in results.cells
    )
    lines = []
    for part, workers, count in settings:
        if part == "overhead":
            each = f"{1e3 * median(part, workers, 'cell_s'):.1f} ms a cell"
            start = f"{median(part, workers, 'start_s'):.1f} s to start"
            lines.append([f"{count:,} cells that do nothing, {workers} workers", each, start])
        else:
            whole = f"{median(part, workers, 'all_s'):.1f} s to read and report"
            cpu = f"{median(part, workers, 'cpu_s'):.1f} s of it on the processor"
            lines.append([f"{count:,} finished cells", whole, cpu])
    return markdown_table(["what", "measured", "beside it"], lines)


if __name__ == "__main__":
    sys.exit(run(main))
