"""Local search: structures race in short annealings, then the winner's structure moves too."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from baselines.co_scheduling.chain import Chain
from baselines.co_scheduling.kernel import EVERYTHING, LEVELS_AND_ORDER
from baselines.co_scheduling.plans import Plan, adapted
from games.base import Result
from games.co_scheduling.device import Floats
from games.co_scheduling.problem import CoSchedulingProblem, Structure
from games.co_scheduling.solution import Pipeline, evaluate, make_pipeline, objective, whole
from games.co_scheduling.structures import (
    alone,
    candidates,
    count_chunks,
    fixed_levels,
    nanoflow_reduced,
    recut,
    spread_phases,
    two_halves,
)

HOT, COLD = 0.03, 1e-4  # temperatures, relative to the lower bound
FIRST_LEVELS = fixed_levels(5, 3, 2)  # an even share for each, more or less
EPOCH_SECONDS, EPOCH_MOVES = 4.0, 500_000  # of one race; more are run in turn
MOST_EPOCHS = 12
ENTRANTS = 64  # of a race of full length
FEWEST = 8  # of any race
ROUNDS = 5  # of a race: annealings, after each of which the better half goes on
LAST = 2  # so many chains go on to the last round
ORDER_CYCLES = 3
FREE_HOT = 0.01
SLICES = 40  # of an annealing: temperatures, and looks at the clock
BATCH_SECONDS = 0.01
FIRST_BATCH = 16  # moves


class Search:
    """The budget, the best pipeline so far, and when it was found."""

    def __init__(
        self,
        problem: CoSchedulingProblem,
        time_limit: float,
        moves: int | None,
        stop: threading.Event | None,
    ) -> None:
        self.problem = problem
        self.started = time.perf_counter()
        self.time_limit = time_limit
        self.budget = moves
        self.stop = stop
        self.done = 0
        self.best = math.inf
        self.pipeline: Pipeline | None = None
        self.curve: list[tuple[float, float]] = []

    def spent(self) -> float:
        """The share of the budget that is gone."""
        if self.stop is not None and self.stop.is_set():
            return 1.0
        if self.budget is not None:
            return self.done / max(self.budget, 1)
        return (time.perf_counter() - self.started) / max(self.time_limit, 1e-9)

    def cool(self, chain: Chain, until: float, hot: float, cold: float, scope: int) -> None:
        """Anneals a chain from hot to cold until that share of the budget is gone."""
        begin = self.spent()
        batch = FIRST_BATCH
        while (spent := self.spent()) < until:
            gone = (spent - begin) / (until - begin)
            temperature = hot * (cold / hot) ** (round(gone * SLICES) / SLICES)
            if self.budget is not None:
                batch = max(1, math.ceil(self.budget * (until - begin) / SLICES))
                batch = min(batch, max(1, math.ceil(self.budget * until) - self.done))
            before = time.perf_counter()
            chain.run(batch, temperature, scope)
            seconds = max(time.perf_counter() - before, 1e-6)
            self.done += batch
            self.look(chain)
            if self.budget is None:
                batch = max(1, min(4 * batch, int(batch * BATCH_SECONDS / seconds)))

    def look(self, chain: Chain) -> None:
        """Takes the chain's best state if it is better than everything so far."""
        if chain.best < self.best:
            pipeline = chain.pipeline()
            if pipeline is not None:
                self.offer(pipeline)

    def offer(self, pipeline: Pipeline) -> None:
        """Takes a pipeline if it is better."""
        value = objective(self.problem, pipeline)
        if value < self.best:
            self.best, self.pipeline = value, pipeline
            self.curve.append((time.perf_counter() - self.started, value))

    def result(self, method: str) -> Result[Pipeline]:
        """What came of it."""
        if self.pipeline is None:
            raise RuntimeError("no executable pipeline, not even the first")
        return Result(
            method=method,
            solution=self.pipeline,
            objective=self.best,
            wall_s=time.perf_counter() - self.started,
            curve=tuple(self.curve),
            detail={"moves": self.done},
        )


def local_search(
    problem: CoSchedulingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Pipeline | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Pipeline]:
    """Races structures: short annealings, of which the better half goes on, with free structure.

    Args:
        problem: to be solved.
        time_limit: seconds; with `moves` given it is not looked at.
        seed: of the moves.
        start: a pipeline whose structure takes part in the race, and which is the first to beat.
        moves: budget in moves instead of the time limit; the result is then deterministic.
        stop: ends the search early when another thread sets it.

    Ctrl-C has the same effect as the time limit.
    """
    return _run(problem, "racing", _race, time_limit, seed, start, moves, stop)


def annealing(
    problem: CoSchedulingProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Pipeline | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Pipeline]:
    """Plain simulated annealing: one chain from hot to cold over structure, order and shares.

    The arguments are those of `local_search`; it starts from `start`, or from two equal halves.
    """
    return _run(problem, "annealing", _anneal, time_limit, seed, start, moves, stop)


Way = Callable[[Search, "Pipeline | None", int], None]


def _run(
    problem: CoSchedulingProblem,
    method: str,
    way: Way,
    time_limit: float,
    seed: int,
    start: Pipeline | None,
    moves: int | None,
    stop: threading.Event | None,
) -> Result[Pipeline]:
    search = Search(problem, time_limit, moves, stop)
    if start is not None:
        search.offer(start)
    else:
        structure = two_halves(problem)
        first = make_pipeline(problem, structure, spread_phases(problem, structure), FIRST_LEVELS)
        if first is not None:
            search.offer(first)
    with contextlib.suppress(KeyboardInterrupt):
        way(search, start, seed)
    return search.result(method)


def _chain(
    problem: CoSchedulingProblem, structure: Structure, phase: Floats | None, seed: int
) -> Chain:
    if phase is None:
        phase = spread_phases(problem, structure)
    return Chain(problem, structure, phase, FIRST_LEVELS, seed)


def _anneal(search: Search, start: Pipeline | None, seed: int) -> None:
    problem = search.problem
    if start is None:
        chain = _chain(problem, two_halves(problem), None, seed)
    else:
        chain = Chain(problem, start.structure, start.phase, start.level, seed)
    search.cool(chain, 1.0, HOT, COLD, EVERYTHING)


@dataclass
class _Entrant:
    """A chain in a race; `warm` if it starts from a plan, which heat would only spoil."""

    chain: Chain
    warm: bool


def _race(search: Search, start: Pipeline | None, seed: int) -> None:
    problem = search.problem
    seeds = np.random.default_rng(seed)

    def number() -> int:
        return int(seeds.integers(2**63))

    structures = _promising(problem)
    plans = adapted(problem)
    if search.budget is None:
        size = search.time_limit / EPOCH_SECONDS
    else:
        size = search.budget / EPOCH_MOVES
    epochs = min(max(round(size), 1), MOST_EPOCHS)
    # A short race has few entrants, so that each gets somewhere.
    room = max(int(ENTRANTS * min(size, 1.0)), FEWEST)
    for epoch in range(epochs):
        entrants = [
            _Entrant(Chain(problem, plan.structure, plan.phase, plan.level, number()), True)
            for plan in plans[: max(room // 2, 1)]
        ]
        given = search.pipeline if epoch else start
        if given is not None:
            chain = Chain(problem, given.structure, given.phase, given.level, number())
            entrants.append(_Entrant(chain, True))
        fresh = max(room - len(entrants), 1)
        # Epochs go through the structures in turn.
        first = epoch * fresh
        for k in range(min(fresh, len(structures))):
            structure = structures[(first + k) % len(structures)]
            entrants.append(_Entrant(_chain(problem, structure, None, number()), False))
        _epoch(search, entrants, epoch / epochs, (epoch + 1) / epochs)


def _promising(problem: CoSchedulingProblem) -> list[Structure]:
    """NanoFlow's cut and two halves; then first what is fastest at an even pace and shares."""

    def key(structure: Structure) -> bytes:
        return count_chunks(problem, structure).tobytes() + structure.gathered.tobytes()

    usual = {key(nanoflow_reduced(problem)), key(two_halves(problem))}

    def rank(structure: Structure) -> tuple[bool, float]:
        phase = spread_phases(problem, structure)
        even = evaluate(problem, structure, phase, FIRST_LEVELS)
        return key(structure) not in usual, even

    return sorted(candidates(problem), key=rank)


def _epoch(search: Search, entrants: list[_Entrant], begin: float, end: float) -> None:
    """One race; `begin` and `end` are shares of the whole budget."""
    for turn in range(ROUNDS):
        low = begin + (end - begin) * turn / ROUNDS
        high = begin + (end - begin) * (turn + 1) / ROUNDS
        for place, entrant in enumerate(entrants):
            until = low + (high - low) * (place + 1) / len(entrants)
            entrant.chain.restart()
            if turn or entrant.warm:
                search.cool(entrant.chain, until, FREE_HOT, COLD, EVERYTHING)
            else:
                search.cool(entrant.chain, until, HOT, COLD, LEVELS_AND_ORDER)
        entrants.sort(key=lambda entrant: entrant.chain.best)
        entrants = entrants[: max(LAST, len(entrants) // 2)]


def order_search(
    problem: CoSchedulingProblem, structure: Structure, *, time_limit: float, seed: int = 0
) -> Result[Pipeline]:
    """Simulated annealing of order and shares alone, of one structure."""

    def way(search: Search, start: Pipeline | None, seed: int) -> None:
        del start
        chain = _chain(problem, structure, None, seed)
        for cycle in range(ORDER_CYCLES):
            chain.restart()
            search.cool(chain, (cycle + 1) / ORDER_CYCLES, HOT, COLD, LEVELS_AND_ORDER)

    phase = spread_phases(problem, structure)
    first = make_pipeline(problem, structure, phase, FIRST_LEVELS)
    return _run(problem, "order", way, time_limit, seed, first, None, None)


def replan(
    problem: CoSchedulingProblem, given: Pipeline, *, time_limit: float, seed: int = 0
) -> Result[Pipeline]:
    """A plan for a new batch: the best of an old plan and the library's, annealed on.

    Args:
        problem: of the new batch.
        given: the plan for another batch, of which shape, order and shares carry over.
        time_limit: seconds, some hundredths of one.
        seed: of the moves.
    """

    def way(search: Search, start: Pipeline | None, seed: int) -> None:
        plan = search.pipeline if start is None else start
        if plan is None:
            return
        chain = Chain(problem, plan.structure, plan.phase, plan.level, seed)
        search.cool(chain, 1.0, FREE_HOT, COLD, EVERYTHING)

    old = Plan(recut(problem, given.structure), given.phase, given.level)
    piece = whole(problem)
    sequential = Plan(piece, spread_phases(problem, piece), alone())
    starts = [old, sequential, *adapted(problem)[:1]]
    best = min(starts, key=lambda s: evaluate(problem, s.structure, s.phase, s.level))
    first = make_pipeline(problem, best.structure, best.phase, best.level)
    return _run(problem, "replan", way, time_limit, seed, first, None, None)
