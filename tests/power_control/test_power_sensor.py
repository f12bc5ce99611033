"""What the shield makes of a noisy sensor."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from baselines.power_control import sensor
from baselines.power_control.shield import sensor_of
from baselines.power_control.simulate import play
from baselines.power_control.table import controller
from baselines.power_control.tuned import tuned
from games.power_control.instances import read_instance
from games.power_control.problem import Faults
from games.power_control.rules import IN_FLIGHT, READINGS_PER_STEP, WINDOW, Observation

SENSOR = sensor_of(tuned()["sensor"])
STEPS = 360


@jax.jit
def followed(readings):
    """(states, observations) of all steps of f32[READINGS_PER_STEP * STEPS]."""
    flat = jnp.concatenate([jnp.full(WINDOW, readings[0]), readings])

    def step(state, number):
        begin = (number + 1) * READINGS_PER_STEP
        seen = Observation(
            readings=jax.lax.dynamic_slice(flat, (begin,), (WINDOW,)),
            commanded=jnp.int32(0),
            applied=jnp.int32(0),
            in_flight=jnp.zeros(IN_FLIGHT, jnp.int32),
            brake=jnp.asarray(False),
            step=number,
            oversubscription=jnp.float32(0.35),
        )
        state, clear = sensor.seen_through(SENSOR, state, seen)
        return state, (state, seen, clear)

    return jax.lax.scan(step, sensor.start(), jnp.arange(STEPS))[1]


def walk(seed=0):
    """A row whose power drifts as a clean one's does."""
    rng = np.random.default_rng(seed)
    return (
        0.8
        + 0.05 * np.sin(np.arange(READINGS_PER_STEP * STEPS) / 200)
        + np.cumsum(0.001 * rng.standard_normal(READINGS_PER_STEP * STEPS))
    )


def test_a_clean_sensor_is_believed():
    _, seen, clear = followed(jnp.asarray(walk(), jnp.float32))
    for a, b in zip(seen, clear, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("noise", "left"), [(0.01, 0.97), (0.03, 0.8)])
def test_noise_is_told_from_drift_despite_gaps_and_repeats(noise, left):
    rng = np.random.default_rng(1)
    truth = walk()
    readings = truth * (1 + noise * rng.standard_normal(len(truth)))
    repeated = rng.random(len(truth)) < 0.1
    readings[1:] = np.where(repeated[1:], readings[:-1], readings[1:])
    readings[rng.random(len(truth)) < 0.1] = np.nan
    states, seen, clear = followed(jnp.asarray(readings, jnp.float32))
    assert np.sqrt(states.estimate[-1]) == pytest.approx(noise, rel=0.25)
    # What a policy sees is smoother, and over a budget that is smaller.
    smaller = float(clear.oversubscription[-1] + 1) / 1.35 - 1
    demand = truth[-1] - float(SENSOR.plant.idle) * 1.35
    ahead = np.sqrt((IN_FLIGHT + 1) * float(SENSOR.drift) * demand)
    wanted = float(SENSOR.margin) * (np.hypot(ahead, noise) - ahead)
    assert smaller == pytest.approx(wanted, rel=0.5)
    late = slice(STEPS // 2, None)
    exact = truth.reshape(STEPS, -1)[late, -1:]
    before, after = (
        np.nanstd(each.readings[late, -1:] / exact / np.nanmean(each.readings[late, -1:] / exact))
        for each in (seen, clear)
    )
    assert after < left * before


def test_fewer_brakes_at_a_noisy_sensor():
    problem = read_instance("poisson", 0.35, days=(0,), seeds=2)
    # A peak to which the load comes up slowly.
    came = problem.arrivals[:, 14 * 3600 : 15 * 3600 + 1800]
    rising = np.minimum((np.arange(5400) + 1) / 1800, 1.0)[:, None]
    problem = replace(
        problem,
        arrivals=np.random.default_rng(0).binomial(came, rising).astype(np.uint8),
        warm_up_s=1800.0,
        faults=Faults(noise=0.03),
    )
    names = ("polca", "forecast_shielded")
    brakes = [int(play(problem, controller(name, 0.35)).brakes.sum()) for name in names]
    assert brakes[1] < brakes[0] / 4
