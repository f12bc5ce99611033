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

MARGINS = (0.005, 0.015, 0.03)
ROUNDS = 3  # of planning: caps put off work, which the next round knows of


class Future(NamedTuple):
    """Of one scenario.

    Attributes:
        power: f32[T] what the highest reading of each control step would be without caps then.
        margin: f32[] of the budget, for what the last round's caps still change.
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
    fits = idle + policy.plant.factor * demand <= 1 - policy.margin
    price = policy.plant.lost @ jnp.asarray([1.0, 4.0])
    action = jnp.where(fits.any(), jnp.where(fits, price, jnp.inf).argmin(), len(fits) - 1)
    return state + 1, action.astype(jnp.int32)


def clairvoyant(problem: PowerProblem) -> Policy:
    """The policy for this problem alone, with the margin of MARGINS that turns out best."""
    nothing: Any = jax.tree.map(lambda leaf: leaf[None], policies.LADDERS["no_cap"])
    free = replace(problem, budget_w=1e9, faults=NO_FAULTS)
    _, (*_, readings) = simulate(free, nothing, policies.start, policies.act, keep=True)
    scale = np.float32(1e9 / problem.budget_w)
    first = readings[0].max(-1) * scale  # [E, T]
    shape = (len(MARGINS), len(first))
    known = forecast.plant()
    made = Future(
        power=jnp.asarray(np.broadcast_to(first, (*shape, first.shape[1]))),
        margin=jnp.asarray(np.repeat(np.array(MARGINS, np.float32)[:, None], shape[1], 1)),
        plant=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), known),
    )
    # The policy looks at nothing but the future: the row without a breaker tells what it does.
    idle = float(known.idle) * (1 + problem.oversubscription)
    for _ in range(ROUNDS):
        _, (_, applied, _, readings) = simulate(free, made, start, act, keep=True, by_scenario=True)
        demand = (readings.max(-1) * scale - idle) / np.asarray(known.factor)[applied]
        made = made._replace(power=jnp.maximum(first, idle + jnp.asarray(demand, jnp.float32)))
    totals, _ = simulate(problem, made, start, act, by_scenario=True)
    best = int(cost(problem, totals).mean(1).argmin())
    chosen = jax.tree.map(lambda leaf: leaf[best], made)
    return Policy("clairvoyant", chosen, start, act, clairvoyant=True)
