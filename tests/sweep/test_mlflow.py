"""Rows as MLflow runs in a store of files."""

from __future__ import annotations

import pytest
from sweep_rows import row

from experiments.sweep.to_mlflow import export

mlflow = pytest.importorskip("mlflow")


def test_rows_become_runs_once(tmp_path):
    rows = [row("exact", "1", 100.0), row("portfolio", "1", 101.0), row("exact", "2", None)]
    store = tmp_path / "runs"
    assert export(rows, store) == 3
    assert export([*rows, row("search", "1", 102.0)], store) == 1
    client = mlflow.MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("offset_allocation")
    runs = {run.data.tags["key"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 4
    good = runs["exact-1-0-1.0"]
    assert good.data.metrics["objective"] == 100.0
    assert good.data.params["solver"] == "exact"
    assert good.data.tags["cpu"] == "a processor"
    assert good.info.status == "FINISHED"
    curve = client.get_metric_history(good.info.run_id, "best")
    assert [(point.step, point.value) for point in curve] == [(100, 200.0), (400, 100.0)]
    failed = runs["exact-2-0-1.0"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["error"] == "went wrong"
    assert "objective" not in failed.data.metrics
