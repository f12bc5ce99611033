"""Training of the learned value of chunk selection, in JAX: maximum likelihood of the evidence.

First which sets of candidates are the likely ones, then how likely it is that there is evidence
among the candidates at all, and all of it (`experiments.evidence_levels`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from experiments.evidence_examples import Example, weights_of
from experiments.evidence_levels import levelled
from games.chunk_selection.features import CANDIDATE, PAIR, QUERY
from games.chunk_selection.value import MOST, QUADS, TRIPLES, EvidenceModel

HIDDEN_CANDIDATE, HIDDEN_PAIR = 16, 12
WARM_STEPS, STEPS = 300, 1000
AVERAGED = 0.3  # of the steps, the last ones, give the mean weights that count
BATCH = 32  # questions
RATE = 4e-3
DECAY = 0.02
DROPOUT = 0.1  # of hidden units
FEATURE_DROPOUT = 0.3  # of the features of candidates and pairs, all of a question's alike
NEAR = 32  # candidates of a question whose pairs are learned from: evidence, then the best others
NOISE = 0.1  # added to the normalised features of candidates
MOMENTS = 400  # questions whose features give mean and spread
ABSENT = -1e6  # log P of what is not there

Params = dict[str, Any]


def train(examples: Sequence[Example], *, models: int, seed: int) -> EvidenceModel:
    """An ensemble of models, each from its own initial weights.

    Args:
        examples: what to learn from.
        models: size of the ensemble.
        seed: of initial weights, order and noise.
    """
    ranking = [example for example in examples if example.ranks]
    data = _Data.of(ranking, max(len(e.features.candidate) for e in ranking))
    trained = [_train_one(data, jax.random.key(seed * 1000 + number)) for number in range(models)]
    stacked = jax.tree.map(
        lambda *leaves: np.stack([np.asarray(x, np.float64) for x in leaves]), *trained
    )
    model = EvidenceModel(
        candidate={**stacked["candidate"], "mean": data.mean, "scale": data.scale},
        pair={**stacked["pair"], "mean": data.pair_mean, "scale": data.pair_scale},
        size=stacked["size"],
        complete=np.zeros_like(stacked["size"]),
        part=np.zeros(MOST + 1),
    )
    return levelled(model, [example for example in examples if example.levels])


@dataclass(frozen=True)
class _Data:
    """Q questions of N candidates and T pairs of them: features, masks, labels, weights.

    `candidate` is normalised; `pairs` makes and normalises those of an order of the candidates.
    """

    candidate: npt.NDArray[np.float32]
    query: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    gold: npt.NDArray[np.bool_]
    examples: Sequence[Example]
    weight: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    pair_mean: npt.NDArray[np.float64]
    pair_scale: npt.NDArray[np.float64]

    @classmethod
    def of(cls, examples: Sequence[Example], size: int) -> _Data:
        count = len(examples)
        candidate = np.zeros((count, size, CANDIDATE))
        query = np.zeros((count, QUERY))
        present = np.zeros((count, size), dtype=np.bool_)
        gold = np.zeros((count, size), dtype=np.bool_)
        for row, example in enumerate(examples):
            n = len(example.features.candidate)
            candidate[row, :n] = example.features.candidate
            query[row] = example.features.query
            present[row, :n] = True
            gold[row, list(example.evidence)] = True
        weight = weights_of(examples)
        # As training sees them: a large set must not say what is usual.
        some = np.random.default_rng(0).choice(count, MOMENTS, p=weight)
        mean, scale = _moments(np.concatenate([candidate[row][present[row]] for row in some]))
        pair_mean, pair_scale = _moments(
            np.concatenate([examples[row].features.pair.reshape(-1, PAIR) for row in some])
        )
        return cls(
            candidate=((candidate - mean) / scale * present[:, :, None]).astype(np.float32),
            query=query.astype(np.float32),
            present=present,
            gold=gold,
            examples=examples,
            weight=weight,
            mean=mean,
            scale=scale,
            pair_mean=pair_mean,
            pair_scale=pair_scale,
        )

    def pairs(self, order: npt.NDArray[np.int64], layout: Layout) -> npt.NDArray[np.float32]:
        """f32[Q, T, PAIR], normalised, of the candidates in the order i64[Q, N]."""
        result = np.zeros((len(order), len(layout.first), PAIR), dtype=np.float32)
        for row, (example, places) in enumerate(zip(self.examples, order, strict=True)):
            one, other = places[layout.first], places[layout.second]
            count = len(example.features.pair)
            there = np.maximum(one, other) < count
            rows = one[there] * count + other[there]
            result[row, there] = example.features.pair.reshape(-1, PAIR)[rows]
        result -= self.pair_mean.astype(np.float32)
        result /= self.pair_scale.astype(np.float32)
        return result


def _moments(rows: npt.NDArray[Any]) -> tuple[Any, Any]:
    wide = rows.astype(np.float64)
    return wide.mean(axis=0), np.maximum(wide.std(axis=0), 1e-2)


@dataclass(frozen=True, eq=False)
class Layout:
    """The hypotheses over N candidates whose evidence comes first, the others by falling u.

    None, each, each pair; triples and quadruples of the first ones: L of them, of the first M
    candidates and their P pairs. Within a size they are in lexicographic order, so that the first
    one is the evidence if it has that size.

    Attributes:
        first, second: i64[T] candidates of each pair.
        near: i64[P] the pairs of the first M.
        members: f32[M, L] 1 for members.
        pairs: f32[P, L] 1 for pairs of members.
        larger: i64[L] number of members.
        start: i64[MOST + 1] the first hypothesis of each size.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]
    members: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.float32]
    larger: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]


@cache
def layout_of(size: int) -> Layout:
    """The layout for so many candidates."""
    pairs = list(itertools.combinations(range(size), 2))
    top = min(TRIPLES, size)
    near = [at for at, (_, other) in enumerate(pairs) if other < top]
    row_of = {pairs[at]: row for row, at in enumerate(near)}
    triples = list(itertools.combinations(range(top), 3))
    larger = [*triples, *itertools.combinations(range(min(QUADS, size)), 4)]
    members = np.zeros((top, len(larger)), dtype=np.float32)
    of_pairs = np.zeros((len(near), len(larger)), dtype=np.float32)
    for column, chosen in enumerate(larger):
        members[list(chosen), column] = 1.0
        of_pairs[[row_of[pair] for pair in itertools.combinations(chosen, 2)], column] = 1.0
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return Layout(
        first=first,
        second=second,
        near=np.array(near, dtype=np.int64),
        members=members,
        pairs=of_pairs,
        larger=np.array([len(chosen) for chosen in larger], dtype=np.int64),
        start=np.cumsum([0, 1, size, len(pairs), len(triples)]),
    )


def _init(key: jax.Array) -> Params:
    keys = jax.random.split(key, 2)

    def network(key: jax.Array, width: int, hidden: int) -> Params:
        return {
            "in": jax.random.normal(key, (width, hidden)) / np.sqrt(width),
            "in_bias": jnp.zeros(hidden),
            "out": jnp.zeros(hidden),
            "skip": jnp.zeros(width),
        }

    return {
        "candidate": network(keys[0], CANDIDATE, HIDDEN_CANDIDATE),
        "pair": network(keys[1], PAIR, HIDDEN_PAIR),
        "size": jnp.zeros((QUERY, MOST + 1)),
    }


def _forward(
    weights: Params, x: jax.Array, key: jax.Array, noise: float = 0.0, dropped: float = 0.0
) -> jax.Array:
    """f32[B, K] of features f32[B, K, F] of B questions."""
    first, second, third = jax.random.split(key, 3)
    if noise:
        x = x + noise * jax.random.normal(first, x.shape)
    if dropped:
        # What one data set can be told by must not carry the whole score.
        x = x * jax.random.bernoulli(third, 1 - dropped, (len(x), 1, x.shape[-1]))
    hidden = jnp.tanh(x @ weights["in"] + weights["in_bias"])
    kept = jax.random.bernoulli(second, 1 - DROPOUT, hidden.shape[-1:]) / (1 - DROPOUT)
    return (hidden * kept) @ weights["out"] + x @ weights["skip"]


def _plain(weights: Params, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ weights["in"] + weights["in_bias"]) @ weights["out"] + x @ weights["skip"]


def _train_one(data: _Data, key: jax.Array) -> Params:
    """First u alone, as independent candidates; then everything, over hypotheses."""
    params = _init(key)
    draw = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    alone = (data.candidate, data.present, data.gold)
    params = _steps(params, data.weight, alone, None, WARM_STEPS, draw, key)
    unary = np.asarray(_plain(params["candidate"], jnp.asarray(data.candidate)))
    # Evidence first, then by u; places that are empty come last.
    rank = np.where(data.gold, np.inf, np.where(data.present, unary, -np.inf))
    order = np.argsort(-rank, axis=1, kind="stable")[:, :NEAR]
    layout = layout_of(order.shape[1])
    label = layout.start[data.gold.sum(axis=1)]
    everything = (
        np.take_along_axis(data.candidate, order[:, :, None], axis=1),
        np.take_along_axis(data.present, order, axis=1),
        data.pairs(order, layout),
        data.query,
        label,
    )
    key = jax.random.fold_in(key, 1)
    return _steps(params, data.weight, everything, layout, STEPS, draw, key)


def _steps(
    params: Params,
    weight: npt.NDArray[np.float64],
    data: tuple[npt.NDArray[Any], ...],
    layout: Layout | None,
    steps: int,
    draw: np.random.Generator,
    key: jax.Array,
) -> Params:
    """After so many steps on the arrays [Q, ...] of `data`: of u alone if there is no layout."""
    state = _optimizer(steps, layout is not None).init(params)
    last = 0 if layout is None else round(AVERAGED * steps)
    total = jax.tree.map(jnp.zeros_like, params)
    for step in range(steps):
        rows = draw.choice(len(weight), BATCH, p=weight)
        given = tuple(each[rows] for each in data)
        params, state = _update(layout, steps, params, state, given, jax.random.fold_in(key, step))
        if step >= steps - last:
            total = jax.tree.map(jnp.add, total, params)
    return jax.tree.map(lambda each: each / last, total) if last else params


def _optimizer(steps: int, full: bool) -> optax.GradientTransformation:
    # Where weights are averaged the rate must not end at nothing.
    rate = (
        optax.linear_schedule(RATE / 2, RATE / 6, steps)
        if full
        else optax.cosine_decay_schedule(RATE, steps)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=DECAY))


@partial(jax.jit, static_argnums=(0, 1))
def _update(
    layout: Layout | None,
    steps: int,
    params: Params,
    state: Any,
    given: tuple[Any, ...],
    key: jax.Array,
) -> tuple[Params, Any]:
    loss = _independent if layout is None else partial(_likelihood, layout)
    gradient = jax.grad(loss)(params, given, key)
    updates, state = _optimizer(steps, layout is not None).update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def _independent(params: Params, given: tuple[Any, ...], key: jax.Array) -> jax.Array:
    candidate, present, gold = given
    logits = _forward(params["candidate"], candidate, key, NOISE, FEATURE_DROPOUT) - 3.0
    losses = optax.sigmoid_binary_cross_entropy(logits, gold.astype(jnp.float32))
    return (losses * present).sum() / len(candidate)


def _likelihood(
    layout: Layout, params: Params, given: tuple[Any, ...], key: jax.Array
) -> jax.Array:
    candidate, present, pair, query, label = given
    first, second = jax.random.split(key)
    unary = _forward(params["candidate"], candidate, first, NOISE, FEATURE_DROPOUT)
    unary = jnp.where(present, unary, ABSENT)
    pairs = _forward(params["pair"], pair, second, dropped=FEATURE_DROPOUT)
    total = totals(layout, unary, pairs, query @ params["size"])
    right = jnp.take_along_axis(total, label[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(total, axis=1) - right).mean()


def totals(layout: Layout, unary: jax.Array, pairs: jax.Array, size: jax.Array) -> jax.Array:
    """f32[B, H]: log P up to a constant, of u [B, N], w [B, T] and b [B, MOST + 1]."""
    larger = unary[:, : len(layout.members)] @ layout.members
    larger += pairs[:, layout.near] @ layout.pairs
    scores = [
        size[:, :1],
        unary + size[:, 1:2],
        unary[:, layout.first] + unary[:, layout.second] + pairs + size[:, 2:3],
        larger + size[:, layout.larger],
    ]
    return jnp.concatenate(scores, axis=1)
