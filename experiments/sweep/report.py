"""The results of a sweep as Parquet, Markdown and one HTML page that needs nothing else.

`results.parquet` has a row for each cell: game, title (the instance in words), instance (JSON),
solver, time_limit, seed, objective, bound, unit, method (who found it), wall_s, proved, error (null
if it went well), curve (JSON: [seconds, objective] at each improvement), load, cpu, commit, schema.
"""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.common import markdown_table
from experiments.sweep.execute import check
from games.files import replace_file
from hlo_frontend.errors import InputError

RESAMPLES = 2000
CONFIDENCE = 0.95
SAME = 1e-9  # relative difference of objectives that counts as a tie
LARGEST_RATIO = 2.0  # of a performance profile's axis

Row = dict[str, Any]
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: 14px }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
img { max-width: 100% } .error { color: #a33 }
"""


def write_report(folder: Path) -> list[str]:
    """Writes `results.parquet`, `report.md` and `report.html`; returns what could not be read.

    Raises:
        InputError: no sweep's folder, or one of another version.
    """
    if not (folder / "sweep.json").exists():
        raise InputError(f"{folder}: no sweep was run there")
    check(folder)
    rows, damaged = _read(folder)
    if not rows:
        raise InputError(f"{folder}: has no finished cells yet")
    buffer = io.BytesIO()
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(buffer)
    replace_file(folder / "results.parquet", buffer.getvalue())
    sections = [_section(game, rows) for game in sorted({row["game"] for row in rows})]
    failed = [row for row in rows if row["error"] is not None]
    notes = [
        f"{row['game']}, {row['title']}, {row['solver']}, {row['time_limit']:g} s,"
        f" seed {row['seed']}: {row['error']}"
        for row in failed
    ] + damaged
    replace_file(folder / "report.md", _markdown(sections, notes).encode())
    replace_file(folder / "report.html", _html(folder.name, sections, notes).encode())
    return damaged


def _read(folder: Path) -> tuple[list[Row], list[str]]:
    """(rows, lines about cells that cannot be read)."""
    rows, damaged = [], []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            data = json.loads(path.read_text())
            rows.append(
                {
                    "schema": data["schema"],
                    "key": data["key"],
                    "game": data["game"],
                    "title": data["title"],
                    "instance": json.dumps(data["instance"]),
                    "solver": data["solver"],
                    "time_limit": float(data["time_limit"]),
                    "seed": int(data["seed"]),
                    "objective": data["objective"],
                    "bound": data["bound"],
                    "unit": data.get("unit"),
                    "method": data.get("method"),
                    "wall_s": data["wall_s"],
                    "proved": data["proved"],
                    "error": data["error"],
                    "curve": json.dumps(data["curve"]),
                    "load": data.get("load"),
                    "cpu": data["machine"]["cpu"],
                    "commit": data["commit"],
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(f"{path.name}: damaged ({error}); remove it and resume the sweep")
    return rows, damaged


class _Section:
    """One game's tables and pictures.

    Attributes:
        title: its heading.
        tables: (heading, header, rows).
        pictures: (heading, PNG).
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.tables: list[tuple[str, list[str], list[list[str]]]] = []
        self.pictures: list[tuple[str, bytes]] = []


def _section(game: str, rows: list[Row]) -> _Section:
    section = _Section(game)
    good = [row for row in rows if row["game"] == game and row["objective"] is not None]
    if not good:
        return section
    best = {
        title: min(row["objective"] for row in good if row["title"] == title)
        for title in dict.fromkeys(row["title"] for row in good)
    }
    bound = {
        title: max((row["bound"] for row in good if row["title"] == title), default=None)
        for title in best
    }
    solvers = list(dict.fromkeys(row["solver"] for row in good))
    for limit in sorted({row["time_limit"] for row in good}):
        now = [row for row in good if row["time_limit"] == limit]
        header = ["instance", *solvers, "best known", "bound"]
        section.tables.append(
            (
                f"Mean objective after {limit:g} s, {good[0]['unit']}",
                header,
                [
                    [
                        title,
                        *(_cell(now, title, solver) for solver in solvers),
                        f"{best[title]:.6g}",
                        f"{bound[title]:.6g}",
                    ]
                    for title in best
                ],
            )
        )
        section.tables.append(
            (
                f"Gap to the best known after {limit:g} s",
                [
                    "solver",
                    "mean gap",
                    "cells",
                    f"wins / ties / losses against {solvers[0]}",
                    f"difference of gaps, {CONFIDENCE:.0%} interval",
                ],
                [_gaps(now, best, solver, solvers[0]) for solver in solvers],
            )
        )
        section.pictures.append((f"Performance profile, {limit:g} s", _profile(now, best, solvers)))
    section.pictures.append(("Gap over time, longest limit", _curves(good, best, solvers)))
    return section


def _cell(rows: list[Row], title: str, solver: str) -> str:
    values = [r["objective"] for r in rows if r["title"] == title and r["solver"] == solver]
    return f"{mean(values):.6g}" if values else "-"


def _gap(row: Row, best: dict[str, float]) -> float:
    known = best[row["title"]]
    return float(row["objective"] / known - 1) if known else 0.0


def _gaps(rows: list[Row], best: dict[str, float], solver: str, reference: str) -> list[str]:
    """Mean gap, number of cells, and the comparison with the reference, cell by cell."""
    gaps = {(r["title"], r["seed"]): _gap(r, best) for r in rows if r["solver"] == solver}
    other = {(r["title"], r["seed"]): _gap(r, best) for r in rows if r["solver"] == reference}
    if not gaps:
        return [solver, "-", "0", "-", "-"]
    pairs = np.array([gaps[key] - other[key] for key in gaps if key in other])
    if solver == reference or not len(pairs):
        return [solver, f"{mean(gaps.values()):.3%}", str(len(gaps)), "-", "-"]
    wins, losses = int((pairs < -SAME).sum()), int((pairs > SAME).sum())
    low, high = _bootstrap(pairs)
    return [
        solver,
        f"{mean(gaps.values()):.3%}",
        str(len(gaps)),
        f"{wins} / {len(pairs) - wins - losses} / {losses}",
        f"{low:+.3%} to {high:+.3%}",
    ]


def _bootstrap(pairs: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
    """Interval of the mean of paired differences, resampling pairs."""
    random = np.random.default_rng(0)
    means = random.choice(pairs, (RESAMPLES, len(pairs))).mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _profile(rows: list[Row], best: dict[str, float], solvers: list[str]) -> bytes:
    """Share of cells within a factor of the best known."""
    figure, axes = _axes("objective / best known", "share of cells")
    for solver in solvers:
        ratios = np.sort([1 + _gap(row, best) for row in rows if row["solver"] == solver])
        if len(ratios):
            share = np.arange(1, len(ratios) + 1) / len(ratios)
            axes.step(
                [1, *ratios, LARGEST_RATIO], [0, *share, share[-1]], where="post", label=solver
            )
    axes.set_xlim(1, LARGEST_RATIO)
    axes.set_ylim(0, 1.02)
    return _png(figure, axes)


def _curves(rows: list[Row], best: dict[str, float], solvers: list[str]) -> bytes:
    """Mean gap over time; a cell counts from its first solution on."""
    figure, axes = _axes("seconds", "mean gap to the best known")
    longest = max(row["time_limit"] for row in rows)
    times = np.geomspace(1e-3, longest, 200)
    for solver in solvers:
        gaps = []
        for row in rows:
            curve = json.loads(row["curve"])
            if row["solver"] != solver or row["time_limit"] != longest or not curve:
                continue
            seconds = np.array([point[0] for point in curve])
            values = np.array([point[1] for point in curve]) / best[row["title"]] - 1
            at = np.searchsorted(seconds, times, side="right") - 1
            gaps.append(np.where(at >= 0, values[np.maximum(at, 0)], np.nan))
        if gaps:
            table = np.array(gaps)
            whole = ~np.isnan(table).any(axis=0)
            axes.plot(times[whole], table[:, whole].mean(axis=0), label=solver)
    axes.set_xscale("log")
    return _png(figure, axes)


def _axes(x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _png(figure: Figure, axes: Any) -> bytes:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()


def _markdown(sections: list[_Section], notes: list[str]) -> str:
    lines = ["# Sweep"]
    for section in sections:
        lines += ["", f"## {section.title}"]
        for heading, header, rows in section.tables:
            lines += ["", f"### {heading}", "", markdown_table(header, rows)]
    if notes:
        lines += ["", "## Failed cells", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _html(title: str, sections: list[_Section], notes: list[str]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        for heading, header, rows in section.tables:
            parts.append(f"<h3>{html.escape(heading)}</h3>{_table(header, rows)}")
        for heading, png in section.pictures:
            data = base64.b64encode(png).decode()
            text = html.escape(heading)
            parts.append(f'<h3>{text}</h3><img alt="{text}" src="data:image/png;base64,{data}">')
    if notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        parts.append(f'<h2>Failed cells</h2><ul class="error">{items}</ul>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
