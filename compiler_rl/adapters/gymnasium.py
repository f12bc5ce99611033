"""Every game as a Gymnasium environment (extra `gym`).

    from compiler_rl.adapters.gymnasium import GameEnv, register

    env = GameEnv(problem)                                                  # of any game
    register()
    env = gymnasium.make("compiler_rl/offset_allocation-v0", generated=3)   # as in a sweep's file

An episode is one game: its rewards add up to the normalised saving of the solution. An action that
is not legal ends it with the reward ILLEGAL and no solution; `info["action_mask"]` has the legal
ones, in the form that MaskablePPO and Gymnasium's `Discrete.sample` take.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, cast

import gymnasium
import jax
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from compiler_rl.agent.network import View, view
from games.registry import GAMES, game_of

ILLEGAL = -1.0  # reward: less than any solution's
BOUND = 100.0  # no feature is as large: they are logarithms of 32-bit numbers

Observation = dict[str, npt.NDArray[np.float32]]


class GameEnv(gymnasium.Env[Observation, np.int64]):
    """The game of a problem, or of one that `reset` draws from several of one bucket.

    Observations are `actions`, f32[A, F], features of each action, and `position`, f32[G], as the
    agents of this package see them; the action space is Discrete(A).
    """

    def __init__(self, problem: Any) -> None:
        """Makes the environment of a problem, or of a sequence of problems.

        Raises:
            TypeError: not problems of a registered game.
            ValueError: no problem, or problems whose arrays differ in shape.
        """
        self.problems = list(problem) if isinstance(problem, Sequence) else [problem]
        if not self.problems:
            raise ValueError("no problem: expected at least one")
        self.game = game_of(self.problems[0])
        self._arrays = [self.game.arrays(each) for each in self.problems]
        shapes = [jax.tree.map(np.shape, each) for each in self._arrays]
        if any(jax.tree.leaves(each) != jax.tree.leaves(shapes[0]) for each in shapes):
            raise ValueError("problems of different buckets: make an environment for each bucket")
        self._init = jax.jit(self.game.init)
        self._step = jax.jit(self.game.step)
        self._view = jax.jit(partial(view, self.game))
        self.action_space = spaces.Discrete(int(self.game.num_actions(self._arrays[0])))
        seen = self._view(self._arrays[0], self._init(self._arrays[0]))
        parts: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(-BOUND, BOUND, part.shape, np.float32)
            for name, part in _parts(seen).items()
        }
        # Gymnasium types what a Dict holds as spaces, not as their elements.
        self.observation_space = cast(spaces.Space[Observation], spaces.Dict(parts))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """The first position of a game."""
        super().reset(seed=seed, options=options)
        self._chosen = int(self.np_random.integers(len(self.problems)))
        self._state = self._init(self._arrays[self._chosen])
        self._actions: list[int] = []
        seen = self._view(self._arrays[self._chosen], self._state)
        self._mask = np.asarray(seen.legal, dtype=np.int8)
        return _parts(seen), {"action_mask": self._mask}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Plays an action; `info["objective"]` is the solution's at the end of a legal game."""
        arrays = self._arrays[self._chosen]
        legal = bool(self._mask[int(action)])
        reward, done = ILLEGAL, True
        if legal:
            self._state, gain, over = self._step(arrays, self._state, np.int32(action))
            self._actions.append(int(action))
            reward, done = float(gain), bool(over)
        seen = self._view(arrays, self._state)
        self._mask = np.asarray(seen.legal, dtype=np.int8)
        if done:
            self._mask = np.zeros_like(self._mask)
        info: dict[str, Any] = {"action_mask": self._mask, "legal": legal}
        if legal and done:
            info["objective"] = self.game.objective(self.problem, self.solution())
        return _parts(seen), reward, done, False, info

    @property
    def problem(self) -> Any:
        """The problem that is played."""
        return self.problems[self._chosen]

    def solution(self) -> Any:
        """The solution of the game that has just ended."""
        return self.game.solution(self.problem, np.array(self._actions, dtype=np.int32))


def make_env(game: str, **instance: Any) -> GameEnv:
    """The environment of an instance, as a sweep's file would say it.

    Raises:
        InputError: the instance cannot be read.
    """
    return GameEnv(import_module(f"{GAMES[game]}.instances").read_instance(**instance))


def register() -> None:
    """Registers `compiler_rl/GAME-v0` for every game with Gymnasium."""
    for game in GAMES:
        name = f"compiler_rl/{game}-v0"
        if name not in gymnasium.registry:
            entry = "compiler_rl.adapters.gymnasium:make_env"
            gymnasium.register(id=name, entry_point=entry, kwargs={"game": game})


def _parts(seen: View) -> Observation:
    return {
        name: np.clip(np.asarray(part, dtype=np.float32), -BOUND, BOUND)
        for name, part in (("actions", seen.actions), ("position", seen.position))
    }
