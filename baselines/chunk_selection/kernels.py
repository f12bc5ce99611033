"""The loss of `games/chunk_selection/solution.py` in numba: greedy and annealing over sets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from games.chunk_selection.problem import ChunkSelectionProblem

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Data(NamedTuple):
    """A problem as the kernels take it.

    `recall` and `complete` f64[H] are what its hypotheses bring to the loss, `prices` what having
    all of the evidence is worth and what a token costs.
    """

    tokens: npt.NDArray[np.int64]
    budget: int
    overlap: Floats
    members: npt.NDArray[np.int32]
    recall: Floats
    complete: Floats
    prices: tuple[float, float]


def make_data(problem: ChunkSelectionProblem) -> Data:
    """The arrays of a problem; row j of `overlap` is what candidate j covers of each."""
    return Data(
        tokens=problem.tokens,
        budget=problem.budget,
        overlap=np.ascontiguousarray(problem.overlap.T),
        members=np.ascontiguousarray(problem.members),
        recall=problem.recall,
        complete=problem.complete,
        prices=(problem.all_weight, problem.cost_weight / problem.budget),
    )


@njit(cache=True, nogil=True)
def loss_of(data: Data, share: Floats, used: int) -> float:
    """The loss of a set of `used` tokens that covers share[i] (not cut off at 1) of each text."""
    held = 0.0
    for h in range(len(data.members)):
        total = 0.0
        least = 1.0
        count = 0
        for m in range(data.members.shape[1]):
            member = data.members[h, m]
            if member < 0:
                break
            count += 1
            part = share[member]
            if part < 1.0:
                total += part
                least = min(least, part)
            else:
                total += 1.0
        held += data.recall[h] * total / max(count, 1) + data.prices[0] * data.complete[h] * least
    return 1.0 + data.prices[0] - held + data.prices[1] * used


@njit(cache=True, nogil=True)
def greedy(data: Data, chosen: Bools, power: float) -> tuple[Ints, Floats, int]:
    """Adds to `chosen` (bool[N], changed) what lowers the loss most for its tokens to the `power`.

    Ends where nothing that fits lowers it. Returns (order of additions, their losses, evaluations).
    """
    n = len(data.tokens)
    share = np.zeros(n)
    used = 0
    for j in range(n):
        if chosen[j]:
            share += data.overlap[j]
            used += data.tokens[j]
    loss = loss_of(data, share, used)
    order = np.empty(n, np.int64)
    losses = np.empty(n)
    count = 0
    evaluations = 0
    while True:
        best = -1
        best_rate = 0.0
        best_loss = loss
        for j in range(n):
            if chosen[j] or used + data.tokens[j] > data.budget:
                continue
            after = loss_of(data, share + data.overlap[j], used + data.tokens[j])
            evaluations += 1
            rate = (loss - after) / data.tokens[j] ** power
            if rate > best_rate + 1e-15:
                best, best_rate, best_loss = j, rate, after
        if best < 0:
            break
        chosen[best] = True
        share += data.overlap[best]
        used += data.tokens[best]
        loss = best_loss
        order[count] = best
        losses[count] = loss
        count += 1
    return order[:count], losses[:count], evaluations


@njit(cache=True, nogil=True)
def _has(values: npt.NDArray[Any], wanted: Any) -> bool:
    for value in values:  # noqa: SIM110 (numba compiles the loop as it stands)
        if value == wanted:
            return True
    return False


@njit(cache=True, nogil=True)
def beam(data: Data, width: int) -> tuple[Ints, float, int]:
    """The best set on a beam of `width` sets, each grown by every candidate that fits.

    Equal sets count once. Returns (order of additions, loss, evaluations).
    """
    n = len(data.tokens)
    names = np.empty(n, np.uint64)  # xor of them names a set (Zobrist 1970)
    word = np.uint64(0)
    for j in range(n):  # splitmix64
        word += np.uint64(0x9E3779B97F4A7C15)
        mixed = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        names[j] = mixed ^ (mixed >> np.uint64(31))
    share = np.zeros((1, n))
    used = np.zeros(1, np.int64)
    name = np.zeros(1, np.uint64)
    order = np.empty((1, 0), np.int64)
    best_order = order[0]
    best_loss = loss_of(data, share[0], 0)
    grown = np.empty(width * n, np.uint64)
    losses = np.empty(width * n)
    parent = np.empty(width * n, np.int64)
    added = np.empty(width * n, np.int64)
    evaluations = 0
    while True:
        count = 0
        for w in range(len(used)):
            for j in range(n):
                if used[w] + data.tokens[j] > data.budget or _has(order[w], j):
                    continue
                grown[count] = name[w] ^ names[j]
                if _has(grown[:count], grown[count]):
                    continue
                losses[count] = loss_of(data, share[w] + data.overlap[j], used[w] + data.tokens[j])
                parent[count], added[count] = w, j
                count += 1
        if count == 0:
            break
        evaluations += count
        kept = np.argsort(losses[:count], kind="mergesort")[:width]
        from_set, new = parent[kept], added[kept]
        share = share[from_set] + data.overlap[new]
        used = used[from_set] + data.tokens[new]
        name = grown[kept]
        order = np.concatenate((order[from_set], new.reshape(-1, 1)), axis=1)
        if losses[kept[0]] < best_loss:
            best_loss = losses[kept[0]]
            best_order = order[0]
    return best_order, best_loss, evaluations


@njit(cache=True, nogil=True)
def anneal(
    data: Data, chosen: Bools, wheel: Ints, moves: int, hot: float, cold: float, seed: int
) -> tuple[Bools, float]:
    """Metropolis over sets from `chosen` (bool[N], changed); returns (best set, its loss).

    A move adds a candidate, drawn from `wheel` (i64[], candidates as often as they are worth it),
    and drops others at random until the budget holds, or drops one.
    """
    np.random.seed(seed)
    n = len(data.tokens)
    share = np.zeros(n)
    used = 0
    for j in range(n):
        if chosen[j]:
            share += data.overlap[j]
            used += data.tokens[j]
    loss = loss_of(data, share, used)
    best = chosen.copy()
    best_loss = loss
    new = np.empty(n)
    dropped = np.empty(n, np.int64)
    for move in range(moves):
        temperature = hot * (cold / hot) ** (move / moves)
        new[:] = share
        new_used = used
        drops = 0
        added = wheel[np.random.randint(len(wheel))]
        if chosen[added]:
            dropped[0] = added
            drops = 1
            new -= data.overlap[added]
            new_used -= data.tokens[added]
            added = -1
        elif data.tokens[added] > data.budget:
            continue
        else:
            new += data.overlap[added]
            new_used += data.tokens[added]
            # Chosen ones in a random cyclic order go until there is room.
            at = np.random.randint(n)
            while new_used > data.budget:
                if chosen[at]:
                    dropped[drops] = at
                    drops += 1
                    new -= data.overlap[at]
                    new_used -= data.tokens[at]
                at = (at + 1) % n
        after = loss_of(data, new, new_used)
        if after <= loss or np.random.random() < np.exp((loss - after) / temperature):
            for d in range(drops):
                chosen[dropped[d]] = False
            if added >= 0:
                chosen[added] = True
            share[:] = new
            used, loss = new_used, after
            if loss < best_loss - 1e-12:
                best_loss = loss
                best[:] = chosen
    return best, best_loss
