"""Makes `baselines/co_scheduling/plans.json`: plans for other batches to start from.

    python -m experiments.plan_library [--problems 16] [--seconds 4] [--keep 6]

Random batches of several models and devices, none of them of a benchmark, are searched one by one;
of the plans found, those are kept, one after another, that make the best starts together: a short
annealing from the best of them, on all the batches.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from baselines.co_scheduling.chain import Chain
from baselines.co_scheduling.kernel import EVERYTHING
from baselines.co_scheduling.local_search import local_search
from baselines.co_scheduling.plans import SCHEMA, Plan
from experiments.common import ROOT, run
from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import MODES, CoSchedulingProblem, make_problem
from games.co_scheduling.structures import recut
from games.files import replace_file

OUT = ROOT / "baselines" / "co_scheduling" / "plans.json"
SETUPS = (("llama-3-70b", "a100", 8), ("qwen2-72b", "h100", 8), ("llama-3-8b", "a100", 2))
CACHED = 900_000  # tokens that fit into the cache of every setup
MOVES, TEMPERATURE = 2000, 0.003  # of the short annealings


def main(arguments: Sequence[str] | None = None) -> None:
    """Searches, chooses and writes."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--problems", type=int, default=16, help="default: %(default)s")
    options.add_argument("--seconds", type=float, default=4.0, help="default: %(default)s")
    options.add_argument("--keep", type=int, default=6, help="default: %(default)s")
    options.add_argument("--seed", type=int, default=2024, help="default: %(default)s")
    options.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT.relative_to(ROOT)}")
    chosen = options.parse_args(arguments)
    kept: dict[str, list[object]] = {}
    for mode, name in enumerate(MODES):
        problems = training_problems(mode, chosen.problems, chosen.seed)
        found = []
        for number, problem in enumerate(problems):
            result = local_search(problem, time_limit=chosen.seconds, seed=number)
            pipeline = result.solution
            found.append(Plan(pipeline.structure, pipeline.phase, pipeline.level))
            print(f"{name} {number}: {result.objective * 1e3:.4f} ms, {problem.name}",
                  file=sys.stderr, flush=True)  # fmt: skip
        values = np.array([[_start_value(problem, plan) for problem in problems] for plan in found])
        kept[name] = [found[index].to_json() for index in choose(values, chosen.keep)]
    data = {"schema": SCHEMA, "plans": kept}
    replace_file(chosen.out, (json.dumps(data) + "\n").encode())


def training_problems(mode: int, count: int, seed: int) -> list[CoSchedulingProblem]:
    """Random batches; the setups take turns."""
    rng = np.random.default_rng(seed)
    problems = []
    for number in range(count):
        model, device, tp = SETUPS[number % len(SETUPS)]
        tokens = int(rng.integers(512, 2561))
        decode = int(tokens * rng.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
        context = min(float(rng.integers(200, 3000)), CACHED / max(decode, 1))
        batch = Batch(decode, context, tokens - decode, float(rng.integers(100, 3000)))
        problems.append(make_problem(get_model(model), get_device(device), tp, batch, mode))
    return problems


def _start_value(problem: CoSchedulingProblem, plan: Plan) -> float:
    """Seconds a layer after a short annealing from a plan."""
    structure = recut(problem, plan.structure)
    chain = Chain(problem, structure, plan.phase, plan.level, 0)
    chain.run(MOVES, TEMPERATURE, EVERYTHING)
    return chain.best


def choose(values: np.ndarray, keep: int) -> list[int]:
    """Rows of f64[plans, problems] whose least, over the rows, is small relative to the best."""
    ratios = np.minimum(values / values.min(axis=0), 10.0)
    chosen: list[int] = []
    least = np.full(values.shape[1], 10.0)
    for _ in range(min(keep, len(values))):
        means = np.minimum(ratios, least).mean(axis=1)
        best = int(means.argmin())
        if best in chosen:
            break
        chosen.append(best)
        least = np.minimum(least, ratios[best])
    return chosen


if __name__ == "__main__":
    sys.exit(run(main))
