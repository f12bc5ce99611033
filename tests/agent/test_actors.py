"""Self-play in parts: here, and on a local Ray cluster of two nodes, one of which is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from compiler_rl.agent.actors import on_ray, play_here
from compiler_rl.agent.config import Config
from compiler_rl.agent.selfplay import joined
from compiler_rl.agent.training import train
from games.registry import get_game

GAME = get_game("offset_allocation")
SMALL = Config(
    instances=4,
    batch=8,
    parts=4,
    simulations=4,
    cloning=1,
    tries=2,
    annealing=0,
    iterations=3,
    width=16,
    updates=4,
    minibatch=32,
)


def leaves(agent):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent.weights)]


def test_all_parts_are_played_and_joined(tmp_path):
    seen = []

    def actors(parts):
        games = play_here(parts)
        seen.append((parts, games))
        return games

    train(GAME, replace(SMALL, iterations=2), tmp_path / "run", actors=actors)
    parts, games = seen[-1]
    assert len(parts) == SMALL.parts
    whole = joined(games)
    assert whole.savings.shape == (SMALL.batch,)
    for number, part in enumerate(games):
        size = SMALL.batch // SMALL.parts
        own = slice(number * size, (number + 1) * size)
        np.testing.assert_array_equal(whole.savings[own], part.savings)
        np.testing.assert_array_equal(whole.active[:, own].sum(axis=0), part.active.sum(axis=0))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_node_loses_no_game(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    # Ray takes the address of the network card for 127.0.0.1, which need not be reachable.
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
    alone = train(GAME, SMALL, tmp_path / "alone")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False},
    )
    second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    rounds = []

    def actors(parts):
        if len(rounds) == 1:
            # In the middle of an iteration, while games are being played on it.
            loss = threading.Timer(0.3, cluster.remove_node, (second,), {"allow_graceful": False})
            loss.start()
        games = on_ray(ray)(parts)
        rounds.append(len(games))
        return games

    try:
        together = train(GAME, SMALL, tmp_path / "together", actors=actors)
        # The cluster notices the loss a little later than those who play on it.
        deadline = time.monotonic() + 60
        while ray.cluster_resources()["CPU"] > 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert ray.cluster_resources()["CPU"] == 1
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert rounds == [SMALL.parts] * SMALL.iterations
    for here, there in zip(leaves(alone), leaves(together), strict=True):
        np.testing.assert_array_equal(here, there)
