"""The README shows what the results say, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import readme_tables
from experiments.common import Results
from hlo_frontend.errors import InputError

README = "Speed.\n\n<!-- table:speed -->\nas fast as I say\n<!-- /table -->\n\nEnd.\n"


def test_readme_is_what_the_committed_results_say() -> None:
    readme_tables.main(["--check"])


def test_blocks_come_from_the_results(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README)
    command = ["--readme", str(readme), "--results", str(tmp_path)]
    readme_tables.main(command)
    assert readme.read_text() == README.replace("as fast as I say\n", "")

    config = {"program": "mlp", "fast_memory": 2**20, "time_limit": 1.0, "part": "simulator"}
    Results(tmp_path / "speed.json", readme_tables.bench_simulator.NAME).measure(
        config, lambda: {"rate": 4321.0}
    )
    with pytest.raises(InputError, match="not what the results say"):
        readme_tables.main([*command, "--check"])
    assert "4,321" not in readme.read_text()
    readme_tables.main(command)
    assert "4,321" in readme.read_text()
    assert readme.read_text().startswith("Speed.\n\n<!-- table:speed -->\n| problem |")
    readme_tables.main([*command, "--check"])


def test_an_unknown_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table:mine"):
        readme_tables.fill("<!-- table:mine -->\n<!-- /table -->", tmp_path)
