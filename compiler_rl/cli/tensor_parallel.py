"""`compiler-rl iopddl`: the contest's problems of intra-operator parallelism."""

from __future__ import annotations

import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from baselines.tensor_parallel import EXACT
from compiler_rl.cli.common import (
    aside,
    console,
    methods_table,
    progress,
    require_folder,
    require_positive,
    result_of,
)
from compiler_rl.solve import solve
from games.base import Result
from games.memory_mapping.mapping_file import replace_file
from games.tensor_parallel import solution
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, peak_usage
from games.tensor_parallel.validator import evaluate
from hlo_frontend.errors import InputError

LAST_SECONDS = 1.0  # of the time limit, for what comes after the search
EXACT_ENTRIES = 300_000  # of all edge tables: larger ones are beyond the exact solver


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.command(name="iopddl")(iopddl)


def iopddl(
    file: Annotated[Path, typer.Argument(help="Problem of the contest: .json or .json.gz.")],
    time_limit: Annotated[float, typer.Option(help="Seconds, reading the file included.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write a report (JSON).")] = None,
    solution_out: Annotated[
        Path | None,
        typer.Option("--solution", help="Write the strategy of each node, as the contest does."),
    ] = None,
) -> None:
    """Picks a strategy for each node of an IOPDDL problem, at the least cost within the limit."""
    require_positive(time_limit, "--time-limit")
    require_folder(json_out, "--json")
    require_folder(solution_out, "--solution")
    started = time.perf_counter()
    problem = read_problem(file)
    graph = reduce(problem)
    console.print(
        f"{problem.name}: {problem.num_nodes:,} nodes, {problem.num_edges:,} edges;"
        f" {graph.num_decisions:,} decisions, {graph.num_edges:,} edges and {graph.num_times:,}"
        f" times at which the limit may bind are left ({time.perf_counter() - started:.1f} s)",
        highlight=False,
    )
    again = len(problem.edge_nodes) - len(set(map(tuple, problem.edge_nodes.tolist())))
    if again:
        console.print(
            f"{again:,} edges join a pair that has one before; their costs are added",
            highlight=False,
        )
    left = time_limit - LAST_SECONDS - (time.perf_counter() - started)
    outcome = search(problem, max(left, 0.5), seed)
    cost, faults = evaluate(problem, outcome.winner.solution)
    report = outcome.report(validated=not faults) | {
        "objective": cost,
        "unit": "cost",
        "peak_usage": peak_usage(problem, outcome.winner.solution)[0],
        "usage_limit": problem.usage_limit,
        "decisions": graph.num_decisions,
        "wall_s": time.perf_counter() - started,
    }
    console.print(methods_table(report["baselines"], outcome.reference, 1.0, "cost"))
    for line in outcome.verdict():
        console.print(line, highlight=False)
    if solution_out is not None:
        solution.write(solution_out, outcome.winner.solution)
    if json_out is not None:
        replace_file(json_out, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    if faults:
        raise RuntimeError(f"the solution is not valid: {faults[0]}")


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


def search(problem: ShardingProblem, time_limit: float, seed: int) -> Outcome:
    """The portfolio, and the exact solver on another core, within the same time.

    Raises:
        InputError: nothing within the limit was found.
    """
    started = time.perf_counter()
    proof = None
    # A problem too large for the exact solver has the second core for local search.
    small = len(reduce(problem).edge_cost) <= EXACT_ENTRIES
    with (
        progress("searching", 1.0, "") as shown,
        aside(EXACT.solve, problem, time_limit, seed) if small else nullcontext() as exact,
    ):
        try:
            portfolio = solve(
                problem,
                time_limit=time_limit,
                seed=seed,
                workers=1 if small else 2,
                report=shown.report,
            )
        except RuntimeError as error:
            raise InputError(
                f"{problem.name}: found no assignment within the usage limit"
                f" {problem.usage_limit} ({error}); give more --time-limit"
            ) from error
        open_yet = portfolio.objective > (portfolio.bound or 0.0) * (1 + EXACT.tolerance)
        if exact is not None and open_yet and not portfolio.detail["interrupted"]:
            # It ends at the same time; a little more is for its result to come over.
            left = started + time_limit + LAST_SECONDS - time.perf_counter()
            proof = result_of(exact, max(left, 0.1))
            if proof is not None:
                shown.report(proof)
                if evaluate(problem, proof.solution)[1]:
                    proof = None
    return Outcome(problem, portfolio, proof, time.perf_counter() - started)
