"""`compiler-rl iopddl` and `shard` as a user meets them."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small import random_problem
from test_iopddl import EXAMPLE, SHARED, changed

from compiler_rl.cli import main
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.solution import read
from games.tensor_parallel.validator import evaluate


def run(*arguments, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_rl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command in this process: (exit status, output, errors)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["compiler-rl", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code or 0, out, error

    return call


def as_json(problem: ShardingProblem) -> dict:
    """The problem in the contest's format."""

    def rows(values, starts):
        return [part.tolist() for part in np.split(values, starts[1:-1])]

    return {
        "problem": {
            "name": problem.name,
            "nodes": {
                "intervals": problem.interval.tolist(),
                "costs": rows(problem.node_cost, problem.node_start),
                "usages": rows(problem.node_usage, problem.node_start),
            },
            "edges": {
                "nodes": problem.edge_nodes.tolist(),
                "costs": rows(problem.edge_cost, problem.edge_start),
            },
            "usage_limit": problem.usage_limit,
        }
    }


def test_iopddl_writes_report_and_solution(tmp_path):
    file = tmp_path / "problem.json.gz"
    file.write_bytes(gzip.compress(json.dumps(as_json(random_problem(2, 30, 5, 0.02))).encode()))
    report, solution = tmp_path / "report.json", tmp_path / "solution.txt"
    done = run("iopddl", file, "--time-limit", 5, "--json", report, "--solution", solution)
    assert done.returncode == 0, done.stderr
    assert "wins" in done.stdout
    data = json.loads(report.read_text())
    assert data["game"] == "tensor_parallel"
    assert data["validated"] is True
    assert {"greedy", "trws", "local_search"} <= data["baselines"].keys()
    cost, faults = evaluate(read_problem(file), read(solution))
    assert faults == []
    assert data["objective"] == cost
    assert data["lower_bound"] <= cost
    assert data["peak_usage"] <= data["usage_limit"] or data["usage_limit"] is None


def test_shard_writes_rules(tmp_path, command):
    report, plot = tmp_path / "report.json", tmp_path / "layer.svg"
    options = ("--layers", 2, "--json", report, "--plot", plot)
    status, out, error = command("shard", "--model", "opt-125m", "--mesh", "1x4", *options)
    assert status == 0, error
    assert "P(None, 'mp')" in out
    data = json.loads(report.read_text())
    keys = "game objective unit winner baselines lower_bound validated compiled rules"
    assert set(keys.split()) <= data.keys()
    assert data["validated"] is True
    assert data["rules"][-1] == [".*", "P()"]
    assert data["difference_from_redco"]
    assert plot.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shard", "--model", "opt-9b", "--mesh", "1x8"), "--model opt-9b: expected one of"),
        (("shard", "--model", "opt-66b", "--mesh", "1x2"), "the smallest mesh that could is 1x8"),
        (("iopddl", "absent.json"), "absent.json: cannot be read"),
    ],
)
def test_bad_input_is_one_line(command, arguments, message):
    status, _, error = command(*arguments)
    assert status == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_an_impossible_limit_is_one_line(tmp_path, command):
    file = tmp_path / "problem.json"
    file.write_text(json.dumps(changed(["usage_limit"], 7)))
    status, _, error = command("iopddl", file)
    assert status == 2
    assert "at time 3 the least usage is 8, above the limit 7 by 1" in error
    assert EXAMPLE["problem"]["usage_limit"] == 11


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [6.0, 25.0])
def test_ctrl_c_returns_the_best_so_far(seconds):
    file = SHARED / "asplos-2025-iopddl-K.json.gz"
    if not file.exists():
        pytest.skip("the IOPDDL instances are not here (../shared/data)")
    command = [sys.executable, "-m", "compiler_rl", "iopddl", str(file), "--time-limit", "300"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # read and reduced
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "Interrupted: this is the best found until then." in out
