"""The offset-allocation game: its rules played at random, and as part of `solve()`."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from check_game import check_game
from test_allocation import lowest_peak, problem_of

from compiler_rl.solve import solve
from games.offset_allocation import GAME
from games.offset_allocation.game import bucket, first_fit_by_size
from games.offset_allocation.generator import network, tight
from games.offset_allocation.picture import draw
from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.rules import Arrays
from games.offset_allocation.solution import stack
from hlo_frontend.errors import InputError


def roomy(problem: OffsetProblem) -> OffsetProblem:
    """With a capacity that any stack of its buffers keeps to."""
    return replace(problem, capacity=int(problem.aligned_size.sum()))


def saving(problem: OffsetProblem, peak: float) -> float:
    reference = first_fit_by_size(problem)
    return (reference - peak) / reference


def larger(problem: OffsetProblem) -> Arrays:
    arrays = GAME.arrays(problem)
    more = bucket(len(arrays.size) + 1) - len(arrays.size)
    fields = {
        name: jnp.pad(values, (0, more))
        for name, values in vars(arrays).items()
        if jnp.ndim(values) == 1
    }
    return replace(arrays, **fields)


def test_random_play_keeps_the_contract():
    problems = [tight(seed, buffers=20, times=12, capacity=64) for seed in range(6)]
    problems += [tight(9, buffers=25, times=12, capacity=4096, alignment=128)]
    problems += [network(seed, layers=8, training=seed % 2 == 0) for seed in range(6)]
    check_game(GAME, [roomy(problem) for problem in problems], saving=saving, larger=larger)


def test_some_game_reaches_the_best_peak():
    rng = np.random.default_rng(1)
    for _ in range(6):
        start = rng.integers(0, 6, 6)
        problem = problem_of(
            np.stack([start, start + rng.integers(1, 4, 6), rng.integers(1, 9, 6)], axis=1)
        )
        found = solve(problem, simulations=16, seed=0, workers=1)
        assert found.objective == lowest_peak(problem)
        assert GAME.validate(problem, found.solution) == []


def test_picture(tmp_path):
    problem = tight(0, buffers=30, times=20, capacity=1000)
    offsets = stack(problem, range(len(problem.ids)))
    draw(problem, offsets, tmp_path / "a.svg", method="stack")
    draw(problem, offsets, tmp_path / "b.svg", method="stack")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "30 buffers" in text
    with pytest.raises(InputError, match=r"expected a name ending in \.png, \.svg"):
        draw(problem, offsets, tmp_path / "a.pdf", method="stack")
