"""Local search: simulated annealing over sets, by additions, drops and swaps."""

from __future__ import annotations

import contextlib
import math
import threading
import time

import numpy as np

from baselines.chunk_selection.kernels import anneal, greedy, make_data
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, objective

ROUND = 2000  # moves of one annealing, and between two looks at the clock
HOT, COLD = 0.03, 0.0003  # in units of the loss, which is at most 1 + all_weight
WHEEL = 256  # draws of candidates


def local_search(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float,
    seed: int = 0,
    start: Selection | None = None,
    moves: int | None = None,
    stop: threading.Event | None = None,
) -> Result[Selection]:
    """Annealings one after the other, each from the best set so far.

    Args:
        time_limit: seconds; not looked at where `moves` are given.
        moves: budget in moves, each one evaluation of the loss; the same moves and seed give the
            same selection.
        stop: ends the search early when another thread sets it.

    Ctrl-C ends the search like the time limit: the best selection so far is returned.
    """
    started = time.perf_counter()
    deadline = started + time_limit if moves is None else math.inf
    first = Selection(()) if start is None else start
    best, value = first, objective(problem, first)
    curve = [(0.0, value)]
    data = make_data(problem)
    wheel = _wheel(problem)
    order = np.random.default_rng(seed)
    done = 0
    with contextlib.suppress(KeyboardInterrupt):
        while moves is None or done < moves:
            if time.perf_counter() >= deadline or (stop is not None and stop.is_set()):
                break
            count = ROUND if moves is None else min(ROUND, moves - done)
            chosen = np.zeros(problem.size, dtype=np.bool_)
            chosen[list(best.order)] = True
            found, _ = anneal(data, chosen, wheel, count, HOT, COLD, int(order.integers(2**31)))
            done += count
            greedy(data, found, 0.0)  # what still fits and helps
            selection = Selection(_in_order(best, found))
            loss = objective(problem, selection)
            if loss < value - 1e-12:
                best, value = selection, loss
                curve.append((time.perf_counter() - started, loss))
    return Result(
        method="annealing",
        solution=best,
        objective=value,
        wall_s=time.perf_counter() - started,
        curve=tuple(curve),
        detail={"evaluations": done},
    )


def _wheel(problem: ChunkSelectionProblem) -> np.ndarray:
    """i64[]: each candidate once at least, and more often the more it is worth."""
    worth = problem.marginals
    share = worth / max(float(worth.sum()), 1e-12)
    return np.repeat(np.arange(problem.size), 1 + np.round(share * WHEEL).astype(np.int64))


def _in_order(before: Selection, chosen: np.ndarray) -> tuple[int, ...]:
    kept = [i for i in before.order if chosen[i]]
    return (*kept, *(int(i) for i in np.flatnonzero(chosen) if i not in kept))
