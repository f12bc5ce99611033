"""Pictures: files of every kind, drawn from the numbers of the simulator."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from mapping_makers import CHIP, random_mapping, random_problem
from outputs_support import deep_program, greedy_mapping

from games.memory_mapping.chips import get_chip
from games.memory_mapping.picture import _scene, draw
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.simulator import simulate
from games.memory_mapping.solution import Mapping
from hlo_frontend import load
from hlo_frontend.errors import InputError
from hlo_frontend.examples import example_path
from hlo_frontend.program import Program

Drawn = tuple[MemoryMappingProblem, Program, Mapping]


@pytest.fixture(scope="module")
def looped() -> Drawn:
    """A real program with a loop, reservations and copies both ways."""
    program = load(example_path("scan_transformer.v5e.nomsa"))
    problem = from_program(program, get_chip("v5e"))
    return problem, program, greedy_mapping(problem)


def page_data(page: str) -> dict[str, object]:
    data = re.search(r"^const D = (\{.*\});$", page, re.MULTILINE)
    assert data is not None
    return dict(json.loads(data[1]))


def test_png(looped: Drawn, tmp_path: Path) -> None:
    path = tmp_path / "mapping.png"
    draw(*looped, path, method="greedy")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 50_000


def test_svg_is_the_same_each_time_and_says_what_it_shows(looped: Drawn, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.svg", "b.svg")]
    for path in paths:
        draw(*looped, path, method="greedy", title="A title")
    text = paths[0].read_text()
    assert text == paths[1].read_text()
    ElementTree.fromstring(text)
    for word in ("A title", "greedy: ", "loop ×8", "stall", "reserved by an instruction"):
        assert word in text


def test_html_is_self_contained(looped: Drawn, tmp_path: Path) -> None:
    path = tmp_path / "mapping.html"
    draw(*looped, path, method="greedy")
    page = path.read_text()
    assert not re.search(r"https?:|//\w|\bsrc=|\bhref=|url\(|@import|\bfetch\(|<link", page)
    data = page_data(page)
    problem, _, mapping = looped
    assert data["title"] == "jit_forward"
    assert data["total"] == pytest.approx(simulate(problem, mapping).total)
    boxes = data["boxes"]
    assert isinstance(boxes, list)
    assert len(boxes) == len(mapping.intervals)
    copied = next(box for box in boxes if box["name"] == "x.1")
    assert copied["kind"] == "parameter"
    assert copied["lines"][0] == "parameter, 2 MiB at offset 0"
    assert copied["lines"][2].startswith("copy in starts before ")


def test_no_text_of_the_program_can_end_the_script(looped: Drawn, tmp_path: Path) -> None:
    path = tmp_path / "mapping.html"
    draw(*looped, path, method="greedy", title="</script><b>")
    page = path.read_text()
    assert page.count("</script>") == 1
    assert page_data(page)["title"] == "</script><b>"


def test_the_script_of_the_page_parses(looped: Drawn, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node to check the script with")
    draw(*looped, tmp_path / "mapping.html", method="greedy")
    script = re.search(r"<script>(.*)</script>", (tmp_path / "mapping.html").read_text(), re.DOTALL)
    assert script is not None
    (tmp_path / "script.js").write_text(script[1])
    subprocess.run([node, "--check", str(tmp_path / "script.js")], check=True)


def test_nothing_in_fast_memory(looped: Drawn, tmp_path: Path) -> None:
    problem, program, _ = looped
    for suffix in ("svg", "html"):
        draw(problem, program, Mapping(()), tmp_path / f"m.{suffix}", method="all slow")
        assert "0 stays" in (tmp_path / f"m.{suffix}").read_text()


def test_thousands_of_steps(tmp_path: Path) -> None:
    program = deep_program(2000)
    problem = from_program(program, CHIP)
    mapping = greedy_mapping(problem)
    for suffix in ("svg", "html"):
        path = tmp_path / f"deep.{suffix}"
        draw(problem, program, mapping, path, method="greedy")
        assert path.stat().st_size < 4e6


@pytest.mark.parametrize("seed", range(20))
def test_the_scene_agrees_with_the_simulator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program, problem = random_problem(rng)
    mapping = random_mapping(rng, problem)
    timeline = simulate(problem, mapping)
    scene = _scene(problem, program, mapping, "title", "method")
    assert scene.begin[-1] == pytest.approx(timeline.total)
    for box in scene.boxes:
        assert 0 <= box.x0 <= box.ready <= box.x1 <= scene.begin[-1]
        assert 0 <= box.y0 < box.y1 <= problem.capacity
    times, *queues = scene.queues
    assert (np.diff(times) >= 0).all()
    for queue, backlog in zip(queues, (timeline.backlog_in, timeline.backlog_out), strict=True):
        # Nothing is lost: copies enter at once, leave while time goes by, and leave nothing behind.
        at_begin = queue.reshape(-1, 4)[:-1, 2]
        np.testing.assert_allclose(at_begin, backlog)
        assert queue.min() >= -1e-9
        assert queue[-1] == 0
        assert (np.diff(queue.reshape(-1, 4)[:, 1:]) <= 1e-9).all()


def test_other_suffixes_are_refused(looped: Drawn, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m.jpg: a picture is a .png, .svg or .html file"):
        draw(*looped, tmp_path / "m.jpg", method="greedy")
    with pytest.raises(InputError, match="cannot be written"):
        draw(*looped, tmp_path / "no" / "m.html", method="greedy")
