"""Gaps, comparisons, profiles and curves of hand-made rows, and the regression check."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_rows import row
from typer.testing import CliRunner

from compiler_rl.cli import app
from experiments import bench_suite
from experiments.common import Results
from experiments.sweep import statistics
from experiments.sweep.compare import changes, worse
from experiments.sweep.results import read_results, write_parquet
from hlo_frontend.errors import InputError

KNOWN = {"generated 1": 100.0, "generated 2": 10.0}


def test_gaps_are_relative_and_failures_count():
    rows = [row("a", "1", 110.0), row("a", "2", 10.0), row("a", "2", None, seed=1)]
    gaps = statistics.gaps_of(rows, "a", KNOWN)
    assert gaps["generated 1", 0] == pytest.approx(0.1)
    assert gaps["generated 2", 0] == 0.0
    assert gaps["generated 2", 1] == statistics.LARGEST_GAP
    assert statistics.gap_to(0.0, 0.0) == 0.0
    assert statistics.gap_to(1.0, 0.0) == statistics.LARGEST_GAP


def test_wins_ties_and_losses_are_paired_by_instance_and_seed():
    own = {("x", 0): 0.1, ("x", 1): 0.2, ("y", 0): 0.0, ("z", 0): 0.5}
    other = {("x", 0): 0.3, ("x", 1): 0.2, ("y", 0): -0.1, ("w", 0): 0.5}
    paired = statistics.compare(own, other)
    assert (paired.instances, paired.wins, paired.ties, paired.losses) == (2, 1, 1, 1)
    assert paired.low == pytest.approx(-0.1)
    assert paired.high == pytest.approx(0.1)
    assert statistics.compare(own, {("w", 0): 1.0}) is None


def test_the_bootstrap_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = statistics.bootstrap(random.normal(1.0, 1.0, 40))
        inside += low <= 1.0 <= high
    assert 0.88 <= inside / 200 <= 0.99


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_profiles_are_distribution_functions(values):
    gaps = {("x", seed): value for seed, value in enumerate(values)}
    share = statistics.profile(gaps, np.array([1.0, 2.0, 7.0]))
    assert (np.diff(share) >= 0).all()
    assert share[-1] == 1.0
    assert share[1] == sum(value <= 1 + 1e-9 for value in values) / len(values)


def test_anytime_curves_start_with_the_first_solution():
    gap, whole = statistics.anytime(
        [row("a", "1", 100.0), row("a", "2", 20.0)], KNOWN, np.array([0.05, 0.2, 0.5])
    )
    assert whole.tolist() == [False, True, True]
    assert gap[1:] == pytest.approx([(1.0 + 3.0) / 2, (0.0 + 1.0) / 2])


def test_the_regression_check_finds_what_became_worse(tmp_path):
    old = [row("a", "1", 100.0), row("a", "2", 10.0), row("b", "1", 5.0)]
    new = [row("a", "1", 104.0), row("a", "2", 10.05), row("b", "1", None)]
    found = changes(new, old)
    assert [change.cell[1:3] for change in worse(found, 0.01)] == [
        ("generated 1", "b"),
        ("generated 1", "a"),
    ]
    assert worse(changes(old, old), 0.0) == []
    with pytest.raises(InputError, match="no cell in common"):
        changes([row("c", "1", 1.0)], old)

    for name, rows in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        write_parquet(rows, tmp_path / name)
    files = [str(tmp_path / name / "results.parquet") for name in ("new", "old")]
    done = CliRunner().invoke(app, ["compare", *files])
    assert done.exit_code == 1
    assert "1.0400 times the old objective" in done.output
    assert CliRunner().invoke(app, ["compare", files[1], files[1]]).exit_code == 0


def test_committed_results_are_rows_and_tables(tmp_path):
    rows = [row("exact", "1", 100.0), row("portfolio", "1", 101.0), row("exact", "2", None)]
    path = tmp_path / "standard.json"
    bench_suite.commit_form(rows, path)
    back = read_results(path, bench_suite.NAME)
    assert {each["key"] for each in back} == {each["key"] for each in rows}
    assert worse(changes(back, rows), 0.0) == []
    table = bench_suite.table(Results(path, bench_suite.NAME))
    assert "| offset_allocation | 1 | 1 | 1.00% | 0.00% |" in table
    assert "| offset_allocation: generated 1 | 101 | 100 | 100 |" in bench_suite.long_table(
        Results(path, bench_suite.NAME)
    )


def test_bad_result_files_are_one_line(tmp_path):
    write_parquet([row("a", "1", 1.0)], tmp_path)
    path = tmp_path / "results.parquet"
    whole = path.read_bytes()
    assert read_results(path, "suite")[0]["objective"] == 1.0
    for content, says in (
        (whole[: len(whole) // 2], "not a whole Parquet file"),
        (b"", "not a whole Parquet file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=says) as caught:
            read_results(path, "suite")
        assert "\n" not in str(caught.value)
    write_parquet([row("a", "1", 1.0) | {"schema": 1}], tmp_path)
    with pytest.raises(InputError, match="results of version 1, expected 2"):
        read_results(path, "suite")
    with pytest.raises(InputError, match=r"other.parquet: cannot be read"):
        read_results(tmp_path / "other.parquet", "suite")
    (tmp_path / "x.json").write_text(json.dumps({"schema": "other"}))
    with pytest.raises(InputError, match="not a results file"):
        read_results(tmp_path / "x.json", "suite")
