"""The configuration agent: how much search a query is worth, after CORAG's (arXiv 2411.00744).

For each setting a linear policy over a few numbers of the problem chooses among the values of a
grid. It is trained on what each value brought on training questions, less what it cost
(`python -m experiments.train_chunk_configuration`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import lower_bound
from games.chunk_selection.value import NOBODY

Floats = npt.NDArray[np.float64]

SCHEMA = "compiler-rl/configuration-agent/2"
# The grid of each setting.
GRID: dict[str, tuple[float, ...]] = {
    "moves": (0, 300, 1000, 3000),
    "evaluations": (10, 25, 50, 100, 200),
    "exploration": (0.1, 0.3, 1.0),
    "cost_weight": (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2),
}
OBSERVED = 9


@dataclass(frozen=True)
class Configuration:
    """How much search a query is worth.

    Attributes:
        moves: of local search on the learned value.
        evaluations: of a reranker, by set search.
        exploration: of that search.
        cost_weight: price of the whole budget.
    """

    moves: int
    evaluations: int
    exploration: float
    cost_weight: float


def observe(problem: ChunkSelectionProblem, loss: float) -> Floats:
    """f64[OBSERVED] of a problem and the loss that greedy reached.

    What it misses, its gap to the bound, how sure the value is, how much of it needs several
    chunks, how many the budget holds, how many there are, and how much they repeat each other.
    """
    chance = problem.probability
    sure = -float(chance @ np.log(np.maximum(chance, 1e-12))) / np.log(max(len(chance), 2))
    several = float(chance[(problem.members != NOBODY).sum(axis=1) > 1].sum())
    held = problem.budget / float(problem.tokens.mean())
    repeated = float(problem.overlap.sum() / problem.size - 1.0)
    return np.array(
        [
            1.0,
            loss,
            (loss - lower_bound(problem)) / max(loss, 1e-9),
            sure,
            several,
            np.log(held),
            np.log(problem.size) - 4.0,
            np.tanh(repeated),
            float(np.sort(problem.marginals)[-1]),
        ]
    )


def configure(problem: ChunkSelectionProblem, loss: float) -> Configuration:
    """The settings for a problem on which greedy reached this loss."""
    seen = observe(problem, loss)
    chosen = {name: values[int(np.argmax(seen @ weights()[name]))] for name, values in GRID.items()}
    return Configuration(
        moves=int(chosen["moves"]),
        evaluations=int(chosen["evaluations"]),
        exploration=chosen["exploration"],
        cost_weight=chosen["cost_weight"],
    )


@cache
def weights() -> Mapping[str, Floats]:
    """f64[OBSERVED, values of the grid] of each setting, as they come with the package."""
    text = files("baselines.chunk_selection").joinpath("configuration.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return {name: np.array(data["weights"][name]) for name in GRID}
