"""`compiler-rl sweep`, `report`, `best` and `compare`: experiments over games and solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from compiler_rl.cli.common import console, require_folder, require_positive
from hlo_frontend.errors import InputError

EXECUTORS = ("process", "ray")
COMMITTED = "the package's `standard` results"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (sweep, report, best, compare):
        app.command()(command)


def sweep(
    config: Annotated[Path, typer.Argument(help="TOML file, or a suite: smoke, standard, full.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    workers: Annotated[
        int | None,
        typer.Option(help="Cells at a time, each with one thread [1; with ray all cores]."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a folder with results.")
    ] = False,
    executor: Annotated[str, typer.Option(help="process, or ray (extra ray).")] = "process",
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running cluster, such as auto [one is started].")
    ] = None,
) -> None:
    """Runs every instance with every solver, time limit and seed, and reports on it."""
    # Whoever maps one program need not wait for what only sweeps load.
    from experiments.sweep import execute  # noqa: PLC0415
    from experiments.sweep.config import read_sweep  # noqa: PLC0415
    from experiments.sweep.on_ray import ray_executor  # noqa: PLC0415

    if workers is not None:
        require_positive(workers, "--workers")
    if executor not in EXECUTORS:
        raise InputError(f"--executor {executor}: expected one of {', '.join(EXECUTORS)}")
    if ray_address is not None and executor != "ray":
        raise InputError("--ray-address: is for --executor ray")
    require_folder(out, "--out")
    cells = read_sweep(config)
    chosen = ray_executor(ray_address) if executor == "ray" else None
    with console.status(f"{len(cells)} cells") as status:

        def show(progress: execute.Progress) -> None:
            line = (
                f"{progress.done} of {progress.total} cells, {progress.failed} failed,"
                f" {progress.left_s:,.0f} s left"
            )
            status.update(line)
            if not console.is_terminal:
                console.print(line, highlight=False)

        execute.run(
            cells,
            out,
            workers=workers or (0 if chosen else 1),
            resume=resume,
            report=show,
            executor=chosen,
        )
    report(out)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep's results.")],
    training: Annotated[
        list[Path] | None, typer.Option(help="Folder of `train`, whose curves are shown.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Best-known store [the package's].")] = None,
    pictures: Annotated[int, typer.Option(help="Solutions of each game that are drawn.")] = 2,
    mlflow: Annotated[
        Path | None, typer.Option(help="Folder of MLflow runs to write (extra mlflow).")
    ] = None,
) -> None:
    """Writes a sweep's results as Parquet, Markdown and one HTML page."""
    from experiments.sweep.best import STORE  # noqa: PLC0415
    from experiments.sweep.report import write_report  # noqa: PLC0415
    from experiments.sweep.results import read_cells  # noqa: PLC0415

    if pictures < 0:
        raise InputError(f"--pictures {pictures}: expected a number from 0")
    require_folder(mlflow, "--mlflow")
    notes = write_report(folder, store=store or STORE, training=training or (), pictures=pictures)
    for line in notes:
        console.print(line, highlight=False)
    console.print(f"{folder / 'report.html'}, report.md and results.parquet", highlight=False)
    if mlflow is not None:
        from experiments.sweep.to_mlflow import export  # noqa: PLC0415

        count = export(read_cells(folder)[0], mlflow)
        console.print(f"{mlflow}: {count} new runs", highlight=False)


def best(
    folder: Annotated[
        Path | None, typer.Argument(help="Sweep whose better solutions and bounds are taken over.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Folder of the store [the package's].")] = None,
) -> None:
    """Shows the best known solutions and bounds, each checked anew, or adds a sweep's better."""
    from experiments.sweep.best import STORE, read_store, update  # noqa: PLC0415

    chosen = store or STORE
    if folder is not None:
        require_folder(store, "--store")
        news, left_out = update(chosen, folder)
        for line in (*news, *left_out):
            console.print(line, highlight=False)
        console.print(f"{chosen}: {len(news)} better, {len(left_out)} left out", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("game", "instance", "best", "found by", "bound", "proved by"):
        table.add_column(column)
    for entry in read_store(chosen):
        cells = (entry.game, entry.title, f"{entry.objective:.9g}", entry.method)
        table.add_row(*cells, f"{entry.bound:.9g}", entry.bound_method)
    console.print(table)


def compare(
    new: Annotated[Path, typer.Argument(help="Sweep's folder, its Parquet file, or JSON results.")],
    old: Annotated[
        Path | None, typer.Argument(help=f"What it is held against [{COMMITTED}].")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="Relative, of mean objectives.")] = 0.01,
) -> None:
    """Holds a run against an older one by ratios; fails where a solver has become worse."""
    from experiments.bench_suite import NAME  # noqa: PLC0415
    from experiments.common import RESULTS  # noqa: PLC0415
    from experiments.sweep.compare import changes, summary, worse  # noqa: PLC0415
    from experiments.sweep.results import read_results  # noqa: PLC0415

    if not tolerance >= 0:
        raise InputError(f"--tolerance {tolerance:g}: expected a number from 0")
    committed = RESULTS / "standard.json"
    if old is None and not committed.exists():
        raise InputError(
            "OLD: the package has no results of `standard` (python -m experiments.bench_suite);"
            " give what the run is held against"
        )
    before = read_results(old or committed, NAME)
    found = changes(read_results(new, NAME), before)
    table = Table(box=None, pad_edge=False)
    for column in ("game", "solver", "limit", "objective, new / old", "seconds", "instances"):
        table.add_column(column, justify="right" if column[0] in "ois" else "left")
    for row in summary(found):
        table.add_row(*row)
    console.print(table)
    bad = worse(found, tolerance)
    for change in bad:
        what = "failed" if change.ratio is None else f"{change.ratio:.4f} times the old objective"
        game, title, solver, limit = change.cell
        console.print(f"worse: {game}, {title}, {solver}, {limit:g} s: {what}", highlight=False)
    if bad:
        raise typer.Exit(1)
