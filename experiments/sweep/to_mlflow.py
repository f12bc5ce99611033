"""A sweep's rows as MLflow runs in a local file store (extra `mlflow`)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep.results import MACHINE, Row
from hlo_frontend.errors import InputError

METRICS = ("objective", "bound", "wall_s", "load")


def export(rows: Sequence[Row], folder: Path) -> int:
    """Writes a run for each row that is not there yet, an experiment for each game.

    Parameters are game, instance, solver, time limit and seed; the anytime curve is the metric
    `best`, its steps milliseconds; tags have machine, versions, commit and error.

    Args:
        rows: of a sweep.
        folder: of the store, made if it is not there; `mlflow ui --backend-store-uri FOLDER`.

    Returns:
        Number of runs written.

    Raises:
        InputError: the extra is not installed, or the store cannot be written.
    """
    # A store of files is what one folder can hold; newer versions ask for a word of consent.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 (an extra)
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            '--mlflow: mlflow is not installed; pip install "compiler-rl[mlflow]"'
        ) from error
    written = 0
    try:
        client = MlflowClient(tracking_uri=folder.resolve().as_uri())
        experiments: dict[str, tuple[str, set[str]]] = {}
        for row in rows:
            if row["game"] not in experiments:
                found = client.get_experiment_by_name(row["game"])
                identity = found.experiment_id if found else client.create_experiment(row["game"])
                experiments[row["game"]] = identity, _keys(client, identity)
            identity, there = experiments[row["game"]]
            if row["key"] in there:
                continue
            run = client.create_run(identity, run_name=f"{row['solver']}, {row['title']}")
            metrics = [
                Metric(name, float(row[name]), 0, 0) for name in METRICS if row[name] is not None
            ]
            for seconds, objective in json.loads(row["curve"]):
                stamp = int(seconds * 1000)
                metrics.append(Metric("best", float(objective), stamp, stamp))
            names = ("game", "title", "solver", "time_limit", "seed")
            tags = {name: row[name] for name in ("key", "method", "error", "commit", *MACHINE)}
            client.log_batch(
                run.info.run_id,
                metrics=metrics,
                params=[Param(name, str(row[name])) for name in names],
                tags=[RunTag(k, str(value)) for k, value in tags.items() if value is not None],
            )
            failed = row["error"] is not None
            client.set_terminated(run.info.run_id, "FAILED" if failed else "FINISHED")
            written += 1
    except (OSError, MlflowException) as error:
        raise InputError(f"--mlflow {folder}: cannot be written ({error})") from error
    return written


def _keys(client: object, experiment: str) -> set[str]:
    """Keys of the cells that an experiment has already."""
    keys: set[str] = set()
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)  # type: ignore[attr-defined]
        keys |= {run.data.tags["key"] for run in page if run.info.status != "RUNNING"}
        token = page.token
        if not token:
            return keys
