"""Sweeps on a local Ray cluster of two nodes, one of which is lost in the middle."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from experiments.common import ROOT
from experiments.sweep import execute
from experiments.sweep.config import CellConfig
from experiments.sweep.on_ray import ray_executor
from hlo_frontend.errors import InputError

CELLS = 24


def slow_cell(cell):
    """Notes begin and end where the test can see them, and takes a while."""
    log = Path(cell.instance["log"])
    with log.open("a") as file:
        file.write(f"begin {cell.seed} {os.getpid()}\n")
    time.sleep(0.3)
    if cell.seed == 5:
        raise ValueError("this cell is bad")
    with log.open("a") as file:
        file.write(f"end {cell.seed} {os.getpid()}\n")
    return {"objective": float(cell.seed), "bound": 0.0}


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_lost_node_loses_nothing_and_nothing_finished_is_done_twice(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    # Ray takes the address of the network card for 127.0.0.1, which need not be reachable.
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
    # Nodes have the package; this file is not part of it.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    log = tmp_path / "log"
    log.touch()
    cells = [
        CellConfig("offset_allocation", {"log": str(log)}, "x", 1.0, seed) for seed in range(CELLS)
    ]
    recorded_before: list[str] = []

    def report(progress):
        if progress.done == CELLS // 3:
            recorded_before.extend(
                json.loads(path.read_text())["seed"]
                for path in (tmp_path / "out" / "cells").iterdir()
            )
            cluster.remove_node(second, allow_graceful=False)

    try:
        assert ray.cluster_resources()["CPU"] == 2
        execute.run(
            cells,
            tmp_path / "out",
            workers=0,
            report=report,
            executor=ray_executor(),
            measure=slow_cell,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").iterdir()]
    assert sorted(record["seed"] for record in records) == list(range(CELLS))
    failed = [record for record in records if record["error"] is not None]
    assert [(record["seed"], record["error"]) for record in failed] == [
        (5, "ValueError: this cell is bad")
    ]
    lines = [line.split() for line in log.read_text().splitlines()]
    begun = Counter(int(seed) for what, seed, _ in lines if what == "begin")
    ended = Counter(int(seed) for what, seed, _ in lines if what == "end")
    assert len(recorded_before) >= CELLS // 3
    for seed in recorded_before:
        assert begun[seed] == 1, "what was recorded ran again"
    assert len({pid for _, _, pid in lines}) >= 2, "one node did everything"
    assert all(count == 1 for count in ended.values())
    assert sum(begun.values()) <= CELLS + 2, "more was begun anew than the lost node had"


def test_what_ray_cannot_do_is_one_line(tmp_path):
    pytest.importorskip("ray")
    cell = CellConfig("offset_allocation", {"generated": 1}, "exact", 1.0, 0)
    for address in ("127.0.0.1:1", "127.0.0.1:here"):
        with pytest.raises(InputError, match="cannot be reached") as caught:
            execute.run([cell], tmp_path / "out", executor=ray_executor(address))
        assert "\n" not in str(caught.value)
