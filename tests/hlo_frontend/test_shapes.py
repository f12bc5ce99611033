"""Padded sizes against hand-counted ones, and against a padding written another way."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hlo_frontend
from hlo_frontend.shapes import Shape

# Shape text -> bytes, counted by hand.
SIZES = {
    "f32[]": 4,
    "f32[]{:T(128)}": 512,
    "bf16[]{:T(256)}": 512,
    "f32[3]{0}": 12,
    "f32[0]{0}": 0,
    "pred[5]{0}": 5,
    "f32[512]{0:T(512)}": 2048,
    "f32[300]{0:T(512)}": 2048,
    "f32[8,128]{1,0:T(8,128)}": 4096,
    "f32[9,129]{1,0:T(8,128)}": 16 * 256 * 4,
    "f32[9,129]{0,1:T(8,128)}": 136 * 128 * 4,  # rows are the 129 here
    "bf16[9,129]{1,0:T(8,128)(2,1)}": 16 * 256 * 2,
    "bf16[1,7]{1,0:T(1,128)(2,1)}": 2 * 128 * 2,  # the second tile pads the single row to two
    "bf16[300]{0:T(512)(128)(2,1)}": 512 * 2,
    "pred[7,130]{1,0:T(8,128)(4,1)}": 8 * 256,
    "s8[5,3,100]{2,1,0:T(8,128)(4,1)}": 5 * 8 * 128,
    "f32[5,3,100]{2,0,1:T(8,128)}": 3 * 8 * 128 * 4,
    "u4[8,128]{1,0:T(8,128)E(4)}": 512,
    "s4[9]{0:E(4)}": 5,
    "f32[10]{0:L(8)}": 64,
    "c64[3]{0}": 24,
    "f8e4m3fn[3]{0}": 3,
    "f32[<=9,129]{1,0:T(8,128)}": 16 * 256 * 4,
    "u32[]{:S(2)}": 4,
}


def program_of(shape: str) -> hlo_frontend.Program:
    text = f"HloModule m, is_scheduled=true\n\nENTRY e {{\n  ROOT %x = {shape} parameter(0)\n}}\n"
    return hlo_frontend.load(text.encode())


@pytest.mark.parametrize("shape", SIZES)
def test_sizes_and_text(shape: str) -> None:
    (value,) = program_of(shape).values
    assert value.size == SIZES[shape]
    assert value.shape == shape


@given(
    dims=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    tile=st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 16, 128])),
    order=st.randoms(use_true_random=False),
)
def test_one_tile_pads_the_two_most_minor_dimensions(dims, tile, order) -> None:
    major_to_minor = list(range(len(dims)))
    order.shuffle(major_to_minor)
    shape = Shape(
        "f32",
        tuple(dims),
        minor_to_major=tuple(reversed(major_to_minor)),
        tiles=(tile,),
        element_bits=32,
    )
    physical = [dims[d] for d in major_to_minor]
    extents = [1] * (len(dims) - 2) + list(tile)
    padded = [math.ceil(d / e) * e for d, e in zip(physical, extents, strict=True)]
    assert shape.padded_bytes == 4 * math.prod(padded)
    assert shape.padded_bytes >= shape.logical_bytes == 4 * math.prod(dims)


@given(
    dims=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    rows=st.sampled_from([8, 16]),
    packed=st.sampled_from([2, 4]),
)
def test_a_second_tile_inside_the_first_adds_nothing(dims, rows, packed) -> None:
    order = tuple(reversed(range(len(dims))))
    one = Shape("s8", tuple(dims), (), order, ((rows, 128),), element_bits=8)
    two = Shape("s8", tuple(dims), (), order, ((rows, 128), (packed, 1)), element_bits=8)
    assert one.padded_bytes == two.padded_bytes
    assert one.padded_bytes % (rows * 128) == 0


def test_tuple_leaves_and_ranges() -> None:
    array = Shape("f32", (2,), (), (0,), element_bits=32)
    token = Shape("token")
    shape = Shape("tuple", elements=(array, Shape("tuple", elements=(token, array)), array))
    assert [index for index, _ in shape.leaves] == [(0,), (1, 0), (1, 1), (2,)]
    assert shape.leaf_range((1,)) == range(1, 3)
    assert shape.leaf_range((1, 1)) == range(2, 3)
    assert shape.leaf_range(()) == range(4)
    assert shape.padded_bytes == 0 and shape.total_bytes == 24
    assert str(shape) == "(f32[2]{0}, (token[], f32[2]{0}), f32[2]{0})"
