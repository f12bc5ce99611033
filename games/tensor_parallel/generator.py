"""Training problems: built-in models of a few layers on meshes that are drawn; others for tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from games.tensor_parallel.frontend import model_graph
from games.tensor_parallel.mesh import Mesh, parse_mesh
from games.tensor_parallel.models import build
from games.tensor_parallel.problem import ShardingProblem

# The split is by model: what is tested is another architecture, not another seed.
TRAINING = ("llama-7b", "gpt-j-6b", "t5-base")
TEST = ("opt-1.3b", "mixtral-8x7b")
LAYERS = 2
MESHES = ("1x8", "1x4", "2x4", "2x2")
SPREAD = 4.0  # factor, both ways, on the bandwidth of each axis
LEAST_ROOM, MOST_ROOM = 1.1, 3.0  # memory, of what the model needs at least


def training_problem(seed: int) -> ShardingProblem:
    """A model of TRAINING, inference or training, on a mesh with memory, all drawn."""
    return _drawn(np.random.default_rng(seed), TRAINING)


def test_problems(count: int) -> list[tuple[str, ShardingProblem]]:
    """(name, problem) of `count` problems of models that are never trained on."""
    drawn = [
        _drawn(np.random.default_rng([1, number]), TEST[number % len(TEST) :][:1])
        for number in range(count)
    ]
    return [(problem.name, problem) for problem in drawn]


def _drawn(random: np.random.Generator, models: tuple[str, ...]) -> ShardingProblem:
    name = models[int(random.integers(len(models)))]
    mesh = parse_mesh(MESHES[int(random.integers(len(MESHES)))])
    train = bool(random.integers(2))
    factor = SPREAD ** random.uniform(-1, 1, len(mesh.shape))
    beta = tuple(float(each) for each in np.array(mesh.beta) * factor)
    problem = _problem(name, train, replace(mesh, beta=beta))
    room = random.uniform(LEAST_ROOM, MOST_ROOM)
    return replace(problem, usage_limit=int(room * problem.least_usage()[0]))


@cache
def _problem(name: str, train: bool, mesh: Mesh) -> ShardingProblem:
    model = build(name, train=train, batch=16, length=256, layers=LAYERS)
    graph = model_graph(model.function, model.params, model.inputs, mesh)
    kind = "training" if train else "inference"
    return graph.problem(f"{name} {kind} on {'x'.join(map(str, mesh.shape))}")
