"""`compiler-rl sweep` and `compiler-rl report`: experiments over games, solvers and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compiler_rl.cli.common import console, require_folder, require_positive


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="sweep")(sweep)
    app.command(name="report")(report)


def sweep(
    config: Annotated[Path, typer.Argument(help="TOML file of the sweep.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    workers: Annotated[int, typer.Option(help="Cells at a time, each with one thread.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a folder with results.")
    ] = False,
) -> None:
    """Runs every instance with every solver, time limit and seed, and reports on it."""
    # Whoever maps one program need not wait for what only sweeps load.
    from experiments.sweep import execute  # noqa: PLC0415
    from experiments.sweep.config import read_sweep  # noqa: PLC0415

    require_positive(workers, "--workers")
    require_folder(out, "--out")
    cells = read_sweep(config)
    with console.status(f"{len(cells)} cells") as status:

        def show(progress: execute.Progress) -> None:
            line = (
                f"{progress.done} of {progress.total} cells, {progress.failed} failed,"
                f" {progress.left_s:,.0f} s left"
            )
            status.update(line)
            if not console.is_terminal:
                console.print(line, highlight=False)

        execute.run(cells, out, workers=workers, resume=resume, report=show)
    report(out)


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a sweep's results.")],
) -> None:
    """Writes a sweep's results as Parquet, Markdown and one HTML page."""
    from experiments.sweep.report import write_report  # noqa: PLC0415

    for line in write_report(folder):
        console.print(line, highlight=False)
    console.print(f"{folder / 'report.html'}, report.md and results.parquet", highlight=False)
