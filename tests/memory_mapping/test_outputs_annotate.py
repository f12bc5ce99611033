"""Annotated HLO: the same program for XLA's parser, with the mapping in its comments."""

from pathlib import Path

import pytest
from outputs_support import greedy_mapping

from games.memory_mapping.annotate import annotated_hlo
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from games.memory_mapping.solution import FastInterval, Mapping
from games.memory_mapping.validator import validate
from hlo_frontend import load, read_text
from hlo_frontend.errors import InputError
from hlo_frontend.examples import EXAMPLES, example_path
from hlo_frontend.program import CopyWindow, Program

LOOP = """\
HloModule loop, is_scheduled=true

%body (state: (s32[], f32[1024], f32[1024])) -> (s32[], f32[1024], f32[1024]) {
  %state = (s32[], f32[1024]{0}, f32[1024]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[1024]{0} get-tuple-element(%state), index=1
  %w = f32[1024]{0} get-tuple-element(%state), index=2
  %y = f32[1024]{0} multiply(%x, %w)
  %z = f32[1024]{0} add(%y, %w)
  ROOT %out = (s32[], f32[1024]{0}, f32[1024]{0}) tuple(%next, %z, %w)
}

%condition (state.1: (s32[], f32[1024], f32[1024])) -> pred[] {
  %state.1 = (s32[], f32[1024]{0}, f32[1024]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %limit = s32[] constant(9)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (a: f32[1024], b: f32[1024]) -> f32[1024] {
  %a = f32[1024]{0} parameter(0)
  %b = f32[1024]{0} parameter(1)
  %zero = s32[] constant(0)
  %start = f32[1024]{0} negate(%a)
  %init = (s32[], f32[1024]{0}, f32[1024]{0}) tuple(%zero, %start, %b)
  %while = (s32[], f32[1024]{0}, f32[1024]{0}) while(%init), condition=%condition, body=%body
  %end = f32[1024]{0} get-tuple-element(%while), index=1
  ROOT %result = f32[1024]{0} negate(%end)
}
"""


def step_of(program: Program, name: str) -> int:
    return next(k for k, step in enumerate(program.steps) if step.name == name)


def around(lines: list[str], text: str) -> tuple[str, str, str]:
    """The names before and after the one line that holds `text`, and that line."""
    at = [k for k, line in enumerate(lines) if text in line]
    assert len(at) == 1, text
    names = [line.split(" = ")[0].strip().removeprefix("ROOT ") for line in lines]
    before = next(n for n in names[at[0] - 1 :: -1] if not n.startswith("/*"))
    after = next(n for n in names[at[0] + 1 :] if not n.startswith("/*"))
    return before, after, lines[at[0]].strip()


@pytest.mark.parametrize("name", EXAMPLES)
def test_xla_reads_the_same_program(name: str, tmp_path: Path) -> None:
    program = load(example_path(name))
    problem = from_program(program, get_chip("v5e"), 8 << 20)
    mapping = greedy_mapping(problem)
    text = read_text(example_path(name))
    annotated = annotated_hlo(program, text, problem, mapping)
    assert annotated.count("/* copy in of") == 2 * sum(
        stay.copy_in is not None for stay in mapping.intervals
    )
    path = tmp_path / "annotated.txt"
    path.write_text(annotated)
    again = load(path)
    assert again.fingerprint == program.fingerprint
    assert (again.steps, again.values, again.buffers, again.loops, again.assignment) == (
        program.steps,
        program.values,
        program.buffers,
        program.loops,
        program.assignment,
    )


def test_what_stands_where(tmp_path: Path) -> None:
    path = tmp_path / "loop.txt"
    path.write_text(LOOP)
    program = load(path)
    text = read_text(path)
    problem = from_program(program, get_chip("v5e"))
    at = {
        name: int(problem.program_step.searchsorted(step_of(program, name)))
        for name in ("start", "y", "z", "result")
    }
    start, end = int(problem.loop_start[0]), int(problem.loop_end[0])
    class_of = {
        program.values[program.buffers[int(index)].values[0]].name: row
        for row, index in enumerate(problem.program_buffer)
    }
    mapping = Mapping(
        (
            FastInterval(class_of["b"], at["start"], end, 4096, CopyWindow(at["start"], start)),
            FastInterval(class_of["y"], at["y"], at["z"] + 1, 0),
            FastInterval(
                class_of["result"],
                at["result"],
                at["result"] + 1,
                8192,
                copy_out=CopyWindow(at["result"] + 1, at["result"] + 1),
            ),
        )
    )
    assert validate(problem, mapping) == []
    lines = annotated_hlo(program, text, problem, mapping).splitlines()
    assert around(lines, "copy in of b starts") == (
        "%zero", "%start", "/* copy in of b starts: 4,096 bytes to 4,096 */",
    )  # fmt: skip
    # Done before the loop, not before each of its iterations.
    assert around(lines, "copy in of b is done")[:2] == ("%init", "%while")
    assert around(lines, "copy out of result starts")[:2] == ("%result", "}")
    assert around(lines, "copy out of result is done")[:2] == ("%result", "}")
    tails = {
        line.split(" = ")[0].split("%")[-1]: line.split(" /* ")[-1]
        for line in lines
        if line.endswith("*/") and " = " in line
    }
    assert tails["y"] == "to fast memory: result at 0, 4,096 bytes; from fast memory: operand 1 */"
    assert tails["z"] == "from fast memory: operand 0, 1 */"
    assert tails["result"] == "to fast memory: result at 8,192, 4,096 bytes */"
    assert "b" not in tails


def test_the_end_of_an_iteration_is_inside_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "loop.txt"
    path.write_text(LOOP)
    program = load(path)
    problem = from_program(program, get_chip("v5e"))
    z = int(problem.program_step.searchsorted(step_of(program, "z")))
    end = int(problem.loop_end[0])
    row = problem.program_buffer.tolist().index(
        next(value.buffer for value in program.values if value.name == "z")
    )
    mapping = Mapping((FastInterval(row, z, end, 0, copy_out=CopyWindow(z + 1, end)),))
    assert validate(problem, mapping) == []
    lines = annotated_hlo(program, read_text(path), problem, mapping).splitlines()
    assert around(lines, "starts: 4,096 bytes from 0")[:2] == ("%z", "%out")
    assert around(lines, "is done")[:2] == ("%out", "}")


def test_the_text_of_another_program_is_refused() -> None:
    program = load(example_path("mlp.v5e.nomsa"))
    problem = from_program(program, get_chip("v5e"))
    with pytest.raises(InputError, match=r"the HLO text has no instruction .* in main"):
        annotated_hlo(program, LOOP, problem, greedy_mapping(problem))
