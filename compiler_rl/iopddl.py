"""The portfolio for IOPDDL problems: `solve()`, and the exact solver on another core."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from baselines.tensor_parallel import EXACT, HEURISTICS, prepare
from compiler_rl.aside import aside, result_of
from compiler_rl.solve import NoSolutionError, solve
from games.base import Result
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, peak_usage
from games.tensor_parallel.validator import evaluate
from hlo_frontend.errors import InputError

LAST_SECONDS = 1.0  # of the time limit, for what comes after the search
EXACT_ENTRIES = 300_000  # of all edge tables: larger ones are beyond the exact solver


@dataclass
class Outcome:
    """The portfolio's result, the exact solver's, and the better of the two."""

    problem: ShardingProblem
    portfolio: Result[Strategies]
    exact: Result[Strategies] | None
    wall_s: float

    @property
    def winner(self) -> Result[Strategies]:
        """The cheaper of the two."""
        if self.exact is not None and self.exact.objective < self.portfolio.objective:
            return self.exact
        return self.portfolio

    @property
    def bound(self) -> float:
        """The best bound that was proved."""
        bounds = [self.portfolio.bound, None if self.exact is None else self.exact.bound]
        return min(max(bound for bound in bounds if bound is not None), self.winner.objective)

    @property
    def reference(self) -> float:
        """What savings are against: the dearest method that found anything."""
        rows = self.portfolio.detail["methods"].values()
        costs = [row["objective"] for row in rows if row["objective"] < math.inf]
        return float(max([*costs, 1.0]))

    @property
    def proved(self) -> bool:
        """Nothing is cheaper."""
        return self.winner.objective <= self.bound * (1 + EXACT.tolerance)

    def report(self, *, validated: bool) -> dict[str, Any]:
        """The keys that every game's report has."""
        rows: dict[str, dict[str, Any]] = {}
        for name, row in self.portfolio.detail["methods"].items():
            proof = row["bound"] is not None and (
                row["objective"] <= row["bound"] * (1 + EXACT.tolerance)
            )
            rows[name] = row | {"proved": proof}
            if row["objective"] == math.inf:
                rows[name] |= {"objective": None, "note": "not within the limit"}
        if self.exact is not None:
            found = self.exact.objective < math.inf
            rows[EXACT.name] = {
                "objective": self.exact.objective if found else None,
                "wall_s": self.exact.wall_s,
                "bound": self.exact.bound,
                "proved": self.exact.proved_optimal,
                **({} if found else {"note": "nothing found"}),
            }
        return {
            "game": "tensor_parallel",
            "winner": self.winner.method,
            "baselines": rows,
            "lower_bound": self.bound,
            "proved_optimal": self.proved,
            "interrupted": self.portfolio.detail["interrupted"],
            "curve": self.portfolio.curve,
            "wall_s": self.wall_s,
            "validated": validated,
        }

    def verdict(self) -> list[str]:
        """What to make of it, in plain words."""
        best = self.winner.objective
        lines = [f"{self.winner.method} wins: {best:,.0f}."]
        if self.proved:
            lines.append("No assignment is cheaper: the bound is reached.")
        else:
            lines.append(
                f"No assignment is cheaper than {self.bound:,.0f}: at most"
                f" {1 - self.bound / best:.2%} is left."
            )
        if self.portfolio.detail["interrupted"]:
            lines.append("Interrupted: this is the best found until then.")
        return lines


def search(
    problem: ShardingProblem,
    time_limit: float,
    seed: int = 0,
    report: Callable[[Result[Any]], None] | None = None,
) -> Outcome:
    """The portfolio, and the exact solver on another core, within the same time.

    Raises:
        InputError: nothing within the limit was found.
    """
    prepare()
    started = time.perf_counter()
    proof = None
    # A problem too large for the exact solver has the second core for local search.
    small = len(reduce(problem).edge_cost) <= EXACT_ENTRIES
    beside = aside(EXACT.solve, problem, time_limit, seed) if small else nullcontext()
    with beside as exact:
        try:
            portfolio = solve(
                problem,
                time_limit=time_limit,
                seed=seed,
                workers=1 if small else 2,
                report=report,
            )
        except NoSolutionError as error:
            nearest = HEURISTICS["least_usage"](problem, time_limit=time_limit).solution
            used, when = peak_usage(problem, nearest)
            raise InputError(
                f"{problem.name}: found no feasible assignment: the one of least usage needs {used}"
                f" at time {when}, the limit is {problem.usage_limit}; give more time or usage"
            ) from error
        open_yet = portfolio.objective > (portfolio.bound or 0.0) * (1 + EXACT.tolerance)
        if exact is not None and open_yet and not portfolio.detail["interrupted"]:
            # It ends at the same time; a little more is for its result to come over.
            left = started + time_limit + LAST_SECONDS - time.perf_counter()
            proof = result_of(exact, max(left, 0.1))
            if proof is not None:
                if report is not None:
                    report(proof)
                if evaluate(problem, proof.solution)[1]:
                    proof = None
    return Outcome(problem, portfolio, proof, time.perf_counter() - started)
