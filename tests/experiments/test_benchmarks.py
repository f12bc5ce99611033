"""The benchmark commands on tiny problems, and their tables on made-up cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import bench_memory_mapping, bench_offsets, bench_simulator
from experiments.common import MIB, Results
from hlo_frontend.errors import InputError


def _results(path: Path, benchmark: str, cells: list[tuple[dict, dict]]) -> Results:
    results = Results(path, benchmark)
    for config, result in cells:
        results.measure(config, lambda result=result: result)
    return results


def _mapping_cell(
    method: str, seed: int, objective: float, bound: float | None = None, proved: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    config = {
        "program": "strassen49",
        "fast_memory": 4 * MIB,
        "time_limit": 1.0,
        "method": method,
        "seed": seed,
    }
    result = {
        "objective": objective * 1e-6,
        "all_slow": 200e-6,
        "bound": None if bound is None else bound * 1e-6,
        "lower_bound": 50e-6,
        "wall_s": 1.0,
        "proved": proved,
        "detail": {},
    }
    return config, result


@pytest.mark.parametrize(
    ("portfolio", "verdicts"),
    [
        ((100.0, 100.5), ["PASS", "PASS", "PASS"]),
        ((102.0, 120.0), ["PASS", "FAIL", "FAIL"]),  # no better than msa with one seed, 11 % over
        ((100.0, 121.0, 100.0), ["FAIL", "FAIL", "PASS"]),
    ],
)
def test_verdicts(tmp_path: Path, portfolio: tuple[float, ...], verdicts: list[str]) -> None:
    cells = [_mapping_cell("all_slow", 0, 200.0), _mapping_cell("msa", 0, 120.0)]
    cells += [_mapping_cell("portfolio", seed, value) for seed, value in enumerate(portfolio)]
    cells.append(_mapping_cell("cp_sat", 0, 100.0, bound=100.0, proved=True))
    cells.append(({**cells[0][0], "method": "compiler"}, {"note": "does not fit"}))
    results = _results(tmp_path / "x.json", bench_memory_mapping.NAME, cells)
    (point,) = bench_memory_mapping.points(results)
    assert point.bound == pytest.approx(100e-6)
    assert [line.split()[0] for line in point.verdicts()] == verdicts
    assert all(line in bench_memory_mapping.report(results) for line in point.verdicts())
    assert "`compiler`: does not fit." in bench_memory_mapping.report(results)


def test_table_of_mappings(tmp_path: Path) -> None:
    cells = [
        _mapping_cell("all_slow", 0, 200.0),
        _mapping_cell("portfolio", 0, 90.0),
        _mapping_cell("portfolio", 1, 100.0),
        _mapping_cell("portfolio", 2, 130.0),
        # The compiler's is another program: its bound is not one of this.
        ({**_mapping_cell("compiler", 0, 0.0)[0]}, _mapping_cell("compiler", 0, 150.0, 140.0)[1]),
    ]
    results = _results(tmp_path / "x.json", bench_memory_mapping.NAME, cells)
    assert bench_memory_mapping.table(results).splitlines()[-1] == (
        "| strassen49 | 4 MiB | 200.0 | 100.0 | 50.0 | 50.0% | 100.00% | 25.0% |"
    )
    assert "90.00–130.00" in bench_memory_mapping.large_table(results)


def test_memory_mapping_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.json"
    command = ["--programs", "mlp", "--sizes", "64MiB", "--methods", "all_slow,msa,annealing"]
    command += ["--time-limit", "0.2", "--seeds", "2", "--out", str(out)]
    bench_memory_mapping.main(command)
    cells = Results(out, bench_memory_mapping.NAME).cells
    assert [cell["config"]["method"] for cell in cells] == [
        "load", "all_slow", "msa", "annealing", "annealing"
    ]  # fmt: skip
    objectives = [cell["result"]["objective"] for cell in cells[1:]]
    assert objectives[0] == cells[1]["result"]["all_slow"] > max(objectives[2:])
    written = out.read_bytes()
    bench_memory_mapping.main(command)
    assert out.read_bytes() == written
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out
    with pytest.raises(InputError, match="--methods best"):
        bench_memory_mapping.main(["--methods", "best", "--out", str(out)])


def test_largest_load_and_first_fit() -> None:
    lower, upper, size = np.array([[0, 2, 1], [2, 4, 3], [4, 5, 1]])  # the first two meet at 2
    assert bench_offsets._max_load(lower, upper, size) == 6
    assert bench_offsets._first_fit(-size, lower, upper, size) == 6
    assert bench_offsets._max_load(lower[:0], upper[:0], size[:0]) == 0


def test_offsets_command(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("id,lower,upper,size\na,0,2,4\nb,1,3,4\nc,2,4,4\n")
    out = tmp_path / "x.json"
    command = [str(tmp_path), "--time-limit", "1", "--seeds", "1", "--out", str(out)]
    bench_offsets.main([*command, "--capacity", "8"])
    (fits,) = (cell["result"] for cell in Results(out, bench_offsets.NAME).cells)
    assert (fits["fits"], fits["needed"], fits["max_load"]) == (True, 8, 8)
    with pytest.raises(InputError, match="8 bytes are alive at time 1"):
        bench_offsets.main([*command, "--capacity", "7"])
    with pytest.raises(InputError, match="no CSV files"):
        bench_offsets.main([str(tmp_path / "none"), "--out", str(out)])


def test_speed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.json"
    parts = {part: bench_simulator.PARTS[part] for part in ("simulator", "local_search")}
    monkeypatch.setattr(bench_simulator, "PARTS", parts)  # the others compile for long
    command = ["--programs", "mlp", "--sizes", "64MiB", "--time-limit", "0.1", "--seeds", "1"]
    bench_simulator.main([*command, "--out", str(out)])
    cells = Results(out, bench_simulator.NAME).cells
    assert [cell["config"]["part"] for cell in cells] == list(parts)
    assert all(cell["result"]["rate"] > 0 for cell in cells)
    assert "| mlp, 64 MiB | simulator |" in out.with_suffix(".md").read_text()
