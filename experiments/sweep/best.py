"""The best that is known of an instance: a solution, the best proven bound, and who found them.

A store is a folder with `GAME/KEY.json` for each instance. Nothing in it is believed: whoever reads
an entry reads the instance, lets the game's validator check the solution and works out its
objective anew. The store of the package has only instances that ship or are generated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.sweep.config import title_of
from experiments.sweep.execute import problem_of
from experiments.sweep.results import Row, read_cells
from games.base import Game
from games.files import replace_file
from games.packed import unpack
from games.registry import GAMES, get_game
from hlo_frontend.errors import InputError

SCHEMA = "compiler-rl/best-known/1"
STORE = Path(__file__).parent.parent / "best"
TOLERANCE = 1e-9  # relative, of an objective worked out anew
BETTER = 1e-12  # relative, that counts as an improvement


@dataclass(frozen=True)
class Entry:
    """What is known of one instance.

    Attributes:
        game, instance: as in a sweep's file.
        objective: of the solution.
        method, date, commit: who found it, and when.
        bound: the best proven lower bound.
        bound_method: who proved it.
        solution: packed.
    """

    game: str
    instance: dict[str, Any]
    objective: float
    method: str
    date: str
    commit: str
    bound: float
    bound_method: str
    solution: str

    @property
    def title(self) -> str:
        """The instance in words."""
        return title_of(self.instance)


def read_entry(store: Path, game: str, instance: dict[str, Any]) -> Entry | None:
    """The checked entry of an instance, None if nothing is known of it.

    Raises:
        InputError: the entry is damaged, of another version, or its solution is not what it says.
    """
    path = _path(store, game, instance)
    return _checked(path) if path.exists() else None


def read_store(store: Path) -> list[Entry]:
    """All entries, each of them checked.

    Raises:
        InputError: as `read_entry`.
    """
    return [_checked(path) for path in sorted(store.glob("*/*.json"))]


def update(store: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Takes over what a sweep found that is better than what the store has.

    Args:
        store: made if it is not there.
        folder: of a sweep.

    Returns:
        (lines about what became better, lines about what was left out).

    Raises:
        InputError: no sweep's folder, a damaged entry, or a store that cannot be written.
    """
    rows, left_out = read_cells(folder)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["objective"] is not None:
            groups.setdefault((row["game"], row["instance"]), []).append(row)
    news = []
    for (game, text), group in groups.items():
        instance = json.loads(text)
        if store.resolve() == STORE.resolve() and not _ships(instance):
            left_out.append(
                f"{game}, {title_of(instance)}: a file of yours; give a --store of your own"
            )
            continue
        try:
            news += _update_one(store, folder, game, instance, group)
        except InputError as error:
            left_out.append(str(error))
    return news, left_out


def _update_one(
    store: Path, folder: Path, game: str, instance: dict[str, Any], rows: Iterable[Row]
) -> list[str]:
    known = read_entry(store, game, instance)
    rows = sorted(rows, key=lambda row: (row["objective"], row["wall_s"], row["key"]))
    found, proof = rows[0], max(rows, key=lambda row: row["bound"])
    better = known is None or found["objective"] < known.objective - BETTER * abs(known.objective)
    tighter = known is None or proof["bound"] > known.bound + BETTER * abs(known.bound)
    if not better and not tighter:
        return []
    entry = known
    if better:
        path = folder / "solutions" / f"{found['key']}.txt"
        try:
            solution = path.read_text()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        kept = entry or Entry(game, instance, 0.0, "", "", "", float("-inf"), "", "")
        entry = dataclasses.replace(
            kept,
            objective=found["objective"],
            method=f"{found['solver']}: {found['method']}",
            date=found["date"],
            commit=found["commit"],
            solution=solution,
        )
    assert entry is not None
    if tighter:
        entry = dataclasses.replace(
            entry, bound=proof["bound"], bound_method=f"{proof['solver']}: {proof['method']}"
        )
    path = _path(store, game, instance)
    _check(entry, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be made ({error.strerror})") from error
    data = {"schema": SCHEMA, **dataclasses.asdict(entry)}
    replace_file(path, (json.dumps(data, indent=1) + "\n").encode())
    was = "" if known is None else f", was {known.objective:.9g} and {known.bound:.9g}"
    return [f"{game}, {entry.title}: {entry.objective:.9g}, bound {entry.bound:.9g}{was}"]


def _checked(path: Path) -> Entry:
    try:
        data = json.loads(path.read_bytes())
        if data.pop("schema") != SCHEMA:
            raise InputError(f"{path}: of another version, expected {SCHEMA}")
        entry = Entry(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({error}); remove it") from error
    _check(entry, str(path))
    return entry


def _check(entry: Entry, where: str) -> None:
    """Raises InputError unless the solution is valid and costs what the entry says."""
    if entry.game not in GAMES:
        raise InputError(f"{where}: game {entry.game} is unknown")
    game = get_game(entry.game)
    try:
        problem = problem_of(entry.game, json.dumps(entry.instance, sort_keys=True))
    except TypeError as error:
        raise InputError(f"{where}: the instance is of another version ({error})") from error
    solution = open_solution(game, problem, entry.solution, where)
    objective = game.objective(problem, solution)
    if abs(objective - entry.objective) > TOLERANCE * abs(objective):
        raise InputError(
            f"{where}: says {entry.objective:.12g}, its solution has {objective:.12g}; remove it"
        )
    if entry.bound > objective + 1e-6 * abs(objective):
        raise InputError(f"{where}: its bound {entry.bound:.12g} is above its own solution")


def open_solution(game: Game, problem: Any, text: str, where: str) -> Any:
    """A packed solution that the validator accepts.

    Raises:
        InputError: it is damaged, or not valid for the problem.
    """
    solution = unpack(game, text, where)
    try:
        faults = game.validate(problem, solution)
    except Exception as error:  # arrays of other lengths than any solver's
        faults = [f"{type(error).__name__}: {error}".splitlines()[0]]
    if faults:
        raise InputError(f"{where}: not a valid solution ({faults[0]}); remove it")
    return solution


def _ships(instance: dict[str, Any]) -> bool:
    """Whether an instance needs no file of the user's."""
    return not any(isinstance(value, str) and Path(value).exists() for value in instance.values())


def _path(store: Path, game: str, instance: dict[str, Any]) -> Path:
    text = json.dumps([game, instance], sort_keys=True)
    return store / game / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
