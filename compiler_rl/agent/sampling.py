"""An agent as a solver: its policy's games, and games played with search."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np

from compiler_rl.agent.guided import Guided
from compiler_rl.agent.selfplay import SelfPlay, stack
from compiler_rl.agent.weights import Agent
from compiler_rl.search.gumbel import Settings
from compiler_rl.search.play import BATCH, play
from games.base import Result, StochasticGame


class Player:
    """Plays an agent's games; what is compiled for a size of problem serves all of that size.

    Args:
        agent: network and game.
        simulations: of search for each move; 1 follows the policy.
        batch: games at a time; the first is without noise, the others have more and more. A
            stochastic game is played once, without noise: the best of several would be chosen by
            what chance did in them.
        backup: of search, see `Settings`.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        simulations: int,
        batch: int,
        backup: Literal["mean", "max"] = "mean",
    ) -> None:
        self.agent = agent
        self.simulations = simulations
        self.once = isinstance(agent.game, StochasticGame)
        self.batch = batch = 1 if self.once else batch
        self.noise = np.linspace(0.0, 1.0, batch)
        settings = Settings(
            simulations=simulations, backup=backup, least_range=agent.config.least_range
        )
        self.self_play = SelfPlay(agent.game, agent.player, settings)

    def solve(self, problem: Any, *, time_limit: float = 0.0, seed: int = 0) -> Result[Any]:
        """The best of the games played until the time limit, at least one batch.

        Args:
            problem: of the agent's game.
            time_limit: seconds; a batch that has begun is played to its end, and compiling, at the
                first problem of a size, is not interrupted.
            seed: of the noise.
        """
        game = self.agent.game
        started = time.perf_counter()
        arrays = stack([game.arrays(problem)] * self.batch)
        best, solution, saving = math.inf, None, -math.inf
        curve: list[tuple[float, float]] = []
        rounds = 0
        while rounds == 0 or (not self.once and time.perf_counter() - started < time_limit):
            key = jax.random.fold_in(jax.random.key(seed), rounds)
            games = self.self_play.play(
                self.agent.weights, arrays, key, self.noise, self.simulations
            )
            rounds += 1
            index = int(games.savings.argmax())
            if float(games.savings[index]) <= saving:
                continue
            saving = float(games.savings[index])
            found = game.solution(problem, games.of(index).action[:, 0])
            objective = game.objective(problem, found)
            if objective < best:
                best, solution = objective, found
                curve.append((time.perf_counter() - started, objective))
        return Result(
            method="agent",
            solution=solution,
            objective=best,
            wall_s=time.perf_counter() - started,
            curve=tuple(curve),
            detail={"games": rounds * self.batch, "simulations": self.simulations},
        )


def search_with(
    agent: Agent, problem: Any, *, time_limit: float, simulations: int, seed: int
) -> Result[Any]:
    """The best of the agent's policy's games and of games played with search, method `agent`.

    With the true simulator a time limit is spent as `play` does; a learned model, drawn chance and
    a contest are searched at every move.
    """
    plain = not agent.config.competition and not isinstance(agent.game, StochasticGame)
    if plain and isinstance(agent.player, Guided):
        found = play(
            agent.player,
            problem,
            time_limit=time_limit,
            simulations=simulations,
            seed=seed,
            least_range=agent.config.least_range,
        )
        return replace(found, method="agent")
    player = Player(agent, simulations=simulations, batch=BATCH)
    seconds = 0.0 if math.isinf(time_limit) else time_limit
    return player.solve(problem, time_limit=seconds, seed=seed)
