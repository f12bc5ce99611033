"""Problems made up: an hour near the limit for training, four for the test.

Each is a function of its seed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from games.power_control.constants import constant
from games.power_control.problem import PowerProblem, servers_at
from games.power_control.workload import RISE, arrivals, request_table

LEVELS = (0.30, 0.35, 0.40, 0.45, 0.50)  # oversubscription
SPREADS = (0.0, 2 * constant("arrivals", "burst_cv"))  # of the bursts, least and most
TRAINING_SECONDS, TEST_SECONDS = 4500, 14400


def training_problem(seed: int) -> PowerProblem:
    """Three quarters of an hour that count, at an even load up to the peak of a day."""
    rng = np.random.default_rng(seed)
    busy = np.full(TRAINING_SECONDS, rng.uniform(0.75, 1.0))
    problem = _drawn(rng, busy, float(rng.choice(LEVELS)), rng.uniform(*SPREADS))
    return replace(problem, name=f"training {seed}")


def test_problems(count: int) -> list[tuple[str, PowerProblem]]:
    """(name, problem) of `count` problems of another kind: four hours around a daily peak."""
    chosen = []
    for number in range(count):
        rng = np.random.default_rng(1_000_000 + number)
        hours = np.arange(TEST_SECONDS) / 3600
        busy = 1.0 - 0.3 * (1 - np.sin(hours / hours[-1] * np.pi))
        level = LEVELS[number % len(LEVELS)]
        problem = _drawn(rng, busy, level, constant("arrivals", "burst_cv"))
        name = f"peak {number}, +{level:.0%}"
        chosen.append((name, replace(problem, name=name)))
    return chosen


def _drawn(
    rng: np.random.Generator, busy: np.ndarray, oversubscription: float, spread: float
) -> PowerProblem:
    """`busy` f64[seconds] is relative to the load of the row at the p99 of its rate."""
    servers = servers_at(oversubscription)
    table = request_table(rng)
    came = arrivals(
        rng,
        busy * constant("arrivals", "busy_at_p99"),
        servers // 2 * round(constant("row", "instances")),
        table.sum(-1, dtype=np.float64).mean(1),
        spread,
    )
    return PowerProblem(
        name="",
        servers=servers,
        arrivals=came[None],
        requests=table.transpose(2, 0, 1)[None],
        warm_up_s=float(RISE),
    )
