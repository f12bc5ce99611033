"""Why values are slow: each reason where it holds, and claims that the simulator confirms."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from mapping_makers import CHIP, UNIT, ProgramBuilder, random_mapping, random_problem
from outputs_support import deep_program, greedy_mapping

from games.memory_mapping import explain
from games.memory_mapping.explain import why_slow
from games.memory_mapping.problem import from_program
from games.memory_mapping.solution import FastInterval, Mapping, objective
from games.memory_mapping.validator import validate
from hlo_frontend.program import CopyWindow, Program

NOTHING = Mapping(())


def reasons(
    build: Callable[[ProgramBuilder], None], mapping: Mapping = NOTHING, fast_memory: int = 256
) -> dict[int, str]:
    """Reasons in a program of five steps of 1 s of arithmetic, `op.0` to `op.4`."""
    make = ProgramBuilder()
    for k in range(5):
        make.step(f"op.{k}", flops=1000)
    build(make)
    problem = from_program(make.build(), CHIP, fast_memory)
    assert validate(problem, mapping) == []
    return why_slow(problem, mapping, make.build())


def parameter(make: ProgramBuilder, size: int, uses: list[int], name: str) -> None:
    make.value(make.buffer(initial=True), size, 0, uses, name=name)


def test_what_no_mapping_can_move() -> None:
    def build(make: ProgramBuilder) -> None:
        make.value(make.buffer(fixed_space=5), 16, 0, [1])
        make.value(make.buffer(), 257, 0, [1])
        make.value(make.buffer(initial=True), 16, 0, [])

    assert reasons(build) == {
        0: "the program prescribes memory space S(5) for it",
        1: "larger than the fast memory (257 > 256 bytes)",
        2: "no step moves any bytes of it",
    }


def test_bound_by_arithmetic() -> None:
    assert reasons(lambda make: parameter(make, 64, [2, 3], "w")) == {
        0: "no gain: every step that accesses it in slow memory is bound by arithmetic (the"
        " closest, op.2: 1e+06 us of arithmetic, 6.4e+05 us of memory traffic)"
    }


def test_no_room() -> None:
    def build(make: ProgramBuilder) -> None:
        parameter(make, 200, [3], "w")
        parameter(make, 192, [3], "v")
        parameter(make, 16, [3], "u")

    mapping = Mapping(
        (
            FastInterval(1, 0, 4, 0, CopyWindow(0, 3)),
            FastInterval(2, 0, 4, 192, CopyWindow(0, 3)),
        )
    )
    assert reasons(build, mapping) == {
        0: "no room: during op.3 only 48 of its 208 bytes are free; the largest there: v (192),"
        " u (16)"
    }


def test_no_room_in_one_piece() -> None:
    def build(make: ProgramBuilder) -> None:
        parameter(make, 128, [3], "w")
        parameter(make, 64, [3], "v")

    middle = Mapping((FastInterval(1, 0, 4, 96, CopyWindow(0, 3)),))
    assert reasons(build, middle) == {
        0: "no room in one piece: from op.3 to op.3 at least 192 bytes are free at each step, but"
        " its 128 not at one offset"
    }


def test_the_instruction_reserves_the_room() -> None:
    make = ProgramBuilder()
    make.step("op.0", flops=1000)
    make.step("op.1", scoped=200)
    make.value(make.buffer(initial=True), 96, 0, [1], name="w")
    problem = from_program(make.build(), CHIP)
    assert why_slow(problem, NOTHING, make.build()) == {
        0: "no room: during op.1 only 48 of its 96 bytes are free; the instruction reserves the"
        " rest for itself"
    }


def test_the_copy_would_stall() -> None:
    make = ProgramBuilder()
    make.step("op.0", flops=1000, other=70)  # idle for 0.3 s
    make.step("op.1", other=80)
    make.step("op.2", flops=1000)
    parameter(make, 160, [2], "w")
    problem = from_program(make.build(), CHIP)
    assert why_slow(problem, NOTHING, make.build()) == {
        0: "the copy would stall: it needs 1.6e+06 us of idle bandwidth before op.2 and 3e+05 us"
        " are in reach (not earlier: the program starts)"
    }


def test_the_copy_would_stall_for_lack_of_room() -> None:
    def build(make: ProgramBuilder) -> None:
        parameter(make, 160, [2], "w")
        make.value(make.buffer(), 240, 1, [], name="big")

    mapping = Mapping((FastInterval(1, 1, 2, 0),))
    assert reasons(build, mapping) == {
        0: "the copy would stall: it needs 1.6e+06 us of idle bandwidth before op.2 and 0 us"
        " are in reach (not earlier: no room during op.1)"
    }


def test_a_read_while_the_copy_is_on_its_way() -> None:
    mapping = Mapping((FastInterval(0, 0, 4, 0, CopyWindow(0, 3)),))
    line = reasons(lambda make: parameter(make, 160, [1, 3], "w"), mapping)[0]
    assert line == (
        "its copy is still on the way when op.1 reads it: it has to be done only before op.3"
    )


def test_a_place_that_the_search_missed() -> None:
    line = reasons(lambda make: parameter(make, 160, [3, 4], "w"))[0]
    assert line == (
        "the search did not find a place: in fast memory from op.1 to op.4 at offset 0 it would"
        " save 1.2e+06 us"
    )


def test_a_move_that_costs_more_than_it_saves() -> None:
    # 1 s of arithmetic and 1.6 s of copy at the end of the program, in place of 1.6 s.
    def result(make: ProgramBuilder) -> None:
        make.value(make.buffer(live_out=True), 160, 4, [])

    line = reasons(result)[0]
    assert line == (
        "no gain: in fast memory from op.4 to op.4 it would cost 1e+06 us more than it saves"
    )


def test_a_class_served_by_fast_memory_has_no_line() -> None:
    mapping = Mapping((FastInterval(0, 1, 5, 0, CopyWindow(1, 3)),))
    assert reasons(lambda make: parameter(make, 160, [3, 4], "w"), mapping) == {}


@pytest.mark.parametrize("seed", range(60))
def test_what_would_be_saved_is_what_the_simulator_says(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[FastInterval, float]] = []
    seconds_with = explain._Replay.seconds_with

    def record(replay: explain._Replay, stay: FastInterval) -> float:
        tried.append((stay, seconds_with(replay, stay)))
        return tried[-1][1]

    monkeypatch.setattr(explain._Replay, "seconds_with", record)
    rng = np.random.default_rng(1000 + seed)
    program, problem = random_problem(rng)
    for mapping in (NOTHING, random_mapping(rng, problem)):
        tried.clear()
        lines = why_slow(problem, mapping, program)
        assert all("\n" not in line for line in lines.values())
        for stay, seconds in tried:
            more = Mapping((*mapping.intervals, stay))
            assert validate(problem, more) == []
            assert objective(problem, more) == pytest.approx(seconds, rel=1e-9)


def test_every_class_with_an_access_in_slow_memory_has_a_line() -> None:
    program, problem = random_problem(np.random.default_rng(7))
    mapping = random_mapping(np.random.default_rng(8), problem)
    slow = {int(b) for b in problem.access_buffer[~mapping.accesses_in_fast(problem)]}
    never = set(range(len(program.buffers))) - set(problem.program_buffer.tolist())
    expected = {int(problem.program_buffer[row]) for row in slow} | never
    assert set(why_slow(problem, mapping, program)) == expected


def test_five_thousand_buffers_take_seconds() -> None:
    program: Program = deep_program(2500)
    problem = from_program(program, CHIP, 16 * UNIT)
    mapping = greedy_mapping(problem)
    assert problem.num_buffers == 5000
    why_slow(problem, mapping, program)  # compiles
    start = time.perf_counter()
    lines = why_slow(problem, mapping, program)
    # About 0.7 s on one idle core.
    assert time.perf_counter() - start < 6.0
    assert len(lines) > 1000
