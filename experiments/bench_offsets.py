"""Offset allocation: which instances of a folder of MiniMalloc CSVs fit, and how soon.

Also how much more than the capacity first-fit needs, in order of size and of area (size times
lifetime), and how much of it the largest load at one time is: no allocation needs less.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from baselines.offset_allocation import allocate, prepare
from baselines.offset_allocation.kernels import first_fit_order
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from games.offset_allocation.problem import OffsetProblem, from_csv
from games.offset_allocation.validator import validate
from hlo_frontend.errors import InputError

NAME = "offset_allocation"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "offsets.json", time_limit=60.0)
    options.add_argument("folder", type=Path, help="folder of CSVs (id,lower,upper,size)")
    options.add_argument("--capacity", type=int, default=2**20, help="bytes; default: %(default)s")
    chosen = options.parse_args(arguments)
    files = sorted(chosen.folder.glob("*.csv"))
    if not files:
        raise InputError(f"{chosen.folder}: no CSV files there")
    prepare()
    results = Results(chosen.out, NAME)
    for path in files:
        problem = from_csv(path, chosen.capacity)
        for seed in range(chosen.seeds):
            config = {
                "instance": path.stem,
                "capacity": chosen.capacity,
                "time_limit": chosen.time_limit,
                "seed": seed,
            }
            results.measure(config, partial(_measure, problem, config))
    results.write_report(report(results))


def _measure(problem: OffsetProblem, config: Cell) -> Cell:
    lower, upper, size = problem.lower, problem.upper, problem.size
    result = allocate(problem, time_limit=config["time_limit"], seed=config["seed"])
    faults = validate(problem, result.solution)
    return {
        "buffers": len(size),
        "fits": result.objective <= problem.capacity and not faults,
        "needed": result.objective,
        "faults": len(faults),
        "wall_s": result.wall_s,
        "method": result.method,
        "proved": result.proved_optimal,
        "max_load": _max_load(lower, upper, size),
        "first_fit_by_size": _first_fit(-size, lower, upper, size),
        "first_fit_by_area": _first_fit(-size * (upper - lower), lower, upper, size),
    }


Ints = npt.NDArray[np.int64]


def _first_fit(key: Ints, lower: Ints, upper: Ints, size: Ints) -> int:
    order = np.argsort(key, kind="stable")
    return int(first_fit_order(order, lower, upper, size, np.zeros_like(size)))


def _max_load(lower: Ints, upper: Ints, size: Ints) -> int:
    """Bytes alive at the worst time; half-open lives, so ends come before starts."""
    times = np.concatenate([upper, lower])
    changes = np.concatenate([-size, size])
    return int(np.cumsum(changes[np.argsort(times, kind="stable")]).max(initial=0))


def table(results: Results) -> str:
    """One row an instance."""
    groups: dict[tuple[str, int, float], list[Cell]] = {}
    for cell in results.cells:
        config = cell["config"]
        key = (config["instance"], config["capacity"], config["time_limit"])
        groups.setdefault(key, []).append(cell["result"])
    rows = []
    for (instance, capacity, _), found in groups.items():
        first, seconds = found[0], [result["wall_s"] for result in found]
        rows.append(
            [
                instance,
                str(first["buffers"]),
                f"{sum(result['fits'] for result in found)} of {len(found)}",
                f"{median(seconds):.2f}",
                f"{min(seconds):.2f}–{max(seconds):.2f}",
                f"{median(result['needed'] for result in found) / capacity:.3f}",
                *(
                    f"{first[key] / capacity:.3f}"
                    for key in ("first_fit_by_size", "first_fit_by_area", "max_load")
                ),
            ]
        )
    header = ["instance", "buffers", "fits", "seconds", "min–max", "needs / capacity"]
    return markdown_table([*header, "first-fit by size", "by area", "largest load"], rows)


def report(results: Results) -> str:
    """The table, and how many fit with every seed."""
    fits: dict[str, bool] = {}
    for cell in results.cells:
        instance = cell["config"]["instance"]
        fits[instance] = fits.get(instance, True) and cell["result"]["fits"]
    verdict = f"{sum(fits.values())} of {len(fits)} instances fit with every seed."
    return "\n\n".join(["# Offset allocation", table(results), verdict])


if __name__ == "__main__":
    sys.exit(run(main))
