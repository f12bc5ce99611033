"""Array shapes with TPU layouts, and the bytes that they occupy on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

# `PrimitiveType` of xla/xla_data.proto -> (name in HLO text, bits of storage of one element).
# Types below a byte take a byte each unless the layout says otherwise with E(n).
_ELEMENT_TYPES: Final[dict[int, tuple[str, int]]] = {
    1: ("pred", 8),
    2: ("s8", 8),
    3: ("s16", 16),
    4: ("s32", 32),
    5: ("s64", 64),
    6: ("u8", 8),
    7: ("u16", 16),
    8: ("u32", 32),
    9: ("u64", 64),
    10: ("f16", 16),
    11: ("f32", 32),
    12: ("f64", 64),
    15: ("c64", 64),
    16: ("bf16", 16),
    18: ("c128", 128),
    19: ("f8e5m2", 8),
    20: ("f8e4m3fn", 8),
    21: ("s4", 8),
    22: ("u4", 8),
    23: ("f8e4m3b11fnuz", 8),
    24: ("f8e5m2fnuz", 8),
    25: ("f8e4m3fnuz", 8),
    26: ("s2", 8),
    27: ("u2", 8),
    28: ("f8e4m3", 8),
    29: ("f8e3m4", 8),
    30: ("s1", 8),
    31: ("u1", 8),
    32: ("f4e2m1fn", 8),
    33: ("f8e8m0fnu", 8),
}
_TUPLE: Final = 13
_NO_DATA: Final[dict[int, str]] = {14: "opaque", 17: "token"}
_BUFFER: Final = 34


@dataclass(frozen=True)
class Shape:
    """A shape with layout: an array, a tuple, or a token or opaque handle (no data).

    Attributes:
        dtype: element type as in HLO text; `token`, `opaque`, or `tuple`.
        dims: array dimensions; upper bounds where dynamic.
        dynamic: per dimension, whether `dims` is only an upper bound.
        minor_to_major: layout, None where the shape has none.
        tiles: tilings, applied one after the other.
        element_bits: bits of storage of one element.
        explicit_bits: E(n) of the layout, 0 if it has none.
        memory_space: S(n) of the layout.
        tail_alignment: L(n): the tiled shape is padded to a multiple of n elements.
        prefix_bytes: M(n): bytes of metadata in front of a dynamic array.
        elements: shapes of a tuple's elements.
    """

    dtype: str
    dims: tuple[int, ...] = ()
    dynamic: tuple[bool, ...] = ()
    minor_to_major: tuple[int, ...] | None = None
    tiles: tuple[tuple[int, ...], ...] = ()
    element_bits: int = 0
    explicit_bits: int = 0
    memory_space: int = 0
    tail_alignment: int = 1
    prefix_bytes: int = 0
    elements: tuple[Shape, ...] = ()

    @property
    def is_tuple(self) -> bool:
        """Whether it is a tuple, which itself holds no data."""
        return self.dtype == "tuple"

    @property
    def is_array(self) -> bool:
        """Whether it holds data."""
        return self.element_bits > 0

    @cached_property
    def leaves(self) -> tuple[tuple[tuple[int, ...], Shape], ...]:
        """(tuple index, shape) of every leaf, depth first; one of index () if it is no tuple."""
        if not self.is_tuple:
            return (((), self),)
        return tuple(
            ((position, *index), leaf)
            for position, element in enumerate(self.elements)
            for index, leaf in element.leaves
        )

    @cached_property
    def _first_leaves(self) -> tuple[int, ...]:
        """Per element of a tuple the position of its first leaf."""
        return tuple(accumulate((len(element.leaves) for element in self.elements), initial=0))

    def leaf_range(self, index: tuple[int, ...]) -> range:
        """Positions in `leaves` of the leaves under tuple index `index`."""
        start, shape = 0, self
        for position in index:
            start += shape._first_leaves[position]
            shape = shape.elements[position]
        return range(start, start + len(shape.leaves))

    @cached_property
    def logical_bytes(self) -> int:
        """Bytes without padding, as XLA's cost analysis counts them (`ShapeUtil::ByteSizeOf`)."""
        return math.ceil(math.prod(self.dims) * self.element_bits / 8) if self.is_array else 0

    @cached_property
    def total_bytes(self) -> int:
        """Sum of the leaves' `logical_bytes`."""
        return sum(leaf.logical_bytes for _, leaf in self.leaves)

    @cached_property
    def padded_bytes(self) -> int:
        """Bytes on the device, with the padding of tiles; 0 for tuples and tokens."""
        if not self.is_array:
            return 0
        order = self.minor_to_major
        physical = [self.dims[d] for d in reversed(order)] if order else list(self.dims)
        count = math.prod(_tiled(physical, self.tiles))
        count = math.ceil(count / self.tail_alignment) * self.tail_alignment
        return math.ceil(count * self.element_bits / 8) + self.prefix_bytes

    def __str__(self) -> str:
        """HLO text with layout, as XLA prints it."""
        if self.is_tuple:
            inner = ", ".join(
                f"/*index={i}*/{e}" if i and i % 5 == 0 else str(e)
                for i, e in enumerate(self.elements)
            )
            return f"({inner})"
        dims = ",".join(
            f"<={d}" if dynamic else str(d)
            for d, dynamic in zip(self.dims, self.dynamic or (False,) * len(self.dims), strict=True)
        )
        text = f"{self.dtype}[{dims}]"
        if self.minor_to_major is None:
            return text
        attributes = "".join(f"({','.join(map(str, tile))})" for tile in self.tiles)
        if attributes:
            attributes = "T" + attributes
        if self.tail_alignment != 1:
            attributes += f"L({self.tail_alignment})"
        if self.explicit_bits:
            attributes += f"E({self.explicit_bits})"
        if self.memory_space:
            attributes += f"S({self.memory_space})"
        if self.prefix_bytes:
            attributes += f"M({self.prefix_bytes})"
        order = ",".join(map(str, self.minor_to_major))
        if not order and not attributes:
            return text
        return f"{text}{{{order}{':' + attributes if attributes else ''}}}"


def _tiled(dims: list[int], tiles: tuple[tuple[int, ...], ...]) -> list[int]:
    """Physical dimensions, major to minor, after the tiles one by one.

    See https://openxla.org/xla/tiled_layout. A tile applies to the most minor dimensions; where it
    has more than there are, the array is seen with leading dimensions of 1. (Tiles that combine
    dimensions, `T(*,128)`, do not get here: XLA does not read them back from its own protos.)
    """
    for tile in tiles:
        padded = [1] * (len(tile) - len(dims)) + dims
        outer, inner = padded[: len(padded) - len(tile)], padded[len(padded) - len(tile) :]
        counts = (math.ceil(dim / extent) for dim, extent in zip(inner, tile, strict=True))
        dims = [*outer, *counts, *tile]
    return dims


class ShapeTable:
    """Decodes `ShapeProto`s; equal ones become one object, because programs repeat few shapes."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, Shape] = {}

    def decode(self, proto: Any) -> Shape:
        """The shape of a `ShapeProto`.

        Raises:
            ValueError: an element type that this version does not know.
        """
        key = proto.SerializeToString()
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._decode(proto)
            self._shapes[key] = shape
        return shape

    def _decode(self, proto: Any) -> Shape:
        kind = proto.element_type
        if kind == _TUPLE:
            return Shape("tuple", elements=tuple(map(self.decode, proto.tuple_shapes)))
        if kind in _NO_DATA:
            return Shape(_NO_DATA[kind])
        if kind == _BUFFER and proto.tuple_shapes:
            return self.decode(proto.tuple_shapes[0])
        if kind not in _ELEMENT_TYPES:
            raise ValueError(f"element type {kind} of xla_data.proto is not known")
        dtype, bits = _ELEMENT_TYPES[kind]
        dims = tuple(proto.dimensions)
        if not proto.HasField("layout"):
            return Shape(dtype, dims, tuple(proto.is_dynamic_dimension), element_bits=bits)
        layout = proto.layout
        return Shape(
            dtype,
            dims,
            tuple(proto.is_dynamic_dimension),
            minor_to_major=tuple(layout.minor_to_major),
            tiles=tuple(tuple(tile.dimensions) for tile in layout.tiles),
            element_bits=layout.element_size_in_bits or bits,
            explicit_bits=layout.element_size_in_bits,
            memory_space=layout.memory_space,
            tail_alignment=layout.tail_padding_alignment_in_elements or 1,
            prefix_bytes=layout.dynamic_shape_metadata_prefix_bytes,
        )
