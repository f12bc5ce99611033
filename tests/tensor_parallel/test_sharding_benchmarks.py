"""The benchmark commands on tiny problems, and their tables."""

from __future__ import annotations

import json

import pytest
from test_iopddl import EXAMPLE

from experiments import bench_sharding, bench_tensor_parallel
from experiments.common import MIB, Results
from hlo_frontend.errors import InputError


def test_iopddl_benchmark(tmp_path, capsys):
    (tmp_path / "two.json").write_text(json.dumps(EXAMPLE))
    out = tmp_path / "results" / "out.json"
    arguments = [str(tmp_path), "--time-limit", "0.5", "--out", str(out)]
    bench_tensor_parallel.main(arguments)
    results = Results(out, bench_tensor_parallel.NAME)
    methods = [cell["config"]["method"] for cell in results.cells]
    assert methods == ["trws", "highs", "annealing", "portfolio"]
    assert {cell["result"]["cost"] for cell in results.cells} == {14}
    assert "| two chains | 3 → 0 |" in out.with_suffix(".md").read_text()
    before = out.read_text()
    bench_tensor_parallel.main(arguments)
    assert out.read_text() == before
    assert "14" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no \.json"):
        bench_tensor_parallel.main([str(tmp_path / "absent")])


def test_sharding_table(tmp_path):
    results = Results(tmp_path / "out.json", bench_sharding.NAME)
    made = {"wire_bytes": 2 * MIB, "wire_bytes_as_is": 4 * MIB, "seconds": 1.0}
    made |= {"memory": 7 * MIB, "flops": 4e12}
    redco = {name: 3 * value for name, value in made.items()} | {"flops": 4e12}
    result = {"search_s": 1.5, "ours": made, "ours_predicted": 2 * MIB, "redco": redco}
    result["peak_flops"] = 4e12
    config = {"model": "opt-6.7b", "mesh": "1x8", "train": False, "target": "cpu"}
    results.measure(config, lambda: result)
    row = bench_sharding.table(results).splitlines()[-1]
    assert row == (
        "| opt-6.7b | 1x8 | cpu | 1.5 | 2 | 2 (4) | - | 6 (12) | 3.000 | 2.000 | 7 / 21 |"
    )
    assert "Redco" in bench_sharding.report(results)
