"""IOPDDL: the contest's instances of a folder, by the portfolio and by its parts alone.

All methods get the same seconds for an instance, reading and reducing it included for none of them
(`read` has that). The portfolio is what `compiler-rl iopddl` runs, two cores; the others have one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from baselines.tensor_parallel import annealing, highs, local_search, trws
from compiler_rl.iopddl import search
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from games.tensor_parallel.dual import forget
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.validator import evaluate
from hlo_frontend.errors import InputError

NAME = "tensor_parallel"
# The best of 20 teams, 8 cores, 60 to 300 s, by the name of the instance: the organisers' table
# in github.com/ti2-group/iopddl_experiments, iopddl_final_results.csv.
BEST_TEAM = {
    "asplos-2025-iopddl-A": 6_548_641_531,
    "asplos-2025-iopddl-B": 532_843,
    "asplos-2025-iopddl-G": 217_039,
    "asplos-2025-iopddl-K": 2_274_276_676,
    "asplos-2025-iopddl-M": 49_928_460_991,
    "asplos-2025-iopddl-U": 2_569_342_178,
}
ALONE: dict[str, Callable[..., Any]] = {"trws": trws, "highs": highs, "annealing": annealing}
METHODS = (*ALONE, "portfolio")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "tensor_parallel.json", time_limit=60.0)
    options.add_argument("folder", type=Path, help="folder of .json or .json.gz problems")
    options.set_defaults(seeds=1)
    chosen = options.parse_args(arguments)
    files = sorted(path for path in chosen.folder.glob("*.json*") if path.is_file())
    if not files:
        raise InputError(f"{chosen.folder}: no .json or .json.gz files there")
    # Loads the kernels, or compiles them, on the smallest problem that leaves anything to decide.
    for path in sorted(files, key=lambda path: path.stat().st_size):
        warm = read_problem(path)
        for solver in (*ALONE.values(), local_search):
            solver(warm, time_limit=0.1)
        if reduce(warm).num_decisions:
            break
    results = Results(chosen.out, NAME)
    for path in files:
        begun = time.perf_counter()
        problem = read_problem(path)
        read_s = time.perf_counter() - begun
        graph = reduce(problem)
        facts = {
            "nodes": problem.num_nodes,
            "edges": problem.num_edges,
            "decisions": graph.num_decisions,
            "decision_edges": graph.num_edges,
            "read_s": read_s,
            "reduce_s": time.perf_counter() - begun - read_s,
        }
        for method in METHODS:
            for seed in range(chosen.seeds):
                config = {
                    "instance": problem.name,
                    "method": method,
                    "time_limit": chosen.time_limit,
                    "seed": seed,
                }
                results.measure(config, partial(_measure, problem, config, facts))
    results.write_report(report(results))


def _measure(problem: ShardingProblem, config: Cell, facts: Cell) -> Cell:
    forget(problem)
    begun = time.perf_counter()
    if config["method"] == "portfolio":
        outcome = search(problem, config["time_limit"], config["seed"])
        result, bound = outcome.winner, outcome.bound
    else:
        result = ALONE[config["method"]](
            problem, time_limit=config["time_limit"], seed=config["seed"]
        )
        bound = result.bound
    wall_s = time.perf_counter() - begun
    cost, faults = evaluate(problem, result.solution)
    found = result.objective < inf and not faults
    return facts | {
        "cost": cost if found else None,
        "bound": bound,
        "winner": result.method,
        "wall_s": wall_s,
    }


def table(results: Results) -> str:
    """One row an instance: costs of the methods relative to the best team's."""
    groups: dict[tuple[str, float], dict[str, list[Cell]]] = {}
    for cell in results.cells:
        config = cell["config"]
        group = groups.setdefault((config["instance"], config["time_limit"]), {})
        group.setdefault(config["method"], []).append(cell["result"])
    rows = []
    for (instance, limit), methods in groups.items():
        facts = next(iter(methods.values()))[0]
        best = BEST_TEAM.get(instance)
        bounds = [r["bound"] for found in methods.values() for r in found if r["bound"] is not None]
        rows.append(
            [
                instance.removeprefix("asplos-2025-iopddl-"),
                f"{facts['nodes']:,} → {facts['decisions']:,}",
                f"{facts['read_s'] + facts['reduce_s']:.1f}",
                f"{limit:.0f}",
                "" if best is None else f"{best:,}",
                f"{max(bounds):,.0f}" if bounds else "",
                *(_costs(methods.get(method, []), best) for method in METHODS),
            ]
        )
    header = ["instance", "decisions", "read, s", "limit, s", "best team", "bound"]
    return markdown_table([*header, *METHODS], rows)


def _costs(found: list[Cell], best: int | None) -> str:
    costs = [result["cost"] for result in found if result["cost"] is not None]
    if not found:
        return ""
    if not costs:
        return "none"
    worst = max(costs)
    ratio = "" if best is None else f" ({worst / best:.4f})"
    return f"{worst:,}{ratio}"


def report(results: Results) -> str:
    """The table and what its figures are."""
    notes = (
        "Costs as the contest's evaluator counts them, the worst of the seeds; in brackets relative"
        " to the best team's (8 cores, 60 to 300 s). The bound is the best that any method proved."
    )
    return "\n\n".join(["# Tensor-parallel strategies: IOPDDL", table(results), notes])


if __name__ == "__main__":
    sys.exit(run(main))
