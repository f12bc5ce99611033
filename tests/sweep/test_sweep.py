"""Sweeps: cells are kept, resumed and reported; bad input is one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from sweep_rows import run_here

from baselines.offset_allocation import HEURISTICS
from experiments.common import ROOT
from experiments.sweep import execute
from experiments.sweep.config import SUITES, read_sweep
from experiments.sweep.report import write_report
from games.packed import pack
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
    text = (folder / "report.md").read_text()
    for part in ("lowest_first", "Wins / ties / losses", "gap to bound", "load average"):
        assert part in text
    assert len(page.loads) == 4  # profile, curves, two solutions

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
        ('[[instances]]\ngame = "offset_allocation"\nfile = 3\nseed = 1', "key seed is unknown"),
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


def test_suites_have_names_and_every_game(tmp_path):
    with pytest.raises(InputError, match="suite smke is unknown; did you mean smoke"):
        read_sweep(Path("smke"))
    for name, path in SUITES.items():
        cells = read_sweep(Path(name))
        assert cells == read_sweep(path)
        problems = {(cell.game, json.dumps(cell.instance, sort_keys=True)) for cell in cells}
        assert {game for game, _ in problems} >= {
            "chunk_selection",
            "co_scheduling",
            "memory_mapping",
            "offset_allocation",
            "tensor_parallel",
        }
        if name == "smoke":
            assert sum(cell.time_limit for cell in cells) < 60
            for game, instance in problems:
                execute.problem_of(game, instance)
        if name == "standard":
            assert sum(cell.time_limit for cell in cells) < 3000


SLOW_SWEEP = """
import sys, time
from pathlib import Path
from experiments.sweep import execute
from experiments.sweep.config import CellConfig

def slow(cell):
    time.sleep(0.05)
    return {"objective": 1.0, "bound": 1.0}

if __name__ == "__main__":
    cells = [CellConfig("offset_allocation", {"generated": n}, "x", 1.0, 0) for n in range(60)]
    execute.run(cells, Path(sys.argv[1]), resume=True, measure=slow)
"""


def test_a_killed_sweep_goes_on_with_what_is_missing(tmp_path):
    script, folder = tmp_path / "slow_sweep.py", tmp_path / "out"
    script.write_text(SLOW_SWEEP)
    command = [sys.executable, str(script), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while len(list(folder.glob("cells/*.json"))) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("cells/*.json")}
    assert 10 <= len(before) < 60
    for path in folder.glob("cells/*.json"):
        json.loads(path.read_text())
    subprocess.run(command, env=environment, check=True)
    after = {p.name: p.stat().st_mtime_ns for p in folder.glob("cells/*.json")}
    assert len(after) == 60
    assert before.items() <= after.items()


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(cells, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    run_here(cells[:2], folder)
    real = Path.write_bytes

    def full(self, data):
        if self.parent.name == "cells":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot be written .No space left on device") as caught:
        run_here(cells, folder, resume=True)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    write_report(folder)
    assert pl.read_parquet(folder / "results.parquet").height == 2


def test_training_curves_and_damaged_solutions(cells, tmp_path):
    folder, run = tmp_path / "out", tmp_path / "run"
    run_here(cells[:1], folder)
    with pytest.raises(InputError, match="give a folder of `compiler-rl train`"):
        write_report(folder, training=[run])
    run.mkdir()
    row = {"iteration": 1, "saving": 0.1, "best": 0.2, "loss": 3.0}
    (run / "progress.jsonl").write_text(json.dumps(row) + "\n")
    assert write_report(folder, training=[run]) == []
    assert "Training" in (folder / "report.html").read_text()
    (run / "progress.jsonl").write_text('{"iteration": 1')
    with pytest.raises(InputError, match=r"progress.jsonl: damaged"):
        write_report(folder, training=[run])
    (solution,) = (folder / "solutions").iterdir()
    solution.write_text("eJw=")
    (note,) = write_report(folder)
    assert "not a solution of offset_allocation" in note


def test_a_picture_that_fails_does_not_cost_the_report(cells, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    run_here(cells[:1], folder)

    def draw(*arguments, **options):
        raise TypeError("no such picture")

    monkeypatch.setattr("games.offset_allocation.instances.draw_solution", draw)
    (note,) = write_report(folder)
    assert "cannot be drawn (TypeError: no such picture)" in note
    assert note in (folder / "report.md").read_text()
    (solution,) = (folder / "solutions").iterdir()
    other = execute.problem_of("offset_allocation", '{"generated": 2}')
    found = HEURISTICS["lowest_first"](other, time_limit=1.0, seed=0).solution
    solution.write_text(pack(found))
    (note,) = write_report(folder)
    assert "not a valid solution" in note
