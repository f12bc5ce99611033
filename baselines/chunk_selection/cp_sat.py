"""Exact solvers: CP-SAT on the game's loss, and on the additive knapsack that people use."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model

from baselines.chunk_selection.heuristics import value_greedy
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, lower_bound, objective
from games.chunk_selection.value import NOBODY

SCALE = 10**7  # of probabilities to integers
PARTS = 10**4  # of a text's share to integers
TOLERANCE = 1e-3  # relative; what rounding to integers can do


def cp_sat(
    problem: ChunkSelectionProblem, *, time_limit: float, seed: int = 0, workers: int = 1
) -> Result[Selection]:
    """The loss as an integer program: shares of texts, and a variable for each hypothesis.

    Coverage rounds up and probabilities to the nearest, and the bound gives back what that may
    cost.
    """
    started = time.perf_counter()
    count = problem.size
    model = cp_model.CpModel()
    take = [model.new_bool_var(f"take{i}") for i in range(count)]
    model.add(sum(int(t) * x for t, x in zip(problem.tokens, take, strict=True)) <= problem.budget)
    share = []
    for i in range(count):
        others = [j for j in np.flatnonzero(problem.overlap[i] > 0) if j != i]
        if not others:
            share.append((take[i], PARTS))
            continue
        part = model.new_int_var(0, PARTS, f"share{i}")
        repeated = sum(int(np.ceil(problem.overlap[i, j] * PARTS)) * take[int(j)] for j in others)
        model.add(part <= PARTS * take[i] + repeated)
        share.append((part, 1))
    there = problem.members != NOBODY
    marginal = problem.marginals
    terms = []
    slack = 0.0  # what rounding may hide, in units of the loss
    for i in range(count):
        weight = round(float(marginal[i]) * SCALE)
        slack += abs(weight / SCALE - float(marginal[i]))
        variable, factor = share[i]
        terms.append(weight * factor * variable)
    for row, (members, complete) in enumerate(zip(problem.members, problem.complete, strict=True)):
        exact = problem.all_weight * float(complete)
        weight = round(exact * SCALE)
        slack += abs(weight / SCALE - exact)
        if weight == 0:
            continue
        chosen = [int(m) for m in members[there[row]]]
        if len(chosen) == 1:
            variable, factor = share[chosen[0]]
            terms.append(weight * factor * variable)
            continue
        if all(share[m][1] == PARTS for m in chosen):
            everything = model.new_bool_var(f"all{row}")
            for m in chosen:
                model.add_implication(everything, take[m])
            terms.append(weight * PARTS * everything)
            continue
        least = model.new_int_var(0, PARTS, f"least{row}")
        for m in chosen:
            variable, factor = share[m]
            model.add(least <= factor * variable)
        terms.append(weight * least)
    price = problem.cost_weight / problem.budget
    for i in range(count):
        terms.append(-round(price * int(problem.tokens[i]) * SCALE * PARTS) * take[i])
    model.maximize(sum(terms))
    first = value_greedy(problem).solution
    for i in range(count):
        model.add_hint(take[i], i in first.order)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(time_limit, 1e-3)
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    selection, bound = first, lower_bound(problem)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        found = Selection(tuple(i for i in range(count) if solver.value(take[i])))
        if objective(problem, found) < objective(problem, first):
            selection = found
        most = solver.best_objective_bound / (SCALE * PARTS) + slack
        bound = max(bound, 1.0 + problem.all_weight - most)
    value = objective(problem, selection)
    return Result(
        method="cp_sat",
        solution=selection,
        objective=value,
        bound=min(bound, value),
        wall_s=time.perf_counter() - started,
        proved_optimal=value - bound <= TOLERANCE * value,
        detail={"status": solver.status_name(status)},
    )


def knapsack(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = 5.0,
    seed: int = 0,
    utility: npt.NDArray[np.float64] | None = None,
    sharpness: float = 4.0,
) -> Result[Selection]:
    """The additive knapsack, exactly: of exp(sharpness * score in 0..1), or of `utility` f64[N]."""
    started = time.perf_counter()
    if utility is None:
        score = problem.features.score
        low, high = float(score.min()), float(score.max())
        utility = np.exp(sharpness * (score - low) / max(high - low, 1e-12))
    weights = np.round(utility / max(float(utility.max()), 1e-12) * 10**6).astype(np.int64)
    model = cp_model.CpModel()
    take = [model.new_bool_var(f"take{i}") for i in range(problem.size)]
    model.add(sum(int(t) * x for t, x in zip(problem.tokens, take, strict=True)) <= problem.budget)
    model.maximize(sum(int(w) * x for w, x in zip(weights, take, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(time_limit, 1e-3)
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    chosen: list[int] = []
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        chosen = [i for i in range(problem.size) if solver.value(take[i])]
    chosen.sort(key=lambda i: (-float(utility[i]), i))
    selection = Selection(tuple(chosen))
    return Result(
        method="knapsack",
        solution=selection,
        objective=objective(problem, selection),
        wall_s=time.perf_counter() - started,
        detail={"status": solver.status_name(status), "evaluations": 0},
    )
