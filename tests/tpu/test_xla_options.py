"""A mapping as compiler options: which overrides are written, and what libtpu makes of them."""

import importlib.util
import random
import re
from collections.abc import Iterable

import pytest

import hlo_frontend
from experiments.programs import mlp
from games.memory_mapping.xla_options import (
    FIXED_OPTIONS,
    OVERRIDES,
    Decisions,
    decide,
    encode,
    xla_options,
)
from hlo_frontend import tpu
from hlo_frontend.examples import example_path
from hlo_frontend.program import AssignedInterval, Buffer, CopyWindow, Program, Step, Use, Value


def program(values: Iterable[Value], names: Iterable[str]) -> Program:
    """A straight line of fusions; each value is its own alias class."""
    steps = tuple(Step(name, "fusion", "main", -1, 1, 1.0, 0.0, 0, None, 0) for name in names)
    values = tuple(values)
    buffers = tuple(
        Buffer((i,), v.size, v.def_step, len(steps) - 1, v.parameter >= 0, False, None)
        for i, v in enumerate(values)
    )
    return Program("test", "test", "0" * 64, True, steps, values, buffers, (), None)


def value(
    name: str,
    buffer: int,
    size: int,
    step: int,
    uses: Iterable[tuple[int, int]],
    *,
    index: tuple[int, ...] = (),
    parameter: int = -1,
) -> Value:
    return Value(
        name=name,
        index=index,
        shape="f32[8,8]{1,0}",
        size=size,
        buffer=buffer,
        def_step=step,
        def_bytes=0 if parameter >= 0 else size,
        uses=tuple(Use(step, operand, (), size) for step, operand in uses),
        memory_space=0,
        parameter=parameter,
        updates=(),
    )


def stay(
    buffer: int,
    start: int,
    end: int,
    copy_in: tuple[int, int] | None = None,
    copy_out: tuple[int, int] | None = None,
) -> AssignedInterval:
    windows = (None if copy is None else CopyWindow(*copy) for copy in (copy_in, copy_out))
    return AssignedInterval(buffer, start, end, *windows, memory_space=1)


def chain(sizes: tuple[int, int, int] = (64, 64, 64)) -> Program:
    """w -> a.1 -> b -> c, where a.1 is also read by c: five steps with the parameter and d."""
    return program(
        [
            value("w", 0, 64, 0, [(1, 0), (3, 1)], parameter=0),
            value("a.1", 1, sizes[0], 1, [(2, 0), (3, 0)]),
            value("b", 2, sizes[1], 2, [(3, 2)]),
            value("c", 3, sizes[2], 3, [(4, 0)]),
        ],
        ["w", "a.1", "b", "c", "d"],
    )


def rules(options: dict[str, str]) -> list[str]:
    return re.findall(r"overrides \{ (.*?\}) \}(?= overrides|$)", options.get(OVERRIDES, ""))


KEEP = "keep_in_default_memory {}"


def operand(name: str, number: int, more: str = "") -> str:
    return (
        f'hlo_operand_filter {{ instruction_name_regex: "{name}" operand_number: {number}{more} }}'
    )


def position(name: str, more: str = "") -> str:
    return f'hlo_position_matcher {{ instruction_name_regex: "{name}"{more} }}'


def test_nothing_in_fast_memory_keeps_every_value() -> None:
    result = xla_options(chain(), [])
    assert result.limits == ()
    assert rules(result.options) == [
        f"{position(name)} {KEEP}" for name in ("w", "a[.]1", "b", "c")
    ]
    assert result.options.items() >= FIXED_OPTIONS.items()


def test_a_value_in_fast_memory_all_its_life_needs_no_rule() -> None:
    result = xla_options(chain(), [stay(1, 1, 4)])
    assert rules(result.options) == [f"{position(name)} {KEEP}" for name in ("w", "b", "c")]
    assert result.limits == ("all values: offsets in fast memory are the compiler's choice",)


def test_a_copy_starts_after_the_step_before_its_window_and_serves_the_first_use() -> None:
    result = xla_options(chain(), [stay(0, 2, 4, copy_in=(2, 3))])
    assert rules(result.options)[:2] == [
        f"{operand('a[.]1', 0)} {KEEP}",
        f"{operand('c', 1)} prefetch {{ logical_time: 1 strict_timing: true }}",
    ]
    untimed = encode(chain(), decide(chain(), [stay(0, 2, 4, (2, 3))]), untimed=[("c", 1, ())])
    assert OVERRIDES in untimed.options
    assert "prefetch" not in untimed.options[OVERRIDES]


def test_a_kept_use_spares_a_result_of_another_size() -> None:
    evicted = [stay(1, 1, 3), stay(3, 3, 5)]
    for size, bound in ((32, " size_gte: 33"), (128, " size_lte: 127")):
        written = rules(xla_options(chain((64, 64, size)), evicted).options)
        assert f"{operand('c', 0, bound)} {KEEP}" in written
    same = xla_options(chain(), evicted)
    assert not any('"c" operand_number: 0' in rule for rule in rules(same.options))
    assert same.limits[0] == (
        "a.1: its use by c cannot be kept in slow memory, because the result of c is of the same"
        " size and in fast memory"
    )


def test_a_kept_use_spares_one_of_several_results_by_tuple_index() -> None:
    two = program(
        [
            value("w", 0, 64, 0, [(1, 0), (2, 0)], parameter=0),
            value("f", 1, 64, 1, [(2, 1)], index=(0,)),
            value("f", 2, 64, 1, [(2, 2)], index=(1,)),
        ],
        ["w", "f", "g"],
    )
    written = rules(xla_options(two, [stay(0, 1, 3, copy_in=(2, 2)), stay(2, 1, 3)]).options)
    assert written == [
        f"{operand('f', 0, ' tuple_index { }')} {KEEP}",
        f"{operand('g', 0)} prefetch {{ logical_time: 1 strict_timing: true }}",
        f"{position('f', ' tuple_index { index: 0 }')} {KEEP}",
    ]


def test_limits_say_what_cannot_be_asked_for() -> None:
    slow_first = xla_options(chain(), [stay(1, 1, 4, copy_in=(2, 2))])
    assert slow_first.limits[0] == (
        "a.1: no rule produces it in slow memory and copies it in for its first use, by b; left to"
        " the compiler"
    )
    round_trip = xla_options(chain(), [stay(1, 1, 3, None, (2, 3)), stay(1, 3, 4, (3, 3))])
    assert "a.1: no rule copies it out and in again" in round_trip.limits[0]
    assert round_trip.limits[1] == "a.1: copied out when the compiler chooses, not in steps [2, 3)"
    assert "prefetch" not in round_trip.options[OVERRIDES]


def test_names_are_matched_literally() -> None:
    written = xla_options(program([value("a.b-1", 0, 8, 0, [])], ["a.b-1"]), []).options[OVERRIDES]
    regex = re.search(r'regex: "(.*?)"', written)
    assert regex
    assert re.fullmatch(regex[1], "a.b-1")
    assert not re.fullmatch(regex[1], "axb-1")


def test_the_compilers_own_assignment_of_the_examples_can_be_written() -> None:
    for name in ("alexnet", "strassen49", "scan_transformer"):
        assigned = hlo_frontend.load(example_path(f"{name}.v5e"))
        plain = hlo_frontend.load(example_path(f"{name}.v5e.nomsa"))
        decisions = decide(assigned, assigned.assignment or ())
        assert set(decisions.uses) == set(decide(plain, ()).uses)
        result = encode(plain, decisions)
        text = result.options[OVERRIDES]
        names = {name.replace("[.]", ".") for name in re.findall(r'name_regex: "(.*?)"', text)}
        assert names <= {step.name for step in plain.steps}
        unasked = sum("no rule" in limit for limit in result.limits)
        assert text.count("prefetch {") == len(decisions.copies) - unasked


@pytest.mark.tpu
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu not installed")
class TestWithLibtpu:
    """Round trips: decide here, compile with the options, read the result back."""

    @staticmethod
    def compile(options: dict[str, str]) -> Program:
        fn, args = mlp(layers=4, width=2048)
        text = tpu.scheduled_text(tpu.compile_for_tpu(fn, args, "v5e", options))
        return hlo_frontend.load(text.encode())

    def obeyed(self, plain: Program, wanted: Decisions) -> None:
        result = encode(plain, wanted)
        assert result.limits == ()
        real = self.compile(result.options)
        got = decide(real, real.assignment or ())
        assert got.produced == wanted.produced
        assert got.uses == wanted.uses
        started = {key: plain.steps[time].name for key, time in wanted.copies.items()}
        assert {key: real.steps[time].name for key, time in got.copies.items()} == started

    def test_random_mappings_are_obeyed(self) -> None:
        plain = self.compile(dict(tpu.ASSIGNMENT_OFF))
        generator = random.Random(0)
        for _ in range(4):
            stays = []
            for number, buffer in enumerate(plain.buffers):
                values = [plain.values[i] for i in buffer.values]
                uses = [use.step for v in values for use in v.uses]
                if not uses or generator.random() < 0.5:
                    continue
                if values[0].parameter < 0:
                    stays.append(stay(number, values[0].def_step, uses[-1] + 1))
                elif "weights" in values[0].name and uses[0] > 5:
                    start = generator.randint(5, uses[0])
                    stays.append(stay(number, start, uses[-1] + 1, (start, uses[0])))
            self.obeyed(plain, decide(plain, stays))
