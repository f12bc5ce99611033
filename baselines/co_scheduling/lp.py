"""The linear bound: how fast three resources that share one device can do their work at best."""

from __future__ import annotations

import numpy as np
from ortools.linear_solver import pywraplp

from games.co_scheduling.device import LEVELS
from games.co_scheduling.problem import (
    DECODE,
    MAX_NANO,
    NETWORK,
    NO_INTERFERENCE,
    OUT,
    PREFILL,
    RESOURCE,
    SLOTS,
    CoSchedulingProblem,
    Structure,
)
from games.co_scheduling.solution import least_work, lower_bound

SAFETY = 1e-7  # relative; the LP solver's tolerances, taken off the bound


def lp_bound(problem: CoSchedulingProblem, structure: Structure | None = None) -> float:
    """Seconds a layer that no pipeline of the structure beats; of any structure if None.

    Time is shared among the pairs (share of memory, share of network), and what is left computes;
    orders and latencies do not count. With a structure, a nano-batch also needs at least the time
    of its own operations, one after another, at full speed.
    """
    if structure is None:
        work = least_work(problem)
        chain = 0.0
    else:
        slots = structure.work(problem).reshape(MAX_NANO, SLOTS)
        compute = slots[:, np.flatnonzero(RESOURCE == 0)].sum()
        network = slots[:, np.flatnonzero(RESOURCE == NETWORK)].sum()
        decode = slots[:, DECODE : DECODE + 2].sum()
        prefill = slots[:, PREFILL : PREFILL + 2].sum()
        work = (compute, decode, prefill, network)
        chain = chain_seconds(problem, structure)
    if problem.mode == NO_INTERFERENCE:
        compute, decode, prefill, network = work
        bound = max(compute, decode + prefill, network, chain)
        return float(bound) if structure else max(float(bound), lower_bound(problem))
    solver = pywraplp.Solver.CreateSolver("GLOP")
    rows = [solver.Constraint(seconds * 1e3, solver.infinity()) for seconds in work]
    goal = solver.Objective()
    for memory in range(LEVELS + 1):
        for network_level in range(LEVELS + 1 - memory):
            for sort in (1, 2) if memory else (1,):
                time = solver.NumVar(0.0, solver.infinity(), "")
                goal.SetCoefficient(time, 1.0)
                rows[0].SetCoefficient(time, (LEVELS - memory - network_level) / LEVELS)
                rows[sort].SetCoefficient(time, float(problem.speed[sort, memory]))
                rows[3].SetCoefficient(time, float(problem.speed[3, network_level]))
    goal.SetMinimization()
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return max(chain, lower_bound(problem))
    bound = goal.Value() / 1e3 * (1.0 - SAFETY)
    return max(bound, chain, lower_bound(problem))


def chain_seconds(problem: CoSchedulingProblem, structure: Structure) -> float:
    """Seconds that some nano-batch needs at least for a layer, at full speed."""
    slots = structure.work(problem).reshape(MAX_NANO, SLOTS)
    # The parts of a nano-batch may overlap, but the longest of them takes its time.
    parts = np.maximum(slots[:, 0:OUT:2].sum(axis=1), slots[:, 1:OUT:2].sum(axis=1))
    return float((parts + slots[:, OUT:].sum(axis=1)).max())
