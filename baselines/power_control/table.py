"""All policies by name."""

from __future__ import annotations

from functools import cache

import jax.numpy as jnp

from baselines.power_control import policies, scenarios, tuning
from baselines.power_control.clairvoyant import clairvoyant
from baselines.power_control.fit import Fit
from baselines.power_control.policies import LADDERS
from baselines.power_control.shield import shielded
from baselines.power_control.simulate import Policy
from baselines.power_control.tuned import tuned
from games.power_control.problem import PowerProblem
from hlo_frontend.errors import InputError

CLAIRVOYANT = "clairvoyant"
# Tuned on training days at each of some oversubscriptions; see `experiments/train_power.py`.
TUNED = {"best_static": "static", "polca_tuned": "polca", "ladder_tuned": "nine"}
MPC = "scenario_mpc"
MPC_WIDTH, MPC_PENALTY = 1.6, 60.0
CONTROLLERS = (*LADDERS, *TUNED, MPC, "forecast", "forecast_shielded")
POLICIES = (*CONTROLLERS, CLAIRVOYANT)
DEFAULT = "forecast_shielded"


@cache
def family(name: str) -> tuning.Family:
    """The family of a tuned policy."""
    made = {"static": tuning.STATIC, "polca": tuning.POLCA, "nine": tuning.NINE}
    return made[name] if name in made else tuning.forecast_family(Fit(**tuned()["fit"]))


def controller(name: str, oversubscription: float) -> Policy:
    """The policy of that name, any but the clairvoyant one.

    Tuned ladders have the numbers of the nearest oversubscription that they were tuned at, the
    forecast has the same at any.

    Raises:
        InputError: there is none.
    """
    if name in LADDERS:
        return Policy(name, LADDERS[name], policies.start, policies.act)
    if name == "forecast_shielded":
        inner = shielded(controller("forecast", oversubscription))
        return Policy(name, inner.parameters, inner.start, inner.act)
    if name == MPC:
        model = controller("forecast", oversubscription).parameters
        made = scenarios.Scenarios(model, jnp.float32(MPC_WIDTH), jnp.float32(MPC_PENALTY))
        return Policy(name, made, scenarios.start, scenarios.act)
    if name == "forecast":
        found = family(name)
        return Policy(name, found.make(tuned()["forecast"]), found.start, found.act)
    if name not in TUNED:
        raise InputError(f"--policy {name}: expected one of {', '.join(CONTROLLERS)}")
    found = family(TUNED[name])
    numbers = tuned()["numbers"][TUNED[name]]
    nearest = min(numbers, key=lambda each: abs(float(each) - oversubscription))
    return Policy(name, found.make(numbers[nearest]), found.start, found.act)


def get_policy(name: str, problem: PowerProblem) -> Policy:
    """The policy of that name, for this problem.

    Raises:
        InputError: there is none.
    """
    if name == CLAIRVOYANT:
        return clairvoyant(problem)
    if name not in CONTROLLERS:
        raise InputError(f"--policy {name}: expected some of {', '.join(POLICIES)}, or all")
    return controller(name, problem.oversubscription)
