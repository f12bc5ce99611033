"""Transformers: a training step, one step of decoding, and layers in a `lax.scan`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.programs.products import Built, shape


def transformer_train(
    layers: int = 6, width: int = 512, heads: int = 8, seq: int = 512, batch: int = 8
) -> Built:
    """One Adam step of a causal language model of 8,192 tokens; parameters and moments donated."""
    vocab = 8192

    def loss(params: dict[str, Any], tokens: jax.Array) -> jax.Array:
        x = params["embed"][tokens[:, :-1]].astype(jnp.bfloat16)
        for layer in params["layers"]:
            x = _layer(x, layer, heads)
        logits = (_norm(x, params["norm"]) @ params["embed"].T.astype(x.dtype)).astype(jnp.float32)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], axis=-1)
        return -picked.mean()

    def train_step(state: dict[str, Any], tokens: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        value, grads = jax.value_and_grad(loss)(state["params"], tokens)
        step = state["step"] + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["mean"], grads)
        square = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state["square"], grads)
        rate = 1e-3 * jnp.sqrt(1 - 0.99**step) / (1 - 0.9**step)
        params = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), state["params"], mean, square
        )
        return {"params": params, "mean": mean, "square": square, "step": step}, value

    params = {
        "embed": shape(vocab, width, dtype=jnp.float32),
        "norm": shape(width, dtype=jnp.float32),
        "layers": [_layer_params((), width, jnp.float32) for _ in range(layers)],
    }
    state = {"params": params, "mean": params, "square": params, "step": shape(dtype=jnp.float32)}
    args = (state, shape(batch, seq + 1, dtype=jnp.int32))
    return jax.jit(train_step, donate_argnums=0), args


def decode(
    layers: int = 4, width: int = 1024, heads: int = 8, seq: int = 1024, batch: int = 8
) -> Built:
    """One decoding step with a key-value cache of `seq` positions, donated and updated in place."""
    vocab = 32768

    def step(
        params: dict[str, Any], caches: list[dict[str, jax.Array]], token: jax.Array, at: jax.Array
    ) -> tuple[jax.Array, list[dict[str, jax.Array]]]:
        x = params["embed"][token]
        seen = jnp.arange(seq) <= at
        updated = []
        for layer, cache in zip(params["layers"], caches, strict=True):
            q, k, v = _split_heads(_norm(x, layer["norm1"]) @ layer["qkv"], heads)
            # [batch, heads, head width] into position `at` of [batch, heads, seq, head width]
            keys = lax.dynamic_update_slice_in_dim(cache["k"], k[:, :, None], at, axis=2)
            values = lax.dynamic_update_slice_in_dim(cache["v"], v[:, :, None], at, axis=2)
            updated.append({"k": keys, "v": values})
            scores = jnp.einsum("bhd,bhsd->bhs", q, keys).astype(jnp.float32) / q.shape[-1] ** 0.5
            weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)).astype(x.dtype)
            mixed = jnp.einsum("bhs,bhsd->bhd", weights, values)
            x = x + mixed.reshape(batch, width) @ layer["out"]
            x = x + _feed_forward(x, layer)
        return _norm(x, params["norm"]) @ params["embed"].T, updated

    params = {
        "embed": shape(vocab, width),
        "norm": shape(width),
        "layers": [_layer_params((), width, jnp.bfloat16) for _ in range(layers)],
    }
    cache = shape(batch, heads, seq, width // heads)
    caches = [{"k": cache, "v": cache} for _ in range(layers)]
    args = (params, caches, shape(batch, dtype=jnp.int32), shape(dtype=jnp.int32))
    return jax.jit(step, donate_argnums=1), args


def scan_transformer(
    layers: int = 8, width: int = 512, heads: int = 8, seq: int = 512, batch: int = 4
) -> Built:
    """Forward pass over stacked layers in one `lax.scan`: a `while` with a known trip count."""

    def forward(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        def body(x: jax.Array, layer: dict[str, jax.Array]) -> tuple[jax.Array, None]:
            return _layer(x, layer, heads), None

        return lax.scan(body, x, params)[0]

    return forward, (_layer_params((layers,), width, jnp.bfloat16), shape(batch, seq, width))


def _layer_params(stack: tuple[int, ...], width: int, dtype: Any) -> dict[str, Any]:
    return {
        "norm1": shape(*stack, width, dtype=dtype),
        "qkv": shape(*stack, width, 3 * width, dtype=dtype),
        "out": shape(*stack, width, width, dtype=dtype),
        "norm2": shape(*stack, width, dtype=dtype),
        "up": shape(*stack, width, 4 * width, dtype=dtype),
        "down": shape(*stack, 4 * width, width, dtype=dtype),
    }


def _layer(x: jax.Array, layer: dict[str, jax.Array], heads: int) -> jax.Array:
    """One pre-norm layer on `x` [batch, seq, width], causal attention."""
    q, k, v = _split_heads(_norm(x, layer["norm1"]) @ layer["qkv"].astype(x.dtype), heads)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) / q.shape[-1] ** 0.5
    seen = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)).astype(x.dtype)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
    x = x + mixed @ layer["out"].astype(x.dtype)
    return x + _feed_forward(x, layer)


def _feed_forward(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
    hidden = jax.nn.gelu(_norm(x, layer["norm2"]) @ layer["up"].astype(x.dtype))
    return hidden @ layer["down"].astype(x.dtype)


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    rms = lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-6)
    return (wide * rms * scale).astype(x.dtype)


def _split_heads(qkv: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[..., 3 * width] -> queries, keys and values, each [..., heads, width / heads]."""
    q, k, v = jnp.split(qkv.reshape(*qkv.shape[:-1], 3 * heads, -1), 3, axis=-2)
    return q, k, v
