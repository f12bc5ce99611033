"""A controller that sees the future of the very scenario: what is possible, no rival."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from baselines.power_control import forecast, policies
from baselines.power_control.simulate import Policy, simulate
from games.power_control.problem import NO_FAULTS, PowerProblem
from games.power_control.rules import IN_FLIGHT, Observation
from games.power_control.solution import cost

MARGINS = (0.005, 0.02, 0.04)


class Future(NamedTuple):
    """Of one scenario.

    Attributes:
        power: f32[T] highest reading without caps in each control step, over the budget.
        margin: f32[] of the budget, for what caps change in the future that was seen.
        plant: what is known of the row.
    """

    power: jax.Array
    margin: jax.Array
    plant: forecast.Plant


def start(_: Future) -> jax.Array:
    """The number of the step."""
    return jnp.int32(0)


def act(
    policy: Future, state: jax.Array, seen: Observation, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(state, action): the cheapest that keeps the step to come within the budget."""
    idle = policy.plant.idle * (1 + seen.oversubscription)
    at = jnp.minimum(state + IN_FLIGHT, len(policy.power) - 1)
    demand = jnp.maximum(policy.power[at] - idle, 0.0)
    # What caps and brakes have put off is still to come, beyond the future without caps.
    now = jnp.maximum(policy.power[jnp.maximum(state - 1, 0)] - idle, 0.0)
    here = (seen.readings[-1] - idle) / policy.plant.factor[seen.applied]
    full = policy.plant.full * (1 + seen.oversubscription)
    put_off = jnp.where(jnp.isfinite(here), jnp.maximum(here - now, 0.0), 0.0)
    demand = jnp.where(seen.brake, full, demand + put_off)
    fits = idle + policy.plant.factor * demand <= 1 - policy.margin
    price = policy.plant.lost @ jnp.asarray([1.0, 4.0])
    action = jnp.where(fits.any(), jnp.where(fits, price, jnp.inf).argmin(), len(fits) - 1)
    return state + 1, action.astype(jnp.int32)


def clairvoyant(problem: PowerProblem) -> Policy:
    """The policy for this problem alone, with the margin of MARGINS that turns out best."""
    nothing: Any = jax.tree.map(lambda leaf: leaf[None], policies.LADDERS["no_cap"])
    free = replace(problem, budget_w=1e9, faults=NO_FAULTS)
    _, (*_, readings) = simulate(free, nothing, policies.start, policies.act, keep=True)
    power = readings[0].max(-1) * np.float32(1e9 / problem.budget_w)  # [E, T]
    count = len(power)
    known = forecast.plant()
    made = Future(
        power=jnp.asarray(np.broadcast_to(power, (len(MARGINS), *power.shape))),
        margin=jnp.asarray(np.repeat(np.array(MARGINS, np.float32)[:, None], count, 1)),
        plant=jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (len(MARGINS), count, *leaf.shape)), known
        ),
    )
    totals, _ = simulate(problem, made, start, act, by_scenario=True)
    best = int(cost(problem, totals).mean(1).argmin())
    chosen = jax.tree.map(lambda leaf: leaf[best], made)
    return Policy("clairvoyant", chosen, start, act, clairvoyant=True)
