"""What a controller did in each scenario, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.power_control.constants import constant
from games.power_control.problem import PowerProblem, chances_of, row_of
from games.power_control.rules import (
    BINS,
    HP,
    HP_WEIGHT,
    LEAST_LATENCY,
    LP,
    MOST_LATENCY,
    STEP,
    Chance,
    Row,
    State,
    Totals,
    advance,
    init,
)

BRAKE_COST = 3600.0  # request-seconds of LP that a brake counts as, for each server
REJECTION_COST = 3600.0  # request-seconds that a request turned away counts as
Array = npt.NDArray[Any]
UNIT = "weighted request-seconds a server and hour"


@dataclass(frozen=True, eq=False)
class Control:
    """The decisions of a controller.

    Attributes:
        policy: its name.
        actions: i8[E, T] number of the action sent at each control step of each scenario.
        claims: for each scenario its `brakes`, and `served` and `latency` (summed seconds) of LP
            and HP; none where nothing is claimed.
    """

    policy: str
    actions: npt.NDArray[np.int8]
    claims: tuple[dict[str, Any], ...] = field(default=())


def hours(problem: PowerProblem) -> float:
    """Hours of a scenario that count."""
    return float((problem.steps * STEP - problem.warm_up_s) / 3600)


def cost(problem: PowerProblem, totals: Totals) -> Array:
    """Request-seconds in the row, HP weighed by 4, and brakes: for each server and hour.

    A brake counts as `BRAKE_COST` for each server, a request turned away as `REJECTION_COST`.

    Args:
        problem: row and scenarios.
        totals: with any leading axes.
    """
    present = np.asarray(totals.presence, np.float64)
    present = present + REJECTION_COST * np.asarray(totals.rejected).sum(-1)
    brakes = np.asarray(totals.brakes) * BRAKE_COST
    return np.asarray((present / problem.servers + brakes) / hours(problem))


@cache
def _replayer(keep: bool) -> Any:
    def run(row: Row, chances: Chance, actions: jax.Array) -> Any:
        def step(state: State, given: Any) -> tuple[State, Any]:
            chance, action = given
            chance = chance._replace(arrivals=chance.arrivals.astype(jnp.int32))
            state, true = advance(row, state, action, chance)
            return state, (state.applied, state.brake_left > 0, true) if keep else None

        state, kept = jax.lax.scan(step, init(row), (chances, actions))
        return state.totals, kept

    rows = Row(None, None, None, 0, None, None)  # type: ignore[arg-type]
    return jax.jit(jax.vmap(run, in_axes=(rows, 0, 0)))


def totals_of(problem: PowerProblem, actions: Array) -> Totals:
    """What the actions i8[E, T] come to, leading axis [E]."""
    sent = jnp.asarray(actions, jnp.int32)
    totals, _ = _replayer(keep=False)(row_of(problem), chances_of(problem), sent)
    found: Totals = jax.tree.map(np.asarray, totals)
    return found


def steps_of(problem: PowerProblem, actions: Array) -> tuple[Array, Array, Array]:
    """What happens at each control step, for the actions i8[E, T].

    Returns:
        i32[E, T] the action in force, bool[E, T] the brake, f32[E, T, R] readings over the budget.
    """
    sent = jnp.asarray(actions, jnp.int32)
    _, kept = _replayer(keep=True)(row_of(problem), chances_of(problem), sent)
    applied, braked, readings = map(np.asarray, kept)
    return applied, braked, readings


def objective(problem: PowerProblem, solution: Control) -> float:
    """Mean cost of the scenarios."""
    return float(np.mean(cost(problem, totals_of(problem, solution.actions))))


def lower_bound(problem: PowerProblem) -> float:
    """What the requests cost if each were served at once and at full speed.

    Each stays at least as long as its own prompt and tokens take, or until the scenario ends. It
    holds where no request is turned away: then the k-th that arrives is the k-th of the table.
    """
    total = 0.0
    length = problem.steps * STEP
    for came, requests in zip(problem.arrivals, problem.requests, strict=True):
        for kind, weight in ((LP, 1.0), (HP, HP_WEIGHT)):
            at = np.repeat(np.arange(len(came)), came[:, kind])
            took = requests[:, kind].sum(0, dtype=np.float64)[
                np.arange(len(at)) % len(requests[0, kind])
            ]
            # A micro-step counts whom it leaves behind at its end: one second less.
            until = np.minimum(at + np.ceil(took) - 1, length)
            total += weight * np.maximum(until - np.maximum(at, problem.warm_up_s), 0.0).sum()
    return float(total / problem.servers / hours(problem) / problem.scenarios)


def claims_of(totals: Totals) -> tuple[dict[str, Any], ...]:
    """What `Control.claims` holds, from totals with leading axis [E]."""
    return tuple(
        {
            "brakes": int(totals.brakes[scenario]),
            "served": np.asarray(totals.served[scenario], float).tolist(),
            "latency": np.asarray(totals.latency[scenario], float).tolist(),
        }
        for scenario in range(len(totals.brakes))
    )


def percentile(histogram: Array, share: float) -> float:
    """Seconds below which that share of the latencies is; nan where there are none.

    Interpolated inside a bin of .45 %.
    """
    counts = np.cumsum(histogram, dtype=np.float64)
    if not counts[-1]:
        return float("nan")
    wanted = share * counts[-1]
    at = int(np.searchsorted(counts, wanted))
    before = counts[at - 1] if at else 0.0
    part = (wanted - before) / max(counts[at] - before, 1e-9)
    step = np.log(MOST_LATENCY / LEAST_LATENCY) / (BINS - 1)
    return float(LEAST_LATENCY * np.exp((at + part) * step))


def summary(problem: PowerProblem, totals: Totals, reference: Totals) -> dict[str, Any]:
    """Brakes, latency increases, time capped and energy, over all scenarios.

    Args:
        problem: row and scenarios.
        totals: of one policy, leading axis [E].
        reference: the same scenarios without caps and without a breaker.
    """
    found: dict[str, Any] = {
        "brakes": int(np.sum(totals.brakes)),
        "brakes_by_scenario": np.asarray(totals.brakes).tolist(),
    }
    slo_met = found["brakes"] == 0
    for name, kind in (("hp", HP), ("lp", LP)):
        now, before = np.asarray(totals.histogram), np.asarray(reference.histogram)
        mean = totals.latency[:, kind].sum() / totals.served[:, kind].sum()
        mean_before = reference.latency[:, kind].sum() / reference.served[:, kind].sum()
        found[f"{name}_mean"] = float(mean / mean_before - 1)
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            seconds = percentile(now[:, kind].sum(0), share)
            increase = seconds / percentile(before[:, kind].sum(0), share) - 1
            found[f"{name}_{label}_s"] = seconds
            found[f"{name}_{label}"] = increase
            slo_met &= increase < constant("objectives", f"{name}_{label}")
        found[f"{name}_capped"] = float(np.mean(totals.capped[:, kind]) / hours(problem) / 3600)
    found["rejected"] = int(np.sum(totals.rejected))
    found["energy_mwh"] = float(np.sum(totals.energy) / 3600)
    found["peak"] = float(np.max(totals.peak))
    found["rise"] = float(np.max(totals.rise))
    found["cost"] = float(np.mean(cost(problem, totals)))
    found["objectives_met"] = bool(slo_met)
    return found
