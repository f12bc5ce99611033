"""`compiler-rl coschedule`: a layer in nano-batches on compute, memory and network at once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from baselines import co_scheduling
from baselines.co_scheduling import EXACT, hlo_orders
from baselines.co_scheduling.lp import lp_bound
from compiler_rl.cli.common import (
    console,
    methods_table,
    prepare,
    progress,
    require_folder,
    require_positive,
    solve_beside_exact,
)
from games.base import Result
from games.co_scheduling import hlo_order, picture, schedule_file, validator
from games.co_scheduling.cost import Batch, optimal_tokens_per_second
from games.co_scheduling.device import Device, get_device, with_interference
from games.co_scheduling.model import Model, get_model
from games.co_scheduling.problem import MODES, CoSchedulingProblem, make_problem
from games.co_scheduling.solution import Pipeline, tokens_per_second
from games.co_scheduling.workload import cache_tokens, composition, read_trace
from games.files import replace_file
from games.sizes import parse_size
from hlo_frontend import read_text
from hlo_frontend.errors import InputError

PLOTS = (".svg", ".png")
PROVED = 1e-6  # relative gap that counts as none


def register(app: typer.Typer) -> None:
    """Adds the game's command."""
    app.command()(coschedule)


def coschedule(
    model: Annotated[
        str, typer.Option(help="Model of the table, or a model file (.json).")
    ] = "llama-2-70b",
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Device of the table, or a hardware file (.json); a100 if not given, tpu-v5e for"
            " --hlo."
        ),
    ] = None,
    tp: Annotated[int, typer.Option(help="Tensor-parallel degree.")] = 8,
    decode: Annotated[int, typer.Option(help="Decode tokens of the batch.")] = 1280,
    context: Annotated[float, typer.Option(help="Tokens that each of them attends to.")] = 1024,
    prefill: Annotated[int, typer.Option(help="Prefill tokens of the batch.")] = 768,
    prefill_context: Annotated[
        float, typer.Option(help="Tokens that each of these attends to: the prompts' length.")
    ] = 512,
    workload: Annotated[
        Path | None,
        typer.Option(
            help="Request trace (Azure or NanoFlow .csv, Mooncake .jsonl): the batch is that of an"
            " iteration of continuous batching, instead of the four options before."
        ),
    ] = None,
    iteration: Annotated[int, typer.Option(help="Which iteration of the workload.")] = 500,
    mode: Annotated[
        str, typer.Option(help="Interference: none, static or dynamic shares of the device.")
    ] = "dynamic",
    interference: Annotated[
        Path | None,
        typer.Option(help='Curves, {"memory": {share: speed, ...}, "network": ...} (.json).'),
    ] = None,
    profiles: Annotated[
        Path | None,
        typer.Option(help="Folder of measured tables of attention and network (.csv)."),
    ] = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for the search.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write schedule and report (JSON).")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write the timetable as a Chrome trace (.json).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the picture (.svg or .png).")] = None,
    hlo: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a model: scheduled HLO text or proto, whose entry computation and"
            " loops are reordered so that asynchronous operations hide behind the others."
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            help="With --hlo: bytes that may be in use, for example 2GiB; as many as in the"
            " compiler's order if not given."
        ),
    ] = None,
    hlo_out: Annotated[
        Path | None, typer.Option(help="With --hlo: write the reordered HLO text.")
    ] = None,
) -> None:
    """Finds nano-batches, an order and shares that overlap compute, memory and network."""
    require_positive(time_limit, "--time-limit")
    files = (json_out, "--json"), (trace, "--trace"), (plot, "--plot"), (hlo_out, "--hlo-out")
    for path, option in files:
        require_folder(path, option)
    if hlo is not None:
        if trace is not None or plot is not None:
            raise InputError("--trace and --plot are for models; leave them out with --hlo")
        limit = None if memory_limit is None else parse_size(memory_limit, "--memory-limit")
        _reorder(hlo, get_device(hardware or "tpu-v5e"), limit, time_limit, seed, json_out, hlo_out)
        return
    if hlo_out is not None or memory_limit is not None:
        raise InputError("--hlo-out and --memory-limit: each needs --hlo")
    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot {plot}: expected a path ending in {' or '.join(PLOTS)}")
    if mode not in MODES:
        raise InputError(f"--mode {mode}: expected one of {', '.join(MODES)}")
    shapes, device = get_model(model), get_device(hardware or "a100")
    if interference is not None:
        device = with_interference(device, interference)
    if workload is None:
        batch = Batch(decode, context, prefill, prefill_context)
    else:
        batch = composition(read_trace(workload), cache_tokens(shapes, device, tp), iteration)
    problem = make_problem(shapes, device, tp, batch, MODES.index(mode), profiles)
    console.print(f"{problem.name}; interference: {mode}", highlight=False)
    for assumption in device.assumptions:
        console.print(f"  assumed: {assumption}", highlight=False)

    prepare(co_scheduling)
    started = time.perf_counter()
    with progress("searching", 1e6, "µs") as shown:
        result, proof = solve_beside_exact(problem, EXACT, time_limit, seed, shown)
    result = _with_exact(problem, result, proof)
    seconds = time.perf_counter() - started
    faults = validator.validate(problem, result.solution)
    data = schedule_file.to_json(problem, result.solution)
    data |= _report(problem, shapes, device, result, seconds, validated=not faults)
    rows = data["baselines"]
    console.print(methods_table(rows, rows["sequential"]["objective"], 1e6, "µs"))
    for line in _verdict(data):
        console.print(line, highlight=False)
    if json_out is not None:
        schedule_file.write(json_out, data)
    if trace is not None:
        schedule_file.write(trace, schedule_file.chrome_trace(problem, result.solution))
    if plot is not None:
        picture.draw(problem, result.solution, plot, method=result.method)


def _reorder(
    source: Path,
    device: Device,
    limit: int | None,
    time_limit: float,
    seed: int,
    json_out: Path | None,
    hlo_out: Path | None,
) -> None:
    """The HLO variant: the compiler's order, a greedy one and an annealed one."""
    text = read_text(source)
    program = hlo_order.order_program(text, str(source), device, limit)
    entry = program.entry
    loops = len(program.problems) - 1
    console.print(
        f"{program.name}: {sum(len(p.names) for p in program.problems):,} instructions,"
        f" {program.pairs} asynchronous operations{f', loops: {loops}' if loops else ''};"
        f" {device.name}, {entry.limit[0] / 2**20:,.1f} MiB may be in use",
        highlight=False,
    )
    started = time.perf_counter()
    with console.status("searching"):
        found = hlo_orders.all_orders(program, time_limit=time_limit, seed=seed)
    own, bound = found[0].seconds, found[0].bound
    best = min(found, key=lambda each: each.seconds)
    faults = [
        fault
        for problem, order in zip(best.problems, best.orders, strict=True)
        for fault in hlo_order.validate_order(problem, order)
    ]
    proved = best.seconds <= bound * (1 + PROVED)
    names = {
        problem.name: [problem.names[k] for k in order]
        for problem, order in zip(best.problems, best.orders, strict=True)
    }
    rows = {
        each.method: {
            "objective": each.seconds,
            "wall_s": each.wall_s,
            "bound": bound,
            "proved": each.seconds <= bound * (1 + PROVED),
            "peak_bytes": int(hlo_order.peak(entry, each.orders[-1])[0]),
        }
        for each in found
    }
    data = {
        "game": "co_scheduling",
        "objective": best.seconds,
        "unit": "s",
        "winner": best.method,
        "baselines": rows,
        "lower_bound": bound,
        "proved_optimal": proved,
        "wall_s": time.perf_counter() - started,
        "validated": not faults,
        "memory_limit_bytes": int(entry.limit[0]),
        "order": names.pop(entry.name),
        "loop_orders": names,
        "assumptions": list(device.assumptions),
    }
    console.print(methods_table(rows, own, 1e6, "µs"))
    console.print(
        f"{best.method} wins: {best.seconds * 1e6:,.2f} µs, {1 - best.seconds / own:.2%} less"
        f" than the compiler's order; no order is faster than {bound * 1e6:,.2f} µs.",
        highlight=False,
    )
    if hlo_out is not None:
        changed = text
        for problem, order in zip(best.problems, best.orders, strict=True):
            if problem.pairs:
                changed = hlo_order.reordered_text(changed, problem, order, str(source))
        replace_file(hlo_out, changed.encode())
    if json_out is not None:
        schedule_file.write(json_out, data)


def _with_exact(
    problem: CoSchedulingProblem, result: Result[Pipeline], proof: Result[Pipeline] | None
) -> Result[Pipeline]:
    """The portfolio's result with the exact solver's among its methods, which may win."""
    if proof is None:
        return result
    row = {"objective": proof.objective, "wall_s": proof.wall_s, "bound": proof.bound}
    detail = {**result.detail, "methods": {**result.detail["methods"], EXACT.name: row}}
    better = proof.objective < result.objective
    if not better or validator.validate(problem, proof.solution):
        return replace(result, detail=detail)
    return replace(proof, bound=result.bound, curve=result.curve, detail=detail)


def _report(
    problem: CoSchedulingProblem,
    model: Model,
    device: Device,
    result: Result[Pipeline],
    wall_s: float,
    *,
    validated: bool,
) -> dict[str, Any]:
    """The keys of the JSON report."""
    bound = max(result.bound or 0.0, lp_bound(problem))
    rows = {name: row | {"proved": False} for name, row in result.detail["methods"].items()}
    sequential = rows["sequential"]["objective"]
    return {
        "game": "co_scheduling",
        "objective": result.objective,
        "unit": "s",
        "winner": result.method,
        "baselines": rows,
        "lower_bound": bound,
        "proved_optimal": result.objective <= bound * (1 + PROVED),
        "interrupted": result.detail["interrupted"],
        "curve": result.curve,
        "wall_s": wall_s,
        "validated": validated,
        "tokens_per_second_per_device": {
            "predicted": tokens_per_second(problem, result.objective),
            "sequential": tokens_per_second(problem, sequential),
            "bound": tokens_per_second(problem, bound),
            "peak": optimal_tokens_per_second(model, device),
        },
        "assumptions": list(device.assumptions),
    }


def _verdict(data: dict[str, Any]) -> list[str]:
    """What to make of it, in plain words."""
    best, bound = data["objective"], data["lower_bound"]
    sequential = data["baselines"]["sequential"]["objective"]
    rate = data["tokens_per_second_per_device"]
    lines = [
        f"{data['winner']} wins: {best * 1e3:,.4f} ms a layer, {1 - best / sequential:.2%} less"
        f" than one operation after another ({sequential * 1e3:,.4f} ms).",
        f"{rate['predicted']:,.0f} tokens/s a device; sequential {rate['sequential']:,.0f}, at the"
        f" bound {rate['bound']:,.0f}, at the peak rate {rate['peak']:,.0f}.",
    ]
    if data["proved_optimal"]:
        lines.append("No schedule is better: the bound is reached.")
    else:
        lines.append(
            f"No schedule is better than {bound * 1e3:,.4f} ms a layer: at most"
            f" {best / bound - 1:.2%} is left."
        )
    if data["interrupted"]:
        lines.append("Interrupted: this is the best schedule found until then.")
    return lines
