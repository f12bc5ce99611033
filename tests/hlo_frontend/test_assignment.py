"""Memory-space copies are taken out of the schedule, and what they did is kept.

Expected steps are counted by hand; they count what is left when the copies are out.
"""

from __future__ import annotations

import pytest
from hlo_tables import buffers, program, step_names, uses, values

from hlo_frontend import AssignedInterval, CopyWindow, Program


def stays(result: Program) -> list[tuple[str, int, int, CopyWindow | None, CopyWindow | None]]:
    """(first value of the buffer, start, end, copy in, copy out) of each stay."""
    assert result.assignment is not None
    return [
        (
            result.values[result.buffers[stay.buffer].values[0]].position,
            stay.start,
            stay.end,
            stay.copy_in,
            stay.copy_out,
        )
        for stay in result.assignment
    ]


def test_prefetch() -> None:
    result = program(
        """
        ENTRY e {
          %w = f32[4]{0} parameter(0)
          %x = f32[4]{0} parameter(1)
          %a = f32[4]{0} negate(%x)
          %cs = (f32[4]{0:S(1)}, f32[4]{0}, u32[]{:S(2)}) copy-start(%w)
          %b = f32[4]{0} negate(%a)
          %c = f32[4]{0} negate(%b)
          %cd = f32[4]{0:S(1)} copy-done(%cs)
          %d = f32[4]{0} add(%c, %cd)
          %f = f32[4]{0} add(%d, %cd)
          ROOT %g = f32[4]{0} add(%f, %w)
        }
        """
    )
    assert step_names(result) == "w x a b c d f g"
    assert values(result) == "w x a b c d f g"
    # Reads of the copy and of the original are reads of one value.
    assert uses(result, "w") == [("d", 1, 16), ("f", 1, 16), ("g", 1, 16)]
    # The copy starts before step 3 (b), is done before step 5 (d), and is last read by step 6.
    assert stays(result) == [("w", 3, 7, CopyWindow(3, 5), None)]
    assert result.assignment is not None and result.assignment[0].memory_space == 1


def test_production_in_fast_memory_and_eviction() -> None:
    result = program(
        """
        ENTRY e {
          %x = f32[4]{0} parameter(0)
          %a = f32[4]{0:S(3)} negate(%x)
          %b = f32[4]{0:S(3)} negate(%a)
          %cs = (f32[4]{0}, f32[4]{0:S(3)}, u32[]{:S(2)}) copy-start(%a)
          %c = f32[4]{0} add(%a, %b)
          %d = f32[4]{0} negate(%c)
          %cd = f32[4]{0} copy-done(%cs)
          ROOT %f = f32[4]{0} add(%d, %cd)
        }
        """
    )
    assert step_names(result) == "x a b c d f"
    assert uses(result, "a") == [("b", 0, 16), ("c", 0, 16), ("f", 1, 16)]
    # a is read in fast memory until step 3, but holds its bytes until it is written back.
    assert stays(result) == [("a", 1, 5, None, CopyWindow(3, 5)), ("b", 2, 4, None, None)]
    assert {stay.memory_space for stay in result.assignment or ()} == {3}
    assert [v.memory_space for v in result.values] == [0, 3, 3, 0, 0, 0]
    assert all(b.fixed_space is None for b in result.buffers)


def test_eviction_and_return() -> None:
    """Out and in again: one value, two stays of one buffer."""
    result = program(
        """
        ENTRY e {
          %x = f32[4]{0} parameter(0)
          %a = f32[4]{0:S(1)} negate(%x)
          %os = (f32[4]{0}, f32[4]{0:S(1)}, u32[]{:S(2)}) copy-start(%a)
          %b = f32[4]{0} negate(%x)
          %od = f32[4]{0} copy-done(%os)
          %c = f32[4]{0} negate(%b)
          %is = (f32[4]{0:S(1)}, f32[4]{0}, u32[]{:S(2)})
            copy-start(%od), cross_program_prefetch_index=0
          %d = f32[4]{0} negate(%c)
          %id = f32[4]{0:S(1)} copy-done(%is)
          ROOT %f = f32[4]{0} add(%d, %id)
        }
        """
    )
    assert step_names(result) == "x a b c d f"
    assert uses(result, "a") == [("f", 1, 16)]
    assert stays(result) == [
        ("a", 1, 3, None, CopyWindow(2, 3)),
        ("a", 4, 6, CopyWindow(4, 5), None),
    ]


SHAPES = {
    "WHOLE": "f32[16,128]{1,0:T(8,128)}",
    "FAST": "f32[16,128]{1,0:T(8,128)S(1)}",
    "PART": "f32[8,128]{1,0:T(8,128)S(1)}",
}

SLICED = """
    part0 {
      %p0 = WHOLE parameter(0)
      ROOT %l0 = PART slice(%p0), slice={[0:8], [0:128]}
    }

    part1 {
      %p1 = WHOLE parameter(0)
      ROOT %l1 = PART slice(%p1), slice={[8:16], [0:128]}
    }

    ENTRY e {
      %w = WHOLE parameter(0)
      %x = WHOLE parameter(1)
      %i0 = ((WHOLE), PART, s32[]{:S(2)}) async-start(%w), calls=part0
      %a = WHOLE negate(%x)
      %i1 = ((WHOLE), PART, s32[]{:S(2)}) async-start(%w), calls=part1
      %b = WHOLE negate(%a)
      %d0 = PART async-done(%i0), calls=part0
      %d1 = PART async-done(%i1), calls=part1
      %all = FAST custom-call(%d0, %d1), custom_call_target="ConcatBitcast"
      %c = WHOLE add(%b, %all)
      ROOT %f = WHOLE negate(%c)
    }
    """


def sliced(edits: dict[str, str]) -> Program:
    text = SLICED
    for old, new in (edits | SHAPES).items():
        text = text.replace(old, new)
    return program(text)


def test_slices_of_one_value_are_one_stay() -> None:
    result = sliced({})
    assert step_names(result) == "w x a b c f"
    assert uses(result, "w") == [("c", 1, 8192)]
    # From the first start, before a, to the last wait, before c.
    assert stays(result) == [("w", 2, 5, CopyWindow(2, 4), None)]


def test_slices_that_leave_something_out_are_steps() -> None:
    """Half of the value is another value: the program's own work, done in fast memory."""
    result = sliced(
        {
            "%all = FAST custom-call(%d0, %d1)": "%all = PART custom-call(%d0)",
            "add(%b, %all)": "add(%b, %x)",
            "ROOT %f = WHOLE negate(%c)": "ROOT %f = PART negate(%all)",
        }
    )
    assert "l0" in values(result).split() and "all" in values(result).split()
    assert ("l0", 3) in {(name, start) for name, start, *_ in stays(result)}


def test_wrapped_copy() -> None:
    result = program(
        """
        wrapped {
          %p = f32[4]{0} parameter(0)
          ROOT %k = f32[4]{0:S(1)} copy(%p)
        }

        ENTRY e {
          %w = f32[4]{0} parameter(0)
          %s = ((f32[4]{0}), f32[4]{0:S(1)}, u32[]{:S(2)}) async-start(%w), calls=wrapped
          %a = f32[4]{0} negate(%w)
          %d = f32[4]{0:S(1)} async-done(%s), calls=wrapped
          ROOT %f = f32[4]{0} add(%a, %d)
        }
        """
    )
    assert step_names(result) == "w a f"
    assert stays(result) == [("w", 1, 3, CopyWindow(1, 2), None)]


LOOP = """
    c {{
      %p = (f32[4]{{0{weight}}}, f32[4]{{0:S(1)}}) parameter(0)
      ROOT %k = pred[] constant(true)
    }}

    b {{
      %q = (f32[4]{{0{weight}}}, f32[4]{{0:S(1)}}) parameter(0)
      %w = f32[4]{{0{weight}}} get-tuple-element(%q), index=0
      %x = f32[4]{{0:S(1)}} get-tuple-element(%q), index=1
      %y = f32[4]{{0}} add(%x, %w)
      %v = f32[4]{{0}} negate(%y)
      %z = f32[4]{{0:S(1)}} negate(%v)
      ROOT %t = (f32[4]{{0{weight}}}, f32[4]{{0:S(1)}}) tuple(%w, %z)
    }}

    ENTRY e {{
      %w0 = f32[4]{{0}} parameter(0)
      %i = f32[4]{{0}} parameter(1)
      {prefetch}
      %x0 = f32[4]{{0:S(1)}} negate(%i)
      %s = (f32[4]{{0{weight}}}, f32[4]{{0:S(1)}}) tuple({operand}, %x0)
      %loop = (f32[4]{{0{weight}}}, f32[4]{{0:S(1)}}) while(%s), condition=c, body=b
      %last = f32[4]{{0:S(1)}} get-tuple-element(%loop), index=1
      %o = (f32[4]{{0}}, f32[4]{{0:S(1)}}, u32[]{{:S(2)}}) copy-start(%last)
      ROOT %r = f32[4]{{0}} copy-done(%o)
    }}
    """


@pytest.mark.parametrize("prefetched", [False, True])
def test_stays_that_a_loop_carries(prefetched: bool) -> None:
    """They cover the whole body, also between the last read of the old and the new value."""
    text = LOOP.format(
        weight=":S(1)" if prefetched else "",
        prefetch="%ps = (f32[4]{0:S(1)}, f32[4]{0}, u32[]{:S(2)}) copy-start(%w0)\n"
        "      %pd = f32[4]{0:S(1)} copy-done(%ps)"
        if prefetched
        else "",
        operand="%pd" if prefetched else "%w0",
    )
    result = program(text)
    assert step_names(result) == "w0 i x0 s p k q w x y v z t loop last"
    assert (("x0", "p{1}", "q{1}", "z", "loop{1}"), 2, 14) in buffers(result)
    state = ("x0", 2, 15, None, CopyWindow(15, 15))
    # The weight's last read is in the body, so its copy stays for the whole loop.
    weight = ("w0", 2, 14, CopyWindow(2, 2), None)
    assert stays(result) == ([weight, state] if prefetched else [state])


def test_no_assignment() -> None:
    result = program(
        """
        ENTRY e {
          %x = f32[4]{0} parameter(0)
          %k = u32[]{:S(2)} constant(3)
          ROOT %r = f32[4]{0} negate(%x)
        }
        """
    )
    assert result.assignment is None
    assert [b.fixed_space for b in result.buffers] == [None, 2, None]


def test_what_a_backend_config_says() -> None:
    result = program(
        """
        f {
          %p = f32[4]{0} parameter(0)
          ROOT %n = f32[4]{0} negate(%p)
        }

        ENTRY e {
          %x = f32[4]{0} parameter(0)
          %a = f32[4]{0:S(1)} fusion(%x), kind=kLoop, calls=f, backend_config={
            "window_config":{"estimated_cycles":"1886"},
            "used_scoped_memory_configs":[{"memory_space":"1","offset":"0","size":"4096"}]}
          ROOT %b = f32[4]{0} fusion(%a), kind=kLoop, calls=f, backend_config={
            "used_scoped_memory_configs":[{"memory_space":"2","offset":"0","size":"4096"}]}
        }
        """
    )
    assert [(s.estimated_cycles, s.scoped_bytes) for s in result.steps] == [
        (None, 0),
        (1886, 4096),
        (None, 0),
    ]
    assert result.assignment == (AssignedInterval(1, 1, 3, None, None, 1),)
