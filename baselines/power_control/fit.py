"""Fits the forecast to training days: least squares over what happened under random caps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from baselines.power_control import sensor
from baselines.power_control.forecast import features, plant, start
from baselines.power_control.simulate import simulate
from games.power_control.problem import PowerProblem
from games.power_control.rules import (
    ACTIONS,
    DELAY,
    IN_FLIGHT,
    READINGS_PER_STEP,
    WINDOW,
    Observation,
)

HOLD = 30  # control steps that a random action is held
WARM_UP_STEPS = 360


class Probe(NamedTuple):
    """A policy of random actions, each held for a while: `actions` i32[n], gone through."""

    actions: jax.Array


def probe_start(_: Probe) -> jax.Array:
    """The number of the step."""
    return jnp.int32(0)


def probe_act(
    policy: Probe, state: jax.Array, seen: Observation, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(state, action)."""
    return state + 1, policy.actions[(state // HOLD) % len(policy.actions)]


def _probed(problem: PowerProblem, seed: int) -> tuple[jax.Array, jax.Array]:
    """(i32[E, T] actions in force, f32[E, T, R] readings over the budget) without a breaker.

    Half of the time there is no cap, half of it one of the actions at random.
    """
    rng = np.random.default_rng(seed)
    actions = rng.integers(0, len(ACTIONS), 500) * (rng.random(500) < 0.5)
    probe = Probe(jnp.asarray(actions[None], jnp.int32))
    free = replace(problem, budget_w=1e9)
    _, (_, applied, _, readings) = simulate(free, probe, probe_start, probe_act, keep=True)
    return jnp.asarray(applied[0], jnp.int32), readings[0] * (1e9 / problem.budget_w)


def _walked(follow: Any, first: Any, extra: float, applied: jax.Array, readings: jax.Array) -> Any:
    """What `follow`: (memory, observation) -> (memory, y) makes of a recorded scenario, stacked."""
    flat = jnp.concatenate([jnp.zeros(WINDOW + DELAY), readings.ravel()])

    def step(memory: Any, number: jax.Array) -> Any:
        window = jax.lax.dynamic_slice(flat, (number * READINGS_PER_STEP,), (WINDOW,))
        seen = Observation(
            readings=window,
            commanded=jnp.int32(0),
            applied=applied[jnp.maximum(number - 1, 0)],
            in_flight=jax.lax.dynamic_slice(applied, (number,), (IN_FLIGHT,)),
            brake=jnp.asarray(False),
            step=number,
            oversubscription=jnp.float32(extra),
        )
        return follow(memory, seen)

    return jax.lax.scan(step, first, jnp.arange(len(applied) - IN_FLIGHT))[1]


def samples(
    problem: PowerProblem, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(features f32[n, FEATURES], f32[n] highest demand of the step that is decided on)."""
    applied, readings = _probed(problem, seed)
    known = plant()
    extra = problem.oversubscription

    def walk(applied: jax.Array, readings: jax.Array) -> Any:
        follow = partial(features, known)
        return _walked(follow, start(None), extra, applied, readings)  # type: ignore[arg-type]

    given = np.asarray(jax.jit(jax.vmap(walk))(applied, readings))
    highest = np.asarray(readings).max(-1)[:, IN_FLIGHT:]
    factor = np.asarray(known.factor)[np.asarray(applied)[:, IN_FLIGHT:]]
    demand = (highest - float(known.idle) * (1 + extra)) / factor
    late = slice(WARM_UP_STEPS, None)
    return given[:, late].reshape(-1, given.shape[-1]), demand[:, late].ravel()


class Fit(NamedTuple):
    """What training days say.

    Attributes:
        weights: of the forecast, one for each feature.
        spread: standard deviation of the demand around it, at a demand of 1.
        ceiling: the highest demand, at no oversubscription.
    """

    weights: list[float]
    spread: float
    ceiling: float


def fitted(problems: list[PowerProblem]) -> Fit:
    """Least squares over all problems, each weighed as counts are."""
    parts = [samples(problem, seed) for seed, problem in enumerate(problems)]
    given = np.concatenate([part[0] for part in parts]).astype(np.float64)
    wanted = np.concatenate([part[1] for part in parts]).astype(np.float64)
    scale = 1 / np.sqrt(np.maximum(wanted, 0.05))
    weights = np.linalg.lstsq(given * scale[:, None], wanted * scale, rcond=None)[0]
    mean = np.maximum(given @ weights, 0.01)
    spread = np.sqrt(np.mean((wanted - mean) ** 2 / mean))
    highest = max(
        part[1].max() / (1 + problem.oversubscription)
        for part, problem in zip(parts, problems, strict=True)
    )
    rounded = [round(float(weight), 5) for weight in weights]
    return Fit(rounded, round(float(spread), 5), round(float(highest), 4))


class CleanSensor(NamedTuple):
    """What a sensor without noise shows on training days, see `sensor.Sensor`."""

    clean: float
    drift: float


def clean_sensor(problem: PowerProblem, seed: int = 0) -> CleanSensor:
    """The highest estimate of noise where there is none, and how much the demand moves."""
    applied, readings = _probed(problem, seed)
    extra = problem.oversubscription

    def follow(state: sensor.SensorState, seen: Observation) -> Any:
        state = sensor.estimated(state, seen)
        return state, state.estimate

    def walk(applied: jax.Array, readings: jax.Array) -> Any:
        return _walked(follow, sensor.start(), extra, applied, readings)

    estimates = np.asarray(jax.jit(jax.vmap(walk))(applied, readings))[:, WARM_UP_STEPS:]
    known = plant()
    factor = np.asarray(known.factor)[np.asarray(applied)]
    demand = (np.asarray(readings).mean(-1) - float(known.idle) * (1 + extra)) / factor
    demand = np.maximum(demand[:, WARM_UP_STEPS:], 0.01)
    drift = np.mean(np.diff(demand) ** 2 / demand[:, :-1])
    return CleanSensor(float(f"{estimates.max():.2e}"), float(f"{drift:.2e}"))
