"""Loops, calls and conditionals on the flattened line. `f32[4]{0}` is 16 bytes, `s32[]` 4."""

from __future__ import annotations

import pytest
from hlo_tables import buffers, program, step_names, updates, uses, values

from hlo_frontend import Loop

LOOP = """
    cond {
      %cp = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
      %ci = s32[] get-tuple-element(%cp), index=0
      %limit = s32[] constant(7)
      ROOT %less = pred[] compare(%ci, %limit), direction=LT
    }

    body {
      %bp = (s32[], f32[4]{0}, f32[4]{0}) parameter(0)
      %bi = s32[] get-tuple-element(%bp), index=0
      %two = s32[] constant(2)
      %next = s32[] add(%bi, %two)
      %x = f32[4]{0} get-tuple-element(%bp), index=1
      %w = f32[4]{0} get-tuple-element(%bp), index=2
      %y = f32[4]{0} multiply(%x, %w)
      ROOT %bt = (s32[], f32[4]{0}, f32[4]{0}) tuple(%next, %y, %w)
    }

    ENTRY e {
      %w0 = f32[4]{0} parameter(0)
      %start = s32[] constant(1)
      %i0 = s32[] copy(%start)
      %x0 = f32[4]{0} negate(%w0)
      %t = (s32[], f32[4]{0}, f32[4]{0}) tuple(%i0, %x0, %w0)
      %loop = (s32[], f32[4]{0}, f32[4]{0}) while(%t), condition=cond, body=body
      %last = f32[4]{0} get-tuple-element(%loop), index=1
      ROOT %r = f32[4]{0} exponential(%last)
    }
    """


def test_while_stands_once_with_its_trip_count() -> None:
    result = program(LOOP)
    assert step_names(result) == (
        "w0 start i0 x0 t cp ci limit less bp bi two next x w y bt loop last r"
    )
    # 1, 3, 5 are less than 7.
    assert result.loops == (Loop("loop", 5, 17, 3, True, -1),)
    inside = range(5, 17)
    assert [s.loop for s in result.steps] == [0 if i in inside else -1 for i in range(20)]
    assert [s.executions for s in result.steps] == [3 if i in inside else 1 for i in range(20)]


def test_while_carries_one_buffer_per_changed_leaf() -> None:
    result = program(LOOP)
    # The weight is left alone: it stays the parameter. The state has a value where control flow
    # joins: the condition's and the body's parameter, and the loop's result.
    assert values(result) == (
        "w0 start i0 x0 cp{0} cp{1} limit less bp{0} bp{1} two next y loop{0} loop{1} r"
    )
    assert (("x0", "cp{1}", "bp{1}", "y", "loop{1}"), 3, 19) in buffers(result)
    assert (("i0", "cp{0}", "bp{0}", "next", "loop{0}"), 2, 17) in buffers(result)
    assert uses(result, "w0") == [("x0", 0, 16), ("y", 1, 16)]
    assert uses(result, "bp{1}") == [("y", 0, 16)]
    assert updates(result, "y") == ["bp{1}"]
    # It is needed until the last iteration ends.
    assert (("w0",), 0, 17) in buffers(result)


def test_constant_in_a_loop_lives_through_all_iterations() -> None:
    result = program(LOOP)
    assert (("limit",), 0, 16) in buffers(result)
    assert (("two",), 0, 16) in buffers(result)
    assert (("start",), 0, 2) in buffers(result)


@pytest.mark.parametrize(
    ("edits", "count", "known"),
    [
        ({"body=body": 'body=body, backend_config={"known_trip_count":{"n":"11"}}'}, 11, True),
        ({"constant(2)": "constant(5)"}, 2, True),
        ({"constant(1)": "constant(9)"}, 0, True),
        ({"direction=LT": "direction=NE"}, 5, False),
        ({"constant(2)": "constant(0)"}, 5, False),
        ({"add(%bi, %two)": "add(%two, %bi)"}, 3, True),
        ({"add(%bi, %two)": "multiply(%bi, %two)"}, 5, False),
        ({"%start = s32[] constant(1)": "%start = s32[] parameter(1)"}, 5, False),
    ],
)
def test_trip_counts(edits: dict[str, str], count: int, known: bool) -> None:
    text = LOOP
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    (loop,) = program(text).loops
    assert (loop.trip_count, loop.trip_known) == (count, known)


def test_nested_loops_pass_through() -> None:
    """What neither loop changes is one value; executions multiply."""
    result = program(
        """
        c2 {
          %p2 = (f32[4]{0}, f32[4]{0}) parameter(0)
          ROOT %k2 = pred[] constant(true)
        }

        b2 {
          %q2 = (f32[4]{0}, f32[4]{0}) parameter(0)
          %w2 = f32[4]{0} get-tuple-element(%q2), index=0
          %x2 = f32[4]{0} get-tuple-element(%q2), index=1
          %y2 = f32[4]{0} add(%x2, %w2)
          ROOT %t2 = (f32[4]{0}, f32[4]{0}) tuple(%w2, %y2)
        }

        c1 {
          %p1 = (f32[4]{0}, f32[4]{0}) parameter(0)
          ROOT %k1 = pred[] constant(true)
        }

        b1 {
          %q1 = (f32[4]{0}, f32[4]{0}) parameter(0)
          ROOT %inner = (f32[4]{0}, f32[4]{0}) while(%q1), condition=c2, body=b2,
            backend_config={"known_trip_count":{"n":"3"}}
        }

        ENTRY e {
          %w = f32[4]{0} parameter(0)
          %x = f32[4]{0} negate(%w)
          %t = (f32[4]{0}, f32[4]{0}) tuple(%w, %x)
          ROOT %outer = (f32[4]{0}, f32[4]{0}) while(%t), condition=c1, body=b1,
            backend_config={"known_trip_count":{"n":"2"}}
        }
        """
    )
    assert step_names(result) == "w x t p1 k1 q1 p2 k2 q2 w2 x2 y2 t2 inner outer"
    assert result.loops == (
        Loop("outer", 3, 14, 2, True, -1),
        Loop("inner", 6, 13, 3, True, 0),
    )
    assert [s.executions for s in result.steps] == [1] * 3 + [2] * 3 + [6] * 7 + [2, 1]
    assert uses(result, "w") == [("x", 0, 16), ("y2", 1, 16)]
    changed = ("x", "p1{1}", "q1{1}", "p2{1}", "q2{1}", "y2", "inner{1}", "outer{1}")
    assert (changed, 1, 14) in buffers(result)
    assert (("w",), 0, 14) in buffers(result)


def test_swapping_loop_is_not_one_buffer() -> None:
    """Two values that change places need a copy, which XLA would put in: no bytes are shared."""
    result = program(
        """
        c {
          %p = (f32[4]{0}, f32[4]{0}) parameter(0)
          ROOT %k = pred[] constant(true)
        }

        b {
          %q = (f32[4]{0}, f32[4]{0}) parameter(0)
          %l = f32[4]{0} get-tuple-element(%q), index=0
          %r = f32[4]{0} get-tuple-element(%q), index=1
          %n = f32[4]{0} add(%l, %r)
          ROOT %s = (f32[4]{0}, f32[4]{0}) tuple(%r, %l)
        }

        ENTRY e {
          %x = f32[4]{0} parameter(0)
          %y = f32[4]{0} parameter(1)
          %t = (f32[4]{0}, f32[4]{0}) tuple(%x, %y)
          ROOT %loop = (f32[4]{0}, f32[4]{0}) while(%t), condition=c, body=b
        }
        """
    )
    of = {v.position: v.buffer for v in result.values}
    assert of["q{0}"] != of["q{1}"]
    assert of["loop{0}"] != of["loop{1}"]


def test_call_is_inlined_at_each_place() -> None:
    result = program(
        """
        double {
          %p = f32[4]{0} parameter(0)
          ROOT %d = f32[4]{0} add(%p, %p)
        }

        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %c1 = f32[4]{0} call(%a), to_apply=double
          ROOT %c2 = f32[4]{0} call(%c1), to_apply=double
        }
        """
    )
    assert step_names(result) == "a p d c1 p d c2"
    assert [(v.name, v.def_step) for v in result.values] == [("a", 0), ("d", 2), ("d", 5)]
    assert [s.computation for s in result.steps if s.opcode == "add"] == ["double"] * 2
    assert [s.flops for s in result.steps] == [0, 0, 4, 0, 0, 4, 0]
    assert [(b.live_start, b.live_end) for b in result.buffers] == [(0, 3), (2, 6), (5, 6)]


def test_conditional_joins_its_branches() -> None:
    result = program(
        """
        yes {
          %py = f32[4]{0} parameter(0)
          ROOT %ny = f32[4]{0} negate(%py)
        }

        no {
          %pn = f32[4]{0} parameter(0)
          ROOT %nn = f32[4]{0} exponential(%pn)
        }

        ENTRY e {
          %which = pred[] parameter(0)
          %a = f32[4]{0} parameter(1)
          %c = f32[4]{0} conditional(%which, %a, %a), true_computation=yes, false_computation=no
          ROOT %r = f32[4]{0} abs(%c)
        }
        """
    )
    assert step_names(result) == "which a py ny pn nn c r"
    # Both branches are counted once.
    assert [s.executions for s in result.steps] == [1] * 8
    assert (("ny", "nn", "c"), 3, 7) in buffers(result)
    assert uses(result, "a") == [("ny", 0, 16), ("nn", 0, 16)]
    assert uses(result, "c") == [("r", 0, 16)]
