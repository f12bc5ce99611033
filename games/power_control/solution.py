"""What a controller did in each scenario, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from games.power_control.constants import constant
from games.power_control.problem import PowerProblem
from games.power_control.rules import BINS, HP, LEAST_LATENCY, LP, MOST_LATENCY, Totals

BRAKE_COST = 3600.0  # request-seconds of LP that a brake counts as, for each server
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


def cost(problem: PowerProblem, totals: Totals) -> Array:
    """Request-seconds in the row, HP weighed by 4, and brakes: for each server and hour.

    Args:
        problem: row and scenarios.
        totals: with any leading axes.
    """
    hours = (problem.steps * constant("timing", "control_step_s") - problem.warm_up_s) / 3600
    present = np.asarray(totals.presence, np.float64) / problem.servers
    return np.asarray((present + np.asarray(totals.brakes) * BRAKE_COST) / hours)


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
        hours = problem.steps * constant("timing", "control_step_s") - problem.warm_up_s
        found[f"{name}_capped"] = float(np.mean(totals.capped[:, kind]) / hours)
    found["rejected"] = int(np.sum(totals.rejected))
    found["energy_mwh"] = float(np.sum(totals.energy) / 3600)
    found["peak"] = float(np.max(totals.peak))
    found["rise"] = float(np.max(totals.rise))
    found["cost"] = float(np.mean(cost(problem, totals)))
    found["objectives_met"] = bool(slo_met)
    return found
