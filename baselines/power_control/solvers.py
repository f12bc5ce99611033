"""Policies as solvers: each plays the problem's scenarios, and its decisions are the solution."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from math import inf

import numpy as np

from baselines.power_control import tuning
from baselines.power_control.fit import Fit
from baselines.power_control.simulate import Policy, record
from baselines.power_control.table import CLAIRVOYANT, get_policy
from baselines.power_control.tuned import tuned
from games.base import Result
from games.power_control.problem import PowerProblem
from games.power_control.solution import Control, claims_of, cost, lower_bound, totals_of

TRIED = 4  # policies at a time
MOVES_A_TRIAL = 1000  # of a budget in moves: a policy's trial is worth many moves of other games
STEP = 0.15  # of a trial, of the range of each number


def played(problem: PowerProblem, policy: Policy, seed: int = 0) -> Result[Control]:
    """The result of one policy."""
    started = time.perf_counter()
    totals, kept = record(problem, policy, seed)
    return Result(
        method=policy.name,
        solution=Control(policy.name, kept[0], claims_of(totals)),
        objective=float(np.mean(cost(problem, totals))),
        wall_s=time.perf_counter() - started,
        detail={"brakes": int(totals.brakes.sum())},
    )


def heuristic(name: str) -> Callable[..., Result[Control]]:
    """The solver that plays the policy of that name."""

    def solver(problem: PowerProblem, *, time_limit: float = inf, seed: int = 0) -> Result[Control]:
        return played(problem, get_policy(name, problem), seed)

    return solver


def improve(
    problem: PowerProblem,
    *,
    time_limit: float = inf,
    seed: int = 0,
    start: Control | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Control]:
    """Local search over the forecast policy's numbers within its shield, on the own scenarios.

    What it finds is tuned to these scenarios: judge it on others.

    Args:
        problem: row and scenarios.
        time_limit: seconds.
        seed: of the trials.
        start: a solution that the result is to be no worse than.
        moves: a budget instead of the time limit, `MOVES_A_TRIAL` for a trial.
        stop: ends the search when set.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    family = tuning.within_shield(
        tuning.forecast_family(Fit(**tuned()["fit"]), actions=problem.levers), tuned()["sensor"]
    )
    low, high = np.asarray(family.low), np.asarray(family.high)
    best, best_cost = np.asarray(tuned()["forecast"]), inf
    tried = 0
    trials = inf if moves is None else max(moves // MOVES_A_TRIAL, 1)
    while tried < trials:
        if tried and stop is not None and stop.is_set():
            break
        if tried and moves is None and time.perf_counter() - started > time_limit:
            break
        steps = STEP * (high - low) * rng.standard_normal((TRIED, len(low)))
        drawn = np.clip(best + steps, low, high)
        if not tried:
            drawn[0] = best
        found = tuning.costs(problem, family, drawn)
        if found.min() < best_cost:
            best, best_cost = drawn[found.argmin()], float(found.min())
        tried += TRIED
    policy = Policy("tuned here", family.make(best.tolist()), family.start, family.act)
    result = played(problem, policy, seed)
    if start is not None:
        floor = float(np.mean(cost(problem, totals_of(problem, start.actions))))
        if floor < result.objective:
            return Result("tuned here", start, floor, wall_s=time.perf_counter() - started)
    wall_s = time.perf_counter() - started
    return Result(
        method="tuned here",
        solution=result.solution,
        objective=result.objective,
        wall_s=wall_s,
        detail={**result.detail, "evaluations": tried, "numbers": best.tolist()},
    )


def clairvoyant(
    problem: PowerProblem, *, time_limit: float = inf, seed: int = 0
) -> Result[Control]:
    """Plans with the future of the scenarios known, as no controller can; the bound is proven."""
    started = time.perf_counter()
    result = played(problem, get_policy(CLAIRVOYANT, problem), seed)
    bound = lower_bound(problem)
    return Result(
        method=CLAIRVOYANT,
        solution=result.solution,
        objective=result.objective,
        bound=bound,
        wall_s=time.perf_counter() - started,
        proved_optimal=result.objective <= bound * (1 + 1e-6),
        detail=result.detail,
    )
