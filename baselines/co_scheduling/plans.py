"""Plans that were found for other batches, as first ones for a new batch.

`plans.json` holds a few plans for each mode: how the batch was cut, the order and the shares. They
come from long searches on random batches of several models and devices
(`python -m experiments.plan_library`), from which those were kept that together start a new search
best. What carries over is the shape of a pipeline: shares of the batch, who follows whom.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from games.base import Result
from games.co_scheduling.cost import Ints
from games.co_scheduling.device import Floats
from games.co_scheduling.problem import MODES, CoSchedulingProblem, Structure
from games.co_scheduling.solution import (
    Pipeline,
    evaluate,
    lower_bound,
    make_pipeline,
    objective,
)
from games.co_scheduling.structures import alone, recut, spread_phases, two_halves

SCHEMA = "compiler-rl/plans/1"


@dataclass(frozen=True, eq=False)
class Plan:
    """A pipeline without its timetable; see `Pipeline`."""

    structure: Structure
    phase: Floats
    level: Ints

    def to_json(self) -> dict[str, Any]:
        """JSON-able; phases to a thousandth of a round."""
        return {
            "decode": self.structure.decode.tolist(),
            "prefill": self.structure.prefill.tolist(),
            "gathered": self.structure.gathered.astype(int).tolist(),
            "phase": np.round(self.phase, 3).tolist(),
            "level": self.level.tolist(),
        }


@cache
def plans(mode: int) -> tuple[Plan, ...]:
    """The plans of a mode."""
    text = resources.files("baselines.co_scheduling").joinpath("plans.json").read_text()
    return tuple(
        Plan(
            Structure(
                np.array(row["decode"], dtype=np.int64),
                np.array(row["prefill"], dtype=np.int64),
                np.array(row["gathered"], dtype=np.bool_),
            ),
            np.array(row["phase"], dtype=np.float64),
            np.array(row["level"], dtype=np.int64),
        )
        for row in json.loads(text)["plans"][MODES[mode]]
    )


def adapted(problem: CoSchedulingProblem) -> list[Plan]:
    """The plans of the problem's mode, cut for its batch: what can be executed, best first."""
    found = []
    for plan in plans(problem.mode):
        structure = recut(problem, plan.structure)
        value = evaluate(problem, structure, plan.phase, plan.level)
        if np.isfinite(value):
            found.append((value, Plan(structure, plan.phase, plan.level)))
    found.sort(key=lambda entry: entry[0])
    return [plan for _, plan in found]


def library(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """The best of the plans that were found for other batches, as it is."""
    del time_limit, seed
    started = time.perf_counter()
    candidates = adapted(problem)
    pipeline = None
    if candidates:
        best = candidates[0]
        pipeline = make_pipeline(problem, best.structure, best.phase, best.level)
    if pipeline is None:
        structure = two_halves(problem)
        phase = spread_phases(problem, structure)
        pipeline = make_pipeline(problem, structure, phase, alone())
    if pipeline is None:
        raise RuntimeError("an even pace cannot be executed")
    value = objective(problem, pipeline)
    seconds = time.perf_counter() - started
    return Result(
        method="library",
        solution=pipeline,
        objective=value,
        bound=lower_bound(problem),
        wall_s=seconds,
        curve=((seconds, value),),
        detail={"evaluations": len(candidates)},
    )
