"""Transformers of published shapes in plain JAX, as shapes only: no weights, no dependency.

Widths are those of the papers and model cards: LLaMA (2302.13971), Llama 2 (2307.09288), GPT-J
(model card), T5 (1910.10683), OPT (2205.01068), Mixtral (2401.04088). Parameters have the names
of the Flax and Hugging Face ones, as rule books know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from hlo_frontend.errors import InputError

Params = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Sizes of a model; `kv_heads` as many as `heads` without grouped queries."""

    family: str
    layers: int
    width: int
    heads: int
    inner: int
    vocab: int
    kv_heads: int = 0
    head_size: int = 0
    positions: int = 0
    experts: int = 0

    @property
    def head(self) -> int:
        """Size of a head."""
        return self.head_size or self.width // self.heads


CONFIGS = {
    "llama-7b": Config("llama", 32, 4096, 32, 11008, 32000),
    "llama-13b": Config("llama", 40, 5120, 40, 13824, 32000),
    "llama-33b": Config("llama", 60, 6656, 52, 17920, 32000),
    "llama-65b": Config("llama", 80, 8192, 64, 22016, 32000),
    "gpt-j-6b": Config("gptj", 28, 4096, 16, 16384, 50400),
    "t5-small": Config("t5", 6, 512, 8, 2048, 32128, head_size=64),
    "t5-base": Config("t5", 12, 768, 12, 3072, 32128, head_size=64),
    "t5-large": Config("t5", 24, 1024, 16, 4096, 32128, head_size=64),
    "t5-3b": Config("t5", 24, 1024, 32, 16384, 32128, head_size=128),
    "t5-11b": Config("t5", 24, 1024, 128, 65536, 32128, head_size=128),
    "opt-125m": Config("opt", 12, 768, 12, 3072, 50272, positions=2050),
    "opt-1.3b": Config("opt", 24, 2048, 32, 8192, 50272, positions=2050),
    "opt-2.7b": Config("opt", 32, 2560, 32, 10240, 50272, positions=2050),
    "opt-6.7b": Config("opt", 32, 4096, 32, 16384, 50272, positions=2050),
    "opt-13b": Config("opt", 40, 5120, 40, 20480, 50272, positions=2050),
    "opt-30b": Config("opt", 48, 7168, 56, 28672, 50272, positions=2050),
    "opt-66b": Config("opt", 64, 9216, 72, 36864, 50272, positions=2050),
    "mixtral-8x7b": Config("mixtral", 32, 4096, 32, 14336, 32000, kv_heads=8, experts=8),
}


@dataclass(frozen=True)
class Model:
    """A function and the shapes of its arguments, parameters first.

    Attributes:
        name: of the configuration.
        function: `function(params, *inputs)`.
        params: pytree of `jax.ShapeDtypeStruct`.
        inputs: the other arguments, likewise; each has the batch as its first dimension.
        train: whether it returns gradients beside the loss.
    """

    name: str
    function: Callable[..., Any]
    params: Params
    inputs: tuple[Any, ...]
    train: bool


def build(
    name: str,
    *,
    train: bool = False,
    batch: int = 8,
    length: int = 512,
    layers: int | None = None,
) -> Model:
    """A built-in model in bfloat16.

    Args:
        name: one of CONFIGS.
        train: the loss and its gradients instead of the logits.
        batch, length: tokens.
        layers: that many layers instead of all.

    Raises:
        InputError: no such model.
    """
    if name not in CONFIGS:
        raise InputError(f"--model {name}: expected one of {', '.join(CONFIGS)}")
    config = CONFIGS[name]
    if layers is not None:
        config = replace(config, layers=layers)
    params = _params(config)
    tokens = _shape(batch, length, kind=jnp.int32)
    inputs = (tokens, tokens) if config.family == "t5" else (tokens,)
    forward: Callable[..., jax.Array] = partial(_FORWARD[config.family], config)
    if not train:
        return Model(name, forward, params, inputs, train)

    def step(params: Params, *given: jax.Array) -> tuple[jax.Array, Params]:
        return jax.value_and_grad(partial(_loss, forward))(params, *given)

    return Model(name, step, params, (*inputs, tokens), train)


def _loss(forward: Callable[..., jax.Array], params: Params, *given: jax.Array) -> jax.Array:
    *inputs, labels = given
    logits = forward(params, *inputs).astype(jnp.float32)
    logits = logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    total = jnp.log(jnp.exp(logits).sum(axis=-1))
    hit = labels[..., None] == jnp.arange(logits.shape[-1])
    return (total - jnp.where(hit, logits, 0.0).sum(axis=-1)).mean()


def _shape(*sizes: int, kind: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, kind)  # type: ignore[no-untyped-call]


def _dense(rows: int, columns: int, *, bias: bool = False) -> Params:
    kernel = {"kernel": _shape(rows, columns)}
    return kernel | {"bias": _shape(columns)} if bias else kernel


def _norm(width: int, *, bias: bool = False) -> Params:
    return {"scale": _shape(width)} | ({"bias": _shape(width)} if bias else {})


def _params(config: Config) -> Params:
    width, inner = config.width, config.inner
    all_heads = config.heads * config.head
    pairs = (config.kv_heads or config.heads) * config.head
    layers = {}
    if config.family in ("llama", "mixtral"):
        attention = {
            "q_proj": _dense(width, all_heads),
            "k_proj": _dense(width, pairs),
            "v_proj": _dense(width, pairs),
            "o_proj": _dense(all_heads, width),
        }
        gated = {
            "gate_proj": _dense(width, inner),
            "up_proj": _dense(width, inner),
            "down_proj": _dense(inner, width),
        }
        if config.family == "mixtral":
            experts = config.experts
            gated = {
                "gate": _dense(width, experts),
                "experts": {
                    "gate_proj": {"kernel": _shape(experts, width, inner)},
                    "up_proj": {"kernel": _shape(experts, width, inner)},
                    "down_proj": {"kernel": _shape(experts, inner, width)},
                },
            }
        for layer in range(config.layers):
            layers[str(layer)] = {
                "input_layernorm": _norm(width),
                "self_attn": attention,
                "post_attention_layernorm": _norm(width),
                "mlp": gated,
            }
        return {
            "model": {
                "embed_tokens": {"embedding": _shape(config.vocab, width)},
                "layers": layers,
                "norm": _norm(width),
            },
            "lm_head": _dense(width, config.vocab),
        }
    if config.family == "gptj":
        for layer in range(config.layers):
            layers[str(layer)] = {
                "ln_1": _norm(width, bias=True),
                "attn": {
                    "q_proj": _dense(width, all_heads),
                    "k_proj": _dense(width, all_heads),
                    "v_proj": _dense(width, all_heads),
                    "out_proj": _dense(all_heads, width),
                },
                "mlp": {
                    "fc_in": _dense(width, inner, bias=True),
                    "fc_out": _dense(inner, width, bias=True),
                },
            }
        return {
            "transformer": {
                "wte": {"embedding": _shape(config.vocab, width)},
                "h": layers,
                "ln_f": _norm(width, bias=True),
            },
            "lm_head": _dense(width, config.vocab, bias=True),
        }
    if config.family == "opt":
        for layer in range(config.layers):
            layers[str(layer)] = {
                "self_attn_layer_norm": _norm(width, bias=True),
                "self_attn": {
                    name: _dense(width, width, bias=True)
                    for name in ("q_proj", "k_proj", "v_proj", "out_proj")
                },
                "final_layer_norm": _norm(width, bias=True),
                "fc1": _dense(width, inner, bias=True),
                "fc2": _dense(inner, width, bias=True),
            }
        return {
            "model": {
                "decoder": {
                    "embed_tokens": {"embedding": _shape(config.vocab, width)},
                    "embed_positions": {"embedding": _shape(config.positions, width)},
                    "layers": layers,
                    "final_layer_norm": _norm(width, bias=True),
                }
            }
        }
    return _t5_params(config)


def _t5_params(config: Config) -> Params:
    width, all_heads = config.width, config.heads * config.head

    def attention() -> Params:
        return {
            **{name: _dense(width, all_heads) for name in ("q", "k", "v")},
            "o": _dense(all_heads, width),
        }

    def block(layer: int, decoder: bool) -> Params:
        own = attention()
        if layer == 0:
            own["relative_attention_bias"] = {"embedding": _shape(32, config.heads)}
        parts: list[Params] = [{"SelfAttention": own, "layer_norm": _norm(width)}]
        if decoder:
            parts.append({"EncDecAttention": attention(), "layer_norm": _norm(width)})
        dense = {"wi": _dense(width, config.inner), "wo": _dense(config.inner, width)}
        parts.append({"DenseReluDense": dense, "layer_norm": _norm(width)})
        return {"layer": {str(k): part for k, part in enumerate(parts)}}

    return {
        "shared": {"embedding": _shape(config.vocab, width)},
        **{
            side: {
                "block": {str(k): block(k, side == "decoder") for k in range(config.layers)},
                "final_layer_norm": _norm(width),
            }
            for side in ("encoder", "decoder")
        },
    }


def _apply(x: jax.Array, part: Params) -> jax.Array:
    y = x @ part["kernel"]
    return y + part["bias"] if "bias" in part else y


def _normed(x: jax.Array, part: Params) -> jax.Array:
    wide = x.astype(jnp.float32)
    if "bias" in part:
        wide = wide - wide.mean(axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt((wide * wide).mean(axis=-1, keepdims=True) + 1e-6)
    y = wide.astype(x.dtype) * part["scale"]
    return y + part["bias"] if "bias" in part else y


def _heads(x: jax.Array, heads: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def _rotated(x: jax.Array) -> jax.Array:
    """Rotary positions (2104.09864); x [B, T, heads, size]."""
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] / (10000 ** (jnp.arange(half) / half))
    sine, cosine = jnp.sin(angle)[:, None, :], jnp.cos(angle)[:, None, :]
    first, second = x[..., :half], x[..., half:]
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, bias: jax.Array | None = None
) -> jax.Array:
    """Attention of heads; q [B, T, H, D], k and v [B, S, H, D]; the result [B, T, H D]."""
    scores = jnp.einsum("bthd,bshd->bhts", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    if causal:
        allowed = jnp.arange(q.shape[1])[:, None] >= jnp.arange(k.shape[1])
        scores = jnp.where(allowed, scores, -1e9)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    mixed = jnp.einsum("bhts,bshd->bthd", weights, v)
    return mixed.reshape(*mixed.shape[:2], -1)


def _llama(config: Config, params: Params, tokens: jax.Array) -> jax.Array:
    body = params["model"]
    x = body["embed_tokens"]["embedding"][tokens]
    pairs = config.kv_heads or config.heads
    for layer in body["layers"].values():
        part = layer["self_attn"]
        y = _normed(x, layer["input_layernorm"])
        q = _rotated(_heads(_apply(y, part["q_proj"]), config.heads))
        k = _rotated(_heads(_apply(y, part["k_proj"]), pairs))
        v = _heads(_apply(y, part["v_proj"]), pairs)
        if pairs < config.heads:
            k, v = (jnp.repeat(each, config.heads // pairs, axis=2) for each in (k, v))
        x = x + _apply(_attend(q, k, v, causal=True), part["o_proj"])
        y = _normed(x, layer["post_attention_layernorm"])
        x = x + _mlp(config, layer["mlp"], y)
    return _apply(_normed(x, body["norm"]), params["lm_head"])


def _mlp(config: Config, part: Params, y: jax.Array) -> jax.Array:
    if not config.experts:
        gate = jax.nn.silu(_apply(y, part["gate_proj"]))
        return _apply(gate * _apply(y, part["up_proj"]), part["down_proj"])
    # Every expert sees every token; the two best of a token have weights (no capacity, no drops).
    scores = _apply(y, part["gate"]).astype(jnp.float32)
    best, _ = jax.lax.top_k(scores, 2)
    kept = jnp.where(scores >= best[..., -1:], scores, -1e9)
    weights = jax.nn.softmax(kept, axis=-1).astype(y.dtype)
    experts = part["experts"]
    gate = jax.nn.silu(jnp.einsum("btd,edf->betf", y, experts["gate_proj"]["kernel"]))
    up = jnp.einsum("btd,edf->betf", y, experts["up_proj"]["kernel"])
    out = jnp.einsum("betf,efd->betd", gate * up, experts["down_proj"]["kernel"])
    return jnp.einsum("betd,bte->btd", out, weights)


def _gptj(config: Config, params: Params, tokens: jax.Array) -> jax.Array:
    body = params["transformer"]
    x = body["wte"]["embedding"][tokens]
    for layer in body["h"].values():
        part = layer["attn"]
        y = _normed(x, layer["ln_1"])
        q = _rotated(_heads(_apply(y, part["q_proj"]), config.heads))
        k = _rotated(_heads(_apply(y, part["k_proj"]), config.heads))
        v = _heads(_apply(y, part["v_proj"]), config.heads)
        attended = _apply(_attend(q, k, v, causal=True), part["out_proj"])
        inner = jax.nn.gelu(_apply(y, layer["mlp"]["fc_in"]))
        x = x + attended + _apply(inner, layer["mlp"]["fc_out"])
    return _apply(_normed(x, body["ln_f"]), params["lm_head"])


def _opt(config: Config, params: Params, tokens: jax.Array) -> jax.Array:
    body = params["model"]["decoder"]
    embedding = body["embed_tokens"]["embedding"]
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]) + 2, tokens.shape)
    x = embedding[tokens] + body["embed_positions"]["embedding"][places]
    for layer in body["layers"].values():
        part = layer["self_attn"]
        y = _normed(x, layer["self_attn_layer_norm"])
        q, k, v = (
            _heads(_apply(y, part[name]), config.heads) for name in ("q_proj", "k_proj", "v_proj")
        )
        x = x + _apply(_attend(q, k, v, causal=True), part["out_proj"])
        y = _normed(x, layer["final_layer_norm"])
        x = x + _apply(jax.nn.relu(_apply(y, layer["fc1"])), layer["fc2"])
    return _normed(x, body["final_layer_norm"]) @ embedding.T


def _t5(config: Config, params: Params, source: jax.Array, target: jax.Array) -> jax.Array:
    embedding = params["shared"]["embedding"]

    def attention(part: Params, y: jax.Array, other: jax.Array, causal: bool, bias: Any) -> Any:
        q = _heads(_apply(y, part["q"]), config.heads)
        k, v = (_heads(_apply(other, part[name]), config.heads) for name in ("k", "v"))
        return _apply(_attend(q, k, v, causal=causal, bias=bias), part["o"])

    def dense(part: Params, x: jax.Array) -> jax.Array:
        y = _normed(x, part["layer_norm"])
        inner = part["DenseReluDense"]
        return x + _apply(jax.nn.relu(_apply(y, inner["wi"])), inner["wo"])

    def bias_of(stack: Params, length: int) -> jax.Array:
        own = stack["block"]["0"]["layer"]["0"]["SelfAttention"]
        distance = jnp.abs(jnp.arange(length)[:, None] - jnp.arange(length))
        table = own["relative_attention_bias"]["embedding"]
        return table[jnp.minimum(distance, 31)].transpose(2, 0, 1)

    sides: list[jax.Array] = []
    for side, tokens in (("encoder", source), ("decoder", target)):
        stack = params[side]
        x = embedding[tokens]
        bias = bias_of(stack, tokens.shape[1])
        for block in stack["block"].values():
            part = block["layer"]["0"]
            y = _normed(x, part["layer_norm"])
            x = x + attention(part["SelfAttention"], y, y, side == "decoder", bias)
            if side == "decoder":
                part = block["layer"]["1"]
                y = _normed(x, part["layer_norm"])
                x = x + attention(part["EncDecAttention"], y, sides[0], False, None)
            x = dense(block["layer"][str(len(block["layer"]) - 1)], x)
        sides.append(_normed(x, stack["final_layer_norm"]))
    return sides[1] @ embedding.T


_FORWARD: dict[str, Callable[..., jax.Array]] = {
    "llama": _llama,
    "mixtral": _llama,
    "gptj": _gptj,
    "opt": _opt,
    "t5": _t5,
}
