"""Values, uses and alias classes of programs small enough to know the answer by heart.

`f32[4]{0}` is 16 bytes, `f32[8,4]{1,0}` 128.
"""

from __future__ import annotations

from hlo_tables import buffers, program, step_names, updates, uses, values


def test_straight_line() -> None:
    result = program(
        """
        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %b = f32[4]{0} negate(%a)
          %c = f32[4]{0} add(%a, %b)
          ROOT %d = f32[4]{0} multiply(%c, %c)
        }
        """
    )
    assert step_names(result) == "a b c d"
    assert buffers(result) == [(("a",), 0, 2), (("b",), 1, 2), (("c",), 2, 3), (("d",), 3, 3)]
    assert uses(result, "a") == [("b", 0, 16), ("c", 0, 16)]
    assert uses(result, "c") == [("d", 0, 16), ("d", 1, 16)]
    assert [v.def_bytes for v in result.values] == [0, 16, 16, 16]
    assert [s.flops for s in result.steps] == [0, 4, 4, 4]
    assert [b.initial for b in result.buffers] == [True, False, False, False]
    assert [b.live_out for b in result.buffers] == [False, False, False, True]
    assert [v.parameter for v in result.values] == [0, -1, -1, -1]


def test_tuples_bitcasts_and_barriers_hand_values_on() -> None:
    result = program(
        """
        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %b = f32[4]{0} parameter(1)
          %n = f32[4]{0} negate(%a)
          %pair = (f32[4]{0}, f32[4]{0}) tuple(%a, %n)
          %t = (f32[4]{0}, (f32[4]{0}, f32[4]{0})) tuple(%b, %pair)
          %o = (f32[4]{0}, (f32[4]{0}, f32[4]{0})) opt-barrier(%t)
          %inner = (f32[4]{0}, f32[4]{0}) get-tuple-element(%o), index=1
          %same = f32[4]{0} get-tuple-element(%inner), index=1
          %view = f32[2,2]{1,0} bitcast(%same)
          ROOT %r = f32[2,2]{1,0} exponential(%view)
        }
        """
    )
    assert values(result) == "a b n r"
    assert uses(result, "n") == [("r", 0, 16)]
    assert result.steps[-1].transcendentals == 4
    # XLA counts the barrier (step 5) as a use of all that goes through it.
    assert buffers(result)[:2] == [(("a",), 0, 5), (("b",), 0, 5)]


IN_PLACE = """
    ENTRY e {
      %a = f32[8,4]{1,0} parameter(0)
      %row = f32[1,4]{1,0} parameter(1)
      %i = s32[] parameter(2)
      %zero = s32[] constant(0)
      %copied = f32[8,4]{1,0} copy(%a)
      %d = f32[8,4]{1,0} dynamic-update-slice(%copied, %row, %i, %zero)
      ROOT %r = f32[8,4]{1,0} negate(%d)
    }
    """


def test_dynamic_update_slice_touches_one_row_in_place() -> None:
    result = program(IN_PLACE)
    assert (("copied", "d"), 4, 6) in buffers(result)
    assert updates(result, "d") == ["copied"]
    assert uses(result, "copied") == [("d", 0, 0)]
    assert uses(result, "row") == [("d", 1, 16)]
    (d,) = (v for v in result.values if v.position == "d")
    assert (d.size, d.def_bytes) == (128, 16)


def test_no_update_in_place_of_what_is_read_later() -> None:
    """Before XLA's copy insertion an update may need a copy: then the two do not share bytes."""
    result = program(IN_PLACE.replace("negate(%d)", "add(%d, %copied)"))
    assert (("copied",), 4, 6) in buffers(result)
    assert (("d",), 5, 6) in buffers(result)
    assert updates(result, "d") == []


def test_fusion_that_ends_in_an_update_is_in_place() -> None:
    result = program(
        """
        f {
          %p0 = f32[8,4]{1,0} parameter(0)
          %p1 = f32[1,4]{1,0} parameter(1)
          %p2 = s32[] parameter(2)
          %zero = s32[] constant(0)
          %n = f32[1,4]{1,0} negate(%p1)
          %u = f32[8,4]{1,0} dynamic-update-slice(%p0, %n, %p2, %zero)
          ROOT %t = (f32[1,4]{1,0}, f32[8,4]{1,0}) tuple(%n, %u)
        }

        ENTRY e {
          %row = f32[1,4]{1,0} parameter(0)
          %i = s32[] parameter(1)
          %a = f32[8,4]{1,0} parameter(2)
          %copied = f32[8,4]{1,0} copy(%a)
          %d = (f32[1,4]{1,0}, f32[8,4]{1,0}) fusion(%copied, %row, %i), kind=kLoop, calls=f
          ROOT %r = f32[8,4]{1,0} get-tuple-element(%d), index=1
        }
        """
    )
    assert (("copied", "d{1}"), 3, 5) in buffers(result)
    assert updates(result, "d{1}") == ["copied"]
    assert updates(result, "d{0}") == []
    assert uses(result, "copied") == [("d", 0, 0)]
    (d,) = (v for v in result.values if v.position == "d{1}")
    assert (d.size, d.def_bytes) == (128, 16)


def test_fusion_reads_only_the_slice_it_uses() -> None:
    result = program(
        """
        f {
          %p0 = f32[8,4]{1,0} parameter(0)
          %p1 = s32[] parameter(1)
          %zero = s32[] constant(0)
          ROOT %s = f32[1,4]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,4}
        }

        ENTRY e {
          %a = f32[8,4]{1,0} parameter(0)
          %i = s32[] parameter(1)
          ROOT %r = f32[1,4]{1,0} fusion(%a, %i), kind=kLoop, calls=f
        }
        """
    )
    assert uses(result, "a") == [("r", 0, 16)]


def test_bytes_are_padded_like_the_value() -> None:
    """A row of 4 in tiles of 8 x 128: 512 device bytes for 16, 4096 for the whole."""
    result = program(
        """
        ENTRY e {
          %a = f32[8,4]{1,0:T(8,128)} parameter(0)
          %i = s32[]{:T(128)} parameter(1)
          %zero = s32[]{:T(128)} constant(0)
          ROOT %r = f32[1,4]{1,0:T(1,128)} dynamic-slice(%a, %i, %zero), dynamic_slice_sizes={1,4}
        }
        """
    )
    assert uses(result, "a") == [("r", 0, 512)]
    assert [(v.size, v.def_bytes) for v in result.values] == [
        (4096, 0),
        (512, 0),
        (512, 0),
        (512, 512),
    ]


def test_scatter_is_in_place() -> None:
    result = program(
        """
        add {
          %x = f32[] parameter(0)
          %y = f32[] parameter(1)
          ROOT %s = f32[] add(%x, %y)
        }

        ENTRY e {
          %a = f32[8,4]{1,0} parameter(0)
          %rows = s32[2]{0} parameter(1)
          %u = f32[2,4]{1,0} parameter(2)
          %copied = f32[8,4]{1,0} copy(%a)
          ROOT %d = f32[8,4]{1,0} scatter(%copied, %rows, %u), update_window_dims={1},
            inserted_window_dims={0}, scatter_dims_to_operand_dims={0}, index_vector_dim=1,
            to_apply=add
        }
        """
    )
    assert (("copied", "d"), 3, 4) in buffers(result)
    assert updates(result, "d") == ["copied"]


def test_declared_aliases_of_custom_calls_and_fusions() -> None:
    result = program(
        """
        f {
          %p0 = f32[4]{0} parameter(0)
          %p1 = f32[4]{0} parameter(1)
          ROOT %s = f32[4]{0} add(%p0, %p1)
        }

        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %b = f32[4]{0} negate(%a)
          %c = (f32[4]{0}, f32[2]{0}) custom-call(%a, %b), custom_call_target="x",
            output_to_operand_aliasing={{0}: (1, {})}
          %d = f32[4]{0} get-tuple-element(%c), index=0
          ROOT %r = f32[4]{0} fusion(%a, %d), kind=kLoop, calls=f,
            output_to_operand_aliasing={{}: (1, {})}
        }
        """
    )
    assert (("b", "c{0}", "r"), 1, 4) in buffers(result)
    assert updates(result, "c{0}") == ["b"]
    assert updates(result, "r") == ["c{0}"]
    # What a custom call does is not known: it reads and writes everything once.
    assert uses(result, "a") == [("b", 0, 16), ("c", 0, 16), ("r", 0, 16)]
    assert result.steps[2].flops == 0


def test_donated_parameter_shares_with_its_result() -> None:
    result = program(
        """
        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %b = f32[4]{0} parameter(1)
          %s = f32[4]{0} add(%a, %b)
          ROOT %t = (f32[4]{0}, f32[4]{0}) tuple(%b, %s)
        }
        """,
        header="is_scheduled=true, input_output_alias={ {1}: (0, {}, may-alias) }",
    )
    assert buffers(result) == [(("a", "s"), 0, 3), (("b",), 0, 3)]
    assert updates(result, "s") == ["a"]
    assert [(b.initial, b.live_out) for b in result.buffers] == [(True, True), (True, True)]


def test_collectives() -> None:
    result = program(
        """
        add {
          %x = f32[] parameter(0)
          %y = f32[] parameter(1)
          ROOT %s = f32[] add(%x, %y)
        }

        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %g = (f32[4]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1}}, dimensions={0}
          %n = f32[4]{0} negate(%a)
          %done = f32[8]{0} all-gather-done(%g)
          %r = f32[4]{0} all-reduce-start(%n), replica_groups={{0,1}}, to_apply=add
          %sum = f32[4]{0} all-reduce-done(%r)
          ROOT %t = (f32[8]{0}, f32[4]{0}) tuple(%done, %sum)
        }
        """
    )
    assert values(result) == "a g{1} n r"
    # The gather holds its operand until it is done; the reduction is in place.
    assert buffers(result) == [(("a",), 0, 3), (("g{1}",), 1, 6), (("n", "r"), 2, 6)]
    assert updates(result, "a") == updates(result, "g{1}") == []
    assert updates(result, "r") == ["n"]


def test_sending_and_receiving() -> None:
    result = program(
        """
        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %before = token[] after-all()
          %p = (f32[4]{0}, f32[4]{0}) collective-permute-start(%a), source_target_pairs={{0,1}}
          %n = f32[4]{0} negate(%a)
          %pd = f32[4]{0} collective-permute-done(%p)
          %s = (f32[4]{0}, u32[], token[]) send(%n, %before), channel_id=1
          %sd = token[] send-done(%s), channel_id=1
          %r = (f32[4]{0}, u32[], token[]) recv(%before), channel_id=2
          %rd = (f32[4]{0}, token[]) recv-done(%r), channel_id=2
          %got = f32[4]{0} get-tuple-element(%rd), index=0
          ROOT %sum = f32[4]{0} add(%got, %pd)
        }
        """
    )
    assert values(result) == "a p{1} n s{1} r{0} r{1} sum"
    assert uses(result, "n") == [("s", 0, 16)]
    assert uses(result, "r{0}") == [("sum", 0, 16)]
    of = {names[0]: (start, end) for names, start, end in buffers(result)}
    # Operands are held until the transfer is done.
    assert (of["a"], of["p{1}"], of["n"], of["r{0}"]) == ((0, 4), (2, 10), (3, 6), (7, 10))


def test_async_computation_is_inlined() -> None:
    result = program(
        """
        wrapped {
          %p = f32[8,4]{1,0} parameter(0)
          ROOT %part = f32[2,4]{1,0} slice(%p), slice={[0:2], [0:4]}
        }

        ENTRY e {
          %a = f32[8,4]{1,0} parameter(0)
          %s = ((f32[8,4]{1,0}), f32[2,4]{1,0}, u32[]) async-start(%a), calls=wrapped
          %n = f32[8,4]{1,0} negate(%a)
          %d = f32[2,4]{1,0} async-done(%s), calls=wrapped
          ROOT %t = (f32[2,4]{1,0}, f32[8,4]{1,0}) tuple(%d, %n)
        }
        """
    )
    assert step_names(result) == "a p part s n d t"
    assert values(result) == "a part s{2} n"
    assert uses(result, "a") == [("part", 0, 32), ("n", 0, 128)]
    assert buffers(result)[:2] == [(("a",), 0, 5), (("part",), 2, 6)]


def test_host_memory_is_prescribed() -> None:
    """A copy to the host (space 5) is work of the program, not of memory-space assignment."""
    result = program(
        """
        ENTRY e {
          %a = f32[4]{0} parameter(0)
          %s = (f32[4]{0:S(5)}, f32[4]{0}, u32[]{:S(2)}) copy-start(%a)
          %d = f32[4]{0:S(5)} copy-done(%s)
          ROOT %n = f32[4]{0} negate(%a)
        }
        """
    )
    assert step_names(result) == "a s d n"
    assert values(result) == "a s{0} s{2} n"
    assert [b.fixed_space for b in result.buffers] == [None, 5, 2, None]
    assert result.assignment is None


def test_empty_arrays_and_tokens() -> None:
    result = program(
        """
        ENTRY e {
          %a = f32[0]{0} parameter(0)
          %t = token[] after-all()
          ROOT %n = f32[0]{0} negate(%a)
        }
        """
    )
    assert [(v.position, v.size) for v in result.values] == [("a", 0), ("n", 0)]
