"""Heuristics: sequential, two-batch, list schedules with fixed shares, NanoFlow's two stages."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np

from baselines.co_scheduling.chain import Chain
from baselines.co_scheduling.kernel import EVERYTHING, LEVELS_ONLY
from games.base import Result
from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    MAX_NANO,
    NO_INTERFERENCE,
    SLOTS,
    CoSchedulingProblem,
    Structure,
)
from games.co_scheduling.solution import (
    Pipeline,
    evaluate,
    lower_bound,
    make_pipeline,
    objective,
    whole,
)
from games.co_scheduling.structures import (
    alone,
    fixed_levels,
    nanoflow,
    nanoflow_reduced,
    spread_phases,
    two_halves,
)

STAGE_MOVES = 6000  # of either of the two stages
HOT, COLD = 0.02, 1e-4  # temperatures, relative to the lower bound
SLICES = 30

# One slot after another: each waits until the one before has ended, because it has no share left.
_Plan = tuple[Structure, Floats, Ints, bool]


def sequential(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """Everything in one piece, one operation after another."""
    del time_limit, seed
    structure = whole(problem)
    return _best(problem, "sequential", [(structure, _one_by_one(structure), alone(), False)])


def split_sequential(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """NanoFlow's nano-batches, one after another: what cutting costs by itself."""
    del time_limit, seed
    started = time.perf_counter()
    structure = nanoflow(problem)
    work = structure.work(problem).reshape(MAX_NANO, SLOTS)
    there = work > 0
    begin = np.zeros((MAX_NANO, SLOTS, problem.layers))
    now = 0.0
    for layer, nano, slot in product(range(problem.layers), range(MAX_NANO), range(SLOTS)):
        begin[nano, slot, layer] = now
        now += work[nano, slot]
    start = np.where(there[..., None], begin, np.nan).reshape(MAX_NANO * SLOTS, -1)
    pipeline = Pipeline(
        structure, spread_phases(problem, structure), alone(), start, start + work.reshape(-1, 1)
    )
    return _result("split_sequential", problem, pipeline, started, 1)


def two_batch(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """Two equal nano-batches half a round apart, with the best shares of a grid."""
    del time_limit, seed
    structures = [two_halves(problem)]
    return _best(problem, "two_batch", _grid(problem, structures, greedy=False))


def list_schedule(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """List scheduling by upward rank, with the best shares of a grid, of three structures.

    The rank of an operation is the time that it and what follows it in its nano-batch take, in all
    layers (Topcuoglu et al., IEEE TPDS 2002); whatever is ready and has the highest rank starts.
    """
    del time_limit, seed
    structures = [two_halves(problem), nanoflow(problem), nanoflow_reduced(problem)]
    return _best(problem, "list", _grid(problem, structures, greedy=True))


def latency_hiding(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """In the manner of XLA's latency-hiding scheduler: only the network runs beside the rest.

    Collectives start as soon as they can, one at a time; compute and memory are one stream. Where
    operations slow each other down, shares of more than one half keep the two apart; of no
    interference, where there are no shares, nothing does.
    """
    del time_limit, seed
    structures = [two_halves(problem), nanoflow(problem)]
    plans = [
        (structure, _ranks(problem, structure), fixed_levels(LEVELS - net, LEVELS - net, net), True)
        for structure in structures
        for net in range(1, LEVELS // 2)
    ]
    return _best(problem, "latency_hiding", plans)


def two_stage(
    problem: CoSchedulingProblem, *, time_limit: float = 1.0, seed: int = 0
) -> Result[Pipeline]:
    """NanoFlow's two stages: structure and order without interference, then only the shares."""
    del time_limit
    started = time.perf_counter()
    ideal = replace(problem, mode=NO_INTERFERENCE)
    structure = two_halves(problem)
    first = Chain(ideal, structure, spread_phases(problem, structure), alone(), seed + 1)
    _cool(first, EVERYTHING)
    stage = first.pipeline()
    if stage is None:
        return sequential(problem)
    second = Chain(problem, stage.structure, stage.phase, fixed_levels(5, 3, 2), seed + 1)
    _cool(second, LEVELS_ONLY)
    pipeline = second.pipeline()
    if pipeline is None:
        return sequential(problem)
    return _result("two_stage", problem, pipeline, started, first.moves + second.moves)


def _cool(chain: Chain, scope: int) -> None:
    for turn in range(SLICES):
        chain.run(STAGE_MOVES // SLICES, HOT * (COLD / HOT) ** (turn / (SLICES - 1)), scope)


def _one_by_one(structure: Structure) -> Floats:
    """Phases of the slots of a nano-batch in the order of a layer."""
    del structure
    return np.tile(np.arange(SLOTS) / SLOTS, MAX_NANO) + np.repeat(np.arange(MAX_NANO) / 100, SLOTS)


def _ranks(problem: CoSchedulingProblem, structure: Structure) -> Floats:
    """f64[ALL_SLOTS]: phases, least where most is still to be done, in units of a layer."""
    spread = spread_phases(problem, structure).reshape(MAX_NANO, SLOTS)
    spread -= spread[:, :1]
    length = structure.work(problem).reshape(MAX_NANO, SLOTS).sum(axis=1)
    # Of two nano-batches at the same place, the one with the longer layer has more ahead of it.
    return np.asarray(spread - 1e-3 * (length / length.max())[:, None]).ravel()


def _grid(
    problem: CoSchedulingProblem, structures: Iterable[Structure], *, greedy: bool
) -> list[_Plan]:
    plans = []
    for structure in structures:
        phase = _ranks(problem, structure) if greedy else spread_phases(problem, structure)
        if problem.mode == NO_INTERFERENCE:
            plans.append((structure, phase, alone(), greedy))
            continue
        plans += [
            (structure, phase, fixed_levels(LEVELS - memory - network, memory, network), greedy)
            for memory in range(1, 6)
            for network in range(1, 5)
            if memory + network < LEVELS
        ]
    return plans


def _best(problem: CoSchedulingProblem, method: str, plans: list[_Plan]) -> Result[Pipeline]:
    started = time.perf_counter()
    values = [evaluate(problem, *plan[:3], greedy=plan[3]) for plan in plans]
    best = plans[int(np.argmin(values))]
    pipeline = make_pipeline(problem, *best[:3], greedy=best[3])
    if pipeline is None:
        return sequential(problem)
    return _result(method, problem, pipeline, started, len(plans))


def _result(
    method: str, problem: CoSchedulingProblem, pipeline: Pipeline, started: float, moves: int
) -> Result[Pipeline]:
    seconds = time.perf_counter() - started
    value = objective(problem, pipeline)
    return Result(
        method=method,
        solution=pipeline,
        objective=value,
        bound=lower_bound(problem),
        wall_s=seconds,
        curve=((seconds, value),),
        detail={"evaluations": moves},
    )
