"""`compiler-rl iopddl`: the contest's problems of intra-operator parallelism."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from compiler_rl.cli.common import (
    console,
    methods_table,
    progress,
    require_folder,
    require_positive,
)
from compiler_rl.iopddl import LAST_SECONDS, search
from games.memory_mapping.mapping_file import replace_file
from games.tensor_parallel import solution
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import peak_usage
from games.tensor_parallel.validator import evaluate


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="iopddl")(iopddl)


def iopddl(
    file: Annotated[Path, typer.Argument(help="Problem of the contest: .json or .json.gz.")],
    time_limit: Annotated[float, typer.Option(help="Seconds, reading the file included.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write a report (JSON).")] = None,
    solution_out: Annotated[
        Path | None,
        typer.Option("--solution", help="Write the strategy of each node, as the contest does."),
    ] = None,
) -> None:
    """Picks a strategy for each node of an IOPDDL problem, at the least cost within the limit."""
    require_positive(time_limit, "--time-limit")
    require_folder(json_out, "--json")
    require_folder(solution_out, "--solution")
    started = time.perf_counter()
    problem = read_problem(file)
    graph = reduce(problem)
    console.print(
        f"{problem.name}: {problem.num_nodes:,} nodes, {problem.num_edges:,} edges;"
        f" {graph.num_decisions:,} decisions, {graph.num_edges:,} edges and {graph.num_times:,}"
        f" times at which the limit may bind are left ({time.perf_counter() - started:.1f} s)",
        highlight=False,
    )
    again = len(problem.edge_nodes) - len(set(map(tuple, problem.edge_nodes.tolist())))
    if again:
        console.print(
            f"{again:,} edges join a pair that has one before; their costs are added",
            highlight=False,
        )
    left = time_limit - LAST_SECONDS - (time.perf_counter() - started)
    with progress("searching", 1.0, "") as shown:
        outcome = search(problem, max(left, 0.5), seed, shown.report)
    cost, faults = evaluate(problem, outcome.winner.solution)
    report = outcome.report(validated=not faults) | {
        "objective": cost,
        "unit": "cost",
        "peak_usage": peak_usage(problem, outcome.winner.solution)[0],
        "usage_limit": problem.usage_limit,
        "decisions": graph.num_decisions,
        "wall_s": time.perf_counter() - started,
    }
    console.print(methods_table(report["baselines"], outcome.reference, 1.0, "cost"))
    for line in outcome.verdict():
        console.print(line, highlight=False)
    if solution_out is not None:
        solution.write(solution_out, outcome.winner.solution)
    if json_out is not None:
        replace_file(json_out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if faults:
        raise RuntimeError(f"the solution is not valid: {faults[0]}")
