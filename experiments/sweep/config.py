"""A sweep as a TOML file: instances, solvers, limits, seeds.

    solvers = ["portfolio", "local_search", "exact"]
    time_limits = [1, 10]
    seeds = 3

    [[instances]]
    game = "memory_mapping"
    dump = "example:strassen49.v5e.nomsa"
    fast_memory = ["4MiB", "16MiB"]

What an instance takes is what its game's `read_instance` takes; a list stands for one instance for
each of its values (a list of lists for what takes a list itself). A game of chance gets no cells of
the solver `search`, which would see the recorded future. The suites that ship (`SUITES`) have names
instead of paths.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import itertools
import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from games.base import StochasticGame
from games.registry import GAMES, get_game
from hlo_frontend.errors import InputError

SCHEMA = 2
MOST_CELLS = 1_000_000
KEYS = ("solvers", "time_limits", "seeds", "instances")
PORTFOLIO, LOCAL_SEARCH, SEARCH, EXACT = "portfolio", "local_search", "search", "exact"
HEURISTICS = "heuristics"  # the best of them
ALL_GAMES = (PORTFOLIO, HEURISTICS, LOCAL_SEARCH, SEARCH, EXACT)
SUITES = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


@dataclass(frozen=True)
class CellConfig:
    """One measurement.

    Attributes:
        game: its name.
        instance: what `read_instance` of the game is given.
        solver: a name of ALL_GAMES, or a heuristic of the game.
        time_limit: seconds.
        seed: of the solver.
    """

    game: str
    instance: dict[str, Any]
    solver: str
    time_limit: float
    seed: int

    @property
    def key(self) -> str:
        """Name of the cell's file: a hash of all of this and of the schema's version."""
        text = json.dumps([SCHEMA, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def title(self) -> str:
        """The instance in words."""
        return title_of(self.instance)


def title_of(instance: dict[str, Any]) -> str:
    """An instance in words; a bare number or flag with its key."""
    return ", ".join(
        value if isinstance(value, str) else f"{key} {value}" for key, value in instance.items()
    )


def read_sweep(path: Path) -> list[CellConfig]:
    """All cells of a sweep, checked as far as can be without running them.

    Args:
        path: of a TOML file, or the name of a suite where there is no such file.

    Raises:
        InputError: no TOML file, an unknown key, game or solver (with the nearest known one), too
            many cells.
    """
    if not path.exists():
        if path.suffix == "":
            _known(str(path), SUITES, "suite")
        path = SUITES.get(str(path), path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from error
    for key in table:
        _known(key, KEYS, f"{path}: key")
    limits = _numbers(table.get("time_limits", [10.0]), f"{path}: time_limits")
    seeds = table.get("seeds", 1)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InputError(f"{path}: seeds is {seeds!r}, expected a whole number from 1")
    solvers = table.get("solvers", [PORTFOLIO])
    rows = table.get("instances")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected at least one [[instances]]")
    if not isinstance(solvers, list) or not solvers:
        raise InputError(f"{path}: solvers is {solvers!r}, expected a list of names")
    size = len(limits) * seeds * len(solvers) * sum(_size(row) for row in rows)
    if size > MOST_CELLS:
        raise InputError(
            f"{path}: a grid of {size:,} cells; at most {MOST_CELLS:,} are run at once"
        )
    cells = []
    for number, row in enumerate(rows):
        where = f"{path}: instance {number + 1}"
        game, instances = _instances(row, where)
        heuristics = import_module(f"baselines.{game}").HEURISTICS
        for solver in solvers:
            _known(str(solver), (*ALL_GAMES, *heuristics), f"{path}: solver")
        cells += [
            CellConfig(game, instance, solver, limit, seed)
            for instance, solver, limit, seed in itertools.product(
                instances, solvers, limits, range(seeds)
            )
            if solver != SEARCH or not isinstance(get_game(game), StochasticGame)
        ]
    return list({cell.key: cell for cell in cells}.values())


def _instances(row: dict[str, Any], where: str) -> tuple[str, list[dict[str, Any]]]:
    """(game, one dictionary for each instance of the grid)."""
    game = row.get("game")
    if game is None:
        raise InputError(f"{where}: expected game, one of {', '.join(GAMES)}")
    _known(str(game), GAMES, f"{where}: game")
    taken = inspect.signature(
        import_module(f"{GAMES[str(game)]}.instances").read_instance
    ).parameters
    axes = {key: value for key, value in row.items() if key != "game"}
    for key in axes:
        _known(key, taken, f"{where}: key")
    for name, parameter in taken.items():
        if parameter.default is inspect.Parameter.empty and name not in axes:
            raise InputError(f"{where}: expected {name}")
    values = [value if isinstance(value, list) else [value] for value in axes.values()]
    grid = itertools.product(*values)
    return str(game), [dict(zip(axes, combination, strict=True)) for combination in grid]


def _size(row: dict[str, Any]) -> int:
    return math.prod(len(value) for value in row.values() if isinstance(value, list))


def _known(name: str, names: Iterable[str], what: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
        raise InputError(f"{what} {name} is unknown; {hint}")


def _numbers(values: Any, what: str) -> list[float]:
    listed = values if isinstance(values, list) else [values]
    if not listed or not all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        for value in listed
    ):
        raise InputError(f"{what} is {values!r}, expected positive numbers")
    return [float(value) for value in listed]
