"""The HLO variant: pairs are found, orders are legal, annealing finds what brute force finds."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from co_instances import shared

from baselines.co_scheduling.hlo_orders import (
    all_orders,
    annealed_order,
    greedy_order,
    own_order,
)
from compiler_rl.cli.co_scheduling import coschedule
from games.co_scheduling.device import get_device
from games.co_scheduling.hlo_order import (
    DONE,
    START,
    least_seconds,
    order_program,
    peak,
    reordered_text,
    seconds_of,
    validate_order,
)
from hlo_frontend import read_text
from hlo_frontend.errors import InputError

A = "f32[512,512]{1,0}"
DOT = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
HOP = "source_target_pairs={{0,1}}"
TEXT = f"""HloModule ring, is_scheduled=true, num_partitions=2

ENTRY %main (p0: f32[512,512], p1: f32[512,512]) -> f32[512,512] {{
  %p0 = {A} parameter(0)
  %p1 = {A} parameter(1)
  %start = ({A}, {A}, u32[], u32[]) collective-permute-start(%p1), {HOP}
  %done = {A} collective-permute-done(%start)
  %d0 = {A} dot(%p0, %p1), {DOT}
  %start2 = ({A}, {A}, u32[], u32[]) collective-permute-start(%done), {HOP}
  %done2 = {A} collective-permute-done(%start2)
  %d1 = {A} dot(%d0, %done), {DOT}
  ROOT %d2 = {A} dot(%d1, %done2), {DOT}
}}
"""


S = f"(s32[], {A}, {A})"
LOOP = f"""HloModule loop, is_scheduled=true, num_partitions=2

%body (state: (s32[], f32[512,512], f32[512,512])) -> (s32[], f32[512,512], f32[512,512]) {{
  %state = {S} parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = {A} get-tuple-element(%state), index=1
  %y = {A} get-tuple-element(%state), index=2
  %start = ({A}, {A}, u32[], u32[]) collective-permute-start(%y), {HOP}
  %done = {A} collective-permute-done(%start)
  %d0 = {A} dot(%x, %y), {DOT}
  %d1 = {A} dot(%d0, %x), {DOT}
  ROOT %out = {S} tuple(%next, %d1, %done)
}}

%condition (state.1: (s32[], f32[512,512], f32[512,512])) -> pred[] {{
  %state.1 = {S} parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %seven = s32[] constant(7)
  ROOT %less = pred[] compare(%i.1, %seven), direction=LT
}}

ENTRY %main (p0: f32[512,512], p1: f32[512,512]) -> f32[512,512] {{
  %p0 = {A} parameter(0)
  %p1 = {A} parameter(1)
  %zero = s32[] constant(0)
  %first = {S} tuple(%zero, %p0, %p1)
  %w = {S} while(%first), condition=%condition, body=%body
  ROOT %result = {A} get-tuple-element(%w), index=1
}}
"""


def test_loops_are_reordered_inside(tmp_path):
    program = order_program(LOOP, "text", get_device("tpu-v5e"))
    assert [(problem.name, problem.pairs) for problem in program.problems] == [
        ("body", 1), ("main", 0),
    ]  # fmt: skip
    body = program.problems[0]
    assert program.entry.loops[0][1:] == (7, 0)
    own = seconds_of(program.entry, program.entry.own)
    assert own == pytest.approx(7 * seconds_of(body, body.own))
    found = {each.method: each for each in all_orders(program, time_limit=0.2)}
    best = found["annealing"]
    assert found["compiler"].seconds == pytest.approx(own)
    # The transfer hides behind the two products.
    dots = body.seconds[[body.names.index(name) for name in ("d0", "d1")]].sum()
    link = body.seconds[body.names.index("start")]
    rest = seconds_of(body, body.own) - dots - link
    assert best.seconds == pytest.approx(7 * (max(dots, link) + rest), rel=1e-6)
    assert best.bound <= best.seconds * (1 + 1e-9)
    for problem, order in zip(best.problems, best.orders, strict=True):
        assert validate_order(problem, order) == []
    source, out, report = (tmp_path / name for name in ("in.hlo", "out.hlo", "r.json"))
    source.write_text(LOOP)
    coschedule(hlo=source, time_limit=0.5, hlo_out=out, json_out=report)
    again = order_program(out.read_text(), "text", get_device("tpu-v5e"))
    assert seconds_of(again.entry, again.entry.own) == pytest.approx(best.seconds, rel=1e-6)
    data = json.loads(report.read_text())
    assert sorted(data["loop_orders"]["body"]) == sorted(body.names)
    assert data["lower_bound"] <= data["objective"] * (1 + 1e-9)


def problem_of(text: str = TEXT, limit: int | None = None):
    return order_program(text, "text", get_device("tpu-v5e"), limit).entry


def test_pairs_costs_and_memory_by_hand():
    problem = problem_of()
    assert problem.pairs == 2
    kinds = dict(zip(problem.names, problem.kind.tolist(), strict=True))
    assert kinds["start"] == START
    assert kinds["done2"] == DONE
    device, size = get_device("tpu-v5e"), 512 * 512 * 4
    link = device.gather_latency_s + size / (device.link_bytes_per_s * device.gather_efficiency)
    dot = max(2 * 512**3 / device.flops, 3 * size / device.hbm_bytes_per_s)
    seconds = dict(zip(problem.names, problem.seconds.tolist(), strict=True))
    assert seconds["start"] == pytest.approx(link, rel=1e-6)
    assert seconds["d0"] == pytest.approx(dot, rel=0.01)
    # The compiler's order waits for both transfers, one after the other, and hides nothing.
    assert seconds_of(problem, problem.own) == pytest.approx(2 * link + 3 * dot, rel=0.01)
    # Parameters, both received arrays and two results, d0 and d1.
    assert peak(problem, problem.own)[0] == pytest.approx(6 * size, abs=64)


@pytest.mark.parametrize("extra", [0, 4 * 2**20])
def test_annealing_finds_what_brute_force_finds(extra):
    problem = problem_of()
    problem.limit[0] += extra
    inner = range(2, len(problem.names))
    best = min(
        seconds_of(problem, order)
        for rest in permutations(inner)
        if not validate_order(problem, order := np.array([0, 1, *rest]))
    )
    result = annealed_order(problem, time_limit=0.0, moves=3000)
    assert result.objective == pytest.approx(best, rel=1e-9)
    assert least_seconds(problem) <= best * (1 + 1e-9)
    assert result.objective < own_order(problem).objective
    assert validate_order(problem, result.solution) == []
    again = annealed_order(problem, time_limit=0.0, moves=3000)
    assert (again.solution == result.solution).all()


def test_reordered_text_is_the_same_program_in_another_order():
    problem = problem_of()
    result = annealed_order(problem, time_limit=0.0, moves=3000)
    text = reordered_text(TEXT, problem, result.solution, "text")
    assert sorted(text.splitlines()) == sorted(TEXT.splitlines())
    again = problem_of(text)
    assert [again.names[k] for k in again.own] == [problem.names[k] for k in result.solution]
    assert seconds_of(again, again.own) == pytest.approx(result.objective, rel=1e-12)
    with pytest.raises(InputError, match="not that of the problem"):
        reordered_text(TEXT.replace("%d0", "%dx"), problem, result.solution, "text")


def test_validator_finds_broken_rules():
    problem = problem_of()
    assert "no permutation" in validate_order(problem, problem.own[:-1])[0]
    assert "comes before" in validate_order(problem, problem.own[::-1])[0]
    problem.limit[0] -= 1
    assert "bytes are in use" in validate_order(problem, problem.own)[0]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        (TEXT.replace(", is_scheduled=true", ""), None, "has no schedule"),
        (TEXT, 1024, "expected at least as much"),
        ("HloModule x", None, ""),
    ],
)
def test_bad_input_is_one_line(text, limit, expected):
    with pytest.raises(InputError) as raised:
        problem_of(text, limit)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_programs_without_pairs_are_refused():
    path = shared("tpu_hlo", "v5e_mlp_inf_nomsa.txt.gz")
    with pytest.raises(InputError, match="nothing to hide"):
        order_program(read_text(path), str(path), get_device("tpu-v5e"))


@pytest.mark.parametrize("name", ["v5e_mlp_inf.txt.gz", "v5e_alexnet_inf.txt.gz"])
def test_real_programs(name):
    path = shared("tpu_hlo", name)
    text = read_text(path)
    problem = order_program(text, name, get_device("tpu-v5e")).entry
    assert validate_order(problem, problem.own) == []
    for result in (greedy_order(problem), annealed_order(problem, time_limit=0.0, moves=1000)):
        assert validate_order(problem, result.solution) == []
        assert least_seconds(problem) <= result.objective * (1 + 1e-9)
    assert result.objective <= own_order(problem).objective
    changed = reordered_text(text, problem, result.solution, name)
    assert order_program(changed, name, get_device("tpu-v5e")).pairs == problem.pairs


def test_command(tmp_path):
    source, report, out = (tmp_path / name for name in ("in.hlo", "r.json", "out.hlo"))
    source.write_text(TEXT)
    coschedule(hlo=source, time_limit=0.5, json_out=report, hlo_out=out, memory_limit="16MiB")
    data = json.loads(report.read_text())
    assert data["winner"] in data["baselines"]
    assert data["validated"] is True
    assert data["objective"] < data["baselines"]["compiler"]["objective"]
    assert data["lower_bound"] <= data["objective"] * (1 + 1e-9)
    problem = problem_of(out.read_text())
    assert seconds_of(problem, problem.own) == pytest.approx(data["objective"], rel=1e-12)
    with pytest.raises(InputError, match="needs --hlo"):
        coschedule(hlo_out=out)
