"""Workload files, and what is tuned on them, end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from baselines.power_control import policies, tuning
from baselines.power_control.simulate import Policy, play
from baselines.power_control.tuned import tuned
from experiments import train_power
from games.power_control.instances import read_instance
from games.power_control.workload import read_trace, seconds_of
from hlo_frontend.errors import InputError

# As the Azure traces of 2023 are written.
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,2048,128
2023-11-16 18:17:12.2224670,879,55
2023-11-16 18:18:10.0000000,91,16
2023-11-16 18:19:58.3200000,8192,1024
2023-11-16 18:21:46.6805900,381,84
"""


def test_azure_style_trace(tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(TRACE)
    seconds, tokens = read_trace(path)
    np.testing.assert_allclose(seconds, [0, 4.314579, 85.541877, 143.31941, 251.63941, 360.0])
    assert tokens[4].tolist() == [8192, 1024]
    problem = read_instance(str(path), 0.3, seeds=2)
    # The first hour, here all of it, is played twice; each request comes as often as fills the row.
    assert problem.arrivals.shape == (2, 2 * 361, 2) and problem.servers == 52
    took = seconds_of(tokens[:, 0], tokens[:, 1]).tolist()
    assert {tuple(pair) for pair in problem.requests[0, :, 0].T.tolist()} <= set(map(tuple, took))
    counts = problem.arrivals[:, 361:].sum((1, 2))
    assert (counts > 6 * 20).all() and counts[0] == pytest.approx(counts[1], rel=0.1)
    polca = Policy("polca", policies.LADDERS["polca"], policies.start, policies.act)
    served = play(replace(problem, warm_up_s=361.0), polca).served
    assert (served > 0).all() and (served.sum(-1) <= counts).all()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TRACE.replace("18:21:46", "18:14:46"), "goes backwards"),
        (TRACE.replace("8192,1024", "8192,lots"), "GeneratedTokens has values"),
        (TRACE.replace("ContextTokens", "Tokens"), "no column ContextTokens"),
        (TRACE.replace(",374,", ",-1,"), "0 or more"),
    ],
)
def test_bad_traces_are_one_line(tmp_path, text, what):
    path = tmp_path / "azure.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=what) as error:
        read_instance(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_training_end_to_end(tmp_path, monkeypatch):
    rates = tmp_path / "rates.csv"
    hours = np.arange(9 * 24)
    lines = [f"{3600 * hour},{2 + np.sin(hour / 3):.3f}" for hour in hours]
    rates.write_text("t_s,rate_rps\n" + "\n".join(lines) + "\n")
    monkeypatch.setattr(train_power, "read_instance", partial(read_instance, hours=2.5))
    for name, value in (
        ("LEVELS", (0.4,)),
        ("FORECAST_HOURS", ((0.4, 0.8, None, 2),)),
        ("MARGINS", (0.0, 2.0)),
        ("HOURS", 2),
    ):
        monkeypatch.setattr(train_power, name, value)
    monkeypatch.setattr(tuning, "CANDIDATES", 2)
    monkeypatch.setattr(tuning, "FINALISTS", 1)
    out = tmp_path / "tuned.json"
    train_power.main([str(rates), "--out", str(out)])
    data, shipped = json.loads(out.read_text()), tuned()
    assert data.keys() == shipped.keys() and data["sensor"].keys() == shipped["sensor"].keys()
    assert data["fit"].keys() == shipped["fit"].keys()
    assert len(data["forecast"]) == len(shipped["forecast"])
    for name, found in data["numbers"].items():
        (numbers,) = found.values()
        assert len(numbers) == len(next(iter(shipped["numbers"][name].values())))
