"""Games whose policy and value are a network's, for search and for `play`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from compiler_rl.agent.network import Dynamics, PolicyValue, expected, masked, view
from compiler_rl.search.gumbel import Model, Node
from games.base import Game, StochasticGame
from hlo_frontend.errors import InputError

IMITATION = 100.0  # logits between an action that agrees with a solution and one that does not
STAKE = 0.25  # of a contest; the value's range covers a sure win that becomes a loss
SPREAD = 0.02  # of savings: a game that is ahead by so much has three quarters of the stake


class Foreseen(NamedTuple):
    """A position of a stochastic game, and the u32[2] key that chance is drawn by from there on."""

    state: Any
    key: jax.Array


class Sampled:
    """A stochastic game with drawn instead of recorded chance, so that search sees no future.

    At the same depth all branches meet the same chance: actions are compared by common random
    numbers. What it does not say itself is the game's.
    """

    def __init__(self, game: StochasticGame) -> None:
        self.game = game

    def __getattr__(self, name: str) -> Any:
        return getattr(self.game, name)

    def step(self, arrays: Any, state: Foreseen, action: Any) -> tuple[Foreseen, Any, Any]:
        """The game's, with chance drawn by the state's key."""
        key, now = jax.random.split(jax.random.wrap_key_data(state.key))
        after, reward, done = self.game.sampled_step(arrays, state.state, action, now)
        return Foreseen(after, jax.random.key_data(key)), reward, done

    def legal_actions(self, arrays: Any, state: Foreseen) -> Any:
        """The game's."""
        return self.game.legal_actions(arrays, state.state)

    def observe(self, arrays: Any, state: Foreseen) -> Any:
        """The game's."""
        return self.game.observe(arrays, state.state)

    def prior_logits(self, arrays: Any, state: Foreseen) -> Any:
        """The game's."""
        return self.game.prior_logits(arrays, state.state)

    def prior_value(self, arrays: Any, state: Foreseen) -> Any:
        """The game's."""
        return self.game.prior_value(arrays, state.state)


class Contested(NamedTuple):
    """A position of a contest, the f32[] saved so far, and whether the game is over."""

    state: Any
    saving: jax.Array
    over: jax.Array


class Contest:
    """A game that is played against a mark, a saving to exceed; its arrays are (arrays, mark).

    The last move earns STAKE * tanh((saving - mark) / SPREAD), the others nothing: what counts is
    to be ahead, however much there is to be saved. (Laterre et al. 2018, "Ranked reward"; Pirnay
    et al. 2023, "Policy-based self-competition for planning problems".)
    """

    def __init__(self, game: Game) -> None:
        self.game = game

    def init(self, arrays: Any) -> Contested:
        """The game's, with nothing saved."""
        return Contested(self.game.init(arrays[0]), jnp.float32(0.0), jnp.asarray(False))

    def legal_actions(self, arrays: Any, state: Contested) -> Any:
        """The game's."""
        return self.game.legal_actions(arrays[0], state.state)

    def step(self, arrays: Any, state: Contested, action: Any) -> tuple[Contested, Any, Any]:
        """The game's; the reward is the contest's."""
        after, reward, done = self.game.step(arrays[0], state.state, action)
        saving = state.saving + reward
        # Search also steps on from where the game is over.
        ends = done & ~state.over
        earned = jnp.where(ends, _outcome(saving, arrays[1]), 0.0)
        return Contested(after, saving, state.over | done), earned, done

    def observe(self, arrays: Any, state: Contested) -> dict[str, Any]:
        """The game's, and how far it is ahead."""
        seen = self.game.observe(arrays[0], state.state)
        named = seen if isinstance(seen, dict) else {"game": seen}
        return {**named, "ahead": state.saving - arrays[1]}

    def prior_logits(self, arrays: Any, state: Contested) -> Any:
        """The game's."""
        return self.game.prior_logits(arrays[0], state.state)

    def prior_value(self, arrays: Any, state: Contested) -> Any:
        """The outcome, if the game's own estimate is right."""
        to_come = self.game.prior_value(arrays[0], state.state)
        return _outcome(state.saving + to_come, arrays[1])


def _outcome(saving: Any, mark: Any) -> Any:
    return STAKE * jnp.tanh((saving - mark) / SPREAD)


class Guided:
    """A game with the policy and the value of a network; its arrays are (weights, arrays).

    A stochastic game is `Sampled`. What it does not say itself is the game's.
    """

    def __init__(self, game: Game, graph: nnx.GraphDef[PolicyValue], weights: Any = None) -> None:
        self.game: Any = Sampled(game) if isinstance(game, StochasticGame) else game
        self.graph = graph
        self.weights = weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self.game, name)

    def arrays(self, problem: Any) -> Any:
        """(weights, arrays): search takes both through untouched."""
        return self.weights, self.game.arrays(problem)

    def num_actions(self, arrays: Any) -> int:
        """The game's."""
        return self.game.num_actions(arrays[1])

    def init(self, arrays: Any) -> Any:
        """The game's."""
        return self.game.init(arrays[1])

    def legal_actions(self, arrays: Any, state: Any) -> Any:
        """The game's."""
        return self.game.legal_actions(arrays[1], state)

    def step(self, arrays: Any, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """The game's."""
        return self.game.step(arrays[1], state, action)

    def positions(self, states: Any, key: jax.Array) -> Any:
        """What search starts from at B states of the true game: where chance moves, with keys."""
        if not isinstance(self.game, Sampled):
            return states
        keys = jax.random.split(key, jax.tree.leaves(states)[0].shape[0])
        return Foreseen(states, jax.random.key_data(keys))

    def _heads(self, arrays: Any, state: Any) -> tuple[jax.Array, jax.Array]:
        seen = view(self.game, arrays[1], state)
        more, value = nnx.merge(self.graph, arrays[0])(seen)
        return seen.prior + more, seen.base + expected(value)

    def prior_logits(self, arrays: Any, state: Any) -> Any:
        """The network's: the game's own and what was learned beside it."""
        return self._heads(arrays, state)[0]

    def prior_value(self, arrays: Any, state: Any) -> Any:
        """The network's."""
        return self._heads(arrays, state)[1]


class Imitating(Guided):
    """A game whose prior is drawn to given solutions; its arrays are (wishes, arrays).

    Args:
        game: the true game, or a contest in it.
        agreement: of an action with the wishes: (arrays, wishes, state) -> f32[A] in 0..1.
    """

    def __init__(self, game: Any, agreement: Callable[[Any, Any, Any], Any]) -> None:
        self.game = game
        self.agreement = agreement

    def prior_logits(self, arrays: Any, state: Any) -> Any:
        """The game's own, and much more for what agrees with the solution."""
        below, position = arrays[1], state
        if isinstance(self.game, Contest):
            below, position = below[0], position.state
        near = self.agreement(below, arrays[0], position)
        return self.game.prior_logits(arrays[1], state) + IMITATION * near

    def prior_value(self, arrays: Any, state: Any) -> Any:
        """The game's own."""
        return self.game.prior_value(arrays[1], state)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Latent:
    """The learned model's state: `vector` f32[latent], `base` f32[] the value it adds to."""

    vector: jax.Array
    base: jax.Array


class Imagined:
    """The learned model as search sees a game; its arrays are the weights.

    Below the root it knows no illegal action and no end, as in MuZero.
    """

    def __init__(self, game: Game, graph: nnx.GraphDef[Dynamics]) -> None:
        self.game = game
        self.graph = graph

    def root(self, weights: Any, arrays: Any, states: Any, done: jax.Array) -> Node:
        """The nodes of B positions of the true game; `arrays` are one for each."""

        def one(arrays: Any, state: Any, done: jax.Array) -> Node:
            network = nnx.merge(self.graph, weights)
            seen = view(self.game, arrays, state, network.shape.num_actions)
            if len(seen.legal) > network.shape.num_actions:
                raise InputError(
                    f"the learned model knows {network.shape.num_actions} actions, the problem has"
                    f" {len(seen.legal)}; train on problems as large"
                )
            vector = network.latent(seen)
            logits, value = network.predict(vector)
            return Node(
                state=Latent(vector, seen.base),
                logits=masked(seen.prior + logits, seen.legal),
                value=jnp.where(done, 0.0, seen.base + expected(value)),
                done=done,
            )

        return jax.vmap(one)(arrays, states, done)

    def legal_actions(self, weights: Any, state: Latent) -> jax.Array:
        """All of them."""
        return jnp.ones(nnx.merge(self.graph, weights).shape.num_actions, jnp.bool_)

    def step(
        self, weights: Any, state: Latent, action: jax.Array
    ) -> tuple[Latent, jax.Array, jax.Array]:
        """What the network expects of the action."""
        vector, reward = nnx.merge(self.graph, weights).step(state.vector, action)
        # The game's own estimate goes down by what has been earned of it.
        return Latent(vector, state.base - reward), reward, jnp.asarray(False)

    def prior_logits(self, weights: Any, state: Latent) -> jax.Array:
        """The network's."""
        return nnx.merge(self.graph, weights).predict(state.vector)[0]

    def prior_value(self, weights: Any, state: Latent) -> jax.Array:
        """The network's."""
        return state.base + expected(nnx.merge(self.graph, weights).predict(state.vector)[1])


def searcher(game: Guided | Imagined) -> Model:
    """What `search` steps through; each game of a batch of a `Guided` game has its own arrays."""
    axis: Any = None
    if isinstance(game, Guided):
        axis = (0, 0) if isinstance(game, Imitating) else (None, 0)
    return Model(game, arrays_axis=axis)
