"""The tutorials' code runs as it stands, and the site builds without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from experiments.common import ROOT
from games.registry import GAMES

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def script_of(text: str) -> str:
    """The blocks of a page as one script; shell lines run where they stand."""
    parts = []
    for language, code in BLOCK.findall(text):
        assert language in ("python", "sh"), f"a block of {language} is not run"
        if language == "python":
            parts.append(code)
        else:
            for line in code.splitlines():
                command = re.sub(r"^compiler-rl", f"{sys.executable} -m compiler_rl", line)
                parts.append(
                    f"import subprocess\nsubprocess.run({command!r}, shell=True, check=True)"
                )
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_code_of_a_tutorial_runs(path, tmp_path):
    text = path.read_text()
    if "gymnasium" in text and find_spec("gymnasium") is None:
        pytest.skip("needs the extra gym")
    script = tmp_path / "tutorial.py"
    script.write_text(script_of(text))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What the page says is there.
    for name in re.findall(r"(?:--json|--plot|--hlo|--out|--store) ([\w./]+)", text):
        assert (tmp_path / name).exists(), name


def test_the_site_builds_without_warnings_and_has_every_game(tmp_path):
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    home = (tmp_path / "site" / "index.html").read_text()
    for game in GAMES:
        assert f"games/{game}.html" in home
        page = (tmp_path / "site" / "games" / f"{game}.html").read_text()
        assert "Rules</h" in re.sub(r"<a .*?</a>", "", page)
    assert "never worse than the heuristics" in (tmp_path / "site/reference/solve.html").read_text()
