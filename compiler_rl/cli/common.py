"""What the commands share: sizes in words, progress, the table of methods."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from compiler_rl.aside import aside, result_of
from compiler_rl.solve import solve
from games.base import Exact, Result
from hlo_frontend.errors import InputError

console = Console()
GRACE = 30.0  # seconds that the exact solver gets to start and to come to an end on a busy machine
evaluate_commands = typer.Typer(
    no_args_is_help=True, help="Measures methods side by side, on problems kept for that."
)


def require_positive(value: float, option: str) -> None:
    """Raises InputError unless the number is positive."""
    if not value > 0:
        raise InputError(f"{option} {value:g}: expected a positive number")


def require_folder(path: Path | None, option: str) -> None:
    """Raises InputError if a file could not be written there: better now than after the search."""
    if path is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first")


def prepare(solvers: ModuleType) -> None:
    """Loads a game's native kernels, and says why that takes long where it does."""
    with console.status("loading native kernels; compiling them, once after installation"):
        solvers.prepare()


class Progress:
    """One line that says what runs and what is best so far; plain lines where there is no terminal.

    `report` is called with each method's result as it ends.
    """

    def __init__(self, status: Status, scale: float, unit: str) -> None:
        self._status = status
        self._scale = scale
        self._unit = unit
        self._started = time.perf_counter()
        self._best: float | None = None

    def report(self, result: Result[Any]) -> None:
        """Says what a method found."""
        better = self._best is None or result.objective < self._best
        if better:
            self._best = result.objective
        line = (
            f"{time.perf_counter() - self._started:6.1f} s  {result.method:<12}"
            f" {result.objective * self._scale:,.1f} {self._unit}{'  (best)' if better else ''}"
        )
        if console.is_terminal:
            self._status.update(line.strip())
        else:
            console.print(line, highlight=False)


@contextmanager
def progress(what: str, scale: float, unit: str) -> Iterator[Progress]:
    """Shows `what` is going on until the block ends."""
    with console.status(what) as status:
        yield Progress(status, scale, unit)


def solve_beside_exact(
    problem: Any, exact: Exact, time_limit: float, seed: int, shown: Progress
) -> tuple[Result[Any], Result[Any] | None]:
    """The portfolio on one core and the exact solver on another, within the same time.

    Of the exact solver nothing (None) after Ctrl-C, or if it comes to no end in time.
    """
    started = time.perf_counter()
    with aside(exact.solve, problem, time_limit, seed) as running:
        found = solve(problem, time_limit=time_limit, seed=seed, workers=1, report=shown.report)
        proof: Result[Any] | None = None
        if not found.detail["interrupted"]:
            left = started + time_limit + GRACE - time.perf_counter()
            proof = result_of(running, max(left, 0.1))
            if proof is not None:
                shown.report(proof)
    return found, proof


def methods_table(
    rows: Mapping[str, Mapping[str, Any]], reference: float, scale: float, unit: str
) -> Table:
    """A row for each method: objective, saving against `reference`, seconds, bound, proof."""
    table = Table(box=None, pad_edge=False)
    for column in ("method", unit, "saving", "seconds", f"bound, {unit}", "proved"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, row in rows.items():
        if row.get("objective") is None:
            table.add_row(name, "-", "-", "-", "-", row["note"])
            continue
        bound = row.get("bound")
        table.add_row(
            name,
            f"{row['objective'] * scale:,.2f}",
            f"{1 - row['objective'] / reference:.2%}",
            f"{row['wall_s']:.2f}",
            "" if bound is None else f"{bound * scale:,.2f}",
            "yes" if row.get("proved") else "",
        )
    return table
