"""Games that imitate what local search found."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import jax
import numpy as np
import pytest

from compiler_rl.agent.config import Config
from compiler_rl.agent.guided import Imitating
from compiler_rl.agent.sampling import search_with
from compiler_rl.agent.selfplay import SelfPlay, stack
from compiler_rl.agent.training import annealed, train
from compiler_rl.search import play
from compiler_rl.search.gumbel import Settings
from games.registry import GAMES, get_game

MOVES = 5000
TRAINABLE = [name for name, package in GAMES.items() if find_spec(f"{package}.generator")]


@pytest.mark.parametrize("name", ["offset_allocation", "chunk_selection"])
def test_a_game_that_imitates_a_solution_comes_to_its_objective(name):
    game = get_game(name)
    imitation = import_module(f"{GAMES[name]}.imitation")
    problem = import_module(f"{GAMES[name]}.generator").training_problem(3)
    arrays = game.arrays(problem)
    found = annealed(game, problem, MOVES, 0)
    wishes = imitation.wishes(arrays, problem, found.solution)
    player = SelfPlay(game, Imitating(game, imitation.agreement), Settings(simulations=1))
    games = player.play(stack([wishes]), stack([arrays]), jax.random.key(0), np.zeros(1), 1)
    solution = game.solution(problem, games.of(0).action[:, 0])
    assert not game.validate(problem, solution)
    assert game.objective(problem, solution) <= found.objective * (1 + 1e-9)


@pytest.mark.slow
def test_imitating_a_mapping_beats_the_games_own_prior():
    game = get_game("memory_mapping")
    imitation = import_module("games.memory_mapping.imitation")
    # A transformer's training step with much fast memory: the prior is far from annealing there.
    problem = import_module("games.memory_mapping.generator").training_problem(0)
    arrays = game.arrays(problem)
    found = annealed(game, problem, MOVES, 0)
    wishes = imitation.wishes(arrays, problem, found.solution)
    player = SelfPlay(game, Imitating(game, imitation.agreement), Settings(simulations=1))
    games = player.play(stack([wishes]), stack([arrays]), jax.random.key(0), np.zeros(1), 1)
    imitated = game.objective(problem, game.solution(problem, games.of(0).action[:, 0]))
    assert imitated < play(game, problem, time_limit=0.0).objective
    assert imitated < found.objective * 1.02


TINY = Config(
    instances=4,
    batch=8,
    tries=4,
    annealing=200,
    simulations=4,
    cloning=1,
    iterations=2,
    updates=2,
    minibatch=16,
    width=8,
    latent=8,
    unroll=2,
)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["simulator", "learned"])
@pytest.mark.parametrize("name", TRAINABLE)
def test_both_models_train_and_play_every_game(name, model, tmp_path):
    game = get_game(name)
    agent = train(game, Config(**{**vars(TINY), "model": model}), tmp_path / "run")
    _, problem = import_module(f"{GAMES[name]}.generator").test_problems(1)[0]
    found = search_with(agent, problem, time_limit=0.0, simulations=4, seed=0)
    assert not game.validate(problem, found.solution)
    assert found.method == "agent"
