"""Convolutional networks: AlexNet, and ResNet-50 in inference and in training."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.programs.products import Built, shape

# (output channels, kernel, stride, padding, max-pool after it): Krizhevsky 2014, one tower.
_ALEXNET_CONVS = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_ALEXNET_DENSE = (9216, 4096, 4096, 1000)

# (blocks, bottleneck channels) of the four stages: He et al. 2015, table 1, "50-layer".
_RESNET50_STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))

_Norm = Callable[[jax.Array, dict[str, jax.Array]], jax.Array]


def alexnet(batch: int = 32) -> Built:
    """AlexNet inference on 224 x 224 images (A. Krizhevsky, arXiv 1404.5997)."""

    def forward(params: dict[str, Any], images: jax.Array) -> jax.Array:
        x = images
        for (kernel, bias), (_, _, stride, pad, pool) in zip(
            params["convs"], _ALEXNET_CONVS, strict=True
        ):
            x = jax.nn.relu(_conv(x, kernel, stride, ((pad, pad), (pad, pad))) + bias)
            if pool:
                x = _max_pool(x, "VALID")
        x = x.reshape(x.shape[0], -1)
        for i, (weight, bias) in enumerate(params["dense"]):
            x = x @ weight + bias
            if i < len(params["dense"]) - 1:
                x = jax.nn.relu(x)
        return x

    convs, channels = [], 3
    for out, k, _, _, _ in _ALEXNET_CONVS:
        convs.append((shape(k, k, channels, out), shape(out)))
        channels = out
    dense = [(shape(i, o), shape(o)) for i, o in pairwise(_ALEXNET_DENSE)]
    return forward, ({"convs": convs, "dense": dense}, shape(batch, 224, 224, 3))


def resnet50(batch: int = 8) -> Built:
    """ResNet-50 inference on 224 x 224 images (K. He et al., arXiv 1512.03385)."""

    def norm(x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
        scale = p["scale"] * lax.rsqrt(p["var"] + 1e-5)
        return x * scale.astype(x.dtype) + (p["offset"] - p["mean"] * scale).astype(x.dtype)

    def forward(params: dict[str, Any], images: jax.Array) -> jax.Array:
        return _resnet50_logits(params, images, norm)

    return forward, (_resnet50_params(jnp.bfloat16), shape(batch, 224, 224, 3))


def resnet50_train(batch: int = 32) -> Built:
    """One training step of ResNet-50: batch statistics, cross entropy, momentum SGD, donation."""

    def norm(x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        return ((wide - mean) * lax.rsqrt(var + 1e-5) * p["scale"] + p["offset"]).astype(x.dtype)

    def loss(params: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = _resnet50_logits(params, images, norm).astype(jnp.float32)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -picked.mean()

    def train_step(
        params: dict[str, Any], momentum: dict[str, Any], images: jax.Array, labels: jax.Array
    ) -> tuple[dict[str, Any], dict[str, Any], jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, images, labels)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, grads)
        params = jax.tree.map(lambda p, m: p - 0.1 * m, params, momentum)
        return params, momentum, value

    params = _resnet50_params(jnp.float32)
    args = (params, params, shape(batch, 224, 224, 3), shape(batch, dtype=jnp.int32))
    return jax.jit(train_step, donate_argnums=(0, 1)), args


def _resnet50_params(dtype: Any) -> dict[str, Any]:
    def conv(k: int, i: int, o: int) -> dict[str, Any]:
        vector = shape(o, dtype=jnp.float32)
        norm = {"scale": vector, "offset": vector, "mean": vector, "var": vector}
        return {"kernel": shape(k, k, i, o, dtype=dtype), "norm": norm}

    stages, channels = [], 64
    for blocks, width in _RESNET50_STAGES:
        stage: list[dict[str, Any]] = []
        for _ in range(blocks):
            block = {
                "reduce": conv(1, channels, width),
                "middle": conv(3, width, width),
                "expand": conv(1, width, 4 * width),
            }
            if not stage:
                block["shortcut"] = conv(1, channels, 4 * width)
            stage.append(block)
            channels = 4 * width
        stages.append(stage)
    head = {"weight": shape(channels, 1000, dtype=dtype), "bias": shape(1000, dtype=dtype)}
    return {"stem": conv(7, 3, 64), "stages": stages, "head": head}


def _resnet50_logits(params: dict[str, Any], images: jax.Array, norm: _Norm) -> jax.Array:
    def unit(x: jax.Array, p: dict[str, Any], stride: int = 1) -> jax.Array:
        return norm(_conv(x, p["kernel"].astype(x.dtype), stride, "SAME"), p["norm"])

    x = _max_pool(jax.nn.relu(unit(images, params["stem"], 2)), "SAME")
    for s, stage in enumerate(params["stages"]):
        for b, block in enumerate(stage):
            stride = 2 if s and not b else 1
            y = jax.nn.relu(unit(x, block["reduce"]))
            y = jax.nn.relu(unit(y, block["middle"], stride))
            y = unit(y, block["expand"])
            shortcut = unit(x, block["shortcut"], stride) if "shortcut" in block else x
            x = jax.nn.relu(y + shortcut)
    head = params["head"]
    return x.mean((1, 2)) @ head["weight"].astype(x.dtype) + head["bias"].astype(x.dtype)


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Any) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _max_pool(x: jax.Array, padding: str) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
