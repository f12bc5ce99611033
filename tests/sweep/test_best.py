"""The best-known store: checked on every load, updated by what is better, closed to users."""

from __future__ import annotations

import json

import pytest
from sweep_rows import run_here
from typer.testing import CliRunner

from compiler_rl.cli import app
from experiments.sweep import best
from experiments.sweep.config import CellConfig
from experiments.sweep.execute import problem_of
from experiments.sweep.report import write_report
from games.packed import pack, unpack
from games.registry import get_game
from hlo_frontend.errors import InputError

GAME, INSTANCE = "offset_allocation", {"generated": 2}


def sweep(folder, solver):
    run_here([CellConfig(GAME, INSTANCE, solver, 1.0, 0)], folder)
    return folder


def test_better_solutions_and_bounds_are_taken_over(tmp_path):
    store = tmp_path / "store"
    poor, good = (sweep(tmp_path / solver, solver) for solver in ("first_fit_by_area", "exact"))
    news, left_out = best.update(store, poor)
    assert (len(news), left_out) == (1, [])
    first = best.read_entry(store, GAME, INSTANCE)
    news, _ = best.update(store, good)
    second = best.read_entry(store, GAME, INSTANCE)
    assert second.objective < first.objective
    assert second.method.startswith("exact")
    assert "was" in news[0]
    assert best.update(store, poor) == ([], [])
    assert best.update(store, good) == ([], [])
    assert best.read_entry(store, GAME, INSTANCE) == second

    write_report(poor, store=store)
    gap = first.objective / second.objective - 1
    line = f"| first_fit_by_area | {gap:.3%} |"
    assert line in (poor / "report.md").read_text()
    write_report(poor, store=tmp_path / "empty")
    assert line not in (poor / "report.md").read_text()
    shown = CliRunner().invoke(app, ["best", "--store", str(store)])
    assert "generated 2" in shown.output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objective": 1.0}, "its solution has"),
        ({"bound": 1e12}, "above its own solution"),
        ({"schema": "old"}, "of another version"),
        ({"solution": "AAAA"}, "not a solution of offset_allocation"),
        ({"instance": {"generated": 1}}, "not a valid solution|not a solution|its solution has"),
        ({"game": "chess"}, "game chess is unknown"),
    ],
)
def test_nothing_in_a_store_is_believed(tmp_path, change, says):
    store = tmp_path / "store"
    best.update(store, sweep(tmp_path / "out", "exact"))
    (path,) = store.glob("*/*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=says) as caught:
        best.read_store(store)
    assert "\n" not in str(caught.value)
    if "game" not in change:
        assert write_report(tmp_path / "out", store=store) != []


def test_files_of_users_stay_out_of_the_package(tmp_path, monkeypatch):
    file = tmp_path / "buffers.csv"
    file.write_text("id,lower,upper,size\na,0,2,4\nb,1,3,4\n")
    folder, store = tmp_path / "out", tmp_path / "package"
    cell = CellConfig(GAME, {"file": str(file), "capacity": 100}, "exact", 1.0, 0)
    run_here([cell], folder)
    monkeypatch.setattr(best, "STORE", store)
    news, (line,) = best.update(store, folder)
    assert news == []
    assert "a file of yours" in line
    assert not store.exists()
    assert len(best.update(tmp_path / "own", folder)[0]) == 1


def test_the_committed_store_is_valid():
    for entry in best.read_store(best.STORE):
        assert entry.bound <= entry.objective * (1 + 1e-6)


@pytest.mark.parametrize(
    ("game", "instance", "solver"),
    [
        ("memory_mapping", {"dump": "example:mlp.v5e.nomsa", "fast_memory": "4MiB"}, "msa"),
        ("offset_allocation", {"generated": 5}, "lowest_first"),
        ("co_scheduling", {"model": "llama-3-8b", "tp": 1, "decode": 64}, "two_batch"),
        ("chunk_selection", {"generated": 3}, "hybrid_fill"),
        ("tensor_parallel", {"model": "opt-125m", "layers": 1}, "greedy"),
    ],
)
def test_every_games_solutions_are_packed_without_loss(game, instance, solver, tmp_path):
    cell = CellConfig(game, instance, solver, 1.0, 0)
    run_here([cell], tmp_path / "out")
    (path,) = (tmp_path / "out" / "cells").iterdir()
    record = json.loads(path.read_text())
    assert record["error"] is None
    text = (tmp_path / "out" / "solutions" / f"{cell.key}.txt").read_text()
    problem = problem_of(game, json.dumps(instance, sort_keys=True))
    solution = unpack(get_game(game), text, "test")
    assert get_game(game).validate(problem, solution) == []
    assert get_game(game).objective(problem, solution) == record["objective"]
    assert pack(solution) == text
    assert write_report(tmp_path / "out") == []  # with its picture
    assert (tmp_path / "out" / "report.html").read_text().count("<img") == 3
