"""What users take away: the schedule, the trace, the picture, and the command itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from co_instances import problem_of

from baselines.co_scheduling.local_search import local_search
from compiler_rl.cli.co_scheduling import coschedule
from games.co_scheduling import GAME, picture, schedule_file
from games.co_scheduling.problem import DYNAMIC, NO_INTERFERENCE, STATIC
from games.co_scheduling.solution import objective, tokens_per_second
from hlo_frontend.errors import InputError


@pytest.fixture(scope="module", params=[NO_INTERFERENCE, STATIC, DYNAMIC])
def solved(request):
    problem = problem_of(request.param)
    return problem, local_search(problem, time_limit=0.0, moves=3000).solution


def test_schedule_has_nanoflows_fields_and_reads_back(solved):
    problem, pipeline = solved
    data = json.loads(json.dumps(schedule_file.to_json(problem, pipeline)))
    rows = [row for rows in data["operations"].values() for row in rows]
    for row in rows:
        wanted = {"batch_idx", "batch_size", "start_time", "end_time", "p_value", "extra_dep"}
        assert wanted <= row.keys()
        assert 0 < row["p_value"] <= 1 + 1e-9
        assert row["start_time"] < row["end_time"]
    names = {row["nano_op"] for row in rows}
    assert len(names) == len(rows)
    assert {dep for row in rows for dep in row["extra_dep"]} <= names
    for operation, total in (("UG", problem.tokens), ("GEMV", problem.decode_tokens)):
        assert sum(row["batch_size"] for row in data["operations"][operation]) == total
    again = schedule_file.from_json(problem, data)
    assert objective(problem, again) == pytest.approx(objective(problem, pipeline), rel=1e-12)
    assert GAME.validate(problem, again) == []


def test_schedules_that_are_none_are_refused(solved):
    problem, pipeline = solved
    data = schedule_file.to_json(problem, pipeline)
    with pytest.raises(InputError, match="not a schedule file"):
        schedule_file.from_json(problem, {"schema": schedule_file.SCHEMA})
    with pytest.raises(InputError, match="expected compiler-rl/pipeline"):
        schedule_file.from_json(problem, data | {"schema": "other"})
    with pytest.raises(InputError, match="another batch"):
        schedule_file.from_json(problem_of(problem.mode, decode=600), data)


def test_trace_is_the_timetable(solved):
    problem, pipeline = solved
    trace = json.loads(json.dumps(schedule_file.chrome_trace(problem, pipeline)))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == np.isfinite(pipeline.start).sum()
    last = max(event["ts"] + event["dur"] for event in events)
    assert last == pytest.approx(objective(problem, pipeline) * problem.layers * 1e6, abs=2e-3)
    for row in range(3):
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["tid"] == row)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_trace_keeps_the_trace_event_format(solved):
    """Google's "Trace Event Format": what its JSON form asks of complete and metadata events."""
    problem, pipeline = solved
    trace = json.loads(json.dumps(schedule_file.chrome_trace(problem, pipeline), allow_nan=False))
    assert trace["displayTimeUnit"] in ("ms", "ns")
    rows = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            assert event["name"] == "process_name" or isinstance(event["tid"], int)
            continue
        assert event["ph"] == "X"
        assert isinstance(event["cat"], str)
        assert isinstance(event["args"], dict)
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        rows.setdefault((event["pid"], event["tid"]), []).append(event)
    times = [event.get("ts", -1.0) for event in trace["traceEvents"]]
    assert times == sorted(times)
    named = {e["tid"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert {tid for _, tid in rows} <= named
    # Perfetto's importer makes whole nanoseconds of begin and length, each on its own.
    for whole in (int, round):
        for events in rows.values():
            spans = [(whole(e["ts"] * 1000), whole(e["dur"] * 1000)) for e in events]
            assert all(ts + dur <= later for (ts, dur), (later, _) in pairwise(spans))


def test_picture(solved, tmp_path):
    problem, pipeline = solved
    for suffix, head in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        path = tmp_path / f"gantt{suffix}"
        picture.draw(problem, pipeline, path, method="test")
        assert path.read_bytes().startswith(head)
    with pytest.raises(InputError, match=r"a \.png or \.svg file"):
        picture.draw(problem, pipeline, tmp_path / "gantt.gif", method="test")


def test_throughput_by_hand():
    problem = replace(problem_of(decode=1280, prefill=768), layers=80)
    assert tokens_per_second(problem, 2e-3) == pytest.approx(1600)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_rl", "coschedule", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_command_writes_everything(tmp_path):
    report, trace, plot = (tmp_path / name for name in ("r.json", "t.json", "g.svg"))
    done = run(
        *("--model", "llama-3-8b", "--tp", "4", "--decode", "300", "--prefill", "200"),
        *("--time-limit", "1.5", "--json", str(report), "--trace", str(trace), "--plot", str(plot)),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert data["game"] == "co_scheduling"
    assert data["unit"] == "s"
    assert data["validated"] is True
    assert data["winner"] in data["baselines"]
    assert {"sequential", "split_sequential", "two_batch", "list", "latency_hiding"} <= data[
        "baselines"
    ].keys()
    best = min(row["objective"] for row in data["baselines"].values())
    assert data["lower_bound"] <= data["objective"] == pytest.approx(best, rel=1e-9)
    assert json.loads(trace.read_text())["traceEvents"]
    assert plot.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tp": 3}, "divides the 64 heads"),
        ({"decode": 100000}, "expected a smaller batch"),
        ({"mode": "fast"}, "expected one of none, static, dynamic"),
        ({"hardware": "a1000"}, "did you mean a100?"),
        ({"decode": 0, "prefill": 0}, "at least one token"),
        ({"time_limit": 0.0}, "expected a positive number"),
        ({"plot": Path("x.gif")}, "expected a path ending in"),
        ({"json_out": Path("no/such/x.json")}, "make it first"),
        ({"profiles": Path("nowhere")}, "cannot be read"),
        ({"workload": Path("nowhere")}, "cannot be read"),
    ],
)
def test_bad_input_is_one_line(options, expected):
    with pytest.raises(InputError, match=re.escape(expected)) as raised:
        coschedule(**options)
    assert "\n" not in str(raised.value)


def test_bad_input_ends_the_command():
    done = run("--tp", "3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
