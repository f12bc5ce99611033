"""`compiler-rl map` and `compiler-rl validate`: which values live in fast memory, and the proof."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from baselines import memory_mapping
from baselines.memory_mapping import EXACT, compiler_replay
from compiler_rl import tpu
from compiler_rl.cli.common import (
    console,
    methods_table,
    prepare,
    progress,
    require_folder,
    require_positive,
    solve_beside_exact,
)
from compiler_rl.judge import Judgement
from compiler_rl.judge import judge as search_with_compiler
from games.base import Result
from games.files import replace_file
from games.memory_mapping import (
    annotate,
    mapping_file,
    minimalloc_csv,
    picture,
    validator,
    xla_options,
)
from games.memory_mapping.chips import Chip, get_chip
from games.memory_mapping.instances import EXAMPLE, source
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import Mapping, lower_bound
from games.memory_mapping.xla_options import Decisions
from games.sizes import parse_size
from hlo_frontend import Program, load, read_text
from hlo_frontend.errors import InputError

PLOTS = (".svg", ".png", ".html")
SHOWN = 10  # lines of what the compiler did otherwise; all of them are in the report


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="map")(map_program)
    app.command(name="validate")(validate_mapping)


def map_program(
    dump: Annotated[
        str | None,
        typer.Argument(
            help="HLO text or proto (.txt, .hlo, .pb, each also .gz), an --xla_dump_to folder,"
            " or example:NAME for a bundled program."
        ),
    ] = None,
    jax: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Instead of a dump: a Python function that returns (fn, args), compiled ahead of"
            " time for the chip without memory-space assignment (needs the tpu extra).",
        ),
    ] = None,
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
    emit_xla_options: Annotated[
        Path | None,
        typer.Option(help="Write compiler options that make the TPU compiler follow the mapping."),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(metavar="tpu", help="Recompile --jax with the mapping and compare."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="tpu", help="Search --jax with the real compiler as the judge."),
    ] = None,
    compiles: Annotated[int, typer.Option(help="Budget of --judge, in compilations.")] = 60,
) -> None:
    """Maps the values of an XLA program to fast and slow memory, and shows what that is worth."""
    require_positive(time_limit, "--time-limit")
    require_positive(compiles, "--compiles")
    files = ((json_out, "--json"), (plot, "--plot"), (hlo, "--hlo"), (csv, "--csv"))
    for path, option in (*files, (emit_xla_options, "--emit-xla-options")):
        require_folder(path, option)
    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot {plot}: expected a name ending in {', '.join(PLOTS)}")
    if (dump is None) == (jax is None):
        raise InputError("map: expected a dump, or --jax MODULE:FUNCTION instead of one")
    for value, option in ((verify, "--verify"), (judge, "--judge")):
        if value not in (None, "tpu"):
            raise InputError(f"{option} {value}: expected tpu")
        if value is not None and jax is None:
            raise InputError(
                f"{option} tpu: needs --jax MODULE:FUNCTION, a dump cannot be compiled"
            )
    target = get_chip(chip)
    size = None if fast_memory is None else parse_size(fast_memory, "--fast-memory")
    compiler = None
    if jax is not None:
        with console.status("compiling without memory-space assignment"):
            compiler = tpu.Compiler(jax, target, size)
        program, size = compiler.unassigned, compiler.capacity
    else:
        program = load(source(str(dump)))
    problem = from_program(program, target, size)
    _describe(program, problem, target)

    outcome = _solve(program, problem, time_limit, seed)
    mapping = outcome.winner.solution
    data = mapping_file.to_json(program, problem, target, mapping, method=outcome.winner.method)
    faults = validator.validate_file(program, data)
    data |= outcome.report(validated=not faults)
    console.print(methods_table(data["baselines"], problem.all_slow, 1e6, "µs"))
    for line in outcome.verdict():
        console.print(line, highlight=False)
    if json_out is not None:
        mapping_file.write(json_out, data)
    if plot is not None:
        name = jax or Path(str(dump)).name.removeprefix(EXAMPLE)
        title = f"{name} on {target.name}"
        picture.draw(problem, program, mapping, plot, method=outcome.winner.method, title=title)
    if hlo is not None:
        text = compiler.text() if compiler is not None else read_text(source(str(dump)))
        annotated = annotate.annotated_hlo(program, text, problem, mapping)
        replace_file(hlo, annotated.encode())
    if csv is not None:
        minimalloc_csv.write(csv, program, problem, mapping)
    options = _options(program, problem, mapping)
    if compiler is not None:
        try:
            wanted = tpu.plan(compiler, problem, mapping)
            if verify is not None:
                data["verification"] = _verify(compiler, wanted, outcome.winner.objective)
            if judge is not None:
                heuristic = memory_mapping.HEURISTICS["msa"](problem, time_limit=1.0).solution
                mappings = {"our mapping": mapping, "the MSA-like mapping": heuristic}
                data["judgement"], options = _judge(compiler, problem, mappings, compiles, seed)
        finally:
            compiler.close()
        if json_out is not None:
            mapping_file.write(json_out, data)
    if emit_xla_options is not None:
        replace_file(emit_xla_options, json.dumps(options, indent=2).encode())
    if faults:
        raise RuntimeError(f"the mapping is not valid: {faults[0]}")


def _options(program: Program, problem: MemoryMappingProblem, mapping: Mapping) -> dict[str, str]:
    stays = [mapping_file.in_program_steps(problem, interval) for interval in mapping.intervals]
    return xla_options.xla_options(program, stays).options


def _verify(compiler: tpu.Compiler, wanted: Decisions, planned: float) -> dict[str, Any]:
    """Recompiles with the plan, prints the comparison, returns it for the report."""
    with console.status("compiling with the mapping"):
        try:
            found = tpu.verify(compiler, wanted)
        except tpu.RefusedError as error:
            console.print(f"The compiler refuses the mapping: {error}", highlight=False)
            return {"refused": str(error)}
    rows: dict[str, dict[str, Any]] = {
        "default": _compiled_row(found.default),
        "planned": {
            "values_in_fast_memory": sum(wanted.produced.values()),
            "uses_in_fast_memory": sum(wanted.uses.values()),
            "copies": len(wanted.copies),
            "estimated_cycles": None,
            "replayed_s": planned,
        },
        "realised": _compiled_row(found.realised),
    }
    table = Table(box=None, pad_edge=False)
    for column in ("", "values", "uses", "copies in", "estimated cycles", "replayed, µs"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        cycles, replayed = row["estimated_cycles"], row["replayed_s"]
        table.add_row(
            name,
            *(str(row[key]) for key in ("values_in_fast_memory", "uses_in_fast_memory", "copies")),
            "-" if cycles is None else f"{cycles:,}",
            f"{replayed * 1e6:,.1f}" if isinstance(replayed, float) else str(replayed),
        )
    console.print(table)
    console.print(
        f"The compiler followed {found.obeyed} of {found.decisions} decisions and"
        f" {found.timed} of {found.copies} copy times.",
        highlight=False,
    )
    for line in (*found.differences[:SHOWN], *found.limits[:SHOWN]):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    return {
        **rows,
        "obeyed": found.obeyed,
        "decisions": found.decisions,
        "timed": found.timed,
        "differences": found.differences,
        "limits": found.limits,
    }


def _compiled_row(compiled: tpu.Compiled) -> dict[str, Any]:
    decisions, replay = compiled.decisions, compiled.replay
    return {
        "values_in_fast_memory": sum(decisions.produced.values()),
        "uses_in_fast_memory": sum(decisions.uses.values()),
        "copies": len(decisions.copies),
        "estimated_cycles": compiled.cycles,
        "replayed_s": replay.objective if isinstance(replay, Result) else replay,
        "score_s": compiled.seconds,
    }


def _judge(
    compiler: tpu.Compiler,
    problem: MemoryMappingProblem,
    mappings: dict[str, Mapping],
    compiles: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Searches with the compiler as the judge; (for the report, the best options)."""
    with console.status("searching with the compiler as the judge") as status:

        def report(state: Judgement) -> None:
            saved = 1 - state.best.seconds / state.default.seconds
            status.update(f"{state.compiles} of {compiles} compilations, {saved:.2%} saved")

        found = search_with_compiler(
            compiler, problem, mappings, compiles=compiles, seed=seed, report=report
        )
    default, best = found.default.seconds, found.best.seconds
    if best < default:
        console.print(
            f"The real compiler, {found.compiles} compilations: {best * 1e6:,.2f} µs of estimated"
            f" cycles and replayed stalls, {1 - best / default:.2%} less than its default"
            f" ({default * 1e6:,.2f} µs); found by {found.found_by}.",
            highlight=False,
        )
    else:
        console.print(
            f"The real compiler, {found.compiles} compilations: nothing beats its default"
            f" ({default * 1e6:,.2f} µs of estimated cycles and replayed stalls);"
            f" {found.refused} candidates were refused.",
            highlight=False,
        )
    return {
        "default": _compiled_row(found.default),
        "best": _compiled_row(found.best),
        "found_by": found.found_by,
        "compiles": found.compiles,
        "refused": found.refused,
        "curve": found.curve,
        "options": dict(found.best.options),
    }, dict(found.best.options)


def validate_mapping(
    program: Annotated[str, typer.Argument(help="The program that the mapping is for.")],
    mapping: Annotated[Path, typer.Argument(help="Mapping file (JSON).")],
) -> None:
    """Checks a mapping file against its program with code that the search does not use."""
    loaded = load(source(program))
    faults = validator.validate_file(loaded, mapping_file.read(mapping))
    for fault in faults:
        console.print(fault, highlight=False, soft_wrap=True)
    if faults:
        raise InputError(f"{mapping}: {len(faults)} broken rules; map the program again")
    console.print(f"{mapping}: valid for {loaded.name}", highlight=False)


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
    prepare(memory_mapping)
    started = time.perf_counter()
    with progress("searching", 1e6, "µs") as shown:
        portfolio, proof = solve_beside_exact(problem, EXACT, time_limit, seed, shown)
    compiler = None
    if program.assignment is not None:
        compiler = compiler_replay.replay(problem, program)
    return _Outcome(problem, portfolio, proof, compiler, time.perf_counter() - started)
