"""Redco's two rules for tensor parallelism, as published, and Megatron's plan by path.

Redco (Tan et al., arXiv 2310.16355, section 3; `partition_utils.py` of tanyuqian/redco) looks at
names and shapes only. Its key for a kernel is the last two names of the path, for anything else the
last one, and a dimension may be split only if all tensors under the key divide by the number of
model shards. That is why it misfires on OPT: token and position embeddings share the key
`('embedding',)`, 2,050 positions do not divide by 8, so both are split over the hidden dimension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax

from games.tensor_parallel.frontend import path_of
from games.tensor_parallel.plan import Spec

Key = tuple[str, ...]


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path_of(keys): tuple(leaf.shape) for keys, leaf in leaves}


def redco_rules(
    params: Any, shards: int, axis: str = "mp"
) -> list[tuple[Key, tuple[str | None, ...]]]:
    """Redco's rules: for each key which dimension is split, none where it is left whole.

    Args:
        params: pytree of arrays or shapes.
        shards: devices along the model axis.
        axis: its name.
    """
    valid: dict[Key, list[bool] | None] = {}
    attention: dict[Key, bool] = {}
    for path, shape in shapes_of(params).items():
        names = path.split("/")
        key = tuple(names[-2:] if names[-1] == "kernel" else names[-1:])
        if names[-1] not in ("kernel", "embedding"):
            valid[key] = None
            continue
        known = valid.setdefault(key, [True] * len(shape))
        attention.setdefault(key, True)
        if known is None:
            continue
        if len(known) != len(shape):
            valid[key] = None
            continue
        for d, size in enumerate(shape):
            known[d] = known[d] and size % shards == 0
        if not any("attention" in name.lower() or "attn" in name.lower() for name in names):
            attention[key] = False
    rules: list[tuple[Key, tuple[str | None, ...]]] = []
    before: int | None = None
    for key in sorted(valid):
        dims = [d for d, good in enumerate(valid[key] or ()) if good]
        if not dims:
            rules.append((key, ()))
            continue
        side = _side(key, attention[key])
        split = dims[0] if side == "first" else dims[-1]
        if side is None:
            # Layers whose name says nothing take turns.
            if split == before and len(dims) > 1:
                split = dims[-2]
            before = split
        width = len(valid[key] or ())
        rules.append((key, tuple(axis if d == split else None for d in range(width))))
    return rules


def _side(key: Key, in_attention: bool) -> str | None:
    """Which end of a tensor's dimensions its name asks for, None if it does not."""
    name = key[0]
    parts = name.split("_")
    if key[-1] == "embedding":
        return "first"
    if in_attention and (name[0] in "qkv" or name[-1] in "qkv"):
        return "last"
    if in_attention and "o" in (name[0], name[-1]):
        return "first"
    if name.startswith(("up", "gate", "wi")) or "in" in parts:
        return "last"
    if name.startswith(("down", "wo")) or "out" in parts:
        return "first"
    if name.startswith("head") or name.endswith("head"):
        return "last"
    return None


def redco(params: Any, shards: int, axis: str = "mp") -> dict[str, Spec]:
    """Redco's plan: the spec of each parameter, by path."""
    rules = redco_rules(params, shards, axis)
    specs: dict[str, Spec] = {}
    for path, shape in shapes_of(params).items():
        split: tuple[str | None, ...] = ()
        for key, found in rules:
            names = path.split("/")
            windows = [names[k : k + len(key)] for k in range(len(names) - len(key) + 1)]
            if list(key) in windows:
                split = found
                break
        specs[path] = tuple(
            (str(split[d]),) if d < len(split) and split[d] else () for d in range(len(shape))
        )
    return specs


# Megatron-LM (Shoeybi et al., arXiv 1909.08053): columns of what starts a block, rows of what ends
# it, the vocabulary of embeddings and heads.
_COLUMNS = r"(^|_|/)(q|k|v|query|key|value|gate|up|wi|w1|w3|in|fc1)(_proj|_\d+)?$"
_ROWS = r"(^|_|/)(o|out|down|wo|w2|fc2)(_proj)?$"


def megatron(params: Any, shards: int, axis: str = "mp") -> dict[str, Spec]:
    """Megatron's plan by path: the spec of each parameter; whole what has no such name."""
    specs: dict[str, Spec] = {}
    for path, shape in shapes_of(params).items():
        names = path.split("/")
        owner = names[-2] if len(names) > 1 else ""
        split: int | None = None
        columns, rows = re.search(_COLUMNS, owner), re.search(_ROWS, owner)
        if names[-1] == "kernel" and len(shape) > 1:
            if columns or owner.endswith("head"):
                split = len(shape) - 1
            elif rows:
                split = len(shape) - 2
        elif (names[-1] == "bias" and (columns or owner.endswith("head"))) or (
            names[-1] == "embedding" and "position" not in path and "relative" not in path
        ):
            split = 0
        whole = split is None or shape[split] % shards != 0
        specs[path] = tuple((axis,) if d == split and not whole else () for d in range(len(shape)))
    return specs


def difference(first: Mapping[str, Spec], second: Mapping[str, Spec]) -> list[str]:
    """Paths on which two plans differ."""
    return [path for path, spec in first.items() if spec != second.get(path)]
