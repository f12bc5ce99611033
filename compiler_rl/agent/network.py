"""Networks that read any game's observation and point at its actions.

A game's `observe` gives named arrays. Those whose first axis is the game's actions describe the
actions, the others the position; one named `edges` describes pairs of actions. Beside them stand
the game's own prior logits and value, of which the networks learn the difference. Before any
training a network is therefore the game's own prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from games.base import Game
from hlo_frontend.errors import InputError

FEW_ACTIONS = 32  # the index of so many actions is a feature of them
EDGES = "edges"  # what a game calls its features of pairs of actions
VALUE_RANGE = 0.5  # returns differ from the game's own estimate by that much at most
_MASKED = float(np.finfo(np.float32).min)


class Shape(NamedTuple):
    """Sizes of what a network reads.

    Attributes:
        actions, position, edges: numbers of features of an action, of the position, of a pair of
            actions.
        num_actions: most of them.
    """

    actions: int
    position: int
    num_actions: int
    edges: int = 0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class View:
    """A position as networks see it.

    Attributes:
        actions: f32[A, F] features of the actions.
        position: f32[G] features of the position.
        legal: bool[A]; False for padding.
        prior: f32[A] the game's own logits.
        base: f32[] the game's own value.
        edges: f32[A, A, E] features of pairs of actions, E = 0 where the game has none.
    """

    actions: jax.Array
    position: jax.Array
    legal: jax.Array
    prior: jax.Array
    base: jax.Array
    edges: jax.Array


def view(game: Game, arrays: Any, state: Any, width: int = 0) -> View:
    """What networks see of one position, padded to `width` actions if there are fewer."""
    legal = game.legal_actions(arrays, state)
    prior = jnp.where(legal, game.prior_logits(arrays, state), 0.0)
    prior = jnp.clip(prior, -50.0, 50.0)
    base = game.prior_value(arrays, state)
    count = legal.shape[0]
    seen = game.observe(arrays, state)
    edges = jnp.zeros((count, count, 0))
    if isinstance(seen, dict) and EDGES in seen:
        edges = jnp.asarray(seen[EDGES], jnp.float32).reshape(count, count, -1)
        seen = {name: value for name, value in seen.items() if name != EDGES}
    observed = [jnp.asarray(leaf, jnp.float32) for leaf in jax.tree.leaves(seen)]
    of_actions = [leaf.reshape(count, -1) for leaf in observed if leaf.shape[:1] == (count,)]
    of_position = [leaf.reshape(-1) for leaf in observed if leaf.shape[:1] != (count,)]
    of_actions += [prior[:, None], legal[:, None].astype(jnp.float32)]
    of_actions.append(jnp.eye(count, FEW_ACTIONS))
    features = jnp.concatenate(of_actions, axis=1)
    return View(
        actions=padded(squash(jnp.where(legal[:, None], features, 0.0)), width),
        position=squash(jnp.concatenate([*of_position, base[None]])),
        legal=padded(legal, width),
        prior=padded(prior, width),
        base=base,
        edges=padded(squash(jnp.where((legal[:, None] & legal)[..., None], edges, 0.0)), width, 2),
    )


def padded(values: jax.Array, width: int, axes: int = 1) -> jax.Array:
    """Zeros after the last entry of each of the first axes, up to `width` in all."""
    missing = [(0, max(width - size, 0)) for size in values.shape[:axes]]
    return jnp.pad(values, missing + [(0, 0)] * (values.ndim - axes))


def squash(values: jax.Array) -> jax.Array:
    """Features of any scale and sign on a logarithmic one; what is not finite becomes 0."""
    finite = jnp.nan_to_num(values, posinf=0.0, neginf=0.0)
    return jnp.sign(finite) * jnp.log1p(jnp.abs(finite))


def support(bins: int) -> jax.Array:
    """f32[bins]: the values that the bins stand for."""
    return jnp.linspace(-VALUE_RANGE, VALUE_RANGE, bins)


def two_hot(values: jax.Array, bins: int) -> jax.Array:
    """f32[..., bins]: weights of the two bins next to each value, whose mean it is."""
    at = (
        (jnp.clip(values, -VALUE_RANGE, VALUE_RANGE) + VALUE_RANGE) / (2 * VALUE_RANGE) * (bins - 1)
    )
    low = jnp.clip(jnp.floor(at), 0, bins - 2).astype(jnp.int32)
    part = at - low
    return (
        jax.nn.one_hot(low, bins) * (1 - part)[..., None]
        + jax.nn.one_hot(low + 1, bins) * part[..., None]
    )


def expected(logits: jax.Array) -> jax.Array:
    """The mean of a distribution over bins, f32[...] of f32[..., bins]."""
    return (jax.nn.softmax(logits) * support(logits.shape[-1])).sum(axis=-1)


def _check(shape: Shape, seen: View) -> None:
    """Raises InputError if weights for `shape` are given something else to read."""
    sizes = {
        "an action": (shape.actions, seen.actions.shape[1]),
        "the position": (shape.position, seen.position.shape[0]),
        "an edge": (shape.edges, seen.edges.shape[2]),
    }
    for name, (own, given) in sizes.items():
        if own != given:
            raise InputError(
                f"the weights read {own} features of {name}, the game has {given}; train again"
            )


class _Layers(nnx.Module):
    """Two hidden layers; the output starts at zero where it is to be learned from nothing."""

    def __init__(
        self, inputs: int, width: int, outputs: int, rngs: nnx.Rngs, *, zero: bool = False
    ) -> None:
        self.first = nnx.Linear(inputs, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        start = nnx.initializers.zeros_init() if zero else nnx.initializers.lecun_normal()
        self.last = nnx.Linear(width, outputs, kernel_init=start, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(self.first(inputs))
        return self.last(jax.nn.relu(self.second(hidden)))


def heard(each: jax.Array, seen: View) -> jax.Array:
    """f32[A, E * W]: for each edge feature the mean of f32[A, W] `each` over the legal actions,
    weighted by the feature of the edge to them.
    """
    weighted = jnp.einsum("ije,jw->iew", seen.edges, each)
    return weighted.reshape(len(each), -1) / jnp.maximum(seen.legal.sum(), 1)


class PolicyValue(nnx.Module):
    """Deep sets over the actions of a position: a logit for each, and a value.

    Where actions have edges, each hears of the others along them (a round of message passing).

    Args:
        shape: of what it reads.
        width: of the hidden layers.
        bins: of the value.
        rngs: of the first weights.
    """

    def __init__(self, shape: Shape, width: int, bins: int, rngs: nnx.Rngs) -> None:
        self.shape = shape
        self.element = _Layers(shape.actions, width, width, rngs)
        self.position = _Layers(shape.position + width, width, width, rngs)
        self.policy = _Layers(2 * width, width, 1, rngs, zero=True)
        self.value = _Layers(width, width, bins, rngs, zero=True)
        self.along = _Layers((1 + shape.edges) * width, width, width, rngs) if shape.edges else None

    def __call__(self, seen: View) -> tuple[jax.Array, jax.Array]:
        """(f32[A] what to add to the prior logits, f32[bins] logits of what to add to the base)."""
        _check(self.shape, seen)
        each = self.element(seen.actions)
        if self.along is not None:
            each += self.along(jnp.concatenate([each, heard(each, seen)], axis=1))
        weight = seen.legal[:, None].astype(jnp.float32)
        pooled = (each * weight).sum(axis=0) / jnp.maximum(weight.sum(), 1.0)
        whole = self.position(jnp.concatenate([seen.position, pooled]))
        both = jnp.concatenate([each, jnp.broadcast_to(whole, each.shape)], axis=1)
        return self.policy(both)[:, 0], self.value(whole)


class Dynamics(nnx.Module):
    """The learned model: representation, dynamics with reward, prediction (MuZero).

    Args:
        latent: size of the state.
        shape, width, bins, rngs: as for `PolicyValue`.
    """

    def __init__(self, shape: Shape, latent: int, width: int, bins: int, rngs: nnx.Rngs) -> None:
        self.shape = shape
        num_actions = shape.num_actions
        of_action = shape.actions * (1 + shape.edges)
        self.represent = _Layers(of_action * num_actions + shape.position, width, latent, rngs)
        self.next = _Layers(latent + num_actions, width, latent, rngs)
        self.reward = _Layers(latent + num_actions, width, 1, rngs, zero=True)
        self.policy = _Layers(latent, width, num_actions, rngs, zero=True)
        self.value = _Layers(latent, width, bins, rngs, zero=True)

    def latent(self, seen: View) -> jax.Array:
        """f32[latent] of a position."""
        _check(self.shape, seen)
        around = heard(seen.actions, seen).reshape(-1)
        inputs = jnp.concatenate([seen.actions.reshape(-1), around, seen.position])
        return _unit(self.represent(inputs))

    def step(self, latent: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(f32[latent] after the action, f32[] reward)."""
        inputs = jnp.concatenate([latent, jax.nn.one_hot(action, self.shape.num_actions)])
        return _unit(latent + self.next(inputs)), self.reward(inputs)[0]

    def predict(self, latent: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(f32[A] logits, f32[bins] logits of the value)."""
        return self.policy(latent), self.value(latent)


def _unit(latent: jax.Array) -> jax.Array:
    """Scaled to [0, 1], as MuZero does, so that errors do not grow with the depth."""
    low, high = latent.min(), latent.max()
    return (latent - low) / jnp.maximum(high - low, 1e-5)


def masked(logits: jax.Array, legal: jax.Array) -> jax.Array:
    """Logits with illegal actions at the least float."""
    return jnp.where(legal, logits, _MASKED)
