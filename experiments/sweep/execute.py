"""Runs the cells that are missing, each in a worker with one thread, and keeps every result.

A sweep's folder has `cells/KEY.json`, one for each finished cell, written whole or not at all: a
kill loses at most the cells in flight, and running again does only what is missing. Its solution is
`solutions/KEY.txt` (`games.packed`), written before it. An executor yields cells as they are done;
`processes` has workers of its own, `experiments.sweep.on_ray` those of a Ray cluster.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from experiments.common import commit, machine
from experiments.sweep.config import (
    EXACT,
    HEURISTICS,
    LOCAL_SEARCH,
    PORTFOLIO,
    SCHEMA,
    SEARCH,
    CellConfig,
)
from games.base import Result
from games.files import replace_file
from games.packed import pack
from games.registry import GAMES, get_game
from hlo_frontend.errors import InputError

# Every numerical library that may start threads of its own.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
LOOK = 0.2  # seconds
SIMULATIONS = 16  # of the solver `search`, for each move

Measure = Callable[[CellConfig], dict[str, Any]]
Executor = Callable[
    [Sequence[CellConfig], int, Measure], Iterator[tuple[CellConfig, dict[str, Any]]]
]


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: cells done, failed ones among them, all, and seconds left."""

    done: int
    failed: int
    total: int
    left_s: float


def run(
    cells: Sequence[CellConfig],
    folder: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    measure: Measure | None = None,
) -> None:
    """Runs the cells that the folder does not have.

    Args:
        cells: of the sweep.
        folder: made if it is not there.
        workers: processes; timings are comparable while there are no more of them than cores.
        resume: the folder may have cells already.
        report: called after each cell.
        executor: who runs the cells; processes of this machine if None.
        measure: what is done for a cell, in the worker; `measure_cell` if None.

    Raises:
        InputError: the folder has cells and `resume` is False, is of another version, or cannot be
            written; what was finished stays readable.
    """
    store = folder / "cells"
    there = check(folder)
    if there and not resume:
        raise InputError(
            f"{folder}: has {there} finished cells; add --resume, or give another folder"
        )
    try:
        store.mkdir(parents=True, exist_ok=True)
        (folder / "solutions").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from error
    replace_file(folder / "sweep.json", json.dumps({"schema": SCHEMA}).encode())
    missing = [cell for cell in cells if not (store / f"{cell.key}.json").exists()]
    here = commit()
    started = time.perf_counter()
    failed = 0
    environment = dict(os.environ)
    os.environ.update(ONE_THREAD)
    try:
        records = (executor or processes)(missing, workers, measure or measure_cell)
        for count, (cell, record) in enumerate(records, 1):
            failed += record["error"] is not None
            record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            solution = record.pop("solution", None)
            if solution is not None:
                replace_file(folder / "solutions" / f"{cell.key}.txt", solution.encode())
            replace_file(store / f"{cell.key}.json", json.dumps(record | {"commit": here}).encode())
            if report is not None:
                left = (time.perf_counter() - started) / count * (len(missing) - count)
                report(Progress(len(cells) - len(missing) + count, failed, len(cells), left))
    finally:
        os.environ.clear()
        os.environ.update(environment)


def processes(
    cells: Sequence[CellConfig], workers: int, measure: Measure
) -> Iterator[tuple[CellConfig, dict[str, Any]]]:
    """Each cell as it is done; a worker that dies takes no more with it than what was running."""
    waiting = list(reversed(cells))
    while waiting:
        pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        running: dict[Future[dict[str, Any]], CellConfig] = {}
        broken = False
        try:
            while running or (waiting and not broken):
                while waiting and len(running) < workers and not broken:
                    cell = waiting.pop()
                    running[pool.submit(work, cell, measure)] = cell
                # Short waits see Ctrl-C where a library's handler restarts a long one.
                for future in wait(running, LOOK, return_when=FIRST_COMPLETED).done:
                    broken |= isinstance(future.exception(), BrokenProcessPool)
                    cell = running.pop(future)
                    lost = isinstance(future.exception(), BrokenProcessPool)
                    yield cell, record_of(cell, future.result) if lost else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def check(folder: Path) -> int:
    """How many finished cells the folder has.

    Raises:
        InputError: it is a sweep's of another version.
    """
    marker = folder / "sweep.json"
    if not marker.exists():
        return 0
    try:
        schema = json.loads(marker.read_text())["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{marker}: damaged ({error}); give another folder") from error
    if schema != SCHEMA:
        raise InputError(f"{folder}: results of version {schema}, expected {SCHEMA}")
    return sum(1 for _ in (folder / "cells").glob("*.json"))


def work(cell: CellConfig, measure: Measure) -> dict[str, Any]:
    """The record of a cell, in the worker; a fault of one cell does not stop the others."""
    return record_of(cell, lambda: measure(cell))


def record_of(cell: CellConfig, outcome: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The cell, the machine, and what came of it, or the error in one line."""
    base = {
        "schema": SCHEMA,
        "key": cell.key,
        **asdict(cell),
        "title": cell.title,
        "machine": _machine(),
    }
    empty: dict[str, Any] = {
        "objective": None,
        "bound": None,
        "wall_s": None,
        "proved": False,
        "curve": [],
    }
    try:
        return {**base, **empty, "error": None, **outcome()}
    except InputError as error:
        return {**base, **empty, "error": str(error)}
    except BrokenProcessPool:
        return {**base, **empty, "error": "the worker ended without a word"}
    except Exception as error:  # whatever a solver does wrong is the cell's result
        last = traceback.format_exception(error)[-1].strip()
        return {**base, **empty, "error": last.splitlines()[0]}


def measure_cell(cell: CellConfig) -> dict[str, Any]:
    """Runs one cell, in the worker."""
    problem = problem_of(cell.game, json.dumps(cell.instance, sort_keys=True))
    game = get_game(cell.game)
    solvers = import_module(f"baselines.{cell.game}")
    solvers.prepare()
    load = os.getloadavg()[0]
    result = _solve(cell, problem, solvers)
    faults = game.validate(problem, result.solution)
    if faults:
        raise InputError(f"{cell.solver}: not a valid solution: {faults[0]}")
    if not math.isfinite(result.objective):
        raise InputError(f"{cell.solver}: found no solution")
    bound = max(game.lower_bound(problem), result.bound or -math.inf)
    return {
        "objective": result.objective,
        "bound": bound,
        "unit": game.unit,
        "method": result.method,
        "wall_s": result.wall_s,
        "proved": result.proved_optimal,
        "curve": [list(point) for point in result.curve],
        "load": load,
        "solution": pack(result.solution),
    }


def _solve(cell: CellConfig, problem: Any, solvers: Any) -> Result[Any]:
    limit, seed = cell.time_limit, cell.seed
    if cell.solver == PORTFOLIO:
        from compiler_rl.solve import solve  # noqa: PLC0415 (most cells need no search)

        return solve(problem, time_limit=limit, seed=seed, workers=1)
    if cell.solver == HEURISTICS:
        started = time.perf_counter()
        results = [
            each(problem, time_limit=limit, seed=seed) for each in solvers.HEURISTICS.values()
        ]
        best = min(results, key=lambda result: result.objective)
        return replace(best, wall_s=time.perf_counter() - started, curve=())
    if cell.solver == SEARCH:
        from compiler_rl.search import play  # noqa: PLC0415

        game = get_game(cell.game)
        return play(game, problem, simulations=SIMULATIONS, time_limit=limit, seed=seed)
    solver = {
        LOCAL_SEARCH: solvers.IMPROVE,
        EXACT: solvers.EXACT.solve,
        **solvers.HEURISTICS,
    }[cell.solver]
    return solver(problem, time_limit=limit, seed=seed)


_machine = cache(machine)


@cache
def problem_of(game: str, instance: str) -> Any:
    """The problem of an instance (JSON)."""
    return import_module(f"{GAMES[game]}.instances").read_instance(**json.loads(instance))
