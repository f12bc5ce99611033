"""Matrix products: a chain of dense layers, and Strassen's algorithm applied twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Built = tuple[Callable[..., Any], tuple[Any, ...]]
"""A JAX function and the shapes of its arguments."""


def shape(*dims: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    """An argument of that shape, bfloat16 unless told otherwise."""
    return jax.ShapeDtypeStruct(dims, dtype)  # type: ignore[no-untyped-call]


def mlp(layers: int = 4, width: int = 4096, batch: int = 256) -> Built:
    """Dense layers with ReLU; each weight is 32 MiB by default, so that they compete."""

    def forward(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in weights:
            x = jax.nn.relu(x @ w)
        return x

    return forward, ([shape(width, width)] * layers, shape(batch, width))


def strassen49(size: int = 4096) -> Built:
    """One product of two `size` x `size` matrices by 49 products of quarter blocks.

    Strassen's seven-multiplication algorithm applied to its own products (V. Strassen, "Gaussian
    elimination is not optimal", 1969): the program shape of the AlphaTensor workloads.
    """
    if size % 4:
        raise ValueError(f"size {size}: expected a multiple of 4")

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return _strassen(a, b, depth=2)

    return product, (shape(size, size), shape(size, size))


def _strassen(a: jax.Array, b: jax.Array, depth: int) -> jax.Array:
    if depth == 0:
        return a @ b
    h = a.shape[0] // 2
    a11, a12, a21, a22 = a[:h, :h], a[:h, h:], a[h:, :h], a[h:, h:]
    b11, b12, b21, b22 = b[:h, :h], b[:h, h:], b[h:, :h], b[h:, h:]
    m1 = _strassen(a11 + a22, b11 + b22, depth - 1)
    m2 = _strassen(a21 + a22, b11, depth - 1)
    m3 = _strassen(a11, b12 - b22, depth - 1)
    m4 = _strassen(a22, b21 - b11, depth - 1)
    m5 = _strassen(a11 + a12, b22, depth - 1)
    m6 = _strassen(a21 - a11, b11 + b12, depth - 1)
    m7 = _strassen(a12 - a22, b21 + b22, depth - 1)
    return jnp.block([[m1 + m4 - m5 + m7, m3 + m5], [m2 + m4, m1 - m2 + m3 + m6]])
