"""Cells are measured once, saved at once, and kept only if they ran to their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from experiments.common import MIB, Results, commit, markdown_table, parse_mib
from hlo_frontend.errors import InputError


def test_a_cell_is_measured_once_and_survives_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "made" / "x.json"
    assert Results(path, "x").measure({"seed": 0}, lambda: {"rate": 1.5})["result"] == {"rate": 1.5}
    again = Results(path, "x")
    assert (
        again.measure({"seed": 0}, lambda: pytest.fail("measured twice"))["result"]["rate"] == 1.5
    )
    with pytest.raises(KeyboardInterrupt):
        again.measure({"seed": 1}, _interrupted)
    assert [cell["config"] for cell in Results(path, "x").cells] == [{"seed": 0}]


def _interrupted() -> dict[str, float]:
    """Like our solvers, which return their best on Ctrl-C: it was cut short all the same."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    return {"rate": 0.1}


def test_a_cell_says_where_and_when_it_was_measured(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.json", "x")
    run = results.measure({}, lambda: {})["run"]
    assert set(run) == {
        "date", "commit", "seconds", "load_start", "load_end", "peak_rss_bytes"
    }  # fmt: skip
    assert run["commit"] == commit()
    assert run["peak_rss_bytes"] > MIB
    assert run["commit"] in results.footer()
    assert results.machine["cpu"] in results.footer()


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    Results(path, "x").measure({"seed": 0}, lambda: {})
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"machine": data["machine"] | {"cores": 1000}}))
    with pytest.raises(InputError, match="another machine"):
        Results(path, "x").measure({"seed": 1}, lambda: {})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "other", "benchmark": "x"}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json"):
        Results(path, "x")


def test_sizes() -> None:
    assert parse_mib("4MiB, 16") == [4 * MIB, 16 * MIB]
    for wrong in ("", "4KiB", "0", "-4MiB", "4MiB,"):
        with pytest.raises(InputError, match="--sizes"):
            parse_mib(wrong)


def test_table() -> None:
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
