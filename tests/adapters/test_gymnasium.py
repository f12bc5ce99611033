"""Every game of the registry as a Gymnasium environment, by Gymnasium's own checker."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from compiler_rl.adapters.gymnasium import ILLEGAL, GameEnv, make_env, register  # noqa: E402
from experiments.sweep.config import read_sweep  # noqa: E402
from games.offset_allocation import GAME  # noqa: E402
from games.registry import GAMES  # noqa: E402
from hlo_frontend.errors import InputError  # noqa: E402

# The first instance that the smallest suite has of each game.
INSTANCES = {cell.game: cell.instance for cell in reversed(read_sweep(Path("smoke")))}


@pytest.mark.parametrize("game", GAMES)
def test_every_game_passes_gymnasiums_checker(game):
    if game not in INSTANCES:
        pytest.fail(f"{game}: the suite `smoke` has no instance of it")
    env = make_env(game, **INSTANCES[game])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # What `gymnasium.make` alone can give.
        warnings.filterwarnings("ignore", message=".*not having a spec.*|.*spec.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize("game", ["offset_allocation", "chunk_selection"])
def test_a_game_ends_in_a_solution_worth_its_rewards(game):
    register()
    env = gymnasium.make(f"compiler_rl/{game}-v0", **INSTANCES[game])
    returns = []
    for seed in range(3):
        env.action_space.seed(seed)
        _, info = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            action = env.action_space.sample(mask=info["action_mask"])
            _, reward, done, truncated, info = env.step(action)
            assert info["legal"]
            assert not truncated
            total += reward
        inner = env.unwrapped
        assert inner.game.validate(inner.problem, inner.solution()) == []
        assert info["objective"] == inner.game.objective(inner.problem, inner.solution())
        returns.append((total, -info["objective"]))
    assert sorted(returns) == sorted(returns, key=lambda pair: pair[1])


def test_an_illegal_action_ends_the_game():
    env = make_env("offset_allocation", generated=1)
    _, info = env.reset(seed=0)
    while info["action_mask"].all():
        *_, info = env.step(np.int64(0))
    *_, reward, done, _, info = env.step(np.int64(np.argmin(info["action_mask"])))
    assert (reward, done, info["legal"]) == (ILLEGAL, True, False)
    assert "objective" not in info


def test_problems_of_one_bucket_are_drawn_by_the_seed():
    read = import_module("games.offset_allocation.instances").read_instance
    problems = [read(generated=seed) for seed in range(20)]
    shape = GAME.arrays(problems[0]).size.shape
    alike = [each for each in problems if GAME.arrays(each).size.shape == shape]
    assert len(alike) > 2
    env = GameEnv(alike)
    drawn = []
    for seed in (0, 1, 2, 3, 0):
        env.reset(seed=seed)
        drawn.append(env.problem)
    assert drawn[0] is drawn[-1]
    assert any(each is not drawn[0] for each in drawn)
    with pytest.raises(ValueError, match="different buckets"):
        GameEnv(problems)
    with pytest.raises(TypeError, match="no problem of"):
        GameEnv(3)
    with pytest.raises(ValueError, match="expected at least one"):
        GameEnv([])
    with pytest.raises(InputError, match="expected one of file, generated, test"):
        make_env("offset_allocation")
