"""The validator accepts what is legal, and names what is broken, in the words of the rules."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import instances
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_makers import (
    CHIP,
    UNIT,
    ProgramBuilder,
    mapping_file,
    random_mapping,
    random_problem,
)

from games.memory_mapping import validator
from games.memory_mapping.chips import get_chip
from games.memory_mapping.mapping_file import to_json
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.simulator import simulate
from games.memory_mapping.solution import FastInterval, Mapping, interval_loop
from games.memory_mapping.validator import recompute, validate, validate_file
from hlo_frontend import load
from hlo_frontend.program import CopyWindow, Program

Json = dict[str, Any]
SEEDS = st.integers(0, 2**32 - 1)


def test_shares_no_code_with_the_game() -> None:
    tree = ast.parse(Path(validator.__file__).read_text())
    imported = {
        node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module
    } | {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    assert {name for name in imported if name.startswith(("games", "baselines"))} == set()
    assert {name for name in imported if name.startswith("hlo_frontend")} == {
        "hlo_frontend.program"
    }


# A straight line: a is updated in place to a2; p.0 comes from slow memory, out must end there.


def straight_program() -> Program:
    make = ProgramBuilder()
    for name, flops in (
        ("p.0", 0.0),
        ("p.1", 0.0),
        ("fusion.a", 100.0),
        ("fusion.b", 2000.0),
        ("fusion.c", 500.0),
        ("fusion.d", 100.0),
        ("fusion.e", 100.0),
        ("fusion.f", 300.0),
        ("tuple", 0.0),
    ):
        make.step(name, flops)
    make.value(make.buffer(initial=True), 2 * UNIT, 0, [2, 5], name="p.0")
    make.value(make.buffer(initial=True), UNIT, 1, [3], name="p.1")
    a_class = make.buffer()
    a = make.value(a_class, 2 * UNIT, 2, [3, 4], name="fusion.a")
    make.value(make.buffer(), 2 * UNIT - 1, 3, [4], name="fusion.b")
    make.value(a_class, 2 * UNIT, 4, [5], updates=(a,), name="fusion.c")
    make.value(make.buffer(), UNIT, 5, [6], name="fusion.d")
    make.value(make.buffer(live_out=True), UNIT, 6, [7], name="fusion.e")
    make.value(make.buffer(fixed_space=2), UNIT, 6, [7], name="fusion.s")
    return make.build()


# Steps of the problem are those of the program but for the two parameters and the tuple.
P0, P1, A, B, D, E = range(6)
STRAIGHT = Mapping(
    (
        FastInterval(A, 0, 4, 0),
        FastInterval(B, 1, 3, 2 * UNIT),
        FastInterval(P0, 1, 4, 4 * UNIT, copy_in=CopyWindow(1, 3)),
        FastInterval(D, 3, 5, 2 * UNIT),
        FastInterval(E, 4, 6, 3 * UNIT, copy_out=CopyWindow(5, 6)),
    )
)


def straight_file(mapping: Mapping = STRAIGHT) -> tuple[Program, Json]:
    program = straight_program()
    problem = from_program(program, CHIP, 6 * UNIT)
    return program, mapping_file(program, problem, mapping)


def row(data: Json, position: str) -> Json:
    rows: list[Json] = data["values"]
    return next(row for row in rows if row["value"] == position)


def stay(data: Json, position: str) -> Json:
    found: Json = row(data, position)["stays"][0]
    return found


def test_accepts_the_straight_line() -> None:
    program, data = straight_file()
    assert validate(from_program(program, CHIP, 6 * UNIT), STRAIGHT) == []
    assert validate_file(program, data) == []


def test_recomputes_the_straight_line_by_hand() -> None:
    # Slow memory: 100 bytes a second; fast memory 2000; arithmetic 1000 a second.
    unit, fast = UNIT / 100, UNIT / 2000
    steps = [
        2 * unit + 2 * fast,  # a reads p.0 (slow), writes a (fast)
        2.0,  # b: arithmetic; its slow traffic is p.1, its idle time 2.0 - unit
        0.5,  # c: arithmetic, all idle; the copy of p.0 was done during b
        0.1,  # d: arithmetic; all of its five units are in fast memory
        unit + 2 * fast,  # e writes its result (fast) and s (slow), reads d
        0.3,  # f: arithmetic; reads e's result (fast) and s (slow)
    ]
    # The copy-out of e (1 unit) runs during f: idle there, the rest is a stall at the end.
    stall = max(0.0, unit - (steps[5] - unit))
    problem = from_program(straight_program(), CHIP, 6 * UNIT)
    assert recompute(problem, STRAIGHT) == pytest.approx(sum(steps) + stall, rel=1e-12)


def _copy_in_later(data: Json) -> None:
    stay(data, "p.0")["copy_in"].update(done=6, done_before="fusion.e")


def _alias(key: str, value: Any) -> Callable[[Json], None]:
    return lambda data: stay(data, "fusion.c").update({key: value})


def _shift(position: str, offset: Any) -> Callable[[Json], None]:
    return lambda data: stay(data, position).update(offset=offset)


def _set(*path: Any) -> Callable[[Json], None]:
    *keys, last, value = path

    def change(data: Json) -> None:
        node: Any = data
        for key in keys:
            node = row(node, key[1:]) if isinstance(key, str) and key[0] == "@" else node[key]
        node[last] = value

    return change


def _delete(*path: Any) -> Callable[[Json], None]:
    *keys, last = path

    def change(data: Json) -> None:
        node: Any = data
        for key in keys:
            node = row(node, key[1:]) if isinstance(key, str) and key[0] == "@" else node[key]
        del node[last]

    return change


def _copy_in_during_the_update(data: Json) -> None:
    for position in ("fusion.a", "fusion.c"):
        stay(data, position)["copy_in"] = {
            "start": 2,
            "done": 5,
            "start_before": "fusion.a",
            "done_before": "fusion.d",
        }


def _duplicate(data: Json) -> None:
    data["values"].insert(3, copy.deepcopy(data["values"][3]))


def _swap(data: Json) -> None:
    rows = data["values"]
    rows[0], rows[1] = rows[1], rows[0]


MUTATIONS: list[tuple[str, Callable[[Json], None], str]] = [
    (
        "another program",
        _set("program", "fingerprint", "beef"),
        "mapping is for another program: fingerprint 'beef', expected f00d",
    ),
    ("another schema", _set("schema", "compiler-rl/memory-mapping/2"), "schema is .*/2', expected"),
    ("another unit", _set("unit", "ms"), "'unit' is 'ms', expected one of s"),
    ("missing value", _delete("values", 3), "fusion.b: the value is missing: 0 rows, expected 1"),
    ("duplicated value", _duplicate, "fusion.b: the value is there more than once: 2 rows"),
    ("unknown value", _set("@fusion.b", "value", "x"), "'x': the program has no such value"),
    ("order", _swap, "p.1: row 0 of 'values' is out of schedule order, expected p.0"),
    ("size", _set("@fusion.b", "size", 31), "fusion.b: size is 31, expected 32 bytes"),
    ("shape", _set("@p.1", "shape", "f32[]"), r"p.1: shape is 'f32\[\]', expected s8\[16\]"),
    ("class", _set("@p.1", "alias_class", 0), "p.1: alias_class is 0, expected 1"),
    (
        "offset by one byte",
        _shift("p.0", 4 * UNIT + 1),
        r"p.0 .*\[3, 6\) has offset 65, not a multiple of the alignment, 16",
    ),
    (
        "offset beyond the limit",
        _shift("p.0", 5 * UNIT),
        r"p.0 .*needs bytes \[80, 112\), but the limit at step 3 \(fusion.b\) is 96",
    ),
    (
        "overlap by one unit",
        _shift("fusion.b", UNIT),
        r"fusion.a .*overlaps that of fusion.b .* in bytes \[16, 32\) during steps \[3, 5\)",
    ),
    (
        "overlap by the last unit",
        _shift("fusion.e", 2 * UNIT),
        r"fusion.d .*overlaps that of fusion.e .* in bytes \[32, 48\) during steps \[6, 7\)",
    ),
    (
        "broken alias: offset",
        _alias("offset", UNIT),
        r"fusion.c: broken alias: its stay .*\[2, 6\) at offset 16 is not that of fusion.a",
    ),
    (
        "broken alias: none",
        _set("@fusion.c", "stays", []),
        r"fusion.c: broken alias: it does not list the stay .*\[2, 6\) at offset 0",
    ),
    (
        "broken alias: end",
        lambda data: stay(data, "fusion.c").update(end=5, last_instruction="fusion.c"),
        r"fusion.c: broken alias: its stay in steps \[2, 5\)",
    ),
    (
        "twice",
        lambda data: row(data, "fusion.d")["stays"].append(stay(data, "fusion.d")),
        "fusion.d: a stay is listed twice",
    ),
    (
        "late copy",
        _copy_in_later,
        r"p.0: the use as operand 1 of step 5 \(fusion.d\) is said to be in fast memory, but is in"
        " slow memory: late copy, done only before step 6",
    ),
    (
        "write during the copy",
        _copy_in_during_the_update,
        r"fusion.a .* is copied in during \[2, 5\), but step 4 \(fusion.c\) writes the value",
    ),
    (
        "copy-in from nothing",
        _copy_in_during_the_update,
        "fusion.a .*: copy-in at step 2 needs slow memory.* nothing has written it yet",
    ),
    (
        "no copy-in",
        _set("@p.0", "stays", 0, "copy_in", None),
        r"p.0 .*\[3, 6\) has no copy-in, but step 3 \(fusion.b\) does not define the value",
    ),
    (
        "no copy-out",
        _set("@fusion.e", "stays", 0, "copy_out", None),
        "fusion.e .*: the result of the program needs slow memory, where the value is not valid:"
        r" step 6 \(fusion.e\) wrote it in fast memory",
    ),
    (
        "copy-out before the write",
        _set("@fusion.e", "stays", 0, "copy_out", "start", 6),
        r"fusion.e .*is copied out from step 6 on, but step 6 \(fusion.e\) writes the value",
    ),
    (
        "copy-out beyond the stay",
        _set("@fusion.e", "stays", 0, "copy_out", "done", 9),
        r"fusion.e .* has its copy-out in \[7, 9\), not within the stay",
    ),
    (
        "copy-in apart from the stay",
        _set("@p.0", "stays", 0, "copy_in", "start", 4),
        r"p.0 .*\[3, 6\) does not start with its copy-in, which starts at step 4",
    ),
    (
        "copy-in done before it starts",
        _set("@p.0", "stays", 0, "copy_in", "done", 2),
        r"p.0 .* has its copy-in in \[3, 2\), not within the stay",
    ),
    (
        "empty stay",
        _set("@fusion.d", "stays", 0, "end", 5),
        r"fusion.d .*\[5, 5\) is no range of steps within \[0, 9\)",
    ),
    (
        "idle stay",
        lambda data: stay(data, "fusion.e").update(start=8, end=9, copy_out=None),
        r"fusion.e .*\[8, 9\) covers no step that does any work",
    ),
    (
        "use in the wrong memory",
        _set("@p.0", "uses", 0, "memory_space", "fast"),
        r"p.0: the use as operand 0 of step 2 \(fusion.a\) is said to be in fast memory",
    ),
    (
        "produced in the wrong memory",
        _set("@fusion.d", "produced_in", "slow"),
        r"fusion.d: is said to be produced in slow memory by step 5 \(fusion.d\)",
    ),
    (
        "a parameter produced in fast memory",
        _set("@p.0", "produced_in", "fast"),
        "p.0: is said to be produced in fast memory",
    ),
    (
        "label",
        _set("@p.0", "memory_space", "fast"),
        "p.0: memory_space is fast, expected mixed: 1 of its 2 accesses",
    ),
    (
        "fixed",
        _set("@fusion.s", "memory_space", "slow"),
        "fusion.s: memory_space is slow with 0 stays, expected fixed",
    ),
    (
        "other use",
        _set("@p.0", "uses", 1, "operand", 7),
        r"p.0: use 1 is operand 7 of step 5 \(fusion.d\), expected operand 1 of step 5",
    ),
    ("no use", _delete("@p.0", "uses", 1), "p.0: 1 uses, expected 2"),
    (
        "first instruction",
        _set("@p.0", "stays", 0, "start_instruction", "x"),
        r"p.0: start_instruction of the stay in steps \[3, 6\) is 'x', expected fusion.b of step 3",
    ),
    (
        "instruction of the end",
        _set("@fusion.e", "stays", 0, "copy_out", "done_before", None),
        "fusion.e: copy_out done_before of the stay .* is None, expected tuple of step 8",
    ),
    ("all_slow", lambda data: data.update(all_slow=data["all_slow"] * 1.001), "all_slow stated"),
    (
        "objective",
        lambda data: data.update(objective=data["objective"] * 1.001),
        "objective stated .*, recomputed",
    ),
    (
        "more fast memory than there is",
        _set("fast_memory", CHIP.fast_bytes + 1),
        "fast_memory is 257 bytes, but chip 'toy' has 256",
    ),
    ("no schema", _delete("schema"), "mapping file: field 'schema' is missing"),
    ("chip figure", _set("chip", "alignment", 0), "'alignment' is 0, expected an integer from 1"),
    ("bandwidth", _set("chip", "slow_bandwidth", float("nan")), "'slow_bandwidth' is nan, exp"),
    ("values", _set("values", {}), "'values' is dict, expected a list"),
    ("row", _set("values", 2, 17), "row 2 of 'values': expected an object, found 17"),
    ("offset type", _shift("p.0", 64.0), "p.0: 'offset' is 64.0, expected an integer"),
    ("size type", _set("@p.0", "size", True), "p.0: 'size' is True, expected an integer"),
    ("step", _set("@p.0", "stays", 0, "end", 10), "p.0: 'end' is 10, expected an integer from 0"),
    ("window type", _set("@p.0", "stays", 0, "copy_in", [3, 5]), "expected an object, found list"),
    ("index type", _set("@p.0", "uses", 0, "index", ["0"]), "'index' of a use is not a list"),
    ("space", _set("@p.0", "uses", 0, "memory_space", "hbm"), "is 'hbm', expected one of fast, s"),
]


@pytest.mark.parametrize(
    ("change", "expected"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS]
)
def test_names_the_mutation(change: Callable[[Json], None], expected: str) -> None:
    program, data = straight_file()
    change(data)
    errors = validate_file(program, data)
    assert any(re.search(expected, line) for line in errors), errors


# A loop: each of three iterations reads w and updates x; t lives in one iteration only.


def loop_program() -> Program:
    make = ProgramBuilder()
    make.step("w")
    make.step("fusion.x", 100.0)
    body = make.loop(2, 5, trips=3)
    for name in ("fusion.t", "fusion.u", "fusion.v"):
        make.step(name, 400.0, loop=body)
    make.step("fusion.y", 100.0)
    make.value(make.buffer(initial=True), 2 * UNIT, 0, [3], name="w")
    x_class = make.buffer()
    x = make.value(x_class, UNIT, 1, [2], name="fusion.x")
    make.value(make.buffer(), UNIT, 2, [3, 4], name="fusion.t")
    make.value(x_class, UNIT, 4, [5], updates=(x,), name="fusion.v")
    make.value(make.buffer(live_out=True), UNIT, 5, [], name="fusion.y")
    return make.build()


# In the problem's steps fusion.x is 0, the body is [1, 4), fusion.y is 4.
W, X, T, Y = range(4)


@pytest.fixture(scope="module")
def loop_problem() -> MemoryMappingProblem:
    problem = from_program(loop_program(), CHIP)
    assert (problem.loop_start[0], problem.loop_end[0], problem.num_steps) == (1, 4, 5)
    return problem


def only(problem: MemoryMappingProblem, *stays: FastInterval) -> list[str]:
    return validate(problem, Mapping(stays))


@pytest.mark.parametrize(
    "stay_in_fast",
    [
        FastInterval(X, 0, 5, 0),
        FastInterval(X, 0, 1, 0, copy_out=CopyWindow(1, 1)),
        FastInterval(X, 1, 4, 0, copy_in=CopyWindow(1, 1), copy_out=CopyWindow(4, 4)),
        FastInterval(X, 3, 4, 0, copy_in=CopyWindow(3, 3), copy_out=CopyWindow(4, 4)),
        FastInterval(X, 1, 2, 0, copy_in=CopyWindow(1, 1)),
        FastInterval(T, 1, 4, 0),
        FastInterval(T, 1, 3, 0, copy_out=CopyWindow(2, 3)),
        FastInterval(W, 0, 4, 0, copy_in=CopyWindow(0, 1)),
        FastInterval(W, 0, 5, 0, copy_in=CopyWindow(0, 4)),
        FastInterval(W, 1, 3, 0, copy_in=CopyWindow(1, 2)),
    ],
)
def test_accepts_stays_around_a_loop(
    loop_problem: MemoryMappingProblem, stay_in_fast: FastInterval
) -> None:
    assert only(loop_problem, stay_in_fast) == []
    mapping = Mapping((stay_in_fast,))
    total = simulate(loop_problem, mapping).total
    assert recompute(loop_problem, mapping) == pytest.approx(total, rel=1e-12)
    program = loop_program()
    assert validate_file(program, mapping_file(program, loop_problem, mapping)) == []


@pytest.mark.parametrize(
    ("stay_in_fast", "expected"),
    [
        (
            FastInterval(X, 0, 3, 0, copy_out=CopyWindow(1, 1)),
            r"buffer 1: the stay in steps \[0, 3\) crosses the border of loop 0, whose body is"
            r" steps \[1, 4\)",
        ),
        (FastInterval(T, 1, 5, 0), "^$"),
        (
            FastInterval(W, 0, 4, 0, copy_in=CopyWindow(0, 2)),
            r"buffer 0: .*covers the body of loop 0.*its copy-in is done inside of it, at step 2",
        ),
        (
            FastInterval(X, 1, 4, 0, copy_in=CopyWindow(1, 2), copy_out=CopyWindow(4, 4)),
            r"buffer 1: .*covers the body of loop 0.*its copy-in is done inside of it, at step 2",
        ),
        (
            FastInterval(X, 0, 1, 0),
            "buffer 1: before the first iteration of loop 0 needs slow memory, .* step 0 wrote it",
        ),
        (
            FastInterval(X, 3, 4, 0, copy_in=CopyWindow(3, 3)),
            "buffer 1: at the end of the body of loop 0 needs slow memory, .* step 3 wrote it",
        ),
        (
            FastInterval(X, 1, 4, 0, copy_in=CopyWindow(1, 1)),
            "buffer 1: step 4 reads slow memory, where the value is not valid: step 3 wrote it",
        ),
        (FastInterval(7, 0, 1, 0), r"the stay in steps \[0, 1\) is of buffer 7; there are 4"),
        (
            FastInterval(Y, 4, 5, -UNIT, copy_out=CopyWindow(5, 5)),
            r"buffer 3: the stay in steps \[4, 5\) has offset -16, below 0",
        ),
        (
            FastInterval(W, 1, 3, 0, copy_in=CopyWindow(1, 2), copy_out=CopyWindow(1, 3)),
            "buffer 0: .*is copied out from step 1 on, before its copy-in is done at step 2",
        ),
    ],
)
def test_names_what_is_wrong_around_a_loop(
    loop_problem: MemoryMappingProblem, stay_in_fast: FastInterval, expected: str
) -> None:
    errors = only(loop_problem, stay_in_fast)
    assert re.search(expected, "\n".join(errors)), errors


def test_copies_of_one_iteration_count_once_for_each(loop_problem: MemoryMappingProblem) -> None:
    inside = Mapping((FastInterval(W, 2, 3, 0, copy_in=CopyWindow(2, 2)),))
    around = Mapping((FastInterval(W, 1, 4, 0, copy_in=CopyWindow(1, 1)),))
    once = 2 * UNIT / 100
    assert recompute(loop_problem, inside) == pytest.approx(
        recompute(loop_problem, around) + 2 * once, rel=1e-12
    )


def test_stays_of_one_value_share_no_step(loop_problem: MemoryMappingProblem) -> None:
    first = FastInterval(W, 0, 4, 0, copy_in=CopyWindow(0, 1))
    errors = only(loop_problem, first, dataclasses.replace(first, offset=4 * UNIT))
    assert any("overlaps another stay of the same value" in line for line in errors), errors


# Scoped reservations take room from VMEM, not from CMEM.


@pytest.mark.parametrize(("space", "legal"), [(1, False), (3, True)])
def test_scoped_reservations_limit_vmem_only(space: int, legal: bool) -> None:
    make = ProgramBuilder()
    make.step("fusion.a", scoped=14 * UNIT + 1)
    make.step("fusion.b")
    make.value(make.buffer(), UNIT, 0, [1], name="fusion.a")
    program = make.build()
    chip = dataclasses.replace(CHIP, memory_space=space)
    problem = from_program(program, chip)
    mapping = Mapping((FastInterval(0, 0, 2, UNIT),))
    data = json.loads(json.dumps(to_json(program, problem, chip, mapping, method="by hand")))
    errors = validate_file(program, data)
    assert (errors == []) is legal
    assert legal or "needs bytes [16, 32), but the limit at step 0 (fusion.a) is 16" in errors[0]
    data["chip"]["fast_bytes"] = data["fast_memory"] = 14 * UNIT
    errors = validate_file(program, data)
    assert legal or errors == [
        "instruction fusion.a reserves 225 bytes of fast memory, but chip 'toy' has 224"
    ]


def test_two_queues_share_the_idle_bandwidth() -> None:
    """In 1 s of idle time each of two copies of 1 s is half done; then the program waits 1 s."""
    make = ProgramBuilder()
    for name, flops in (("a", 0.0), ("b", 1000.0), ("c", 1.0)):
        make.step(name, flops)
    make.value(make.buffer(initial=True), 100, 0, [2], name="p")
    make.value(make.buffer(live_out=True), 100, 0, [], name="q")
    problem = from_program(make.build(), dataclasses.replace(CHIP, alignment=1))
    mapping = Mapping(
        (
            FastInterval(0, 1, 3, 0, copy_in=CopyWindow(1, 2)),
            FastInterval(1, 0, 2, 100, copy_out=CopyWindow(1, 2)),
        )
    )
    assert validate(problem, mapping) == []
    steps = [100 / 2000, 1.0, 100 / 2000]
    assert recompute(problem, mapping) == pytest.approx(sum(steps) + 1.0, rel=1e-12)


# Random mappings.


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_accepts_legal_mappings_and_agrees_with_the_simulator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program, problem = random_problem(rng)
    mapping = random_mapping(rng, problem)
    assert validate(problem, mapping) == []
    total = simulate(problem, mapping).total
    assert recompute(problem, mapping) == pytest.approx(total, rel=1e-9)
    data = mapping_file(program, problem, mapping)
    assert validate_file(program, data) == []
    data["objective"] *= 1.001
    assert len(validate_file(program, data)) == 1


@settings(max_examples=100, deadline=None)
@given(SEEDS)
def test_agrees_with_the_simulator_when_copies_queue(seed: int) -> None:
    """Stays that no legal mapping would have all at once: each copies in and out."""
    rng = np.random.default_rng(seed)
    problem = instances.random_problem(
        int(rng.integers(2**20)), steps=int(rng.integers(3, 30)), buffers=12, loops=False
    )
    stays = []
    for buffer in range(problem.num_buffers):
        start, done, begin, end = sorted(rng.integers(0, problem.num_steps + 1, 4).tolist())
        if start < end:
            windows = CopyWindow(start, done), CopyWindow(begin, int(rng.integers(begin, end + 1)))
            stays.append(FastInterval(buffer, start, end, 0, *windows))
    mapping = Mapping(tuple(stays))
    total = simulate(problem, mapping).total
    assert recompute(problem, mapping) == pytest.approx(total, rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.booleans())
def test_agrees_with_other_checkers_on_broken_mappings(seed: int, program: bool) -> None:
    """With the rules written twice, and with what an execution of the program would read."""
    rng = np.random.default_rng(seed)
    if program:
        _, problem = random_problem(rng)
    else:
        problem = instances.random_problem(
            int(rng.integers(2**20)), steps=int(rng.integers(3, 14)), buffers=6
        )
    mapping = random_mapping(rng, problem)
    assert not reads_rubbish(problem, mapping)
    for _ in range(4):
        changed = perturbed(rng, problem, mapping)
        legal = validate(problem, changed) == []
        assert legal == (instances.broken_rules(problem, changed) == [])
        if legal:
            assert not reads_rubbish(problem, changed)


def perturbed(rng: np.random.Generator, problem: MemoryMappingProblem, mapping: Mapping) -> Mapping:
    """The mapping with one stay moved, cut, copied otherwise, or gone."""
    if not mapping.intervals:
        return mapping
    stays = list(mapping.intervals)
    k = int(rng.integers(len(stays)))
    chosen = stays[k]
    by = int(rng.choice([-1, 1]))

    def moved(window: CopyWindow | None, start: int, done: int) -> CopyWindow | None:
        return None if window is None else CopyWindow(window.start + start, window.done + done)

    def other(window: CopyWindow | None) -> CopyWindow | None:
        if window is not None:
            return None if rng.random() < 0.4 else moved(window, *rng.permutation([0, by]).tolist())
        start, done = sorted(rng.integers(chosen.start, chosen.end + 1, 2).tolist())
        return CopyWindow(start, done)

    changed: list[FastInterval] = []
    match int(rng.integers(7)):
        case 0:
            changed = [dataclasses.replace(chosen, copy_in=other(chosen.copy_in))]
        case 1:
            changed = [dataclasses.replace(chosen, copy_out=other(chosen.copy_out))]
        case 2:
            changed = [dataclasses.replace(chosen, end=chosen.end + by)]
        case 3:
            copy_in = moved(chosen.copy_in, by, 0)
            changed = [dataclasses.replace(chosen, start=chosen.start + by, copy_in=copy_in)]
        case 4:
            offset = chosen.offset + by * problem.alignment
            changed = [dataclasses.replace(chosen, offset=offset)]
        case 5:
            by *= int(rng.integers(1, 4))
            changed = [
                dataclasses.replace(
                    chosen,
                    start=chosen.start + by,
                    end=chosen.end + by,
                    copy_in=moved(chosen.copy_in, by, by),
                    copy_out=moved(chosen.copy_out, by, by),
                )
            ]
    return Mapping((*stays[:k], *changed, *stays[k + 1 :]))


def reads_rubbish(problem: MemoryMappingProblem, mapping: Mapping) -> bool:
    """Runs the program, every iteration of it, on version numbers instead of data.

    Fast memory is an array of units that hold (buffer, version); what a copy moves is what it
    finds at its start, and rubbish if that changes before it is done.
    """
    execution = _Execution(problem, mapping)
    execution.run(-1)
    return execution.rubbish


class _Execution:
    def __init__(self, problem: MemoryMappingProblem, mapping: Mapping) -> None:
        self.problem = problem
        self.rubbish = False
        self.unit = problem.alignment
        self.fast: list[Any] = [None] * (problem.capacity // self.unit + 1)
        self.version = [0] * problem.num_buffers
        self.slow: list[Any] = [0 if initial else None for initial in problem.initial]
        self.at_level: dict[int, list[FastInterval]] = {}
        for stay in mapping.intervals:
            self.at_level.setdefault(interval_loop(problem, stay), []).append(stay)
        self.moving: dict[tuple[FastInterval, str], Any] = {}
        self.present: list[FastInterval] = []
        self.accesses: dict[int, list[int]] = {}
        for access, step in enumerate(problem.access_step):
            self.accesses.setdefault(int(step), []).append(access)

    def run(self, loop: int) -> None:
        problem = self.problem
        position, last = 0, problem.num_steps
        if loop >= 0:
            position, last = int(problem.loop_start[loop]), int(problem.loop_end[loop])
        inner = {
            int(problem.loop_start[k]): int(k) for k in np.flatnonzero(problem.loop_parent == loop)
        }
        while True:
            self.events(loop, position)
            if position == last:
                break
            if position in inner:
                child = inner[position]
                outer = 1.0 if loop < 0 else problem.loop_executions[loop]
                for _ in range(round(problem.loop_executions[child] / outer)):
                    self.run(child)
                position = int(problem.loop_end[child])
            else:
                for access in self.accesses.get(position, []):
                    self.execute(position, access)
                position += 1
        if loop < 0:
            results = zip(self.slow, self.version, problem.live_out, strict=True)
            self.rubbish |= any(out and slow != right for slow, right, out in results)

    def events(self, loop: int, position: int) -> None:
        """The copies and the ends and starts of stays at this position of the loop's own level."""
        stays = self.at_level.get(loop, [])
        # What goes on makes room for what starts here.
        for stay in sorted(stays, key=lambda stay: stay.start == position):
            copy_in, copy_out = stay.copy_in, stay.copy_out
            if stay.start == position:
                self.present.append(stay)
                if copy_in is not None:
                    self.hold(stay, None)
                    self.moving[stay, "in"] = self.slow[stay.buffer]
            if copy_in is not None and copy_in.done == position:
                found = self.moving.pop((stay, "in"))
                self.hold(stay, found if found == self.slow[stay.buffer] else None)
            if copy_out is not None and copy_out.start == position:
                self.moving[stay, "out"] = self.held(stay)
            if copy_out is not None and copy_out.done == position:
                found = self.moving.pop((stay, "out"))
                self.slow[stay.buffer] = found if found == self.held(stay) else None
            if stay.end == position:
                self.present.remove(stay)

    def execute(self, step: int, access: int) -> None:
        buffer = int(self.problem.access_buffer[access])
        stay = next(
            (s for s in self.present if s.buffer == buffer and s.ready <= step < s.end), None
        )
        found = self.slow[buffer] if stay is None else self.held(stay)
        if not self.problem.access_defines[access] and found != self.version[buffer]:
            self.rubbish = True
        if self.problem.access_writes[access]:
            self.version[buffer] += 1
            if stay is None:
                self.slow[buffer] = self.version[buffer]
            else:
                self.hold(stay, self.version[buffer])

    def units(self, stay: FastInterval) -> slice:
        low = stay.offset // self.unit
        return slice(low, low + int(self.problem.size[stay.buffer]) // self.unit)

    def held(self, stay: FastInterval) -> Any:
        """The version that all of the stay's bytes hold, None for rubbish."""
        found = set(self.fast[self.units(stay)])
        buffer, version = found.pop() if len(found) == 1 and None not in found else (None, None)
        return version if buffer == stay.buffer else None

    def hold(self, stay: FastInterval, version: Any) -> None:
        units = self.units(stay)
        self.fast[units] = [(stay.buffer, version)] * (units.stop - units.start)


# Corrupted files.

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([10**400, -(10**30), 0.5, 1e308, float("inf"), float("nan"), -0.0]),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just([[None]]),
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = node.keys() if isinstance(node, dict) else range(len(node))
    inner = [_places(node[k], (*path, k)) for k in keys if isinstance(node[k], dict | list)]
    return [(*path, key) for key in keys] + [place for places in inner for place in places]


STRAIGHT_PROGRAM, STRAIGHT_FILE = straight_file()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_corrupted_file_gives_lines_and_never_a_traceback(data: st.DataObject) -> None:
    corrupted = copy.deepcopy(STRAIGHT_FILE)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(_places(corrupted)))
        node = corrupted
        for key in path:
            node = node[key]
        match data.draw(st.sampled_from(["delete", "replace", "swap", "repeat"])):
            case "delete":
                del node[last]
            case "repeat" if isinstance(node, list):
                node.append(copy.deepcopy(node[last]))
            case "swap":
                *path, other = data.draw(st.sampled_from(_places(STRAIGHT_FILE)))
                source = STRAIGHT_FILE
                for key in path:
                    source = source[key]
                node[last] = copy.deepcopy(source[other])
            case _:
                node[last] = data.draw(JUNK)
        if not corrupted:
            break
    errors = validate_file(STRAIGHT_PROGRAM, corrupted)
    assert all(isinstance(line, str) and "\n" not in line for line in errors)


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"schema": None}])
def test_what_is_no_mapping_file_gives_one_line(data: object) -> None:
    assert len(validate_file(STRAIGHT_PROGRAM, data)) == 1


# Size.


def test_a_large_program_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    make = ProgramBuilder()
    steps, values = 5000, 8000
    for t in range(steps):
        make.step(f"fusion.{t}", float(rng.integers(0, 2000)))
    for k in range(values):
        start = int(rng.integers(0, steps - 60))
        uses = start + 1 + rng.integers(0, 50, 3)
        initial = k % 3 == 0
        make.value(
            make.buffer(initial),
            int(rng.integers(1, 40)) * UNIT,
            start,
            uses.tolist(),
            name=f"v{k}",
        )
    chip = dataclasses.replace(CHIP, fast_bytes=4096 * UNIT)
    program = make.build()
    problem = from_program(program, chip)
    stays = []
    for buffer in range(problem.num_buffers):
        first, last = problem.access_step[
            [problem.first_access[buffer], problem.first_access[buffer + 1] - 1]
        ]
        copy_in = CopyWindow(int(first), int(first)) if problem.initial[buffer] else None
        stays.append(FastInterval(buffer, int(first), int(last) + 1, buffer % 4000 * UNIT, copy_in))
    before = time.perf_counter()
    errors = validate(problem, Mapping(tuple(stays)))
    assert time.perf_counter() - before < 20
    assert errors
    assert all("overlaps that of" in line or "but the limit" in line for line in errors)


@pytest.mark.parametrize("name", ["scan_transformer.v5e.nomsa", "decode.v5e.nomsa"])
def test_accepts_legal_mappings_of_real_programs(name: str) -> None:
    program = load(Path(__file__).parents[2] / "hlo_frontend" / "examples" / f"{name}.txt.gz")
    chip = get_chip("v5e")
    problem = from_program(program, chip, 2**24)
    for mapping in (Mapping(()), random_mapping(np.random.default_rng(0), problem)):
        data = to_json(program, problem, chip, mapping, method="at random")
        assert validate_file(program, json.loads(json.dumps(data))) == []
    assert mapping.intervals
