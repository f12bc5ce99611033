"""Exact solvers on the reduced problem: the ILP of Alpa with HiGHS, and a CP-SAT model.

For each decision one-hot options s, for each edge a table of pairs e with the options as its
marginals (the local polytope), and the usage of all options within the room:

    min c.s + d.e   subject to   sum e[i, :] = s_i,  sum e[:, j] = s_j,  usage(t) <= room(t)

Rows of usage are added only for the times that have a price in the dual, and then for those that a
solution breaks, until none does: the others are implied at the optimum, and each solve without
them is a relaxation, whose bound holds.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ortools.sat.python import cp_model
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from games.base import Result
from games.tensor_parallel.dual import known_dual
from games.tensor_parallel.graph import Graph
from games.tensor_parallel.problem import Floats, Ints, ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective

TOLERANCE = 1e-6
DUAL_SHARE = 0.15  # of the time limit
FIRST_TIMES = 64  # with a price, the dearest
COST_RANGE = 1e5  # of the costs that HiGHS gets
NEW_TIMES = 32  # broken ones, added after a solve


@dataclass
class _Outcome:
    """What a solver returned: options or None, a bound on the cost without the constant."""

    options: Ints | None
    bound: float


# (graph, times with a row of usage, options to start from, seconds)
_Solve = Callable[[Graph, Ints, "Ints | None", float], _Outcome]


def highs(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """The ILP by HiGHS, one thread (Huangfu & Hall, Math. Prog. Comp. 2018)."""
    del seed
    return _lazily(problem, time_limit, "highs", _solve_milp)


def cp_sat(problem: ShardingProblem, *, time_limit: float, seed: int = 0) -> Result[Strategies]:
    """One-hot options, a linear objective over pairs, by CP-SAT, one thread."""

    def solve(graph: Graph, times: Ints, start: Ints | None, seconds: float) -> _Outcome:
        return _solve_cp(graph, times, start, seconds, seed)

    return _lazily(problem, time_limit, "cp_sat", solve)


def _lazily(
    problem: ShardingProblem, time_limit: float, method: str, solve: _Solve
) -> Result[Strategies]:
    """Solves with more and more times until the solution keeps the limit at all of them."""
    begun = time.perf_counter()
    graph = reduce(problem)
    dual = known_dual(problem, DUAL_SHARE * time_limit)
    best, best_total, bound = dual.options, dual.total, dual.bound
    curve = [] if best is None else [(time.perf_counter() - begun, best_total)]
    priced = np.argsort(-dual.prices, kind="stable")[:FIRST_TIMES]
    times = np.sort(priced[dual.prices[priced] > 0])
    rounds = 0
    with contextlib.suppress(KeyboardInterrupt):
        while best_total > bound + TOLERANCE * abs(bound):
            left = time_limit - (time.perf_counter() - begun)
            if left <= 0:
                break
            rounds += 1
            found: _Outcome = solve(graph, times, best, left)
            bound = max(bound, found.bound + graph.constant)
            if found.options is None:
                break
            over = graph.load(found.options) - graph.room
            if not len(over) or over.max() <= 0:
                total = graph.total(found.options)
                if total < best_total:
                    best, best_total = found.options, total
                    curve.append((time.perf_counter() - begun, total))
                break
            times = np.union1d(times, _worst(over))
    solution = Strategies(graph.expand(dual.fallback if best is None else best))
    cost = math.inf if best is None else objective(problem, solution)
    return Result(
        method=method,
        solution=solution,
        objective=cost,
        bound=bound,
        wall_s=time.perf_counter() - begun,
        proved_optimal=cost <= bound + TOLERANCE * abs(bound),
        curve=tuple(curve),
        detail={"rounds": rounds, "times": len(times)},
    )


def _worst(over: Ints) -> Ints:
    """The worst time of each stretch in which the limit is broken, the worst of these first."""
    above = np.concatenate([[False], over > 0, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
    worst = np.array([begin + over[begin:end].argmax() for begin, end in edges.tolist()])
    return worst[np.argsort(-over[worst], kind="stable")[:NEW_TIMES]]


def _usage_rows(graph: Graph, times: Ints) -> tuple[Ints, Ints, Floats]:
    """(row, option, amount) of what each option uses at each of the times."""
    rows, columns, amounts = [], [], []
    for decision in range(graph.num_decisions):
        begin, end = graph.start[decision : decision + 2]
        for use in range(graph.use_start[decision], graph.use_start[decision + 1]):
            low, high = np.searchsorted(times, [graph.use_begin[use], graph.use_end[use]])
            first = graph.use_first[use]
            amount = graph.amount[first : first + end - begin]
            used = np.flatnonzero(amount)
            rows.append(np.repeat(np.arange(low, high), len(used)))
            columns.append(np.tile(begin + used, high - low))
            amounts.append(np.tile(amount[used], high - low))
    if not rows:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(amounts).astype(float)


def _solve_milp(graph: Graph, times: Ints, start: Ints | None, seconds: float) -> _Outcome:
    del start
    options = len(graph.cost)
    counts = np.diff(graph.start)
    finite = np.flatnonzero(np.isfinite(graph.edge_cost))
    owner = np.searchsorted(graph.edge_start, finite, side="right") - 1
    cell = finite - graph.edge_start[owner]
    first, second = graph.edge[owner].T if graph.num_edges else np.empty((2, 0), np.int64)
    width = counts[second]
    row_of, column_of = cell // np.maximum(width, 1), cell % np.maximum(width, 1)
    # Marginal rows: for each edge those of its first decision's options, then the second's.
    at = graph.net.into
    pair = options + np.arange(len(finite))
    rows = [np.repeat(np.arange(graph.num_decisions), counts)]
    columns: list[Ints] = [np.arange(options)]
    values = [np.ones(options)]
    base = graph.num_decisions
    rows += [base + at[owner] + row_of, base + at[owner] + counts[first] + column_of]
    columns += [pair, pair]
    values += [np.ones(len(pair)), np.ones(len(pair))]
    for edge, (a, b) in enumerate(graph.edge.tolist()):
        joint = np.concatenate([np.arange(graph.start[d], graph.start[d + 1]) for d in (a, b)])
        rows.append(base + np.arange(at[edge], at[edge + 1]))
        columns.append(joint)
        values.append(-np.ones(len(joint)))
    equalities = base + int(at[-1])
    row, column, amount = _usage_rows(graph, times)
    unit = np.maximum(graph.room[times], 1).astype(float)
    rows.append(equalities + row)
    columns.append(column)
    values.append(amount / unit[row] if len(row) else amount)
    shape = (equalities + len(times), options + len(pair))
    matrix = coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape
    ).tocsr()
    lower = np.zeros(shape[0])
    lower[: graph.num_decisions] = 1
    upper = lower.copy()
    lower[equalities:] = -np.inf
    upper[equalities:] = graph.room[times] / unit
    costs = np.concatenate([graph.cost, graph.edge_cost[finite]])
    # HiGHS stops at an absolute gap of 1e-6 too, which must be little.
    scale = max(float(costs.max(initial=0)) / COST_RANGE, 1e-3)
    integral: npt.NDArray[np.int64] = np.zeros(shape[1], dtype=np.int64)
    integral[:options] = 1
    found = milp(
        costs / scale,
        constraints=LinearConstraint(matrix, lower, upper),
        bounds=Bounds(0, 1),
        integrality=integral,
        options={"time_limit": seconds, "mip_rel_gap": TOLERANCE / 10},
    )
    bound = -math.inf
    if getattr(found, "mip_dual_bound", None) is not None:
        bound = float(found.mip_dual_bound) * scale
    if found.x is None:
        return _Outcome(None, bound)
    chosen = np.array(
        [found.x[b:e].argmax() for b, e in zip(graph.start, graph.start[1:], strict=False)],
        dtype=np.int64,
    )
    return _Outcome(chosen, bound)


def _solve_cp(graph: Graph, times: Ints, start: Ints | None, seconds: float, seed: int) -> _Outcome:
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(len(graph.cost))]
    terms: list[cp_model.LinearExpr] = []
    weights: list[int] = []
    for decision in range(graph.num_decisions):
        model.add_exactly_one(chosen[graph.start[decision] : graph.start[decision + 1]])
        if start is not None:
            for option in range(graph.start[decision], graph.start[decision + 1]):
                model.add_hint(chosen[option], option - graph.start[decision] == start[decision])
    for variable, cost in zip(chosen, graph.cost.tolist(), strict=True):
        terms.append(variable)
        weights.append(round(cost))
    for edge, (a, b) in enumerate(graph.edge.tolist()):
        rows = range(graph.start[a], graph.start[a + 1])
        columns = range(graph.start[b], graph.start[b + 1])
        at = int(graph.edge_start[edge])
        by_row: dict[int, list[cp_model.IntVar]] = {i: [] for i in rows}
        by_column: dict[int, list[cp_model.IntVar]] = {j: [] for j in columns}
        for i in rows:
            for j in columns:
                cost = graph.edge_cost[at]
                at += 1
                if cost < math.inf:
                    pair = model.new_bool_var("")
                    by_row[i].append(pair)
                    by_column[j].append(pair)
                    terms.append(pair)
                    weights.append(round(cost))
        for option, pairs in (*by_row.items(), *by_column.items()):
            model.add(sum(pairs) == chosen[option])
    row, column, amount = _usage_rows(graph, times)
    for k, when in enumerate(times.tolist()):
        here = row == k
        model.add(
            cp_model.LinearExpr.weighted_sum(
                [chosen[x] for x in column[here]], amount[here].astype(np.int64).tolist()
            )
            <= int(graph.room[when])
        )
    model.minimize(cp_model.LinearExpr.weighted_sum(terms, weights))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return _Outcome(None, -math.inf)
    values = np.array([solver.boolean_value(variable) for variable in chosen])
    options = np.array(
        [values[b:e].argmax() for b, e in zip(graph.start, graph.start[1:], strict=False)],
        dtype=np.int64,
    )
    return _Outcome(options, solver.best_objective_bound)
