"""Training of the learned value of chunk selection, in JAX: maximum likelihood of the evidence.

The label of a question is the smallest set of candidates that greedily covers its evidence, each
by what it adds to the ones before: a duplicate adds nothing, so it is no evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from experiments.retrieval_sets import Passage, Question, recall
from games.chunk_selection.features import CANDIDATE, PAIR, QUERY, Features
from games.chunk_selection.value import MOST, NOBODY, EvidenceModel, enumerate_sets

HIDDEN_CANDIDATE, HIDDEN_PAIR = 16, 12
WARM_STEPS, STEPS = 300, 500
BATCH = 32  # questions
RATE = 4e-3
DECAY = 0.02
DROPOUT = 0.1  # of hidden units
NOISE = 0.1  # added to the normalised features of candidates
MOMENTS = 200  # questions whose pairs give mean and spread
LEAST_GAIN = 0.05  # of recall, to count as evidence

Params = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """A question's features and the indices of the candidates that are its evidence.

    `group` names its set: each counts by the square root of its size, so that a large one does not
    drown the others.
    """

    features: Features
    evidence: tuple[int, ...]
    group: str = ""


def evidence_of(question: Question, passages: Sequence[Passage]) -> tuple[int, ...]:
    """The candidates that cover the evidence, by greedy marginal gain of recall; at most MOST."""
    chosen: list[int] = []
    reached = 0.0
    while len(chosen) < MOST:
        gain = [
            recall(question, [passages[i] for i in (*chosen, new)]) - reached
            for new in range(len(passages))
        ]
        best = int(np.argmax(gain))
        if gain[best] < LEAST_GAIN:
            break
        chosen.append(best)
        reached += gain[best]
    return tuple(chosen)


def train(examples: Sequence[Example], *, models: int, seed: int) -> EvidenceModel:
    """An ensemble of models, each from its own initial weights.

    Args:
        examples: what to learn from.
        models: size of the ensemble.
        seed: of initial weights, order and noise.
    """
    size = max(len(e.features.candidate) for e in examples)
    data = _Data.of(examples, size)
    trained = [_train_one(data, jax.random.key(seed * 1000 + number)) for number in range(models)]
    stacked = jax.tree.map(
        lambda *leaves: np.stack([np.asarray(x, np.float64) for x in leaves]), *trained
    )
    return EvidenceModel(
        candidate={**stacked["candidate"], "mean": data.mean, "scale": data.scale},
        pair={**stacked["pair"], "mean": data.pair_mean, "scale": data.pair_scale},
        size=stacked["size"],
    )


@dataclass(frozen=True)
class _Data:
    """Q questions of N candidates: normalised features, masks, and labels."""

    candidate: npt.NDArray[np.float32]
    pair: npt.NDArray[np.float32]
    query: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    gold: npt.NDArray[np.bool_]
    evidence: list[tuple[int, ...]]
    weight: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    pair_mean: npt.NDArray[np.float64]
    pair_scale: npt.NDArray[np.float64]

    @classmethod
    def of(cls, examples: Sequence[Example], size: int) -> _Data:
        count = len(examples)
        candidate = np.zeros((count, size, CANDIDATE))
        pair = np.zeros((count, size, size, PAIR), dtype=np.float32)
        query = np.zeros((count, QUERY))
        present = np.zeros((count, size), dtype=np.bool_)
        gold = np.zeros((count, size), dtype=np.bool_)
        for row, example in enumerate(examples):
            n = len(example.features.candidate)
            candidate[row, :n] = example.features.candidate
            pair[row, :n, :n] = example.features.pair
            query[row] = example.features.query
            present[row, :n] = True
            gold[row, list(example.evidence)] = True
        sizes = Counter(example.group for example in examples)
        weight = np.array([sizes[example.group] ** -0.5 for example in examples])
        mean, scale = _moments(candidate[present])
        # Pairs are many; those of some questions say how they are spread.
        some = np.random.default_rng(0).permutation(count)[:MOMENTS]
        both = present[some][:, :, None] & present[some][:, None, :]
        pair_mean, pair_scale = _moments(pair[some][both].astype(np.float64))
        pair -= pair_mean.astype(np.float32)
        pair /= pair_scale.astype(np.float32)
        return cls(
            candidate=((candidate - mean) / scale).astype(np.float32),
            pair=pair,
            query=query.astype(np.float32),
            present=present,
            gold=gold,
            evidence=[e.evidence for e in examples],
            weight=weight / weight.sum(),
            mean=mean,
            scale=scale,
            pair_mean=pair_mean,
            pair_scale=pair_scale,
        )


def _moments(rows: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    return rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-2)


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


def _forward(weights: Params, x: jax.Array, key: jax.Array, noise: float) -> jax.Array:
    first, second = jax.random.split(key)
    if noise:
        x = x + noise * jax.random.normal(first, x.shape)
    hidden = jnp.tanh(x @ weights["in"] + weights["in_bias"])
    kept = jax.random.bernoulli(second, 1 - DROPOUT, hidden.shape[-1:]) / (1 - DROPOUT)
    return (hidden * kept) @ weights["out"] + x @ weights["skip"]


def _plain(weights: Params, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ weights["in"] + weights["in_bias"]) @ weights["out"] + x @ weights["skip"]


def _train_one(data: _Data, key: jax.Array) -> Params:
    """First u alone, as independent candidates; then everything, over hypotheses."""
    params = _init(key)
    order = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    params = _steps(params, data, None, WARM_STEPS, order, key)
    unary = np.asarray(_plain(params["candidate"], jnp.asarray(data.candidate)))
    sets = []
    for row, (scores, here) in enumerate(zip(unary, data.present, strict=True)):
        evidence = data.evidence[row]
        sets.append(enumerate_sets(scores[here].astype(np.float64), evidence))
    longest = max(map(len, sets))
    members = np.full((len(sets), longest, MOST), NOBODY, dtype=np.int32)
    valid = np.zeros((len(sets), longest), dtype=np.bool_)
    label = np.zeros(len(sets), dtype=np.int32)
    for row, each in enumerate(sets):
        members[row, : len(each)] = each
        valid[row, : len(each)] = True
        wanted = np.full(MOST, NOBODY, dtype=np.int32)
        wanted[: len(data.evidence[row])] = data.evidence[row]
        same = (np.sort(each, axis=1) == np.sort(wanted)).all(axis=1)
        label[row] = int(np.flatnonzero(same)[0])
    key = jax.random.fold_in(key, 1)
    return _steps(params, data, (members, valid, label), STEPS, order, key)


def _steps(
    params: Params,
    data: _Data,
    sets: tuple[Any, Any, Any] | None,
    steps: int,
    order: np.random.Generator,
    key: jax.Array,
) -> Params:
    count = len(data.candidate)
    rate = RATE if sets is None else RATE / 2
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=DECAY),
    )
    state = optimizer.init(params)
    for step in range(steps):
        rows = order.choice(count, BATCH, p=data.weight)
        given: tuple[Any, ...] = (data.candidate[rows], data.present[rows], data.gold[rows])
        if sets is not None:
            given = (
                data.candidate[rows],
                data.pair[rows],
                data.query[rows],
                *(each[rows] for each in sets),
            )
        params, state = _update(
            optimizer, params, state, given, jax.random.fold_in(key, step), sets is not None
        )
    return params


@partial(jax.jit, static_argnums=(0, 5))
def _update(
    optimizer: Any, params: Params, state: Any, given: tuple[Any, ...], key: jax.Array, full: bool
) -> tuple[Params, Any]:
    loss = _likelihood if full else _independent
    gradient = jax.grad(loss)(params, given, key)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def _independent(params: Params, given: tuple[Any, ...], key: jax.Array) -> jax.Array:
    candidate, present, gold = given
    logits = _forward(params["candidate"], candidate, key, NOISE) - 3.0
    losses = optax.sigmoid_binary_cross_entropy(logits, gold.astype(jnp.float32))
    return (losses * present).sum() / len(candidate)


def _likelihood(params: Params, given: tuple[Any, ...], key: jax.Array) -> jax.Array:
    candidate, pair, query, members, valid, label = given
    first, second = jax.random.split(key)
    unary = _forward(params["candidate"], candidate, first, NOISE)
    pairs = _forward(params["pair"], pair, second, 0.0)
    pairs = (pairs + pairs.swapaxes(1, 2)) / 2
    sizes = query @ params["size"]

    def one(unary: Any, pairs: Any, sizes: Any, members: Any, valid: Any, label: Any) -> jax.Array:
        there = members != NOBODY
        at = jnp.where(there, members, 0)
        total = (unary[at] * there).sum(axis=1) + sizes[there.sum(axis=1)]
        for a in range(MOST):
            for b in range(a):
                both = there[:, a] & there[:, b]
                total += pairs[at[:, a], at[:, b]] * both
        total = jnp.where(valid, total, -1e9)
        return jax.nn.logsumexp(total) - total[label]

    return jax.vmap(one)(unary, pairs, sizes, members, valid, label).mean()
