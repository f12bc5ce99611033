"""Training problems: layers of published models with batches that are drawn; others for tests."""

from __future__ import annotations

import numpy as np

from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import MODES, CoSchedulingProblem, make_problem
from hlo_frontend.errors import InputError

# The split is by model: what is tested has other shapes, not other seeds.
TRAINING = (("llama-2-7b", 1), ("llama-3-8b", 1), ("llama-3-70b", 8), ("qwen2-72b", 8))
TEST = (("llama-2-70b", 8), ("mixtral-8x7b", 4))
DEVICES = ("a100", "h100", "h200")


def training_problem(seed: int) -> CoSchedulingProblem:
    """A model of TRAINING on a device with a batch and a mode, all drawn."""
    return _drawn(np.random.default_rng(seed), TRAINING)


def test_problems(count: int) -> list[tuple[str, CoSchedulingProblem]]:
    """(name, problem) of `count` problems of models that are never trained on."""
    drawn = [
        _drawn(np.random.default_rng([1, number]), TEST[number % len(TEST) :][:1])
        for number in range(count)
    ]
    return [(problem.name, problem) for problem in drawn]


def _drawn(random: np.random.Generator, models: tuple[tuple[str, int], ...]) -> CoSchedulingProblem:
    """Draws until a batch fits the device's memory."""
    while True:
        name, tp = models[int(random.integers(len(models)))]
        decode, context, prefill = np.exp2(random.uniform([5, 6, 5], [11, 12, 12]))
        batch = Batch(int(decode), float(round(context)), int(prefill))
        device = get_device(DEVICES[int(random.integers(len(DEVICES)))])
        try:
            return make_problem(
                get_model(name), device, tp, batch, int(random.integers(len(MODES)))
            )
        except InputError:
            continue
