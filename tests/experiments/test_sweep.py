"""Sweeps: cells are kept, resumed and reported; bad input is one line."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser

import polars as pl
import pytest

from experiments.sweep import execute
from experiments.sweep.config import read_sweep
from experiments.sweep.report import write_report
from hlo_frontend.errors import InputError

CONFIG = """
solvers = ["lowest_first", "first_fit_by_size"]
time_limits = [1]
seeds = 2

[[instances]]
game = "offset_allocation"
generated = [1, 2]

[[instances]]
game = "offset_allocation"
file = "missing.csv"
capacity = 100
"""


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(CONFIG)
    return read_sweep(path)


class Page(HTMLParser):
    """What a page holds: its text, and what it would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.text, self.loads, self.open = "", [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_sweep_is_kept_resumed_and_reported(cells, tmp_path):
    assert len(cells) == 2 * 2 * 3
    folder = tmp_path / "out"
    seen = []
    execute.run(cells[:5], folder, report=seen.append)
    assert [progress.done for progress in seen] == [1, 2, 3, 4, 5]
    first = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    with pytest.raises(InputError, match="5 finished cells; add --resume"):
        execute.run(cells, folder)
    execute.run(cells, folder, resume=True, report=seen.append)
    assert seen[-1].done == seen[-1].total == 12
    assert seen[-1].failed == 4
    for name, written in first.items():
        assert (folder / "cells" / name).stat().st_mtime_ns == written

    assert write_report(folder) == []
    table = pl.read_parquet(folder / "results.parquet")
    assert table.height == 12
    assert table.filter(pl.col("error").is_null()).height == 8
    assert table["error"].drop_nulls().str.contains("missing.csv").all()
    good = table.filter(pl.col("error").is_null())
    assert (good["bound"] <= good["objective"]).all()
    page = Page()
    page.feed((folder / "report.html").read_text())
    assert page.open == []
    assert all(source.startswith("data:image/png;base64,") for source in page.loads)
    assert "offset_allocation" in page.text
    assert "missing.csv" in page.text
    assert "lowest_first" in (folder / "report.md").read_text()

    damaged = next((folder / "cells").iterdir())
    damaged.write_text(damaged.read_text()[:40])
    (line,) = write_report(folder)
    assert damaged.name in line
    assert pl.read_parquet(folder / "results.parquet").height == 11
    (folder / "sweep.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="version 99"):
        write_report(folder)


def test_a_worker_that_dies_takes_only_its_own_cell(cells, tmp_path, monkeypatch):
    deadly = execute.CellConfig("offset_allocation", {"generated": 3}, "lowest_first", 1.0, 0)
    monkeypatch.setattr(type(deadly), "__reduce_ex__", _deadly_reduce)
    execute.run([deadly, cells[0]], tmp_path / "out")
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").iterdir()]
    assert sorted(record["error"] is None for record in records) == [False, True]


def _deadly_reduce(self, protocol):
    """Ends the process that unpickles the cell."""
    if self.instance.get("generated") == 3:
        return os._exit, (7,)
    return object.__reduce_ex__(self, protocol)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("solver = 3", "key solver is unknown; did you mean solvers?"),
        (
            'solvers = ["lowest_fist"]\n[[instances]]\ngame = "offset_allocation"\ngenerated = 1',
            "solver lowest_fist is unknown; did you mean lowest_first?",
        ),
        ('[[instances]]\ngame = "memory_maping"', "did you mean memory_mapping?"),
        ('[[instances]]\ngame = "memory_mapping"', "expected dump"),
        ('[[instances]]\ngame = "memory_mapping"\ndmp = "a"', "did you mean dump?"),
        ("seeds = 3", r"expected at least one \[\[instances\]\]"),
        ("time_limits = [0]", "expected positive numbers"),
        (
            'seeds = 2000000\n[[instances]]\ngame = "offset_allocation"\ngenerated = 1',
            "2,000,000 cells",
        ),
        ("solvers = [", "not a TOML file"),
    ],
)
def test_bad_sweeps_are_one_line(text, says, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_sweep(path)
    assert "\n" not in str(caught.value)


def test_no_sweep_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no sweep was run there"):
        write_report(tmp_path)
