"""The results of a sweep as Parquet, Markdown and one HTML page that needs nothing else.

The columns of the Parquet file are those of `experiments.sweep.results`. Gaps are to the best known
of an instance: the better of the sweep's own and of the store's (`experiments.sweep.best`).
"""

from __future__ import annotations

import base64
import html
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.common import markdown_table
from experiments.sweep import statistics
from experiments.sweep.best import STORE, open_solution, read_entry
from experiments.sweep.config import ALL_GAMES
from experiments.sweep.execute import problem_of
from experiments.sweep.results import MACHINE, Row, read_cells, write_parquet
from games.files import replace_file
from games.registry import GAMES, get_game
from hlo_frontend.errors import InputError

LARGEST_RATIO = 2.0  # of a performance profile's axis
EARLIEST = 1e-3  # seconds, of an anytime curve's axis
MANY = 20  # instances; from more on, a table has the mean over them
PICTURES = 2  # solutions of each game that are drawn

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
.wide { overflow-x: auto } img { max-width: 100% } .error { color: #a33 }
"""


@dataclass(frozen=True)
class _Table:
    heading: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class _Picture:
    heading: str
    png: bytes


@dataclass(frozen=True)
class _Section:
    title: str
    parts: list[_Table | _Picture]


@dataclass(frozen=True)
class _Known:
    """The best objective and bound of each instance of a game, by title."""

    objective: dict[str, float]
    bound: dict[str, float]


def write_report(
    folder: Path,
    *,
    store: Path = STORE,
    training: Sequence[Path] = (),
    pictures: int = PICTURES,
) -> list[str]:
    """Writes `results.parquet`, `report.md` and `report.html`.

    Args:
        folder: of a sweep.
        store: of the best that is known.
        training: folders of `compiler-rl train`, whose curves are shown.
        pictures: solutions of each game that are drawn, of its first instances.

    Returns:
        Lines about what could not be read or drawn.

    Raises:
        InputError: no sweep's folder, one of another version, no training run's folder, or the
            report cannot be written.
    """
    rows, notes = read_cells(folder)
    if not rows:
        raise InputError(f"{folder}: has no finished cells yet")
    curves = [(run.name, read_training(run)) for run in training]
    write_parquet(rows, folder)
    sections = []
    for game in sorted({row["game"] for row in rows}):
        own = [row for row in rows if row["game"] == game]
        sections.append(_section(folder, game, own, store, pictures, notes))
    if curves:
        parts: list[_Table | _Picture] = [_Picture("Saving and loss", _training(curves))]
        sections.append(_Section("Training", parts))
    sections.append(_Section("Where and when", [_environment(rows)]))
    failed = [
        f"{row['game']}, {row['title']}, {row['solver']}, {row['time_limit']:g} s,"
        f" seed {row['seed']}: {row['error']}"
        for row in rows
        if row["error"] is not None
    ]
    lines = {"Failed cells": failed, "What could not be read or drawn": notes}
    replace_file(folder / "report.md", _markdown(sections, lines).encode())
    replace_file(folder / "report.html", _html(folder.name, sections, lines).encode())
    return notes


def read_training(folder: Path) -> list[dict[str, float]]:
    """The iterations of a training run.

    Raises:
        InputError: not the folder of one.
    """
    path = folder / "progress.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found = [
            {k: float(row[k]) for k in ("iteration", "saving", "best", "loss")} for row in rows
        ]
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a folder of `compiler-rl train`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    if not found:
        raise InputError(f"{path}: has no iterations yet")
    return found


def _section(
    folder: Path, game: str, rows: list[Row], store: Path, pictures: int, notes: list[str]
) -> _Section:
    good = [row for row in rows if row["objective"] is not None]
    parts: list[_Table | _Picture] = []
    if not good:
        return _Section(game, parts)
    known = _known(game, good, store, notes)
    names = {row["solver"] for row in rows}
    solvers = [name for name in ALL_GAMES if name in names] + sorted(names - set(ALL_GAMES))
    for limit in sorted({row["time_limit"] for row in rows}):
        now = [row for row in rows if row["time_limit"] == limit]
        parts.append(_objectives(now, known, solvers, f"{limit:g} s, {good[0]['unit']}"))
        gaps = {solver: statistics.gaps_of(now, solver, known.objective) for solver in solvers}
        gaps = {solver: own for solver, own in gaps.items() if own}
        parts.append(_methods(now, gaps, known, f"Methods after {limit:g} s"))
        if len(gaps) > 1:
            parts.append(_wins(gaps, f"Wins / ties / losses of the row, {limit:g} s"))
        parts.append(_Picture(f"Performance profile, {limit:g} s", _profile(gaps)))
    parts.append(_Picture("Gap over time, longest limit", _curves(rows, known, solvers)))
    return _Section(game, parts + _drawn(folder, game, good, pictures, notes))


def _known(game: str, rows: list[Row], store: Path, notes: list[str]) -> _Known:
    """The better of what these rows say and of what the store has."""
    known = _Known({}, {})
    instances = {}
    for row in rows:
        title = row["title"]
        instances[title] = row["instance"]
        known.objective[title] = min(known.objective.get(title, np.inf), row["objective"])
        known.bound[title] = max(known.bound.get(title, -np.inf), row["bound"])
    for title, instance in instances.items():
        try:
            entry = read_entry(store, game, json.loads(instance))
        except InputError as error:
            notes.append(str(error))
            continue
        if entry is not None:
            known.objective[title] = min(known.objective[title], entry.objective)
            known.bound[title] = max(known.bound[title], entry.bound)
    return known


def _objectives(rows: list[Row], known: _Known, solvers: list[str], what: str) -> _Table:
    """Mean objective of each solver on each instance."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["objective"] is not None:
            values.setdefault((row["title"], row["solver"]), []).append(row["objective"])

    def cell(title: str, solver: str) -> str:
        own = values.get((title, solver))
        return f"{mean(own):.6g}" if own else "-"

    shown = list(known.objective)[:MANY]
    more = len(known.objective) - len(shown)
    heading = f"Mean objective after {what}" + (
        f" (the first {MANY} instances of {MANY + more})" if more else ""
    )
    return _Table(
        heading,
        ["instance", *solvers, "best known", "bound"],
        [
            [
                title,
                *(cell(title, solver) for solver in solvers),
                f"{known.objective[title]:.6g}",
                f"{known.bound[title]:.6g}",
            ]
            for title in shown
        ],
    )


def _methods(
    rows: list[Row], gaps: Mapping[str, statistics.Gaps], known: _Known, heading: str
) -> _Table:
    """Each solver: gaps, seconds, proofs, and its comparison with the first."""
    reference = next(iter(gaps))
    table = []
    for solver, own in gaps.items():
        mine = [row for row in rows if row["solver"] == solver]
        done = [row for row in mine if row["objective"] is not None]
        to_bound = [statistics.gap_to(row["objective"], known.bound[row["title"]]) for row in done]
        paired = None if solver == reference else statistics.compare(own, gaps[reference])
        table.append(
            [
                solver,
                f"{mean(own.values()):.3%}",
                f"{np.median(list(own.values())):.3%}",
                f"{mean(to_bound):.3%}" if to_bound else "-",
                f"{mean(row['wall_s'] for row in done):.2f}" if done else "-",
                f"{sum(bool(row['proved']) for row in done)}",
                f"{len(mine)}, {len(mine) - len(done)}",
                _interval(paired),
            ]
        )
    header = [
        "solver",
        "mean gap to best known",
        "median",
        "mean gap to bound",
        "mean seconds",
        "proved",
        "cells, failed",
        f"difference from {reference}, {statistics.CONFIDENCE:.0%} interval",
    ]
    return _Table(heading, header, table)


def _interval(paired: statistics.Paired | None) -> str:
    """An interval over instances, which one instance does not have."""
    if paired is None or paired.instances == 1:
        return "-"
    return f"{paired.low:+.3%} to {paired.high:+.3%}"


def _wins(gaps: Mapping[str, statistics.Gaps], heading: str) -> _Table:
    """Every solver against every other, cell by cell."""

    def cell(own: str, other: str) -> str:
        paired = None if own == other else statistics.compare(gaps[own], gaps[other])
        return f"{paired.wins} / {paired.ties} / {paired.losses}" if paired else ""

    rows = [[solver, *(cell(solver, other) for other in gaps)] for solver in gaps]
    return _Table(heading, ["solver", *gaps], rows)


def _profile(gaps: Mapping[str, statistics.Gaps]) -> bytes:
    """Share of cells within a factor of the best known; failed cells are in no factor."""

    def plot(axes: Axes) -> None:
        ratios = np.linspace(1.0, LARGEST_RATIO, 500)
        for solver, own in gaps.items():
            axes.step(ratios, statistics.profile(own, ratios), where="post", label=solver)
        axes.set(xlabel="objective / best known", ylabel="share of cells", ylim=(0, 1.02))
        axes.set_xlim(1, LARGEST_RATIO)

    return _figure(plot)


def _curves(rows: list[Row], known: _Known, solvers: list[str]) -> bytes:
    """Mean gap over time; drawn from when every cell of the solver has a solution."""
    longest = max(row["time_limit"] for row in rows)
    times = np.geomspace(EARLIEST, longest, 200)

    def plot(axes: Axes) -> None:
        for solver in solvers:
            own = [
                row
                for row in rows
                if row["solver"] == solver
                and row["time_limit"] == longest
                and row["objective"] is not None
            ]
            if own:
                gap, whole = statistics.anytime(own, known.objective, times)
                axes.plot(times[whole], gap[whole], label=solver)
        axes.set(xlabel="seconds", ylabel="mean gap to the best known", xscale="log")

    return _figure(plot)


def _drawn(
    folder: Path, game: str, rows: list[Row], pictures: int, notes: list[str]
) -> list[_Table | _Picture]:
    """The best solutions of the first instances, checked before they are drawn."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["objective"], row["wall_s"], row["key"])):
        best.setdefault(row["title"], row)
    titles = list(dict.fromkeys(row["title"] for row in rows))[:pictures]
    found: list[_Table | _Picture] = []
    for title in titles:
        row = best[title]
        try:
            png = _draw(folder / "solutions" / f"{row['key']}.txt", game, row)
        except InputError as error:
            notes.append(str(error))
            continue
        heading = f"{title}: {row['objective']:.6g} {row['unit']} by {row['solver']}"
        found.append(_Picture(heading, png))
    return found


def _draw(path: Path, name: str, row: Row) -> bytes:
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    game = get_game(name)
    instance = json.loads(row["instance"])
    problem = problem_of(name, json.dumps(instance, sort_keys=True))
    solution = open_solution(game, problem, text, str(path))
    instances = import_module(f"{GAMES[name]}.instances")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "solution.png"
        try:
            if hasattr(instances, "draw_solution"):
                instances.draw_solution(instance, problem, solution, out, method=row["method"])
            else:
                draw = import_module(f"{GAMES[name]}.picture").draw
                draw(problem, solution, out, method=row["method"])
            return out.read_bytes()
        except Exception as error:  # a report is not lost to one picture
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            raise InputError(f"{name}, {row['title']}: cannot be drawn ({line})") from error


def _training(runs: list[tuple[str, list[dict[str, float]]]]) -> bytes:
    """Saving and loss over the iterations of training runs."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, rows in runs:
        iterations = [row["iteration"] for row in rows]
        (line,) = left.plot(iterations, [row["saving"] for row in rows], label=f"{name}, mean")
        best = [row["best"] for row in rows]
        left.plot(iterations, best, "--", color=line.get_color(), label=f"{name}, best so far")
        right.plot(iterations, [row["loss"] for row in rows], label=name)
    left.set(xlabel="iteration", ylabel="saving")
    right.set(xlabel="iteration", ylabel="loss")
    for axes in (left, right):
        axes.legend(fontsize=8)
    return _png(figure)


def _environment(rows: list[Row]) -> _Table:
    """Machines, versions, commits, dates and load averages behind the figures."""

    def span(name: str) -> str:
        values = sorted({row[name] for row in rows if row[name] is not None})
        if not values or len(values) == 1:
            return str(values[0]) if values else "-"
        return f"{values[0]} to {values[-1]}"

    facts = {name: ", ".join(sorted({str(row[name]) for row in rows})) for name in MACHINE}
    facts["commit"] = ", ".join(sorted({row["commit"] for row in rows}))
    facts["UTC"], facts["load average"] = span("date"), span("load")
    return _Table("Machine and versions", ["what", "value"], [[k, v] for k, v in facts.items()])


def _figure(plot: Callable[[Axes], None]) -> bytes:
    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.13, 0.88, 0.84))  # a layout engine would draw everything twice
    plot(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()


def _markdown(sections: list[_Section], notes: Mapping[str, list[str]]) -> str:
    lines = ["# Sweep"]
    for section in sections:
        lines += ["", f"## {section.title}"]
        for part in section.parts:
            if isinstance(part, _Table):
                lines += ["", f"### {part.heading}", "", markdown_table(part.header, part.rows)]
    for heading, items in notes.items():
        if items:
            lines += ["", f"## {heading}", "", *(f"- {item}" for item in items)]
    return "\n".join(lines) + "\n"


def _html(title: str, sections: list[_Section], notes: Mapping[str, list[str]]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        for part in section.parts:
            text = html.escape(part.heading)
            parts.append(f"<h3>{text}</h3>")
            if isinstance(part, _Table):
                parts.append(_html_table(part))
            else:
                data = base64.b64encode(part.png).decode()
                parts.append(f'<img alt="{text}" src="data:image/png;base64,{data}">')
    for heading, items in notes.items():
        if items:
            listed = "".join(f"<li>{html.escape(item)}</li>" for item in items)
            parts.append(f'<h2>{html.escape(heading)}</h2><ul class="error">{listed}</ul>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _html_table(table: _Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
