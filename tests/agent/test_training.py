"""Training on a small game: it learns, resumes bit for bit, says what is wrong with its input."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler_rl.agent import training
from compiler_rl.agent.config import Config, read_config
from compiler_rl.agent.network import expected, support, two_hot, view
from compiler_rl.agent.sampling import Player
from compiler_rl.agent.weights import load, new_agent, save, shape_of
from games.offset_allocation import GAME
from games.offset_allocation.generator import network, tight
from hlo_frontend.errors import InputError

SMALL = Config(
    instances=4,
    batch=4,
    simulations=4,
    cloning=1,
    tries=2,
    annealing=200,
    iterations=3,
    width=16,
    latent=16,
    updates=4,
    minibatch=32,
    unroll=2,
    checkpoint_every=1,
)


@pytest.fixture(autouse=True)
def one_bucket(monkeypatch):
    """Training problems of one size, so that little is compiled."""
    monkeypatch.setattr(
        "games.offset_allocation.generator.training_problem",
        lambda seed: dataclasses.replace(
            tight(seed, buffers=16, times=10, capacity=64), capacity=10_000
        ),
    )


def weights_of(agent):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent.weights)]


@pytest.mark.parametrize("model", ["simulator", "learned"])
def test_interrupted_training_ends_with_the_same_weights(model, tmp_path):
    config = dataclasses.replace(SMALL, model=model)
    whole = training.train(GAME, config, tmp_path / "whole")
    first = dataclasses.replace(config, iterations=2)
    training.train(GAME, first, tmp_path / "parts")
    parts = training.train(GAME, config, tmp_path / "parts")
    for one, other in zip(weights_of(whole), weights_of(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    fresh = new_agent(GAME, config, whole.shape)
    assert any(
        (one != other).any()
        for one, other in zip(weights_of(whole), weights_of(fresh), strict=True)
    )
    read = load(tmp_path / "whole" / "weights.crlw", GAME)
    for one, other in zip(weights_of(whole), weights_of(read), strict=True):
        np.testing.assert_array_equal(one, other)
    problem = tight(99, buffers=16, times=10, capacity=64)
    problem = dataclasses.replace(problem, capacity=10_000)
    results = [Player(read, simulations=4, batch=2).solve(problem, seed=3) for _ in range(2)]
    assert GAME.validate(problem, results[0].solution) == []
    assert (
        results[0].objective == results[1].objective == GAME.objective(problem, results[0].solution)
    )


def test_bad_checkpoints_and_weights_are_one_line(tmp_path):
    agent = training.train(GAME, dataclasses.replace(SMALL, iterations=1), tmp_path / "run")
    with pytest.raises(InputError, match="another game, configuration or version"):
        training.train(GAME, dataclasses.replace(SMALL, width=24), tmp_path / "run")
    path = tmp_path / "run" / "weights.crlw"
    (tmp_path / "short").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated or damaged"):
        load(tmp_path / "short", GAME)
    (tmp_path / "garbage").write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="no weight file"):
        load(tmp_path / "garbage", GAME)
    other = dataclasses.replace(agent, game=type("Other", (), {"name": "other"})())
    save(other, tmp_path / "other")
    with pytest.raises(InputError, match="weights for the game other"):
        load(tmp_path / "other", GAME)
    for file in (tmp_path / "run" / "checkpoints" / "1").rglob("*"):
        if file.is_file() and "state" in file.parts and file.stat().st_size > 100:
            file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged"):
        training.train(GAME, SMALL, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(tmp_path, monkeypatch):
    update = training._update

    def poisoned(*arguments):
        *state, losses = update(*arguments)
        return *state, losses * jnp.nan

    training.train(GAME, dataclasses.replace(SMALL, iterations=1), tmp_path)
    monkeypatch.setattr(training, "_update", poisoned)
    with pytest.raises(InputError, match=r"iteration 2 is not a number.*is of iteration 1"):
        training.train(GAME, SMALL, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("simulatons = 3", "did you mean simulations"),
        ("batch = 0", "expected at least 1"),
        ("batch = 2.5", "expected int"),
        ('model = "none"', "expected one of simulator, learned"),
        ("cloning = 100", "expected 0 to"),
        ("= 3", "not a TOML file"),
    ],
)
def test_bad_settings_are_one_line(text, says, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_two_hot_keeps_the_value():
    values = jnp.linspace(-0.49, 0.49, 37)
    weights = two_hot(values, 51)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose((weights * support(51)).sum(axis=-1), values, atol=1e-6)
    assert float(expected(jnp.zeros(51))) == pytest.approx(0.0, abs=1e-6)


def test_an_untrained_network_is_the_games_own_prior():
    problem = dataclasses.replace(network(3, layers=8), capacity=10**9)
    agent = new_agent(GAME, SMALL, shape_of(GAME, [GAME.arrays(problem)]))
    arrays = GAME.arrays(problem)
    state = GAME.init(arrays)
    player = agent.player
    through = (agent.weights, arrays)
    legal = GAME.legal_actions(arrays, state)
    seen = view(GAME, arrays, state)
    np.testing.assert_allclose(
        jnp.where(legal, player.prior_logits(through, state), 0.0), seen.prior, atol=1e-6
    )
    assert float(player.prior_value(through, state)) == pytest.approx(
        float(GAME.prior_value(arrays, state)), abs=1e-6
    )


@pytest.fixture
def crowded():
    """(network with weights that are not zero, problem, position) where actions have edges."""
    problem = dataclasses.replace(network(3, layers=8), capacity=10**9)
    arrays = GAME.arrays(problem)
    agent = new_agent(GAME, SMALL, shape_of(GAME, [arrays]))
    leaves, structure = jax.tree.flatten(agent.weights)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [
        0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    policy_value = nnx.merge(agent.graph, jax.tree.unflatten(structure, drawn))
    return policy_value, arrays, view(GAME, arrays, GAME.init(arrays))


def test_networks_hear_of_other_actions_along_edges(crowded):
    policy_value, _, seen = crowded
    logits, value = policy_value(seen)
    deaf_logits, deaf_value = policy_value(dataclasses.replace(seen, edges=0 * seen.edges))
    assert float(jnp.abs(logits - deaf_logits).max()) > 1e-3
    assert float(jnp.abs(value - deaf_value).max()) > 1e-3


@given(st.permutations(range(16)))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_order_of_actions_is_nothing_to_a_network(crowded, order):
    policy_value, _, seen = crowded
    order = np.array(order)
    other = dataclasses.replace(
        seen,
        actions=seen.actions[order],
        legal=seen.legal[order],
        prior=seen.prior[order],
        edges=seen.edges[order][:, order],
    )
    logits, value = policy_value(seen)
    other_logits, other_value = policy_value(other)
    np.testing.assert_allclose(other_logits, logits[order], atol=1e-4)
    np.testing.assert_allclose(other_value, value, atol=1e-4)


def test_padding_is_nothing_to_a_network(crowded):
    policy_value, arrays, seen = crowded
    wide = view(GAME, arrays, GAME.init(arrays), width=24)
    assert wide.edges.shape[:2] == (24, 24)
    logits, value = policy_value(seen)
    wide_logits, wide_value = policy_value(wide)
    np.testing.assert_allclose(wide_logits[:16], logits, atol=1e-4)
    np.testing.assert_allclose(wide_value, value, atol=1e-4)


def test_weights_that_read_something_else_are_one_line(crowded):
    policy_value, _, seen = crowded
    with pytest.raises(InputError, match="the weights read 2 features of an edge, the game has 0"):
        policy_value(dataclasses.replace(seen, edges=seen.edges[..., :0]))


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_game_without_training_problems_is_one_line(command, tmp_path):
    name = {"train": ["train", "chess"], "evaluate": ["evaluate", "agent"]}[command]
    more = {
        "train": ["--out", str(tmp_path / "run")],
        "evaluate": ["--game", "chess", str(tmp_path / "weights.crlw")],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "compiler_rl", *name, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no training problems; expected one of chunk_selection, co_sched" in done.stderr
    assert "Traceback" not in done.stderr


KILLED = """
import dataclasses, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import games.offset_allocation.generator as generator
from games.offset_allocation import GAME
from test_training import SMALL, tight
from compiler_rl.agent import training
generator.training_problem = lambda seed: dataclasses.replace(
    tight(seed, buffers=16, times=10, capacity=64), capacity=10_000)
config = dataclasses.replace(SMALL, iterations=int(sys.argv[2]))
training.train(GAME, config, Path(sys.argv[1]), report=lambda p: print(p.iteration, flush=True))
"""


@pytest.mark.slow
def test_killed_training_goes_on_to_the_same_weights(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, str(tmp_path / "whole"), "6"], check=True, env=environment)
    for seconds in (0.0, 0.4, 0.9):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed"), "6"], env=environment, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed"), "6"], check=True, env=environment)
    one, other = (load(tmp_path / name / "weights.crlw", GAME) for name in ("whole", "killed"))
    for left, right in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(left, right)
