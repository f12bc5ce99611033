"""Where the games of self-play are played: here one part after the other, or on a Ray cluster.

Both play the same parts with the same keys, so that they give the same games on like machines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from compiler_rl.agent.config import Config
from compiler_rl.agent.network import Shape
from compiler_rl.agent.selfplay import Games, SelfPlay
from compiler_rl.agent.weights import new_agent
from compiler_rl.cluster import run_all
from compiler_rl.search.gumbel import Settings
from games.registry import get_game

ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Part:
    """Games to be played together, as plain arrays that can travel.

    Attributes:
        game: name.
        config, shape: of the agent.
        weights: leaves of its network.
        arrays: of the problems, stacked.
        key: data of a random key.
        noise: f32[B].
        simulations: for each move.
    """

    game: str
    config: Config
    shape: Shape
    weights: list[npt.NDArray[Any]]
    arrays: Any
    key: npt.NDArray[np.uint32]
    noise: npt.NDArray[Any]
    simulations: int


Actors = Callable[[Sequence[Part]], list[Games]]


def play_part(part: Part) -> Games:
    """Its games; what is compiled serves all parts of a size in this process."""
    structure, player = _player(part.game, part.config, part.shape)
    weights = jax.tree.unflatten(structure, part.weights)
    key = jax.random.wrap_key_data(jnp.asarray(part.key))
    return player.play(weights, part.arrays, key, part.noise, part.simulations)


def play_here(parts: Sequence[Part]) -> list[Games]:
    """One after the other."""
    return [play_part(part) for part in parts]


def on_ray(ray: Any) -> Actors:
    """All at the same time, on the cores of a cluster; see `compiler_rl.cluster`."""
    return partial(_play_there, ray)


def _play_there(ray: Any, parts: Sequence[Part]) -> list[Games]:
    plain = [jax.tree.map(np.asarray, part.arrays) for part in parts]
    tasks = [
        Part(**{**vars(part), "arrays": arrays}) for part, arrays in zip(parts, plain, strict=True)
    ]
    return run_all(ray, play_part, tasks, ONE_THREAD)


@cache
def _player(game: str, config: Config, shape: Shape) -> tuple[Any, SelfPlay]:
    agent = new_agent(get_game(game), config, shape)
    settings = Settings(simulations=config.simulations, least_range=config.least_range)
    return jax.tree.structure(agent.weights), SelfPlay(
        agent.game, agent.player, settings, agent.shape.num_actions
    )
