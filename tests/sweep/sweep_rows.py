"""Rows of a sweep that was never run, and sweeps without processes of their own."""

from __future__ import annotations

import json

from experiments.sweep import execute
from experiments.sweep.results import COLUMNS


def run_here(cells, folder, **options):
    """`execute.run` in this process: what takes time is the start of workers."""

    def here(cells, workers, measure):
        del workers
        yield from ((cell, execute.work(cell, measure)) for cell in cells)

    execute.run(cells, folder, executor=here, **options)


def row(solver, title, objective, *, seed=0, limit=1.0, game="offset_allocation", bound=0.0):
    """A row; `objective` None is a cell that failed."""
    values = dict.fromkeys(COLUMNS)
    instance = json.dumps({"generated": int(title)})
    return values | {
        "schema": 2,
        "key": f"{solver}-{title}-{seed}-{limit}",
        "game": game,
        "title": f"generated {title}",
        "instance": instance,
        "solver": solver,
        "time_limit": limit,
        "seed": seed,
        "objective": objective,
        "bound": None if objective is None else bound,
        "unit": "bytes",
        "method": solver,
        "wall_s": None if objective is None else 0.5,
        "proved": False,
        "error": "went wrong" if objective is None else None,
        "curve": "[]"
        if objective is None
        else json.dumps([[0.1, 2 * objective], [0.4, objective]]),
        "load": 1.0,
        "date": "2026-01-01T00:00:00+00:00",
        "cpu": "a processor",
        "cores": 2,
        "python": "3.11",
        **dict.fromkeys(("jax", "mctx", "numba", "numpy", "ortools"), "1.0"),
        "commit": "abc",
    }
