"""The rules as pure functions of JAX: add a candidate that fits, or stop.

A state is a set, so the order of the additions does not count; the order of the context is decided
after the game. Rewards are the decrease of the loss as a share of what it is with nothing chosen.
Adding never ends the game, unless nothing fits any more: the budget filters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.value import NOBODY

SIZES = (16, 32, 64, 128, 256, 512)  # candidates of a bucket
HYPOTHESES = (64, 256, 768)
SHARP = 8.0  # of the prior, in units of the best candidate's gain
MASKED = -1e9


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """A problem padded to its bucket: N candidates, H hypotheses.

    Attributes:
        tokens: i32[N]; of padding, and of what never fits, one more than the budget.
        budget: i32[].
        overlap: f32[N, N].
        members: i32[H, MOST].
        there: bool[H, MOST].
        shared: f32[H] what each member of the hypothesis is worth by itself.
        together: f32[H] what all of them together are worth beside that.
        cost_weight: f32[].
        start: f32[] the loss with nothing chosen.
    """

    tokens: jax.Array
    budget: jax.Array
    overlap: jax.Array
    members: jax.Array
    there: jax.Array
    shared: jax.Array
    together: jax.Array
    cost_weight: jax.Array
    start: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """bool[N] `chosen`, f32[N] `share` of each text that is there (not cut off at 1), i32[] `used`
    tokens, f32[] `loss`, bool[] `done`.
    """

    chosen: jax.Array
    share: jax.Array
    used: jax.Array
    loss: jax.Array
    done: jax.Array


def make_arrays(problem: ChunkSelectionProblem) -> Arrays:
    """The problem padded to its bucket."""
    n = _bucket(problem.size, SIZES)
    h = _bucket(len(problem.members), HYPOTHESES)
    tokens = np.full(n, problem.budget + 1, dtype=np.int32)
    tokens[: problem.size] = np.minimum(problem.tokens, problem.budget + 1)
    overlap = np.zeros((n, n), dtype=np.float32)
    overlap[: problem.size, : problem.size] = problem.overlap
    members = np.full((h, problem.members.shape[1]), NOBODY, dtype=np.int32)
    members[: len(problem.members)] = problem.members
    there = members != NOBODY
    shared, together = np.zeros((2, h), dtype=np.float32)
    known = len(problem.members)
    shared[:known] = problem.recall / np.maximum(there.sum(axis=1)[:known], 1)
    together[:known] = problem.all_weight * problem.complete
    return Arrays(
        tokens=jnp.asarray(tokens),
        budget=jnp.int32(problem.budget),
        overlap=jnp.asarray(overlap),
        members=jnp.asarray(np.where(there, members, 0)),
        there=jnp.asarray(there),
        shared=jnp.asarray(shared),
        together=jnp.asarray(together),
        cost_weight=jnp.float32(problem.cost_weight),
        start=jnp.float32(1.0 + problem.all_weight),
    )


def _bucket(size: int, sizes: tuple[int, ...]) -> int:
    return next((each for each in sizes if each >= size), -(-size // sizes[-1]) * sizes[-1])


def init(arrays: Arrays) -> State:
    """Nothing chosen."""
    n = len(arrays.tokens)
    return State(
        chosen=jnp.zeros(n, jnp.bool_),
        share=jnp.zeros(n),
        used=jnp.int32(0),
        loss=arrays.start,
        done=jnp.array(False),
    )


def legal_actions(arrays: Arrays, state: State) -> jax.Array:
    """bool[N + 1]: what fits, and stopping."""
    fits = ~state.chosen & (state.used + arrays.tokens <= arrays.budget)
    return jnp.append(fits, True) & ~state.done


def step(arrays: Arrays, state: State, action: jax.Array) -> tuple[State, jax.Array, jax.Array]:
    """(next state, reward, done); the action must be legal."""
    n = len(arrays.tokens)
    stops = state.done | (action == n)
    added = jnp.minimum(action, n - 1)
    chosen = state.chosen | ((jnp.arange(n) == action) & ~state.done)
    share = jnp.where(stops, state.share, state.share + arrays.overlap[:, added])
    used = jnp.where(stops, state.used, state.used + arrays.tokens[added])
    loss = jnp.where(stops, state.loss, _loss(arrays, share, used))
    following = State(chosen=chosen, share=share, used=used, loss=loss, done=stops)
    following = replace(following, done=stops | ~legal_actions(arrays, following)[:n].any())
    reward = (state.loss - loss) / arrays.start
    return following, reward, following.done


def _loss(arrays: Arrays, share: jax.Array, used: jax.Array) -> jax.Array:
    found = jnp.minimum(share, 1.0)[arrays.members]
    total = jnp.where(arrays.there, found, 0.0).sum(axis=1)
    least = jnp.where(arrays.there, found, 1.0).min(axis=1)
    held = arrays.shared @ total + arrays.together @ least
    return arrays.start - held + arrays.cost_weight * used / arrays.budget


def gains(arrays: Arrays, state: State) -> jax.Array:
    """f32[N]: what each candidate would take off the loss, as if no texts repeated each other."""
    missing = 1.0 - jnp.minimum(state.share, 1.0)
    absent = jnp.where(arrays.there, missing[arrays.members], 0.0)
    alone = absent.sum(axis=1, keepdims=True) - absent < 1e-6  # all the others are there
    worth = absent * (arrays.shared[:, None] + arrays.together[:, None] * alone)
    total = jnp.zeros(len(arrays.tokens)).at[arrays.members].add(worth)
    return total - arrays.cost_weight * arrays.tokens / arrays.budget


def observe(arrays: Arrays, state: State) -> dict[str, jax.Array]:
    """f32[N + 1] `gain`, `tokens`, `share`, 0 for stopping; f32[] `left` of the budget, `loss`;
    f32[N + 1, N + 1] `edges`, the share of a candidate's text that another one repeats.
    """
    return {
        "edges": jnp.pad(arrays.overlap, (0, 1)),
        "gain": jnp.append(gains(arrays, state), 0.0),
        "tokens": jnp.append(arrays.tokens / arrays.budget, 0.0),
        "share": jnp.append(jnp.minimum(state.share, 1.0), 0.0),
        "left": 1.0 - state.used / arrays.budget,
        "loss": state.loss,
    }


def prior_logits(arrays: Arrays, state: State) -> jax.Array:
    """f32[N + 1]: by gain for each token, stopping where nothing gains."""
    gain = gains(arrays, state)
    legal = legal_actions(arrays, state)
    rate = jnp.where(legal[:-1], gain / jnp.sqrt(arrays.tokens / arrays.budget), -jnp.inf)
    best = jnp.maximum(rate.max(), 1e-9)
    logits = SHARP * jnp.append(jnp.maximum(rate / best, -2.0), jnp.float32(-1e-3))
    return jnp.where(legal, logits, MASKED)


def prior_value(arrays: Arrays, state: State) -> jax.Array:
    """f32[]: the gains that fit into what is left, the dense ones first, as rewards to come."""
    legal = legal_actions(arrays, state)[:-1]
    gain = jnp.where(legal, jnp.maximum(gains(arrays, state), 0.0), 0.0)
    order = jnp.argsort(-gain / arrays.tokens)
    tokens, gain = arrays.tokens[order], gain[order]
    before = jnp.cumsum(jnp.where(gain > 0, tokens, 0)) - tokens
    part = jnp.clip((arrays.budget - state.used - before) / tokens, 0.0, 1.0)
    return (gain * part).sum() / arrays.start
