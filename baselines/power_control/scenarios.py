"""Scenario MPC: plans of several steps against many sampled futures, judged by their tail.

The belief is filtered from readings: a slow level of demand (a moving average), and the deviation
from it, which decays. From it come `SCENARIOS` futures over the control steps that decisions can
still reach, by common random numbers: the same draws for every plan and at every decision, so that
plans differ by what they do and not by luck. Plans have several steps: an action now, and the one
held from the next step on, all pairs of the two. A plan costs the work that it loses, plus a price
on its tail risk, the mean overshoot of the worst `TAIL` of the scenarios (CVaR). The first action
of the best plan is sent. The future of the scenario that is played is never seen.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from baselines.power_control import forecast
from baselines.power_control.forecast import Forecast, ForecastState
from games.power_control.rules import ACTIONS, HP_WEIGHT, Observation

SCENARIOS = 64
HORIZON = 3  # control steps that a plan covers, the first 40 s ahead
TAIL = 1 / 16
DECAY = 0.85  # of a deviation from the forecast, from one control step to the next


class Scenarios(NamedTuple):
    """Parameters.

    Attributes:
        model: the forecast, of whose `quantile` there is no use here.
        width: f32[] of the sampled spread over the fitted one.
        penalty: f32[] price of an overshoot of the whole budget, over work of one class lost.
    """

    model: Forecast
    width: jax.Array
    penalty: jax.Array


def start(policy: Scenarios) -> ForecastState:
    """Nothing seen yet."""
    return forecast.start(policy.model)


def _noise() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """f32[SCENARIOS, HORIZON] deviations of variance 1, antithetic, each step's like the last's."""
    rng = np.random.default_rng(0)
    half = rng.standard_normal((SCENARIOS // 2, HORIZON))
    for step in range(1, HORIZON):
        half[:, step] = DECAY * half[:, step - 1] + np.sqrt(1 - DECAY**2) * half[:, step]
    return np.concatenate([half, -half]).astype(np.float32)


NOISE = _noise()


def act(
    policy: Scenarios, state: ForecastState, seen: Observation, key: jax.Array
) -> tuple[ForecastState, jax.Array]:
    """(state, first action of the best plan)."""
    model, known = policy.model, policy.model.plant
    state, given = forecast.features(known, state, seen)
    mean = jnp.maximum(given @ model.weights, 0.0)
    size = 1 + seen.oversubscription
    # The forecast reverts to the slow level further ahead.
    slow = given[-2]
    ahead = slow + (mean - slow) * DECAY ** jnp.arange(HORIZON)
    spread = policy.width * model.spread * jnp.sqrt(jnp.maximum(ahead, 0.0))
    ceiling = jnp.maximum(model.ceiling * size, given[0] * forecast.ABOVE_CEILING)
    demand = jnp.clip(ahead + spread * NOISE, 0.0, ceiling)  # [S, H]
    power = known.idle * size + known.factor[:, None, None] * demand  # [A, S, H]
    over = jnp.maximum(power - 1, 0.0)
    count = len(ACTIONS)
    load = jnp.minimum(mean / (known.full * size), 1.0)
    price = load * (known.lost @ jnp.asarray([1.0, HP_WEIGHT]))
    price = jnp.where(model.allowed, price, jnp.inf)
    # Overshoot of a plan [first, recourse, S]: the sum over its steps.
    plans = over[:, None, :, 0] + over[None, :, :, 1:].sum(-1)
    worst = jax.lax.top_k(plans.reshape(count * count, SCENARIOS), round(TAIL * SCENARIOS))[0]
    tail = worst.mean(-1).reshape(count, count)
    total = price[:, None] + (HORIZON - 1) * price[None] + policy.penalty * tail
    best = total.reshape(-1).argmin()
    return state, (best // count).astype(jnp.int32)
