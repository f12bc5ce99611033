"""Modules without a schedule get one: legal, and no worse than XLA's order of instructions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from hlo_tables import program, step_names
from hypothesis import given, settings
from hypothesis import strategies as st

from hlo_frontend import Program, load


def peak(result: Program) -> int:
    """Largest sum of the sizes of buffers alive at a step, parameters left out."""
    return max(
        sum(b.size for b in result.buffers if not b.initial and b.live_start <= i <= b.live_end)
        for i in range(len(result.steps))
    )


WIDE = """
    ENTRY e {
      %x = f32[64]{0} parameter(0)
      %a = f32[64,64]{1,0} broadcast(%x), dimensions={0}
      %b = f32[64,64]{1,0} broadcast(%x), dimensions={1}
      %c = f32[64,64]{1,0} exponential(%a)
      %d = f32[64,64]{1,0} exponential(%b)
      %zero = f32[] constant(0)
      %sa = f32[64]{0} reduce(%c, %zero), dimensions={0}, to_apply=add
      %sb = f32[64]{0} reduce(%d, %zero), dimensions={0}, to_apply=add
      ROOT %r = f32[64]{0} add(%sa, %sb)
    }
    """
ADD = """
    add {
      %p = f32[] parameter(0)
      %q = f32[] parameter(1)
      ROOT %s = f32[] add(%p, %q)
    }
    """


def test_frees_before_it_allocates() -> None:
    given_order = program(ADD + WIDE)
    made = program(ADD + WIDE, header="entry_computation_layout={(f32[64]{0})->f32[64]{0}}")
    assert given_order.scheduled and not made.scheduled
    assert step_names(given_order) == "x a b c d zero sa sb r"
    assert peak(given_order) == 3 * 64 * 64 * 4
    # One matrix after the other: never more than a matrix and its exponential.
    assert peak(made) <= 2 * 64 * 64 * 4 + 2 * 64 * 4
    assert sorted(step_names(made)) == sorted(step_names(given_order))


def test_control_dependencies_are_kept() -> None:
    """A small result would come before the large ones, were it not told to wait for one."""
    free = WIDE.replace("%sa,", "%late,").replace("ROOT", "%late = f32[64]{0} negate(%x)\n  ROOT")
    bound = free.replace("negate(%x)", "negate(%x), control-predecessors={%d}")
    layout = "entry_computation_layout={(f32[64]{0})->f32[64]{0}}"
    for text, waits in ((free, False), (bound, True)):
        names = step_names(program(ADD + text, header=layout)).split()
        assert (names.index("late") > names.index("d")) == waits


def test_unoptimized_function_with_loops() -> None:
    def f(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, wi: (jnp.tanh(c @ wi), None), x, w)[0]

    lowered = jax.jit(f).lower(jnp.ones((4, 8, 8)), jnp.ones((8, 8)))
    result = load(lowered.as_text(dialect="hlo").encode())
    assert not result.scheduled
    assert [(loop.trip_count, loop.trip_known) for loop in result.loops] == [(4, True)]
    assert sum(s.flops * s.executions for s in result.steps if s.opcode == "dot") == 4 * 2 * 8**3


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """A random acyclic program of sums of matrices of random heights."""
    count = draw(st.integers(2, 12))
    lines = ["ENTRY e {", "  %v0 = f32[128]{0} parameter(0)"]
    rows = [0]
    for i in range(1, count):
        height = draw(st.integers(1, 64))
        lines.append(f"  %v{i} = f32[{height},128]{{1,0}} broadcast(%v0), dimensions={{1}}")
        rows.append(height)
    reduced = []
    for i in draw(st.permutations(range(1, count))):
        lines.append(
            f"  %r{i} = f32[128]{{0}} reduce(%v{i}, %zero), dimensions={{0}}, to_apply=add"
        )
        reduced.append(f"%r{i}")
    lines.insert(2, "  %zero = f32[] constant(0)")
    total = reduced[0]
    for i, other in enumerate(reduced[1:]):
        lines.append(f"  %t{i} = f32[128]{{0}} add({total}, {other})")
        total = f"%t{i}"
    lines.append(f"  ROOT %end = f32[128]{{0}} negate({total})")
    return "\n".join([*lines, "}"])


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_any_graph_is_scheduled_legally_and_no_worse(body: str) -> None:
    layout = "entry_computation_layout={(f32[128]{0})->f32[128]{0}}"
    given_order, made = program(ADD + body), program(ADD + body, header=layout)
    assert peak(made) <= peak(given_order)
    for value in made.values:
        assert all(use.step > value.def_step for use in value.uses)
