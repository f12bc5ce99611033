"""Memory mapping: heuristics, local search, exact solver, search and portfolio at equal time.

Every method runs alone, one after the other, on the same problems; all use one thread except the
portfolio, which uses two. Times include the compilation of JAX functions, as for a user. A mapping
counts only if the game's validator finds it valid.

The row `compiler` is the mapping that the TPU compiler chose, in the same cost model. It is of
the dump compiled with its memory-space assignment on, which is another program text than the dump
without: its saving is relative to its own program with everything in slow memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import jax

from baselines import memory_mapping
from baselines.memory_mapping import EXACT, compiler_replay
from baselines.memory_mapping.all_slow import all_slow
from baselines.memory_mapping.local_search import local_search
from baselines.memory_mapping.msa import msa
from compiler_rl.search import play
from compiler_rl.solve import DEFAULT_SIMULATIONS, solve
from experiments.common import MIB, RESULTS, Cell, Results, markdown_table, parse_mib, parser, run
from games.base import Baseline, Result
from games.memory_mapping import validator
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import Mapping, lower_bound
from games.registry import game_of
from hlo_frontend import Program, load
from hlo_frontend.errors import InputError
from hlo_frontend.examples import example_path

NAME = "memory_mapping"
PROGRAMS = "alexnet,strassen49,resnet50"
SIZES = "4MiB,16MiB,64MiB"
CHIP = "v5e"
CLOSE = 0.01  # of CP-SAT's proved optimum: what the portfolio promises
ALPHA_TENSOR = "strassen49"  # where heuristics leave the most


def _search(problem: MemoryMappingProblem, *, time_limit: float, seed: int) -> Result[Mapping]:
    game = game_of(problem)
    return play(game, problem, simulations=DEFAULT_SIMULATIONS, seed=seed, time_limit=time_limit)


def _portfolio(problem: MemoryMappingProblem, *, time_limit: float, seed: int) -> Result[Mapping]:
    return solve(problem, time_limit=time_limit, seed=seed, workers=2)


# The portfolio before the exact solver: the peak of memory after it is then its own.
METHODS: dict[str, Baseline] = {
    "all_slow": all_slow,
    "msa": msa,
    "annealing": local_search,
    "search": _search,
    "portfolio": _portfolio,
    "cp_sat": EXACT.solve,
}
COMPILER = "compiler"
ONE_SEED = (COMPILER, "all_slow", "msa")  # deterministic
LARGE = (COMPILER, "all_slow", "msa", "portfolio", "cp_sat")


@dataclass(frozen=True)
class Source:
    """A program: its dump without the compiler's assignment, and the one with it."""

    name: str
    path: Path
    assigned: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "mapping.json", time_limit=20.0)
    options.add_argument("--programs", default=PROGRAMS, help="default: %(default)s")
    options.add_argument("--sizes", default=SIZES, help="default: %(default)s")
    options.add_argument(
        "--methods", default=",".join((COMPILER, *METHODS)), help="default: %(default)s"
    )
    options.add_argument(
        "--dump", type=Path, action="append", help="a dump instead of --programs; repeatable"
    )
    large = {"time_limit": 60.0, "sizes": "64MiB", "methods": ",".join(LARGE)}
    options.add_argument(
        "--large",
        type=Path,
        metavar="DUMP",
        help="a large dump, such as the ResNet-50 training step that `python -m"
        f" experiments.programs` makes; other defaults: {large} and results/large.json",
    )
    chosen = options.parse_args(arguments)
    if chosen.large is not None:
        options.set_defaults(out=RESULTS / "large.json", dump=[chosen.large], **large)
        chosen = options.parse_args(arguments)
    methods = chosen.methods.split(",")
    for method in methods:
        if method not in (COMPILER, *METHODS):
            raise InputError(f"--methods {method}: expected some of {COMPILER},{','.join(METHODS)}")
    sources = [Source(path.name.partition(".")[0], path, path) for path in chosen.dump or []] or [
        Source(name, example_path(f"{name}.{CHIP}.nomsa"), example_path(f"{name}.{CHIP}"))
        for name in chosen.programs.split(",")
    ]
    results = Results(chosen.out, NAME)
    memory_mapping.prepare()
    for source in sources:
        results.measure({"program": source.name, "method": "load"}, partial(_load, source))
        for size in parse_mib(chosen.sizes):
            for method in methods:
                for seed in range(1 if method in ONE_SEED else chosen.seeds):
                    config = {
                        "program": source.name,
                        "fast_memory": size,
                        "time_limit": chosen.time_limit,
                        "method": method,
                        "seed": seed,
                    }
                    results.measure(config, partial(_measure, source, config))
    results.write_report(report(results))


@cache
def _program(path: Path) -> Program:
    return load(path)


def _load(source: Source) -> Cell:
    begin = perf_counter()
    program = _program(source.path)
    return {
        "wall_s": perf_counter() - begin,
        "instructions": len(program.steps),
        "values": len(program.values),
        "fingerprint": program.fingerprint,
    }


def _measure(source: Source, config: Cell) -> Cell:
    """One method on one problem: its result, or a note why there is none."""
    # Every cell compiles its JAX functions, as a new process does.
    jax.clear_caches()  # type: ignore[no-untyped-call]
    method, chip = config["method"], get_chip(CHIP)
    program = _program(source.assigned if method == COMPILER else source.path)
    if method == COMPILER and program.assignment is None:
        return {"note": "the dump has no assignment"}
    try:
        problem = from_program(program, chip, config["fast_memory"])
    except InputError as error:
        return {"note": str(error)}
    if method == COMPILER:
        result: Result[Mapping] | str = compiler_replay.replay(problem, program)
    else:
        result = METHODS[method](problem, time_limit=config["time_limit"], seed=config["seed"])
    if isinstance(result, str):
        return {"note": result}
    faults = validator.validate(problem, result.solution)
    if faults:
        return {"note": f"invalid: {faults[0]}"}
    return {
        "objective": result.objective,
        "all_slow": problem.all_slow,
        "bound": result.bound,
        "lower_bound": lower_bound(problem),
        "wall_s": result.wall_s,
        "proved": result.proved_optimal,
        "detail": dict(result.detail),
    }


@dataclass(frozen=True)
class Row:
    """One method at one point, over its seeds; seconds. Without an objective, `note` says why."""

    objectives: tuple[float, ...]
    all_slow: float
    bound: float | None
    wall_s: float
    proved: bool
    peak_rss_bytes: int
    note: str

    @property
    def objective(self) -> float:
        """The median over seeds."""
        return median(self.objectives)

    @property
    def saving(self) -> float:
        """Against everything in slow memory."""
        return 1 - self.objective / self.all_slow


@dataclass(frozen=True)
class Point:
    """One program at one size of fast memory and one time limit."""

    program: str
    fast_memory: int
    time_limit: float
    rows: dict[str, Row]
    bound: float

    @property
    def name(self) -> str:
        """As in a verdict."""
        return f"{self.program}, {self.fast_memory // MIB} MiB, {self.time_limit:g} s"

    def verdicts(self) -> list[str]:
        """What was promised of the portfolio, and whether it holds."""
        found = {name: row for name, row in self.rows.items() if row.objectives}
        portfolio, heuristic, exact = (found.get(n) for n in ("portfolio", "msa", "cp_sat"))
        lines = []
        if portfolio and heuristic:
            worst = max(portfolio.objectives)
            lines.append(("never worse than msa", worst <= heuristic.objective))
            if self.program == ALPHA_TENSOR:
                lines.append(("strictly better than msa", worst < heuristic.objective))
        if portfolio and exact and exact.proved:
            near = portfolio.objective <= (1 + CLOSE) * exact.objective
            lines.append((f"within {CLOSE:.0%} of the proved optimum", near))
        return [f"{'PASS' if holds else 'FAIL'} {self.name}: {what}" for what, holds in lines]


def points(results: Results) -> list[Point]:
    """The cells by point, in the order of measurement."""
    groups: dict[tuple[str, int, float], dict[str, list[Cell]]] = {}
    for cell in results.cells:
        config = cell["config"]
        if config["method"] != "load":
            key = (config["program"], config["fast_memory"], config["time_limit"])
            groups.setdefault(key, {}).setdefault(config["method"], []).append(cell)
    made = []
    for key, methods in groups.items():
        bounds = [
            bound
            for method, cells in methods.items()
            for cell in cells
            if method != COMPILER and "objective" in cell["result"]
            for bound in (cell["result"]["lower_bound"], cell["result"]["bound"])
            if bound is not None
        ]
        rows = {method: _row(cells) for method, cells in methods.items()}
        made.append(Point(*key, rows, max(bounds, default=0.0)))
    return made


def _row(cells: list[Cell]) -> Row:
    found: list[dict[str, Any]] = [c["result"] for c in cells if "objective" in c["result"]]
    return Row(
        objectives=tuple(result["objective"] for result in found),
        all_slow=found[0]["all_slow"] if found else 0.0,
        bound=max((r["bound"] for r in found if r["bound"] is not None), default=None),
        wall_s=median(result["wall_s"] for result in found) if found else 0.0,
        proved=bool(found) and all(result["proved"] for result in found),
        peak_rss_bytes=max(cell["run"]["peak_rss_bytes"] for cell in cells),
        note="; ".join(sorted({c["result"]["note"] for c in cells if "note" in c["result"]})),
    )


def programs_table(results: Results) -> str:
    """What was loaded, how long it took and how much memory."""
    rows = [
        [
            cell["config"]["program"],
            f"{cell['result']['instructions']:,}",
            f"{cell['result']['values']:,}",
            f"{cell['result']['wall_s']:.2f}",
            f"{cell['run']['peak_rss_bytes'] / MIB:,.0f}",
        ]
        for cell in results.cells
        if cell["config"]["method"] == "load"
    ]
    header = ["program", "instructions", "values", "load, s", "peak RSS so far, MiB"]
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """Everything: programs, each method at each point, verdicts."""
    parts, verdicts = ["# Memory mapping", programs_table(results)], []
    for point in points(results):
        parts += [f"## {point.name}", methods_table(point)]
        parts += [f"`{name}`: {row.note}." for name, row in point.rows.items() if row.note]
        verdicts += point.verdicts()
    return "\n\n".join([*parts, "## Verdicts", "\n".join(f"- {line}" for line in verdicts)])


def methods_table(point: Point) -> str:
    """Each method at one point."""
    header = ["method", "µs", "min–max", "saving", "over bound", "wall, s", "bound, µs", "proved"]
    rows = [_full_row(name, row, point) for name, row in point.rows.items()]
    return markdown_table([*header, "peak RSS so far, MiB"], rows)


def large_table(results: Results) -> str:
    """Programs and all methods, for the README."""
    return "\n\n".join([programs_table(results), *(methods_table(p) for p in points(results))])


def _full_row(name: str, row: Row, point: Point) -> list[str]:
    peak = f"{row.peak_rss_bytes / MIB:,.0f}"
    if not row.objectives:
        return [name, *["-"] * 7, peak]
    return [
        name,
        f"{row.objective * 1e6:,.2f}",
        f"{min(row.objectives) * 1e6:,.2f}–{max(row.objectives) * 1e6:,.2f}",
        f"{row.saving:.2%}",
        "-" if name == COMPILER else f"{row.objective / point.bound - 1:.2%}",
        f"{row.wall_s:.2f}",
        "-" if row.bound is None else f"{row.bound * 1e6:,.2f}",
        "yes" if row.proved else "",
        peak,
    ]


def table(results: Results) -> str:
    """One row a point, for the README: median µs of each method, best bound, what is left."""
    made = points(results)
    methods = [m for m in METHODS if m != "all_slow" and any(m in p.rows for p in made)]
    rows = []
    for point in made:
        found = {name: row for name, row in point.rows.items() if row.objectives}
        slow, best, compiler = (found.get(n) for n in ("all_slow", "portfolio", COMPILER))
        rows.append(
            [
                point.program,
                f"{point.fast_memory // MIB} MiB",
                "-" if slow is None else f"{slow.objective * 1e6:,.1f}",
                *(f"{found[m].objective * 1e6:,.1f}" if m in found else "-" for m in methods),
                f"{point.bound * 1e6:,.1f}",
                "-" if best is None else f"{best.saving:.1%}",
                "-" if best is None else f"{best.objective / point.bound - 1:.2%}",
                "-" if compiler is None else f"{compiler.saving:.1%}",
            ]
        )
    header = ["program", "fast memory", "all slow", *methods, "bound", "saving", "over bound"]
    return markdown_table([*header, "compiler's saving"], rows)


if __name__ == "__main__":
    sys.exit(run(main))
