"""Batches of games played with search, and what is learned from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from compiler_rl.agent.guided import Contest, Guided, Imagined, searcher
from compiler_rl.agent.network import masked, padded, view
from compiler_rl.search.gumbel import Node, Settings, search
from games.base import Game

CHUNK = 32  # moves of one call
CHANCE = 1  # what is folded into a move's key, of which its noise is, for the chance in its search

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Games:
    """B games of at most M moves, as numpy arrays that lead with [M, B].

    Attributes:
        actions, position, legal, prior, base, edges: what the network saw (`network.View`).
        policy: f32[..., A] the improved policy of the search.
        action: i32[...] the move.
        reward: f32[...] what is learned to be foreseen: the game's, or a contest's.
        saved: f32[...] the game's own reward.
        active: bool[...] the game was not over before the move.
    """

    actions: Array
    position: Array
    legal: Array
    prior: Array
    base: Array
    edges: Array
    policy: Array
    action: Array
    reward: Array
    saved: Array
    active: Array

    @property
    def savings(self) -> Array:
        """f32[B]: the sum of the game's own rewards."""
        return (self.saved * self.active).sum(axis=0)

    @property
    def returns(self) -> Array:
        """f32[M, B]: the rewards still to come at each move."""
        earned = self.reward * self.active
        return earned[::-1].cumsum(axis=0)[::-1]

    def of(self, index: int) -> Games:
        """One game of the batch, as a batch, without the moves after its end."""
        moves = int(self.active[:, index].sum())
        return Games(
            **{
                field.name: getattr(self, field.name)[:moves, index : index + 1]
                for field in fields(self)
            }
        )

    def cloned(self) -> Games:
        """The same games with the moves that were made as the policy to learn."""
        policy = np.eye(self.policy.shape[-1], dtype=np.float32)[self.action]
        return Games(**{**vars(self), "policy": policy})


class SelfPlay:
    """Plays batches of problems of one size bucket.

    A contest is played three times: by the game's own prior, whose saving is the mark of a game by
    the policy alone, and the better of these two is the mark of the games that count.

    Args:
        game: the true game.
        player: what search steps through, with the network in it; of a contest or not.
        settings: of the search.
        width: actions to which what is recorded is padded.
    """

    def __init__(
        self, game: Game, player: Guided | Imagined, settings: Settings, width: int = 0
    ) -> None:
        self.contest = isinstance(player.game, Contest)
        rules = player.game if self.contest else game
        self._init = jax.jit(jax.vmap(rules.init))
        self._moves = jax.jit(partial(_moves, rules, player, settings, width))
        self._by_prior = jax.jit(jax.vmap(partial(_by_prior, game)))

    def play(
        self,
        weights: Any,
        arrays: Any,
        key: jax.Array,
        noise: npt.ArrayLike,
        simulations: int,
        mark: jax.Array | None = None,
    ) -> Games:
        """One game of each of B problems.

        Args:
            weights: of the network.
            arrays: of the problems, stacked.
            key: of the noise.
            noise: f32[B] scale of the Gumbel noise of each game.
            simulations: for each move; with 1 the moves are drawn from the policy.
            mark: f32[B] of a contest; the better of the prior and the policy alone if None.
        """
        if self.contest:
            if mark is None:
                mark = self._by_prior(arrays)
                calm = np.zeros(np.shape(noise))
                mark = jnp.maximum(mark, self.play(weights, arrays, key, calm, 1, mark).savings)
            arrays = (arrays, mark)
        states = self._init(arrays)
        done = jnp.zeros(jnp.asarray(noise).shape[0], jnp.bool_)
        trail = []
        while not bool(done.all()):
            key, now = jax.random.split(key)
            states, done, played = self._moves(
                weights, arrays, states, done, now, jnp.asarray(noise, jnp.float32), simulations
            )
            trail.append(jax.device_get(played))
        columns = {name: np.concatenate([each[name] for each in trail]) for name in trail[0]}
        moves = int(columns["active"].any(axis=1).sum())
        return Games(**{name: column[:moves] for name, column in columns.items()})


def _by_prior(game: Game, arrays: Any) -> jax.Array:
    """f32[]: what the game's own prior saves."""

    def move(at: tuple[Any, jax.Array, jax.Array]) -> tuple[Any, jax.Array, jax.Array]:
        state, saving, _ = at
        logits = masked(game.prior_logits(arrays, state), game.legal_actions(arrays, state))
        action = jnp.argmax(logits)
        state, reward, done = game.step(arrays, state, action)
        return state, saving + reward, done

    start = (game.init(arrays), jnp.float32(0.0), jnp.asarray(False))
    return jax.lax.while_loop(lambda at: ~at[2], move, start)[1]


def joined(parts: Sequence[Games]) -> Games:
    """Batches side by side; the shorter ones end with moves that are not active."""
    moves = max(len(part.active) for part in parts)

    def column(name: str) -> Array:
        columns = []
        for part in parts:
            values = getattr(part, name)
            missing = moves - len(values)
            columns.append(np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1)))
        return np.concatenate(columns, axis=1)

    return Games(**{field.name: column(field.name) for field in fields(Games)})


def _moves(
    game: Game,
    player: Guided | Imagined,
    settings: Settings,
    width: int,
    weights: Any,
    arrays: Any,
    states: Any,
    done: jax.Array,
    key: jax.Array,
    noise: jax.Array,
    simulations: jax.Array,
) -> tuple[Any, jax.Array, dict[str, jax.Array]]:
    """CHUNK moves of B games."""
    model = searcher(player)

    def move(carry: tuple[Any, jax.Array], key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        states, done = carry
        seen = jax.vmap(partial(view, game, width=width))(arrays, states)
        root, through = _root(player, model.root, weights, arrays, states, done, key)
        found = search(
            model,
            settings,
            through,
            root,
            key,
            gumbel_scale=noise,
            simulations=simulations,
        )
        after, reward, over = jax.vmap(game.step)(arrays, states, found.action)
        played = {
            **vars(seen),
            "policy": jax.vmap(partial(padded, width=width))(found.policy),
            "action": found.action,
            "reward": reward,
            "saved": after.saving - states.saving if isinstance(game, Contest) else reward,
            "active": ~done,
        }
        return (after, done | over), played

    (states, done), trail = jax.lax.scan(move, (states, done), jax.random.split(key, CHUNK))
    return states, done, trail


def _root(
    player: Guided | Imagined,
    root: Callable[[Any, Any], Node],
    weights: Any,
    arrays: Any,
    states: Any,
    done: jax.Array,
    key: jax.Array,
) -> tuple[Node, Any]:
    """The nodes that search starts from, and what it passes through to the model."""
    if isinstance(player, Imagined):
        return player.root(weights, arrays, states, done), weights
    through = (weights, arrays)
    return root(through, player.positions(states, jax.random.fold_in(key, CHANCE))), through


def stack(arrays: list[Any]) -> Any:
    """The arrays of B problems of one bucket, side by side."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
