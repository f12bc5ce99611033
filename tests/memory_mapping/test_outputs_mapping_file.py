"""The mapping file: its content, its round trip, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapping_makers import CHIP, ProgramBuilder, random_mapping, random_problem
from outputs_support import greedy_mapping

from games.memory_mapping.chips import get_chip
from games.memory_mapping.mapping_file import from_json, in_program_steps, read, to_json, write
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import FastInterval, Mapping
from games.memory_mapping.validator import validate_file
from hlo_frontend import load
from hlo_frontend.errors import InputError
from hlo_frontend.examples import EXAMPLES, example_path
from hlo_frontend.program import CopyWindow, Program


def small() -> tuple[Program, MemoryMappingProblem, Mapping]:
    """Steps 0, 1 and 3 of six cost nothing: 2, 4 and 5 are the problem's steps 0, 1 and 2."""
    make = ProgramBuilder()
    for name, flops in (("w", 0), ("tuple", 0), ("dot", 1000), ("bitcast", 0), ("add", 500)):
        make.step(name, flops=flops)
    make.step("copy")
    make.value(make.buffer(initial=True), 64, 0, [4], name="w")
    make.value(make.buffer(), 30, 2, [4], name="dot")
    make.value(make.buffer(), 48, 4, [5], name="add")
    make.value(make.buffer(live_out=True), 48, 5, [], name="copy")
    program = make.build()
    mapping = Mapping(
        (
            FastInterval(0, 0, 2, 0, copy_in=CopyWindow(0, 1)),
            FastInterval(1, 0, 2, 64),
            FastInterval(3, 2, 3, 0, copy_out=CopyWindow(3, 3)),
        )
    )
    return program, from_program(program, CHIP), mapping


def stay(offset: int, start: int, end: int, first: str, last: str, **copies: Any) -> dict[str, Any]:
    return {
        "offset": offset,
        "start": start,
        "end": end,
        "start_instruction": first,
        "last_instruction": last,
        "copy_in": None,
        "copy_out": None,
        **copies,
    }


def use(instruction: str, step: int, memory_space: str) -> dict[str, Any]:
    return {
        "instruction": instruction,
        "step": step,
        "operand": 0,
        "index": [],
        "memory_space": memory_space,
    }


def test_content() -> None:
    program, problem, mapping = small()
    expected = {
        "schema": "compiler-rl/memory-mapping/1",
        "program": {"name": "toy", "source": "toy.txt", "fingerprint": "f00d"},
        "chip": {
            "name": "toy",
            "peak_flops": 1e3,
            "slow_bandwidth": 100.0,
            "fast_bandwidth": 2000.0,
            "fast_bytes": 256,
            "memory_space": 1,
            "alignment": 16,
            "clock_hz": 1e9,
        },
        "fast_memory": 256,
        # dot 1 s of arithmetic; add 0.48 s slow + 0.047 s fast; copy 0.48 s slow + 0.024 s fast;
        # then the result's 48 bytes have to get out.
        "objective": pytest.approx(1.0 + 0.527 + 0.504 + 0.48),
        "all_slow": pytest.approx(1.0 + 1.42 + 0.96),
        "unit": "s",
        "method": "by hand",
        "values": [
            {
                "value": "w",
                "shape": "s8[64]{0}",
                "size": 64,
                "alias_class": 0,
                "memory_space": "fast",
                "stays": [
                    stay(
                        0, 2, 5, "dot", "add",
                        copy_in={
                            "start": 2, "done": 4, "start_before": "dot", "done_before": "add"
                        },
                    )
                ],
                "produced_in": "slow",
                "uses": [use("add", 4, "fast")],
                "why_slow": None,
            },
            {
                "value": "dot",
                "shape": "s8[30]{0}",
                "size": 32,
                "alias_class": 1,
                "memory_space": "fast",
                "stays": [stay(64, 2, 5, "dot", "add")],
                "produced_in": "fast",
                "uses": [use("add", 4, "fast")],
                "why_slow": None,
            },
            {
                "value": "add",
                "shape": "s8[48]{0}",
                "size": 48,
                "alias_class": 2,
                "memory_space": "slow",
                "stays": [],
                "produced_in": "slow",
                "uses": [use("copy", 5, "slow")],
                # Then add would take its 0.5 s of arithmetic, and copy 2 x 0.024 s.
                "why_slow": "the search did not find a place: in fast memory from add to copy at"
                " offset 96 it would save 4.83e+05 us",
            },
            {
                "value": "copy",
                "shape": "s8[48]{0}",
                "size": 48,
                "alias_class": 3,
                "memory_space": "fast",
                "stays": [
                    stay(
                        0, 5, 6, "copy", "copy",
                        copy_out={
                            "start": 6, "done": 6, "start_before": None, "done_before": None
                        },
                    )
                ],
                "produced_in": "fast",
                "uses": [],
                "why_slow": None,
            },
        ],
    }  # fmt: skip
    assert to_json(program, problem, CHIP, mapping, method="by hand") == expected


def test_a_file_reads_back_as_written(tmp_path: Path) -> None:
    program, problem, mapping = small()
    path = tmp_path / "mapping.json"
    path.write_text("old")
    write(path, to_json(program, problem, CHIP, mapping, method="by hand"))
    data = read(path)
    assert data == to_json(program, problem, CHIP, mapping, method="by hand")
    assert from_json(problem, program, data) == mapping
    assert [each.name for each in tmp_path.iterdir()] == ["mapping.json"]
    lines = path.read_text().splitlines()
    assert sum(line.startswith('    {"value": ') for line in lines) == 4


@pytest.mark.parametrize("seed", range(40))
def test_random_mappings_are_valid_and_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program, problem = random_problem(rng)
    mapping = random_mapping(rng, problem)
    data = json.loads(json.dumps(to_json(program, problem, CHIP, mapping, method="random")))
    assert validate_file(program, data) == []
    assert set(from_json(problem, program, data).intervals) == set(mapping.intervals)


@pytest.mark.parametrize("name", EXAMPLES)
def test_mappings_of_real_programs_are_valid_and_come_back(name: str) -> None:
    program = load(example_path(name))
    chip = get_chip("v5e")
    problem = from_program(program, chip, 8 << 20)
    mapping = greedy_mapping(problem)
    assert mapping.intervals
    data = to_json(program, problem, chip, mapping, method="greedy")
    assert validate_file(program, data) == []
    assert set(from_json(problem, program, data).intervals) == set(mapping.intervals)
    for row in data["values"]:
        assert (row["why_slow"] is None) == (row["memory_space"] == "fast")


def test_a_stay_of_a_whole_loop_reaches_both_borders() -> None:
    make = ProgramBuilder()
    make.step("before", flops=10)
    make.loop(1, 5, trips=3)
    for name, flops in (("parameter", 0), ("inner", 10), ("also", 10), ("tuple", 0)):
        make.step(name, flops=flops, loop=0)
    make.step("after", flops=10)
    make.value(make.buffer(initial=True), 16, 0, [2, 3], name="w")
    program = make.build()
    problem = from_program(program, CHIP)
    start, end = int(problem.loop_start[0]), int(problem.loop_end[0])
    assert (problem.program_step[start], problem.program_step[end - 1] + 1) == (1, 5)
    whole = FastInterval(0, start, end, 0, copy_in=CopyWindow(0, start))
    assert in_program_steps(problem, whole) == FastInterval(0, 1, 5, 0, CopyWindow(0, 1))


def test_another_program_is_refused() -> None:
    program, problem, mapping = small()
    data = to_json(program, problem, CHIP, mapping, method="by hand")
    data["program"]["fingerprint"] = "beef"
    with pytest.raises(InputError, match=r"toy.txt: the mapping is of toy, whose fingerprint"):
        from_json(problem, program, data)


def test_contradicting_aliases_are_refused() -> None:
    make = ProgramBuilder()
    for k in range(3):
        make.step(f"op.{k}", flops=10)
    shared = make.buffer()
    first = make.value(shared, 16, 0, [1], name="first")
    make.value(shared, 16, 1, [2], updates=(first,), name="second")
    program = make.build()
    problem = from_program(program, CHIP)
    mapping = Mapping((FastInterval(0, 0, 3, 0),))
    data = json.loads(json.dumps(to_json(program, problem, CHIP, mapping, method="by hand")))
    assert [len(row["stays"]) for row in data["values"]] == [1, 1]
    data["values"][1]["stays"][0]["offset"] = 16
    with pytest.raises(InputError, match="first and second share their bytes"):
        from_json(problem, program, data)


def test_stays_that_the_problem_cannot_hold_are_refused() -> None:
    program, problem, mapping = small()
    data = to_json(program, problem, CHIP, mapping, method="by hand")
    with pytest.raises(InputError, match="w has a stay, but cannot be moved in this problem"):
        from_json(from_program(program, CHIP, 48), program, data)
    data["values"][0]["stays"][0]["end"] = 7
    with pytest.raises(
        InputError, match=r"w: steps \[2, 7\) of its stay \[2, 7\) are out of order"
    ):
        from_json(problem, program, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("fast_memory"), "field 'fast_memory' is missing"),
        (lambda data: data.update(schema="other/1"), "schema is 'other/1', expected"),
        (lambda data: data.update(objective="1"), "field 'objective' is \"1\", expected a number"),
        (lambda data: data.update(values={}), "field 'values' is {}, expected a list"),
        (lambda data: data["values"][1].update(size=1.5), r"field 'values\[1\].size' is 1.5, exp"),
        (lambda data: data["values"][0].update(uses=[[]]), r"'values\[0\].uses\[0\]' is \[\], exp"),
        (
            lambda data: data["values"][0]["stays"][0]["copy_in"].pop("done"),
            r"field 'values\[0\].stays\[0\].copy_in.done' is missing",
        ),
    ],
)
def test_a_file_of_another_schema_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    program, problem, mapping = small()
    data = json.loads(json.dumps(to_json(program, problem, CHIP, mapping, method="by hand")))
    change(data)
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_what_is_no_mapping_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nothing.json")
    path = tmp_path / "text.json"
    path.write_text("HloModule jit_f")
    with pytest.raises(InputError, match="not JSON"):
        read(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="schema is None"):
        read(path)


def test_a_file_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    program, problem, mapping = small()
    with pytest.raises(InputError, match="cannot be written"):
        write(
            tmp_path / "no" / "f.json", to_json(program, problem, CHIP, mapping, method="by hand")
        )
