"""`compiler-rl map` and `compiler-rl validate`: which values live in fast memory, and the proof."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from baselines.memory_mapping import EXACT, compiler_replay
from compiler_rl.cli.common import (
    console,
    methods_table,
    parse_size,
    progress,
    require_folder,
    require_positive,
)
from compiler_rl.solve import solve
from games.base import Result
from games.memory_mapping import annotate, mapping_file, minimalloc_csv, picture, validator
from games.memory_mapping.chips import Chip, get_chip
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import Mapping, lower_bound
from hlo_frontend import Program, load, read_text
from hlo_frontend.errors import InputError
from hlo_frontend.examples import example_path

EXAMPLE = "example:"
PLOTS = (".svg", ".png", ".html")


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="map")(map_program)
    app.command(name="validate")(validate_mapping)


def map_program(
    dump: Annotated[
        str,
        typer.Argument(
            help="HLO text or proto (.txt, .hlo, .pb, each also .gz), an --xla_dump_to folder,"
            " or example:NAME for a bundled program."
        ),
    ],
    chip: Annotated[str, typer.Option(help="Chip of the table, or a chip file (.json).")] = "v5e",
    fast_memory: Annotated[
        str | None,
        typer.Option(help="Fast memory for values, for example 16MiB; all if not given."),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for the search.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write mapping and report (JSON).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture (.svg, .png or interactive .html).")
    ] = None,
    hlo: Annotated[Path | None, typer.Option(help="Write the HLO text with annotations.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the stays as MiniMalloc CSV.")] = None,
) -> None:
    """Maps the values of an XLA program to fast and slow memory, and shows what that is worth."""
    require_positive(time_limit, "--time-limit")
    for path, option in ((json_out, "--json"), (plot, "--plot"), (hlo, "--hlo"), (csv, "--csv")):
        require_folder(path, option)
    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot {plot}: expected a name ending in {', '.join(PLOTS)}")
    target = get_chip(chip)
    size = None if fast_memory is None else parse_size(fast_memory, "--fast-memory")
    source = _source(dump)
    program = load(source)
    problem = from_program(program, target, size)
    _describe(program, problem, target)

    outcome = _solve(program, problem, time_limit, seed)
    mapping = outcome.winner.solution
    data = mapping_file.to_json(program, problem, target, mapping, method=outcome.winner.method)
    faults = validator.validate_file(program, data)
    data |= outcome.report(validated=not faults)
    if json_out is not None:
        mapping_file.write(json_out, data)
    if plot is not None:
        title = f"{Path(dump).name.removeprefix(EXAMPLE)} on {target.name}"
        picture.draw(problem, program, mapping, plot, method=outcome.winner.method, title=title)
    if hlo is not None:
        text = annotate.annotated_hlo(program, read_text(source), problem, mapping)
        mapping_file.replace_file(hlo, text.encode())
    if csv is not None:
        minimalloc_csv.write(csv, program, problem, mapping)
    console.print(methods_table(data["baselines"], problem.all_slow, 1e6, "µs"))
    for line in outcome.verdict():
        console.print(line, highlight=False)
    if faults:
        raise RuntimeError(f"the mapping is not valid: {faults[0]}")


def validate_mapping(
    program: Annotated[str, typer.Argument(help="The program that the mapping is for.")],
    mapping: Annotated[Path, typer.Argument(help="Mapping file (JSON).")],
) -> None:
    """Checks a mapping file against its program with code that the search does not use."""
    source = load(_source(program))
    faults = validator.validate_file(source, mapping_file.read(mapping))
    for fault in faults:
        console.print(fault, highlight=False, soft_wrap=True)
    if faults:
        raise InputError(f"{mapping}: {len(faults)} broken rules; map the program again")
    console.print(f"{mapping}: valid for {source.name}", highlight=False)


def _source(dump: str) -> str | Path:
    return example_path(dump.removeprefix(EXAMPLE)) if dump.startswith(EXAMPLE) else Path(dump)


def _describe(program: Program, problem: MemoryMappingProblem, chip: Chip) -> None:
    movable = problem.num_buffers
    console.print(
        f"{program.name}: {len(program.steps):,} instructions"
        f"{'' if program.scheduled else ' (scheduled here: the dump has no schedule)'},"
        f" {len(program.values):,} values, {movable:,} alias classes that may move;"
        f" chip {chip.name}, {problem.capacity / 2**20:g} MiB of fast memory",
        highlight=False,
    )


class _Outcome:
    """The portfolio's result, the exact solver's and the compiler's own, and the best of them."""

    def __init__(
        self,
        problem: MemoryMappingProblem,
        portfolio: Result[Mapping],
        exact: Result[Mapping] | None,
        compiler: Result[Mapping] | str | None,
        wall_s: float,
    ) -> None:
        self.problem = problem
        self.portfolio = portfolio
        self.exact = exact
        self.compiler = compiler
        self.wall_s = wall_s
        candidates = [portfolio, exact, compiler if isinstance(compiler, Result) else None]
        self.winner = min(
            (
                each
                for each in candidates
                if each is not None and not validator.validate(problem, each.solution)
            ),
            key=lambda each: each.objective,
        )
        bounds = [lower_bound(problem)] + [
            each.bound for each in (portfolio, exact) if each is not None and each.bound is not None
        ]
        self.bound = max(bounds)

    def report(self, *, validated: bool) -> dict[str, Any]:
        """The keys of the JSON report."""
        rows = {
            name: row | {"proved": False} for name, row in self.portfolio.detail["methods"].items()
        }
        for name, result in (("compiler", self.compiler), (EXACT.name, self.exact)):
            if isinstance(result, Result):
                rows[name] = {
                    "objective": result.objective,
                    "wall_s": result.wall_s,
                    "bound": result.bound,
                    "proved": result.proved_optimal,
                }
            elif isinstance(result, str):
                rows[name] = {"objective": None, "wall_s": 0.0, "note": result}
        return {
            "game": "memory_mapping",
            "objective": self.winner.objective,
            "unit": "s",
            "winner": self.winner.method,
            "baselines": rows,
            "lower_bound": self.bound,
            "proved_optimal": self.winner.objective <= self.bound * (1 + EXACT.tolerance),
            "interrupted": self.portfolio.detail["interrupted"],
            "curve": self.portfolio.curve,
            "wall_s": self.wall_s,
            "validated": validated,
        }

    def verdict(self) -> list[str]:
        """What to make of it, in plain words."""
        best, slow = self.winner.objective, self.problem.all_slow
        methods = self.portfolio.detail["methods"]
        lines = [
            f"{self.winner.method} wins: {best * 1e6:,.2f} µs, {1 - best / slow:.2%} less than with"
            f" everything in slow memory, {1 - best / methods['msa']['objective']:.2%} less than"
            " the MSA-like heuristic"
            + (
                f", {1 - best / self.compiler.objective:.2%} less than the compiler's own mapping"
                if isinstance(self.compiler, Result)
                else ""
            )
            + "."
        ]
        gap = best / self.bound - 1
        if gap <= EXACT.tolerance:
            lines.append("No mapping is better: the bound is reached.")
        else:
            lines.append(
                f"No mapping is better than {self.bound * 1e6:,.2f} µs: at most {gap:.2%} is left."
            )
        if self.portfolio.detail["interrupted"]:
            lines.append("Interrupted: this is the best mapping found until then.")
        return lines


def _solve(
    program: Program, problem: MemoryMappingProblem, time_limit: float, seed: int
) -> _Outcome:
    """The portfolio on one core and the exact solver on another, within the same time."""
    started = time.perf_counter()
    with progress("searching", 1e6, "µs") as shown, _exact(problem, time_limit, seed) as exact:
        portfolio = solve(problem, time_limit=time_limit, seed=seed, workers=1, report=shown.report)
        left = started + time_limit + 2.0 - time.perf_counter()
        proof = None
        if not portfolio.detail["interrupted"]:
            proof = _result(exact, max(left, 0.1))
            if proof is not None:
                shown.report(proof)
    compiler = None
    if program.assignment is not None:
        compiler = compiler_replay.replay(problem, program)
    return _Outcome(problem, portfolio, proof, compiler, time.perf_counter() - started)


@contextmanager
def _exact(
    problem: MemoryMappingProblem, time_limit: float, seed: int
) -> Iterator[Future[Result[Mapping]]]:
    """The exact solver in a process of its own, which ends with the block at the latest."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    try:
        yield pool.submit(EXACT.solve, problem, time_limit=time_limit, seed=seed)
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


def _result(future: Future[Result[Mapping]], seconds: float) -> Result[Mapping] | None:
    try:
        return future.result(timeout=seconds)
    except (TimeoutError, BrokenProcessPool, KeyboardInterrupt):
        return None
