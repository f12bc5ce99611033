"""Caps by a forecast: the least costly action whose upper quantile of power stays in the budget.

A command is in force from `capping_latency_s` on until the next one is, so each decision answers
for one control step, 40 to 50 s ahead, and the next decision can still answer for the step after
it. What matters is the distribution of that step's highest reading. Readings are first turned into
the power that the same work would draw without caps ("demand"), of which a linear forecast over
moving averages gives the mean; the spread grows with the square root of the demand, as counts do.
Weights and spread are fitted to training days by least squares (`fit.py`); the quantile is tuned
together with the price of an action, which counts the work lost by each class and, near the load
that a class can still serve under its cap, the queue that would grow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from games.power_control.constants import constant
from games.power_control.rules import (
    ACTIONS,
    HP,
    LP,
    READINGS_PER_STEP,
    STEP,
    Observation,
    instance_watts,
    speeds,
)
from games.power_control.workload import request_table

AVERAGES = (30.0, 120.0, 600.0, 2400.0)  # seconds of the moving averages
FEATURES = 4 + len(AVERAGES)
ABOVE_CEILING = 1.05  # of a demand that is above the ceiling already


class Plant(NamedTuple):
    """What a controller knows of its row before it sees a reading.

    Attributes:
        idle: f32[] power of the row without work at no oversubscription, over the budget.
        factor: f32[A] dynamic power under each action over that without caps.
        slowness: f32[A] share of work lost under each action, weighed by the power of the work.
        lost: f32[A, 2] share of a class's work lost under each action.
        full: f32[] demand at no oversubscription when every instance is busy.
    """

    idle: jax.Array
    factor: jax.Array
    slowness: jax.Array
    lost: jax.Array
    full: jax.Array


class Forecast(NamedTuple):
    """Parameters.

    Attributes:
        weights: f32[FEATURES] of the forecast of the demand.
        spread: f32[] its standard deviation at a demand of 1.
        ceiling: f32[] highest demand that was ever seen, at no oversubscription: with every
            instance busy there is no more to come.
        quantile: f32[] standard deviations above the mean that must stay within the budget.
        hp_weight: f32[] price of HP work lost, over that of LP.
        crowding: f32[] price of the square of load beyond `crowded` of what a class can serve under
            its cap: there a queue grows, and a lost second delays all that wait.
        crowded: f32[] share of what a class can serve.
        allowed: bool[A] actions of the track.
        plant: what is known of the row.
    """

    weights: jax.Array
    spread: jax.Array
    ceiling: jax.Array
    quantile: jax.Array
    hp_weight: jax.Array
    crowding: jax.Array
    crowded: jax.Array
    allowed: jax.Array
    plant: Plant


class ForecastState(NamedTuple):
    """Moving averages of demand f32[len(AVERAGES)] and slowness f32[]; the last demand; age."""

    averages: jax.Array
    slowness: jax.Array
    demand: jax.Array
    age: jax.Array


def plant() -> Plant:
    """The row of `constants.toml` under POLCA's mix of requests."""
    instances = constant("row", "instances")
    seconds = request_table(np.random.default_rng(0)).mean(1)  # [class, phase]
    share = seconds / seconds.sum(1, keepdims=True)
    idle, *full = instance_watts(constant("curves", "max_mhz"), instances)
    _, *watts = instance_watts(ACTIONS, instances)
    speed = speeds(ACTIONS)
    # [A, class], summed over phases
    uncapped = sum(share[:, phase] * full[phase] for phase in range(2))
    capped = sum(share[:, phase] * watts[phase] for phase in range(2))
    lost = sum(share[:, phase] * (1 - speed[phase]) for phase in range(2))
    power = uncapped / uncapped.sum()
    row = instances * constant("row", "servers") / constant("row", "budget_w")
    return Plant(
        idle=jnp.float32(idle * row),
        factor=jnp.asarray((capped / uncapped) @ power, jnp.float32),
        slowness=jnp.asarray(lost @ power, jnp.float32),
        lost=jnp.asarray(lost, jnp.float32),
        full=jnp.float32(uncapped.mean() * row),
    )


def start(_: Forecast) -> ForecastState:
    """Nothing seen yet."""
    zero = jnp.float32(0)
    return ForecastState(jnp.zeros(len(AVERAGES)), zero, zero, jnp.int32(0))


def features(
    known: Plant, state: ForecastState, seen: Observation
) -> tuple[ForecastState, jax.Array]:
    """(state, f32[FEATURES]) after an observation; missing readings do not count."""
    idle = known.idle * (1 + seen.oversubscription)
    factor = known.factor[seen.applied]
    # The first reading of the last step is seen with the step before; it is left out.
    last = seen.readings[1 - READINGS_PER_STEP :]
    demand = _mean(last, idle, factor, state.demand)
    latest = _mean(last[-2:], idle, factor, demand)
    # What waits for the end of a brake will keep every instance busy.
    full = known.full * (1 + seen.oversubscription)
    demand, latest = jnp.where(seen.brake, full, demand), jnp.where(seen.brake, full, latest)
    rates = 1 - jnp.exp(-STEP / jnp.asarray(AVERAGES))
    # The averages begin as plain means.
    rates = jnp.maximum(rates, 1 / (state.age + 1.0))
    averages = state.averages + rates * (demand - state.averages)
    slowness = state.slowness + rates[0] * (known.slowness[seen.applied] - state.slowness)
    coming = known.slowness[seen.in_flight].mean()
    state = ForecastState(averages, slowness, demand, state.age + 1)
    recent = jnp.asarray([latest, demand, demand * (coming - slowness), jnp.sqrt(demand)])
    return state, jnp.concatenate([recent, averages])


def _mean(readings: jax.Array, idle: Any, factor: Any, otherwise: Any) -> jax.Array:
    there = jnp.isfinite(readings)
    mean = jnp.where(there, readings, 0.0).sum() / jnp.maximum(there.sum(), 1)
    return jnp.where(there.any(), jnp.maximum(mean - idle, 0.0) / factor, otherwise)


def act(
    policy: Forecast, state: ForecastState, seen: Observation, key: jax.Array
) -> tuple[ForecastState, jax.Array]:
    """(state, action): the cheapest one whose quantile stays within the budget, else the lowest."""
    state, given = features(policy.plant, state, seen)
    mean = jnp.maximum(given @ policy.weights, 0.0)
    high = mean + policy.quantile * policy.spread * jnp.sqrt(mean)
    size = 1 + seen.oversubscription
    # Other requests than those of the training days may draw more than the ceiling.
    ceiling = jnp.maximum(policy.ceiling * size, given[0] * ABOVE_CEILING)
    power = policy.plant.idle * size + policy.plant.factor * jnp.minimum(high, ceiling)
    fits = (power <= 1) & policy.allowed
    # Caps in force keep instances busy for longer; a price is on the work that arrives.
    load = mean / (policy.plant.full * size) * (1 - state.slowness)
    lost = policy.plant.lost
    crowd = jnp.maximum(load / (1 - lost) - policy.crowded, 0.0)
    price = load * lost + policy.crowding * crowd**2
    price = price[:, LP] + policy.hp_weight * price[:, HP]
    cheapest = jnp.where(fits, price, jnp.inf).argmin()
    lowest = jnp.where(policy.allowed, power, jnp.inf).argmin()
    return state, jnp.where(fits.any(), cheapest, lowest).astype(jnp.int32)
