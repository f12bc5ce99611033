"""Tunes the numbers of a policy on training scenarios: random search, then halving.

Every family of policies gets the same effort: `CANDIDATES` draws, the first of them the family's
default, on the busiest days; the best `FINALISTS` of them on all days. The cost counts a brake as
an hour of every instance, so that the winner has as few as its levers allow; the forecast is judged
by `shortfalls` instead, by brakes and by the objectives of latency. Tuning sees a budget
`RESERVE` smaller than the real one: what has no brake by luck alone does not win.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from baselines.power_control import forecast, policies
from baselines.power_control.fit import Fit
from baselines.power_control.shield import Shield, sensor_of, shielded
from baselines.power_control.simulate import Act, Policy, simulate, unlimited
from games.power_control.constants import constant, table
from games.power_control.problem import PowerProblem
from games.power_control.rules import ACTIONS, Totals
from games.power_control.solution import cost, summary

CANDIDATES = 16
FINALISTS = 3
RESERVE = 0.01
BRAKE_SHORTFALL = 10.0  # a brake, over a latency at the limit of its objective
# (problem, family, f64[P, K] numbers) -> f64[P], the lower the better
Judge = Callable[..., Any]


class Family(NamedTuple):
    """Policies of one kind.

    Attributes:
        low, high, default: bounds and the default of each number.
        make: numbers -> parameters of the policy.
        start, act: of the policy.
    """

    low: Sequence[float]
    high: Sequence[float]
    default: Sequence[float]
    make: Callable[[Sequence[float]], Any]
    start: Callable[[Any], Any]
    act: Act


def _polca(numbers: Sequence[float]) -> policies.Ladder:
    low, step, gap, high_gap = numbers
    return policies.polca(low, low + step, gap, high_gap)


def _nine(numbers: Sequence[float]) -> policies.Ladder:
    """LP 1275, 1110, then HP 1305 at once, then LP 810: levers that POLCA does not have."""
    low, first, second, third, gap = numbers
    up = np.cumsum([low, first, second, third]).tolist()
    return policies.ladder(up, gap, (1, 2, 4, 5))


def forecast_family(fit: Fit, *, actions: Sequence[int] = range(len(ACTIONS))) -> Family:
    """Forecast policies that differ in quantile and prices."""
    allowed = np.isin(np.arange(len(ACTIONS)), actions)
    known = forecast.plant()

    def make(numbers: Sequence[float]) -> forecast.Forecast:
        quantile, hp_weight, crowding, crowded = numbers
        return forecast.Forecast(
            weights=jnp.asarray(fit.weights, jnp.float32),
            spread=jnp.float32(fit.spread),
            ceiling=jnp.float32(fit.ceiling),
            quantile=jnp.float32(quantile),
            hp_weight=jnp.float32(hp_weight),
            crowding=jnp.float32(crowding),
            crowded=jnp.float32(crowded),
            allowed=jnp.asarray(allowed),
            plant=known,
        )

    return Family(
        (4.5, 1.5, 5.0, 0.70),
        (5.0, 2.5, 40.0, 0.95),
        (4.53, 1.6, 34.0, 0.895),  # by earlier searches over the same training hours
        make,
        forecast.start,
        forecast.act,
    )


def within_shield(family: Family, sensor: dict[str, float]) -> Family:
    """The same policies within the shield, `sensor` as `sensor.Sensor` has it."""
    policy = Policy("", family.make(family.default), family.start, family.act)
    guarded = shielded(policy, sensor)

    def make(numbers: Sequence[float]) -> Shield:
        shield: Shield = guarded.parameters
        return shield._replace(inner=family.make(numbers))

    return family._replace(make=make, start=guarded.start, act=guarded.act)


def shield_family(policy: Policy, clean: dict[str, float]) -> Family:
    """A policy within shields of different margins, see `sensor.Sensor`."""
    guarded = shielded(policy, {**clean, "margin": 0.0})

    def make(numbers: Sequence[float]) -> Shield:
        shield: Shield = guarded.parameters
        return shield._replace(sensor=sensor_of({**clean, "margin": numbers[0]}))

    return Family((0.0,), (6.0,), (3.0,), make, guarded.start, guarded.act)


POLCA = Family(
    (0.72, 0.01, 0.02, 0.02),
    (0.88, 0.12, 0.10, 0.10),
    (0.80, 0.09, 0.05, 0.05),
    _polca,
    policies.start,
    policies.act,
)
STATIC = Family(
    (0.0,),
    (float(len(ACTIONS) - 1),),
    (0.0,),
    lambda numbers: policies.static(int(numbers[0])),
    policies.start,
    policies.act,
)
NINE = Family(
    (0.72, 0.01, 0.01, 0.01, 0.02),
    (0.90, 0.08, 0.06, 0.06, 0.10),
    (0.80, 0.05, 0.04, 0.03, 0.05),
    _nine,
    policies.start,
    policies.act,
)


def costs(problem: PowerProblem, family: Family, numbers: npt.NDArray[np.float64]) -> Any:
    """f64[P] mean cost of each row of `numbers` f64[P, K]."""
    return cost(problem, _played(problem, family, numbers)).mean(1)


def _played(problem: PowerProblem, family: Family, numbers: npt.NDArray[np.float64]) -> Totals:
    made = [family.make(row.tolist()) for row in numbers]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)
    return simulate(problem, stacked, family.start, family.act)[0]


def shortfalls(
    problem: PowerProblem, family: Family, numbers: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """f64[P] of each row of `numbers` f64[P, K]: brakes, and how near it comes to the objectives.

    The latter is the sum of the latency increases, each over the one that its objective allows.
    """
    reference = unlimited(problem)
    totals = _played(problem, family, numbers)
    found = []
    for number in range(len(numbers)):
        one: Totals = jax.tree.map(lambda leaf, at=number: leaf[at], totals)
        row = summary(problem, one, reference)
        share = sum(row[name] / constant("objectives", name) for name in table()["objectives"])
        found.append(BRAKE_SHORTFALL * row["brakes"] + share)
    return np.asarray(found)


def cheapest(
    family: Family, problems: Sequence[PowerProblem], choices: Sequence[float]
) -> tuple[float, list[float]]:
    """(the choice that costs least over all problems, the cost of each) for one number."""
    numbers = np.asarray(choices, np.float64)[:, None]
    total = sum(costs(_tight(each), family, numbers) for each in problems)
    return float(choices[int(np.argmin(total))]), [float(cost) for cost in total]


def _tight(problem: PowerProblem) -> PowerProblem:
    return replace(problem, budget_w=problem.budget_w * (1 - RESERVE))


def tune(
    family: Family,
    busiest: Sequence[PowerProblem],
    everything: Sequence[PowerProblem],
    *,
    judge: Judge = costs,
    seed: int = 0,
) -> tuple[list[float], float]:
    """(the best numbers found, what `judge` makes of them on all problems, the budget smaller)."""
    rng = np.random.default_rng(seed)
    low, high = np.asarray(family.low), np.asarray(family.high)
    drawn = low + (high - low) * rng.random((CANDIDATES, len(low)))
    drawn[0] = family.default

    def judged(problems: Sequence[PowerProblem], numbers: npt.NDArray[np.float64]) -> Any:
        return sum(judge(_tight(each), family, numbers) for each in problems)

    first = drawn[np.argsort(judged(busiest, drawn), kind="stable")[:FINALISTS]]
    # One round of small steps from the finalists' best.
    near = first[0] + 0.1 * (high - low) * rng.standard_normal((FINALISTS, len(low)))
    last = np.concatenate([first, np.clip(near, low, high)])
    final = judged(everything, last)
    best = int(np.argmin(final))
    return [round(float(value), 4) for value in last[best]], float(final[best])
