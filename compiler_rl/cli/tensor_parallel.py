"""`compiler-rl iopddl` and `compiler-rl shard`: how each tensor is split."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from baselines.tensor_parallel.redco import shapes_of
from compiler_rl.cli.common import (
    console,
    methods_table,
    progress,
    require_folder,
    require_positive,
)
from compiler_rl.compiled import Compiled, verify
from compiler_rl.iopddl import LAST_SECONDS, search
from compiler_rl.sharding import Plan, Sharding, judged, predict, report_of, shard
from games.files import replace_file
from games.sizes import parse_size
from games.tensor_parallel import picture, solution
from games.tensor_parallel.frontend import PICOSECONDS
from games.tensor_parallel.iopddl_file import read_problem, write_problem
from games.tensor_parallel.mesh import DEVICES, parse_mesh
from games.tensor_parallel.models import build
from games.tensor_parallel.plan import shown
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import peak_usage
from games.tensor_parallel.validator import evaluate
from hlo_frontend.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="iopddl")(iopddl)
    app.command(name="shard")(shard_model)


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


def shard_model(
    model: Annotated[str, typer.Option(help="Built-in model, such as opt-6.7b or llama-7b.")],
    mesh: Annotated[str, typer.Option(help="Data x model devices, such as 1x8 or 2x4.")],
    chip: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "v5e",
    memory: Annotated[
        str | None, typer.Option(help="Memory of a device; the chip's if not given.")
    ] = None,
    links: Annotated[
        str | None,
        typer.Option(help="GB/s along each axis, such as 25,100; the chip's if not given."),
    ] = None,
    train: Annotated[bool, typer.Option(help="The loss and its gradients.")] = False,
    batch: Annotated[int, typer.Option(help="Sequences.")] = 8,
    length: Annotated[int, typer.Option(help="Tokens of a sequence.")] = 512,
    layers: Annotated[int | None, typer.Option(help="That many layers instead of all.")] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for the search.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    verify_on: Annotated[
        str | None,
        typer.Option("--verify", metavar="cpu|tpu", help="Compile the best plans and compare."),
    ] = None,
    verify_layers: Annotated[int, typer.Option(help="Layers of what is compiled.")] = 2,
    compiles: Annotated[int, typer.Option(help="Plans that --verify compiles.")] = 8,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write a report (JSON).")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a picture of the sharded layer (.svg, .png).")
    ] = None,
    iopddl_out: Annotated[
        Path | None,
        typer.Option("--iopddl", help="Write the problem as the contest's .json or .json.gz."),
    ] = None,
) -> None:
    """Finds rules that split a model's parameters over a mesh, and shows what they are worth."""
    for value, option in (
        (time_limit, "--time-limit"),
        (batch, "--batch"),
        (length, "--length"),
        (1 if layers is None else layers, "--layers"),
        (verify_layers, "--verify-layers"),
        (compiles, "--compiles"),
    ):
        require_positive(value, option)
    require_folder(json_out, "--json")
    require_folder(plot, "--plot")
    require_folder(iopddl_out, "--iopddl")
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise InputError(f"--plot {plot}: expected a name ending in .svg or .png")
    if verify_on not in (None, "cpu", "tpu"):
        raise InputError(f"--verify {verify_on}: expected cpu or tpu")
    size = None if memory is None else parse_size(memory, "--memory")
    rates = None if links is None else _rates(links)
    devices = parse_mesh(mesh, chip, size, links=rates)
    built = build(model, train=train, batch=batch, length=length, layers=layers)
    with progress("searching", 1e3 / PICOSECONDS, "ms") as shown_progress:
        found = shard(
            built.function,
            built.params,
            built.inputs,
            devices,
            time_limit=time_limit,
            seed=seed,
            name=model,
            report=shown_progress.report,
        )
    compiled = None
    predicted: dict[str, Plan] = {}
    if verify_on is not None:
        request = {
            "model": model,
            "train": train,
            "layers": min(verify_layers, layers or verify_layers),
            "batch": batch,
            "length": length,
            "mesh": mesh,
            "chip": chip,
            "links": rates,
        }
        with console.status(f"compiling {compiles} plans"):
            found, plans, compiled = judged(
                found, compiles, lambda rules: verify(request, rules, verify_on)
            )
        rules = {name: plan.rules for name, plan in plans.items()}
        small = build(
            model, train=train, batch=batch, length=length, layers=int(str(request["layers"]))
        )
        predicted = predict(small, devices, rules)
    report = report_of(found, compiled, predicted)
    slowest = max(row["objective"] or 0.0 for row in found.methods.values())
    console.print(methods_table(found.methods, slowest, 1e3, "ms"))
    if compiled is not None:
        console.print(_plans_table(found, compiled, predicted))
    for pattern, spec in found.rules:
        console.print(f"  {pattern:<60} {shown(spec)}", highlight=False, markup=False)
    for line in _verdict(found):
        console.print(line, highlight=False)
    if json_out is not None:
        replace_file(json_out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if iopddl_out is not None:
        write_problem(iopddl_out, found.problem)
    if plot is not None:
        title = f"{model} on {mesh} {chip}"
        picture.draw(found.best.specs, shapes_of(built.params), devices, plot, title)


def _rates(text: str) -> list[float]:
    """Bytes a second of `25,100`."""
    try:
        return [float(part) * 1e9 for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--links {text}: expected GB/s along each axis, such as 25,100"
        ) from error


def _plans_table(
    found: Sharding, compiled: Mapping[str, Compiled | str], predicted: Mapping[str, Plan]
) -> Table:
    """For the layers that were compiled, predicted and compiled figures side by side."""
    table = Table(box=None, pad_edge=False)
    columns = ("wire MiB", "compiled", "memory MiB", "compiled", "collectives")
    table.add_column("plan")
    for column in columns:
        table.add_column(column, justify="right")
    for name, made in compiled.items():
        plan = predicted[name]
        fits = plan.seconds < math.inf
        wire, memory = f"{plan.wire_bytes / 2**20:,.0f}", f"{plan.memory / 2**20:,.0f}"
        if isinstance(made, str):
            table.add_row(name, wire, made)
            continue
        table.add_row(
            name if name != found.reranked else f"{name} (first)",
            wire if fits else "does not fit",
            f"{made.wire_bytes / 2**20:,.0f}",
            memory if fits else "",
            f"{made.memory / 2**20:,.0f}",
            ", ".join(f"{count} {kind}" for kind, count in made.collectives.items()),
        )
    return table


def _verdict(found: Sharding) -> list[str]:
    best = found.best
    lines = [f"The plan takes {best.seconds * 1e3:,.2f} ms by our model of the cost."]
    if found.reranked is not None:
        lines.append(f"The real compiler puts '{found.reranked}' first: that is the plan.")
    elif found.result.proved_optimal:
        lines.append("No plan is better in the model: the bound is reached.")
    redco = found.hand["redco"]
    if redco.seconds < math.inf:
        lines.append(
            f"Redco's rules take {redco.seconds / best.seconds:.2f} times as long; they differ on"
            f" {len(found.differs)} of {len(best.specs)} parameters."
        )
    return lines
