"""The command line as a user meets it: files in, files out, one line for bad input."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hlo_frontend.examples import example_path

ALEXNET = "example:alexnet.v5e.nomsa"


def run(*arguments: str | Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_rl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Path:
    """A folder with everything that `map` writes."""
    folder = tmp_path_factory.mktemp("mapped")
    options = ("--chip", "v5e", "--fast-memory", "16MiB", "--time-limit", "3")
    files = ("--json", "m.json", "--plot", "m.html", "--hlo", "m.hlo", "--csv", "m.csv")
    files = tuple(folder / name if "." in name else name for name in files)
    done = run("map", ALEXNET, *options, *files)
    assert done.returncode == 0, done.stderr
    assert "wins" in done.stdout
    return folder


def test_imports_start_no_devices():
    """Devices are chosen in `main`; what starts them on import takes that choice away."""
    code = (
        "import compiler_rl.cli, compiler_rl.select, compiler_rl.sharding\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_report_has_the_promised_keys(mapped):
    report = json.loads((mapped / "m.json").read_text())
    assert report["game"] == "memory_mapping"
    assert report["unit"] == "s"
    assert report["validated"] is True
    assert {"all_slow", "msa", "cp_sat", "annealing"} <= report["baselines"].keys()
    assert all({"objective", "wall_s"} <= row.keys() for row in report["baselines"].values())
    assert report["lower_bound"] <= report["objective"] * (1 + 1e-9)
    best = min(row["objective"] for row in report["baselines"].values())
    assert report["objective"] == pytest.approx(best, rel=1e-9)
    assert report["objective"] <= report["baselines"]["msa"]["objective"] * (1 + 1e-12)


def test_files_are_what_they_should_be(mapped):
    assert "http" not in (mapped / "m.html").read_text().split("</style>")[0]
    assert (mapped / "m.csv").read_text().startswith("id,lower,upper,size,offset")
    assert (mapped / "m.hlo").read_text().startswith("HloModule")
    again = run("map", mapped / "m.hlo", "--fast-memory", "16MiB", "--time-limit", "1")
    assert again.returncode == 0, again.stderr


def test_validate_accepts_it_and_rejects_one_byte(mapped, tmp_path):
    assert run("validate", ALEXNET, mapped / "m.json").returncode == 0
    data = json.loads((mapped / "m.json").read_text())
    stay = next(row["stays"][0] for row in data["values"] if row["stays"])
    stay["offset"] += 1
    (tmp_path / "broken.json").write_text(json.dumps(data))
    done = run("validate", ALEXNET, tmp_path / "broken.json")
    assert done.returncode != 0
    assert "offset" in done.stdout
    assert "Traceback" not in done.stderr


def _garbage(folder: Path) -> dict[str, tuple[str, ...]]:
    """Bad command lines by name."""
    text = gzip.decompress(example_path("mlp.v5e.nomsa").read_bytes())
    (folder / "truncated.txt").write_bytes(text[: len(text) // 2])
    (folder / "truncated.txt.gz").write_bytes(example_path("mlp.v5e.nomsa").read_bytes()[:900])
    (folder / "binary.pb").write_bytes(bytes(range(256)) * 20)
    (folder / "empty.hlo").write_bytes(b"")
    (folder / "nothing").mkdir()
    (folder / "old.txt").write_bytes(
        text.replace(b"kind=kOutput", b"kind=kOutput, api_version=API_VERSION_UNSPECIFIED", 1)
    )
    (folder / "other.json").write_text('{"schema": "something/1"}')
    return {
        "truncated text": ("map", str(folder / "truncated.txt")),
        "truncated gzip": ("map", str(folder / "truncated.txt.gz")),
        "binary garbage": ("map", str(folder / "binary.pb")),
        "empty file": ("map", str(folder / "empty.hlo")),
        "empty folder": ("map", str(folder / "nothing")),
        "missing file": ("map", str(folder / "missing.txt")),
        "older XLA": ("map", str(folder / "old.txt")),
        "unknown chip": ("map", ALEXNET, "--chip", "v5x"),
        "unknown example": ("map", "example:nothing"),
        "tiny fast memory": ("map", ALEXNET, "--fast-memory", "1"),
        "huge fast memory": ("map", ALEXNET, "--fast-memory", "100GiB"),
        "no size": ("map", ALEXNET, "--fast-memory", "lots"),
        "no time": ("map", ALEXNET, "--time-limit", "0"),
        "no folder": ("map", ALEXNET, "--json", str(folder / "no" / "m.json")),
        "no picture": ("map", ALEXNET, "--plot", str(folder / "m.doc")),
        "no mapping": ("validate", ALEXNET, str(folder / "other.json")),
    }


@pytest.mark.parametrize(
    "name",
    [
        "truncated text",
        "truncated gzip",
        "binary garbage",
        "empty file",
        "empty folder",
        "missing file",
        "older XLA",
        "unknown chip",
        "unknown example",
        "tiny fast memory",
        "huge fast memory",
        "no size",
        "no time",
        "no folder",
        "no picture",
        "no mapping",
    ],
)
def test_bad_input_is_one_line(name, tmp_path):
    done = run(*_garbage(tmp_path)[name])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_mapping_of_another_program_is_refused(mapped):
    done = run("validate", "example:mlp.v5e.nomsa", mapped / "m.json")
    assert done.returncode != 0
    assert "fingerprint" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_returns_the_best_so_far(tmp_path):
    out = tmp_path / "m.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "compiler_rl", "map", "example:resnet50.v5e.nomsa"),
            *("--fast-memory", "16MiB", "--time-limit", "120", "--json", str(out)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "msa" in line:
            break
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    interrupted = time.perf_counter()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert time.perf_counter() - interrupted < 30  # on a busy machine; the limit is 120
    report = json.loads(out.read_text())
    assert report["interrupted"] is True
    assert report["validated"] is True
