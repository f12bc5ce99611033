"""`compiler-rl allocate`: offsets for buffers with fixed lifetimes (the MiniMalloc problem)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baselines import offset_allocation
from compiler_rl.cli.common import console, prepare, require_folder, require_positive
from games.offset_allocation.picture import SUFFIXES, draw
from games.offset_allocation.problem import from_csv
from games.offset_allocation.solution import write_csv
from games.offset_allocation.validator import validate
from games.sizes import parse_size
from hlo_frontend.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command()(allocate)


def allocate(
    file: Annotated[Path, typer.Argument(help="CSV with the columns id,lower,upper,size.")],
    capacity: Annotated[str, typer.Option(help="Bytes of memory, for example 1048576 or 1MiB.")],
    out: Annotated[Path, typer.Option(help="CSV to write: the input's columns and offset.")],
    time_limit: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .svg or .png.")] = None,
) -> None:
    """Finds offsets so that buffers that live at the same time share no byte."""
    require_positive(time_limit, "--time-limit")
    require_folder(out, "--out")
    require_folder(plot, "--plot")
    if plot is not None and plot.suffix not in SUFFIXES:
        raise InputError(f"--plot {plot}: expected a name ending in {', '.join(SUFFIXES)}")
    problem = from_csv(file, parse_size(capacity, "--capacity"))
    prepare(offset_allocation)
    with console.status("searching"):
        result = offset_allocation.allocate(problem, time_limit=time_limit, seed=seed)
    faults = validate(problem, result.solution)
    write_csv(problem, result.solution, out)
    if plot is not None:
        draw(problem, result.solution, plot, method=result.method, title=file.name)
    fits = not faults
    verdict = "they fit"
    if not fits:
        verdict = "they cannot fit" if result.detail["infeasible"] else "no fit found in time"
    console.print(
        f"{file.name}: {len(problem.ids)} buffers need {int(result.objective):,} of"
        f" {problem.capacity:,} bytes ({result.method}, {result.wall_s:.2f} s);"
        f" {verdict}",
        highlight=False,
    )
    if not fits:
        raise typer.Exit(1)
