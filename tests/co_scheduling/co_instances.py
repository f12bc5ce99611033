"""Small problems of the co-scheduling game, and where the shared measurements are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DYNAMIC,
    MAX_NANO,
    PARTS,
    CoSchedulingProblem,
    Structure,
    cut,
    make_problem,
)

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def shared(*names: str) -> Path:
    """A path of the shared data; skips the test where it is not there."""
    path = SHARED.joinpath(*names)
    if not path.exists():
        pytest.skip(f"{'/'.join(names)} is not here (../shared/data)")
    return path


def problem_of(
    mode: int = DYNAMIC, *, decode: int = 700, prefill: int = 300, layers: int = 12, tp: int = 8
) -> CoSchedulingProblem:
    """LLaMA-2 70B (8B on one device) with fewer layers."""
    model = get_model("llama-2-70b" if tp > 1 else "llama-3-8b")
    batch = Batch(decode, 900 if tp > 1 else 300, prefill)
    problem = make_problem(model, get_device("a100"), tp, batch, mode)
    return replace(problem, layers=layers)


def random_structure(problem: CoSchedulingProblem, rng: np.random.Generator) -> Structure:
    """Chunks thrown into the parts of one to four nano-batches."""
    counts = np.zeros((2, MAX_NANO * PARTS), dtype=np.int64)
    parts = rng.permutation(MAX_NANO * PARTS)[: rng.integers(1, MAX_NANO * PARTS + 1)]
    for sort in range(2):
        np.add.at(counts[sort], rng.choice(parts, problem.chunks[sort]), 1)
    counts = counts.reshape(2, MAX_NANO, PARTS)
    return cut(problem, counts[0], counts[1], rng.random(MAX_NANO) < 0.5)


def random_levels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(1, 11, ALL_SLOTS)
