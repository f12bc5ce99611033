"""Agents: a network, its weights, and what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from compiler_rl.agent.config import Config
from compiler_rl.agent.guided import Contest, Guided, Imagined
from compiler_rl.agent.network import Dynamics, PolicyValue, Shape, view
from compiler_rl.agent.weight_file import read, write
from games.base import Game, StochasticGame
from hlo_frontend.errors import InputError


@dataclass(frozen=True)
class Agent:
    """A network and what it is for.

    Attributes:
        game: the true game.
        config: how it was trained.
        shape: of what the network reads.
        graph: the network's structure.
        weights: its weights, a pytree.
    """

    game: Game
    config: Config
    shape: Shape
    graph: Any
    weights: Any

    @property
    def player(self) -> Guided | Imagined:
        """What search steps through."""
        rules = _rules(self.game, self.config)
        if self.config.model == "learned":
            return Imagined(rules, self.graph)
        return Guided(rules, self.graph, self.weights)


def _rules(game: Game, config: Config) -> Any:
    """What a network looks at: the game, or a contest in it."""
    return Contest(game) if config.competition else game


def shape_of(game: Game, problems: Sequence[Any], config: Config | None = None) -> Shape:
    """Sizes of what a network reads at the positions of problems.

    Args:
        game: theirs.
        problems: their `arrays`.
        config: of the agent; the default one if None.
    """
    config = config or Config()
    rules = _rules(game, config)
    given = [(arrays, jnp.float32(0.0)) if config.competition else arrays for arrays in problems]
    shapes = [
        jax.eval_shape(lambda arrays: view(rules, arrays, rules.init(arrays)), arrays)
        for arrays in given
    ]
    first = shapes[0]
    widest = max(seen.actions.shape[0] for seen in shapes)
    return Shape(first.actions.shape[1], first.position.shape[0], widest, first.edges.shape[2])


def new_agent(game: Game, config: Config, shape: Shape) -> Agent:
    """An agent that has learned nothing: it plays by the game's own prior.

    Raises:
        InputError: a contest in a game of chance, which would decide it.
    """
    if config.competition and isinstance(game, StochasticGame):
        raise InputError(f"competition: not in {game.name}, where chance would decide it")
    rngs = nnx.Rngs(config.seed)
    network: nnx.Module
    if config.model == "learned":
        network = Dynamics(shape, config.latent, config.width, config.bins, rngs)
    else:
        network = PolicyValue(shape, config.width, config.bins, rngs)
    graph, weights = nnx.split(network)
    return Agent(game, config, shape, graph, weights)


def save(agent: Agent, path: Path) -> None:
    """Writes the weights, whole or not at all."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(agent.weights)]
    write(path, agent.game.name, agent.shape, dataclasses.asdict(agent.config), leaves)


def load(path: Path, game: Game) -> Agent:
    """Reads a weight file.

    Raises:
        InputError: it cannot be read, is none, is damaged, or is one of another game or shape.
    """
    header, leaves = read(path, game.name)
    agent = new_agent(game, Config(**header["config"]), Shape(*header["shape"]))
    wanted, structure = jax.tree.flatten(agent.weights)
    if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in wanted]:
        raise InputError(f"{path}: weights of another network; train again")
    return dataclasses.replace(agent, weights=jax.tree.unflatten(structure, leaves))
