"""The benchmark of sweeps on a few cells, and its table."""

from __future__ import annotations

import pytest

from experiments import bench_sweep
from experiments.common import Results


def test_cells_that_do_nothing_cost_little():
    found = bench_sweep.overhead(40, 1)
    assert 0 < found["cell_s"] < 0.05 < found["start_s"]


@pytest.mark.slow
def test_many_finished_cells_are_reported():
    found = bench_sweep.reload(100, 0.2)
    assert 0 < found["read_s"] < found["all_s"] < 60


def test_the_table_has_medians(tmp_path):
    results = Results(tmp_path / "sweep.json", bench_sweep.NAME)
    for seed, seconds in enumerate((0.001, 0.002, 0.009)):
        config = {"part": "overhead", "workers": 2, "cells": 1000, "run": seed}
        results.measure(config, lambda s=seconds: {"start_s": 3.0, "cell_s": s})
    config = {"part": "report", "workers": 1, "cells": 2000, "run": 0}
    results.measure(config, lambda: {"read_s": 0.5, "all_s": 6.0, "cpu_s": 3.5})
    table = bench_sweep.table(results)
    assert "| 1,000 cells that do nothing, 2 workers | 2.0 ms a cell | 3.0 s to start |" in table
    assert "| 2,000 finished cells | 6.0 s to read and report | 3.5 s of it" in table
