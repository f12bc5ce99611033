"""How noisy a row's sensor is, by its readings alone, and what is to be made of it.

White noise makes a rise of the reading fall back with the next one: the product of two successive
differences is -variance on average, while a row of many requests drifts, and a cap, a brake or a
burst moves it one way. So the noise is the mean of -product over the last minutes, less what the
sensor of a clean row shows on training days. It asks for two things: readings are smoothed by the
gain of a Kalman filter, and a policy is shown the row under a smaller budget, as the brake goes by
readings and not by the truth. A policy keeps clear of the budget by itself for what the demand may
do until a command acts; chance adds up in squares, so that noise asks for less on top of that than
by itself. For a sensor without noise both are the identity.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from baselines.power_control.forecast import Plant
from games.power_control.rules import IN_FLIGHT, READINGS_PER_STEP, Observation

MEMORY = 900.0  # readings that the estimate goes by: half an hour
AHEAD = IN_FLIGHT + 1  # control steps until a command's own is over
MOST_DIFFERENCE = 0.15  # of two readings: what goes beyond it is no noise


class Sensor(NamedTuple):
    """Parameters.

    Attributes:
        clean: f32[] the highest estimate that a clean sensor gives, after `MEMORY` readings.
        drift: f32[] variance of the demand's change in a control step, over the demand.
        margin: f32[] standard deviations that are kept clear, of noise and of what the demand does.
        plant: what is known of the row.
    """

    clean: jax.Array
    drift: jax.Array
    margin: jax.Array
    plant: Plant


class SensorState(NamedTuple):
    """`estimate` f32[] of a reading's variance, over its square, and the `products` f32[] it has.

    `level` f32[] is the smoothed demand, negative where it is not known.
    """

    estimate: jax.Array
    products: jax.Array
    level: jax.Array


def start() -> SensorState:
    """Nothing seen yet."""
    zero = jnp.float32(0)
    return SensorState(zero, zero, zero - 1)


def estimated(state: SensorState, seen: Observation) -> SensorState:
    """The state after an observation; missing and repeated readings say nothing of noise."""
    last = seen.readings[-READINGS_PER_STEP - 2 :]
    steps = jnp.diff(jnp.log(jnp.where(last > 0, last, jnp.nan)))
    steps = jnp.clip(steps, -MOST_DIFFERENCE, MOST_DIFFERENCE)
    tells = jnp.isfinite(steps) & (steps != 0)
    both = tells[1:] & tells[:-1] & ~seen.brake
    found = -jnp.where(both, steps[1:] * steps[:-1], 0.0)
    products = jnp.minimum(state.products + both.sum(), MEMORY)
    rate = 1 / jnp.maximum(products, 1.0)
    estimate = state.estimate + rate * (found.sum() - both.sum() * state.estimate)
    return state._replace(estimate=estimate, products=products)


def variance_of(sensor: Sensor, state: SensorState) -> jax.Array:
    """f32[] of a reading, over its square; 0 where a clean sensor could have given the same."""
    # What few readings say is as much less sure.
    unsure = sensor.clean * jnp.sqrt(MEMORY / jnp.maximum(state.products, 1.0))
    return jnp.maximum(state.estimate - unsure, 0.0)


def seen_through(
    sensor: Sensor, state: SensorState, seen: Observation
) -> tuple[SensorState, Observation]:
    """(state, the observation that a policy should decide by).

    Its readings are smoothed, and over a budget that is smaller by what `margin` asks for.
    """
    state = estimated(state, seen)
    variance = variance_of(sensor, state)
    idle = sensor.plant.idle * (1 + seen.oversubscription)
    factor = sensor.plant.factor[seen.applied]
    expected = idle + factor * jnp.maximum(state.level, 0.0)
    last = seen.readings[1 - READINGS_PER_STEP :]
    there = jnp.isfinite(last)
    mean = jnp.where(there, last, 0.0).sum() / jnp.maximum(there.sum(), 1)
    # The gain of a level that drifts, once it has settled: 1 without noise.
    noise = variance * expected**2 / jnp.maximum(there.sum(), 1)
    moves = sensor.drift * factor**2 * jnp.maximum(state.level, 0.01)
    gain = 2 / (1 + jnp.sqrt(1 + 4 * noise / moves))
    gain = jnp.where((state.level < 0) | seen.brake, 1.0, gain)
    level = (gain * mean + (1 - gain) * expected - idle) / factor
    level = jnp.where(there.any(), jnp.maximum(level, 0.0), state.level)
    ahead = AHEAD * moves
    smaller = sensor.margin * (jnp.sqrt(ahead + variance) - jnp.sqrt(ahead))
    seen = seen._replace(
        readings=(gain * seen.readings + (1 - gain) * expected) * (1 + smaller),
        oversubscription=seen.oversubscription + (1 + seen.oversubscription) * smaller,
    )
    return state._replace(level=jnp.where(seen.brake, -1.0, level)), seen
