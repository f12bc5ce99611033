"""What the benchmark commands share: cells that are measured once, the machine, Markdown tables.

A benchmark is a list of cells. A cell is a configuration (flat JSON: program, method, seed, ...)
and what was measured for it. Every cell is saved as soon as it is measured, and one that is in the
file already is not measured again, so that a run can be interrupted and gone on with at any time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import jax

from games.files import replace_file
from hlo_frontend.errors import InputError

SCHEMA = "compiler-rl/benchmark/1"
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "mctx", "numba", "numpy", "ortools")
MIB = 2**20

Cell = dict[str, Any]


class Results:
    """The cells of one benchmark, in one JSON file.

    Attributes:
        path: the file.
        machine: where its cells were measured.
        cells: each with `config`, `result`, and under `run` its date, commit, seconds, load
            average before and after, and the peak resident bytes of the process until then.
    """

    def __init__(self, path: Path, benchmark: str) -> None:
        """Opens the file, or starts a new one.

        Raises:
            InputError: not a file of this benchmark.
        """
        self.path = path
        self.benchmark = benchmark
        self.machine: dict[str, Any] = {}
        self.cells: list[Cell] = []
        if not path.exists():
            return
        try:
            data = json.loads(path.read_text())
            if (data["schema"], data["benchmark"]) != (SCHEMA, benchmark):
                raise InputError(f"{path}: not results of the benchmark {benchmark}")
            self.machine, self.cells = data["machine"], data["cells"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a results file ({error}); give another") from error

    def measure(self, config: Cell, measurement: Callable[[], Cell]) -> Cell:
        """What was measured for `config`, now or before.

        Raises:
            InputError: the file's cells come from another machine or other versions.
            KeyboardInterrupt: Ctrl-C, also where the measurement itself ends well with it: what
                was cut short is not kept.
        """
        for cell in self.cells:
            if cell["config"] == config:
                return cell
        here = machine()
        if self.cells and self.machine != here:
            raise InputError(
                f"{self.path}: its cells come from another machine or other package versions;"
                " give another --out, or remove it"
            )
        self.machine = here
        load_start, begin = os.getloadavg()[0], time.perf_counter()
        with _interrupt_noticed():
            result = measurement()
        cell = {
            "config": config,
            "result": result,
            "run": {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "commit": commit(),
                "seconds": time.perf_counter() - begin,
                "load_start": load_start,
                "load_end": os.getloadavg()[0],
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            },
        }
        self.cells.append(cell)
        self._save()
        settings = " ".join(str(value) for value in config.values())
        numbers = " ".join(
            f"{key}={value:.6g}" for key, value in result.items() if isinstance(value, int | float)
        )
        print(f"{settings}: {numbers or result.get('note', '')}", file=sys.stderr, flush=True)
        return cell

    def footer(self) -> str:
        """One line: machine, commits and load averages behind the figures."""
        runs = [cell["run"] for cell in self.cells]
        loads = [load for run in runs for load in (run["load_start"], run["load_end"])]
        packages = ", ".join(f"{name} {self.machine[name]}" for name in PACKAGES)
        return (
            f"{self.machine['cpu']}, {self.machine['cores']} cores, Python"
            f" {self.machine['python']}, {packages}; commit"
            f" {', '.join(sorted({run['commit'] for run in runs}))};"
            f" {min(run['date'] for run in runs)[:10]} to {max(run['date'] for run in runs)[:10]};"
            f" load average {min(loads):.1f} to {max(loads):.1f}."
        )

    def write_report(self, text: str) -> None:
        """Prints the Markdown report and writes it beside the JSON file."""
        report = f"{text}\n\n{self.footer()}\n"
        replace_file(self.path.with_suffix(".md"), report.encode())
        print(report)

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "machine": self.machine,
            "cells": self.cells,
        }
        replace_file(self.path, (json.dumps(data, indent=1) + "\n").encode())


@contextmanager
def _interrupt_noticed() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end if Ctrl-C was pressed and the block made light of it."""
    pressed = False

    def notice(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, Python and package versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def commit() -> str:
    """The checkout's commit, with `-dirty` where tracked files other than results were changed."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "-uno", "--", ".", ":!experiments/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def parser(description: str | None, out: Path, time_limit: float) -> argparse.ArgumentParser:
    """The options that every benchmark has, with their defaults."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--out",
        type=Path,
        default=out,
        help="results (JSON; the report goes beside it); cells that it has are not measured"
        f" again; default: {out.relative_to(ROOT)}",
    )
    result.add_argument(
        "--time-limit",
        type=float,
        default=time_limit,
        help="seconds for each measurement; default: %(default)s",
    )
    result.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    return result


def run(command: Callable[[Sequence[str] | None], None]) -> int:
    """Runs a command; bad input and Ctrl-C end in one line. Returns the exit status."""
    # Search needs no accelerator, and JAX without one says so at length.
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]
    try:
        command(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parse_mib(text: str) -> list[int]:
    """Bytes of `4MiB,16MiB`.

    Raises:
        InputError: anything but whole numbers of MiB.
    """
    sizes = [item.strip().removesuffix("MiB") for item in text.split(",")]
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"--sizes {text}: expected sizes such as 4MiB,16MiB")
    return [int(size) * MIB for size in sizes]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns after the first are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
