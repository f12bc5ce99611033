"""The controller outside of the simulator: what it decides, and what bad input does to it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import polars
import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from typer.testing import CliRunner

from baselines.power_control.table import controller
from compiler_rl.cli import app
from compiler_rl.power.actuator import DryRun, Nvml
from compiler_rl.power.audit import AuditLog, read_log
from compiler_rl.power.controller import Controller, Telemetry
from compiler_rl.power.exporter import METRIC, ScrapeError, scrape
from compiler_rl.power.loop import run
from compiler_rl.power.replay import replay
from compiler_rl.power.telemetry_file import read_telemetry
from games.power_control.constants import constant
from hlo_frontend.errors import InputError

BUDGET = constant("row", "budget_w")
POLICY = controller("polca", 0.3)  # inside the shield; the quickest to compile


@pytest.fixture
def made():
    return Controller(POLICY, budget_w=BUDGET, servers=52)


def feed(made, powers, begin=0.0):
    """Readings every 2 s; the decision after each five."""
    rng = np.random.default_rng(0)
    decisions = []
    for number, power in enumerate(powers):
        watts = power * BUDGET * (1 + 1e-4 * rng.standard_normal())
        telemetry = Telemetry(begin + 2.0 * (number + 1), watts)
        if number % 5 == 4:
            decisions.append(made.decide(telemetry))
        else:
            made.observe(telemetry)
    return decisions


def test_thresholds_and_brake(made):
    assert {each.action for each in feed(made, [0.7] * 10)} == {0}
    assert feed(made, [0.85] * 5, 20.0)[-1].lp_mhz == 1275
    last = feed(made, [1.02] * 5, 30.0)[-1]
    assert last.brake and last.lp_mhz == 1110


def test_decides_in_time(made):
    feed(made, [0.8] * 10)
    seconds = []
    for number in range(50):
        begin = time.perf_counter()
        made.decide(Telemetry(30.0 + 10 * number, 0.8 * BUDGET))
        seconds.append(time.perf_counter() - begin)
    assert np.median(seconds) < 0.010


@pytest.mark.parametrize("watts", [math.nan, -5.0, 1e9, math.inf])
def test_useless_readings_end_in_safe_caps(made, watts):
    feed(made, [0.7] * 5)
    for number in range(5):
        decision = made.decide(Telemetry(20.0 + 10 * number, watts))
        assert decision.notes
    assert decision.reason == "sensor silent"
    assert (decision.lp_mhz, decision.hp_mhz) == (1110, 1305)
    # Sound again: POLCA decides for a minute, then the policy.
    back = feed(made, [0.7] * 60, 70.0)
    assert back[2].reason == "trust regained" and back[-1].reason == "policy"
    assert back[-1].action == 0


def test_frozen_sensor_and_clock_set_back(made):
    for number in range(20):
        decision = made.decide(Telemetry(2.0 * number + 2, 0.7 * BUDGET))
    assert decision.reason == "sensor frozen" and decision.lp_mhz == 1110
    assert "clock went" in made.decide(Telemetry(1.0, 0.7 * BUDGET)).notes[0]
    assert made.decide(Telemetry(math.nan, 0.7 * BUDGET)).lp_mhz == 1110


def test_log_survives_kill_9(tmp_path):
    log = tmp_path / "audit.jsonl"
    code = (
        "import sys, time; from pathlib import Path;"
        "from compiler_rl.power.audit import AuditLog\n"
        "with AuditLog(Path(sys.argv[1])) as log:\n"
        "    for number in range(10**6):\n"
        "        log.write({'number': number}); print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE, text=True
    )
    said = [int(process.stdout.readline()) for _ in range(20)][-1]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [record["number"] for record in read_log(log)][: said + 1] == list(range(said + 1))
    # A torn line is stepped over, and what follows is a line of its own.
    with log.open("ab") as file:
        file.write(b'{"number": 12')
    with AuditLog(log) as again:
        again.write({"number": -1, "power": math.nan})
    assert read_log(log)[-1] == {"number": -1, "power": None}


def test_reads_a_real_exporter(made, tmp_path):
    registry = CollectorRegistry()
    gauge = Gauge(METRIC, "Power draw (in W).", ["gpu"], registry=registry)
    for gpu in range(52 * 8):
        gauge.labels(str(gpu)).set(250.0)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    try:
        watts = scrape(url, servers=52)
        assert watts == pytest.approx(52 * (1100 + 1.35 * 8 * 250))
        with AuditLog(tmp_path / "log") as log:
            calls = iter(range(100))

            def read():
                if next(calls) == 12:
                    server.shutdown()
                    server.server_close()
                return scrape(url, servers=52, timeout=0.5)

            decisions = run(made, read, DryRun(), log, steps=8, pace=50.0)
    finally:
        thread.join(timeout=5)
    assert len(decisions) == 8
    assert decisions[1].power == pytest.approx(watts / BUDGET, rel=1e-3)
    assert decisions[-1].reason == "sensor silent" and decisions[-1].lp_mhz == 1110
    events = [record["event"] for record in read_log(tmp_path / "log")]
    assert events.count("decision") == 8 and events.count("act") == 8 and "fault" in events


@pytest.mark.parametrize(
    "body", [b"\xff\xfe garbage {{{", b"", f"{METRIC}{{gpu=".encode(), f"{METRIC} NaN\n".encode()]
)
def test_exporter_that_talks_garbage(body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(ScrapeError):
            scrape(f"http://127.0.0.1:{server.server_port}", servers=52)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_exporter_that_never_ends():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):
                    self.wfile.write(b"# more\n")
                    time.sleep(0.05)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(ScrapeError, match="does not end"):
            scrape(f"http://127.0.0.1:{server.server_port}", servers=52, timeout=0.2)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class FakeNvml:
    """As much of NVML as is called, refusing on demand."""

    class NVMLError(Exception):
        pass

    def __init__(self, count=2, refuses=False):
        self.count, self.refuses, self.locks = count, refuses, []

    def nvmlInit(self):
        if self.count < 0:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return self.count

    def nvmlDeviceGetHandleByIndex(self, number):
        return number

    def nvmlDeviceSetGpuLockedClocks(self, device, low, high):
        if self.refuses:
            raise self.NVMLError("Insufficient Permissions")
        self.locks.append((device, low, high))


def test_nvml(made):
    decision = feed(made, [0.85] * 5)[-1]
    nvml = FakeNvml()
    actuator = Nvml("lp", nvml)
    assert actuator.apply(decision) == ["2 GPUs locked to 1275 MHz"]
    assert actuator.apply(decision) == []
    assert nvml.locks == [(0, 210, 1275), (1, 210, 1275)]
    refused = Nvml("hp", FakeNvml(refuses=True)).apply(decision)
    assert refused[0] == "GPU 0: 1410 MHz refused (Insufficient Permissions)"
    for count in (0, -1):
        with pytest.raises(InputError, match="dry run"):
            Nvml("lp", FakeNvml(count))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_replay_of_a_bad_recording(made, tmp_path, suffix):
    time_s = [2.0 * n for n in range(100)] + [800.0 + 2 * n for n in range(50)] + [500.0, 502.0]
    watts = [0.7 * BUDGET + n for n in range(150)] + [None, -3.0]
    frame = polars.DataFrame({"t_s": time_s, "watts": watts, "colour": ["red"] * 152})
    path = tmp_path / f"recording{suffix}"
    (frame.write_csv if suffix == ".csv" else frame.write_parquet)(path)
    recording = read_telemetry(path)
    notes = " | ".join(recording.notes)
    for what in ("colour", "without watts", "0 W or less", "backwards", "gaps"):
        assert what in notes
    decisions = replay(made, recording)
    silent = [each for each in decisions if each.reason == "sensor silent"]
    assert len(silent) > 50 and {each.lp_mhz for each in silent} == {1110}


def test_words_far_down_a_column_are_missing_readings(tmp_path):
    path = tmp_path / "row.csv"
    rows = [f"{2 * n},{150000 + n},false" for n in range(300)] + ["600,nan,true", "602,broken,true"]
    path.write_text("t_s,watts,brake\n" + "\n".join(rows) + "\n")
    recording = read_telemetry(path)
    assert np.isnan(recording.watts[-2:]).all() and recording.watts[299] == 150299
    assert recording.brake[-2:].all() and not recording.brake[:-2].any()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["replay", "none.csv"], "cannot be read"),
        (["replay", "wrong.csv"], "no column watts"),
        (["simulate", "poisson", "--policy", "magic"], "--policy magic"),
        (["simulate", "poisson", "--days", "20"], "day 20"),
        (["simulate", "none.csv"], "cannot be read"),
        (["simulate", "wrong.csv"], "no column rate_rps"),
        (["simulate", "poisson", "--oversubscription", "2"], "expected 0 to 0.6"),
        (["run", "ftp://host", "--audit", "log"], "expected the http"),
    ],
)
def test_bad_input_is_one_line(arguments, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("t_s,power\n0,1\n")
    row = ["--budget-kw", "200", "--servers", "52"]
    if arguments[0] in ("replay", "run"):
        arguments = [*arguments, *row, "--policy", "polca"]
    result = CliRunner().invoke(app, ["power", *arguments])
    assert isinstance(result.exception, InputError) and what in str(result.exception)
    assert "\n" not in str(result.exception)


def test_replay_command_writes_everything(tmp_path):
    path = tmp_path / "row.csv"
    rng = np.random.default_rng(0)
    watts = BUDGET * (0.8 + 0.15 * np.sin(np.arange(900) / 90) + 0.01 * rng.standard_normal(900))
    polars.DataFrame({"t_s": np.arange(900) * 2.0, "watts": watts}).write_csv(path)
    outputs = {name: tmp_path / name for name in ("r.json", "d.parquet", "p.png", "a.jsonl")}
    result = CliRunner().invoke(
        app,
        [
            *("power", "replay", str(path), "--policy", "polca"),
            *("--budget-kw", str(BUDGET / 1e3), "--servers", "52"),
            *("--json", str(outputs["r.json"]), "--plot", str(outputs["p.png"])),
            *("--decisions", str(outputs["d.parquet"]), "--audit", str(outputs["a.jsonl"])),
        ],
    )
    assert result.exception is None, result.output
    data = json.loads(outputs["r.json"].read_text())
    for key in ("game", "objective", "unit", "winner", "baselines", "validated"):
        assert key in data
    frame = polars.read_parquet(outputs["d.parquet"])
    assert len(frame) == len(read_log(outputs["a.jsonl"])) == 179
    assert set(frame["lp_mhz"]) <= {1410, 1275, 1110} and outputs["p.png"].stat().st_size > 10_000
