"""Agents: a network, its weights, and what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from compiler_rl.agent.config import Config
from compiler_rl.agent.guided import Guided, Imagined
from compiler_rl.agent.network import Dynamics, PolicyValue, view
from compiler_rl.agent.weight_file import read, write
from games.base import Game
from hlo_frontend.errors import InputError


@dataclass(frozen=True)
class Agent:
    """A network and what it is for.

    Attributes:
        game: the true game.
        config: how it was trained.
        shape: numbers of features of an action, of the position, and of actions.
        graph: the network's structure.
        weights: its weights, a pytree.
    """

    game: Game
    config: Config
    shape: tuple[int, int, int]
    graph: Any
    weights: Any

    @property
    def player(self) -> Guided | Imagined:
        """What search steps through."""
        if self.config.model == "learned":
            return Imagined(self.game, self.graph)
        return Guided(self.game, self.graph, self.weights)


def shape_of(game: Game, problems: Sequence[Any]) -> tuple[int, int, int]:
    """(features of an action, features of the position, most actions) of problems' positions.

    Args:
        game: theirs.
        problems: their `arrays`.
    """
    shapes = [
        jax.eval_shape(lambda arrays: view(game, arrays, game.init(arrays)), arrays)
        for arrays in problems
    ]
    first = shapes[0]
    widest = max(seen.actions.shape[0] for seen in shapes)
    return first.actions.shape[1], first.position.shape[0], widest


def new_agent(game: Game, config: Config, shape: tuple[int, int, int]) -> Agent:
    """An agent that has learned nothing: it plays by the game's own prior."""
    rngs = nnx.Rngs(config.seed)
    actions, position, count = shape
    network: nnx.Module
    if config.model == "learned":
        network = Dynamics(actions, position, count, config.latent, config.width, config.bins, rngs)
    else:
        network = PolicyValue(actions, position, config.width, config.bins, rngs)
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
    agent = new_agent(game, Config(**header["config"]), tuple(header["shape"]))
    wanted, structure = jax.tree.flatten(agent.weights)
    if [leaf.shape for leaf in leaves] != [leaf.shape for leaf in wanted]:
        raise InputError(f"{path}: weights of another network; train again")
    return dataclasses.replace(agent, weights=jax.tree.unflatten(structure, leaves))
