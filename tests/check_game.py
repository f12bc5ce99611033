"""What every game must pass: `check_game(game, problems, ...)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from games.base import Game

CHUNK = 64  # moves played at a time


class Player:
    """Plays games by random legal moves, or by the game's own prior with noise."""

    def __init__(self, game: Game) -> None:
        def moves(arrays, state, done, noise, prior):
            self.compiled += 1  # runs only where JAX traces a new version

            def move(carry, noise):
                state, done = carry
                legal = game.legal_actions(arrays, state)
                logits = prior * game.prior_logits(arrays, state)
                action = jnp.argmax(jnp.where(legal, logits + noise, -jnp.inf))
                after, reward, over = game.step(arrays, state, action)
                sound = legal.any() & jnp.isfinite(logits[action]) & jnp.isfinite(reward)
                return (after, done | over), (action, reward, ~done, sound)

            return jax.lax.scan(move, (state, done), noise)

        self.game = game
        self.compiled = 0
        self.moves = jax.jit(moves)
        self.init = jax.jit(game.init)

    def play(self, arrays: Any, seed: int, prior: float) -> tuple[np.ndarray, np.ndarray]:
        """(actions, rewards) of one game; `prior` weighs the prior's logits beside the noise."""
        rng = np.random.default_rng(seed)
        state, done = self.init(arrays), jnp.asarray(False)
        actions: list[np.ndarray] = []
        rewards: list[np.ndarray] = []
        while not done:
            noise = rng.gumbel(size=(CHUNK, self.game.num_actions(arrays)))
            (state, done), (action, reward, active, sound) = self.moves(
                arrays, state, done, jnp.asarray(noise, jnp.float32), jnp.float32(prior)
            )
            assert (sound | ~active).all(), "a position without a legal move, or a reward of nan"
            assert not np.asarray(reward)[~np.asarray(active)].any(), "a reward after the end"
            actions.append(np.asarray(action)[np.asarray(active)])
            rewards.append(np.asarray(reward)[np.asarray(active)])
        return np.concatenate(actions), np.concatenate(rewards)


def check_game(
    game: Game,
    problems: Sequence[Any],
    *,
    saving: Callable[[Any, float], float],
    larger: Callable[[Any], Any],
    games: int = 3,
    tolerance: float = 1e-5,
) -> None:
    """Plays each problem at random and by the prior and checks what `games.base.Game` promises.

    - Every position before the end has a legal move, and a game ends in a valid solution.
    - The rewards add up to the normalised saving of that solution.
    - The same moves give the same rewards, and so do they in a larger bucket.
    - Problems of one bucket share what is compiled.

    Args:
        game: the game.
        problems: some problems, the more different the better.
        saving: (problem, objective) -> what the rewards add up to.
        larger: problem -> its arrays padded to a larger bucket.
        games: played on each problem.
        tolerance: of sums of rewards in 32 bits.
    """
    player = Player(game)
    shapes = set()
    for number, problem in enumerate(problems):
        arrays = game.arrays(problem)
        shapes.add(str(jax.tree.map(jnp.shape, arrays)))
        for seed in range(games):
            prior = 0.0 if seed % 2 == 0 else 1.0
            actions, rewards = player.play(arrays, 1000 * number + seed, prior)
            solution = game.solution(problem, actions)
            assert game.validate(problem, solution) == []
            objective = game.objective(problem, solution)
            assert objective >= game.lower_bound(problem) * (1 - 1e-9)
            assert abs(float(rewards.sum()) - saving(problem, objective)) <= tolerance

            again = player.play(arrays, 1000 * number + seed, prior)
            np.testing.assert_array_equal(again[0], actions)
            np.testing.assert_array_equal(again[1], rewards)
        assert player.compiled == len(shapes), "problems of one bucket were compiled twice"

    padded = Player(game)
    for number, problem in enumerate(problems[:2]):
        arrays, wide = game.arrays(problem), larger(problem)
        assert str(jax.tree.map(jnp.shape, wide)) != str(jax.tree.map(jnp.shape, arrays))
        actions, rewards = player.play(arrays, number, 1.0)
        wide_actions, wide_rewards = padded.play(wide, number, 1.0)
        np.testing.assert_array_equal(wide_actions, actions)
        np.testing.assert_allclose(wide_rewards, rewards, atol=1e-6)
