"""A pipeline: how the batch is cut, the order and shares of nano-operations, and its timetable.

The rules that a legal pipeline keeps (the validator checks each on its own):

1. The parts of all nano-batches add up to the batch; only a group with a network gathers.
2. In a nano-batch, KQV of a part comes before its attention, both attentions before their gather,
   all of that before O, and then the network, up and gate, down and the network, one after the
   other; the next layer begins after the last of them.
3. Compute, memory and network run one nano-operation at a time each.
4. STATIC: shares of what runs add up to 10 tenths at most. DYNAMIC: those of memory and network do.
5. A nano-operation runs without a break until its work is done, at the speed of its share; a GEMM
   of DYNAMIC at that of what memory and network leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from games.co_scheduling.cost import Ints, Work
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DECODE_SPEED,
    MAX_NANO,
    NET_SPEED,
    NO_INTERFERENCE,
    PARTS,
    PREFILL_SPEED,
    CoSchedulingProblem,
    Structure,
    cut,
)
from games.co_scheduling.simulator import make_order, simulate

KNOWN = 32  # problems whose bounds are kept
_NO_TABLE = np.zeros((0, 0))


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A solution of the game.

    Attributes:
        structure: how the batch is cut.
        phase: f64[ALL_SLOTS] place of each slot in the cyclic order of its resource
            (`simulator.py`).
        level: i64[ALL_SLOTS] tenths of the device.
        start, end: f64[ALL_SLOTS, layers] seconds; NaN for what is not there.
    """

    structure: Structure
    phase: Floats
    level: Ints
    start: Floats
    end: Floats


def evaluate(
    problem: CoSchedulingProblem,
    structure: Structure,
    phase: Floats,
    level: Ints,
    *,
    greedy: bool = False,
) -> float:
    """Seconds a layer; inf where the orders of the resources wait for each other."""
    seconds = _run(problem, structure.work(problem), phase, level, greedy, _NO_TABLE, _NO_TABLE)
    return seconds / problem.layers


def make_pipeline(
    problem: CoSchedulingProblem,
    structure: Structure,
    phase: Floats,
    level: Ints,
    *,
    greedy: bool = False,
) -> Pipeline | None:
    """The pipeline with its timetable, None where the orders wait for each other.

    Args:
        greedy: dispatch what is ready in the order of the phases; the phases of the result are
            those of what came out, in the middle of the timetable.
    """
    start = np.full((ALL_SLOTS, problem.layers), np.nan)
    end = start.copy()
    seconds = _run(problem, structure.work(problem), phase, level, greedy, start, end)
    if not np.isfinite(seconds):
        return None
    if greedy:
        phase = _phases(problem, start, phase)
    return Pipeline(structure, phase.copy(), level.copy(), start, end)


def _run(
    problem: CoSchedulingProblem,
    work: Floats,
    phase: Floats,
    level: Ints,
    greedy: bool,
    start: Floats,
    end: Floats,
) -> float:
    order = np.zeros((3, ALL_SLOTS), dtype=np.int64)
    length = np.zeros(3, dtype=np.int64)
    shift = np.zeros(ALL_SLOTS, dtype=np.int64)
    make_order(work, phase, order, length, shift)
    return float(
        simulate(
            work,
            level,
            phase,
            order,
            length,
            shift,
            problem.speed,
            problem.mode,
            problem.layers,
            np.inf,
            greedy,
            start,
            end,
        )
    )


def _phases(problem: CoSchedulingProblem, start: Floats, phase: Floats) -> Floats:
    """Where in a round the slots of a timetable start; a round is one of the layers amidst."""
    middle = problem.layers // 2
    if middle + 1 >= problem.layers:
        return phase
    there = np.isfinite(start[:, middle])
    first = int(np.flatnonzero(there)[0])
    round_ = start[first, middle + 1] - start[first, middle]
    found = phase.copy()
    found[there] = (start[there, middle] - start[first, middle]) / round_
    return found


def objective(problem: CoSchedulingProblem, pipeline: Pipeline) -> float:
    """Seconds a layer: those of all layers, divided by their number."""
    return float(np.nanmax(pipeline.end)) / problem.layers


def tokens_per_second(problem: CoSchedulingProblem, seconds: float) -> float:
    """Tokens a second of one device, from seconds a layer."""
    return problem.tokens / (problem.layers * seconds * problem.devices)


def whole(problem: CoSchedulingProblem) -> Structure:
    """The batch in one piece."""
    decode, prefill = np.zeros((2, MAX_NANO, PARTS), dtype=np.int64)
    decode[0, 0], prefill[0, 0] = problem.chunks
    return cut(problem, decode, prefill, np.zeros(MAX_NANO, dtype=np.bool_))


@lru_cache(maxsize=KNOWN)
def lower_bound(problem: CoSchedulingProblem) -> float:
    """Seconds a layer that no pipeline of any structure beats.

    Each resource has to do its work, of the structure that makes it least. Where operations slow
    each other down, an operation takes at least the smallest (share / speed) of its work from the
    one device that all share. A batch of one chunk cannot be cut, so that nothing overlaps.
    """
    if sum(problem.chunks) == 1:
        return float(_least_alone(problem))
    compute, decode, prefill, network = least_work(problem)
    bound = max(compute, decode + prefill, network)
    if problem.mode != NO_INTERFERENCE:
        bound = max(bound, compute + _cheapest(problem) @ np.array([decode, prefill, network]))
    return float(bound)


def _cheapest(problem: CoSchedulingProblem) -> Floats:
    """f64[3]: the least share / speed of decode attention, prefill attention and network."""
    share = np.arange(1, LEVELS + 1) / LEVELS
    speeds = problem.speed[[DECODE_SPEED, PREFILL_SPEED, NET_SPEED], 1:]
    return (share / np.maximum(speeds, 1e-12)).min(axis=1)


@lru_cache(maxsize=KNOWN)
def least_work(problem: CoSchedulingProblem) -> tuple[float, float, float, float]:
    """Seconds of compute, decode and prefill attention and network, each of its best structure."""
    seconds = problem.seconds

    def least(row: Floats, pieces: int, total: int, parts: int) -> float:
        """The least sum for `pieces` chunks in `parts` parts or less."""
        missing = pieces * problem.chunk - total
        # A part of c chunks has so many tokens at least; what it costs then is the least for it.
        fewest = np.maximum(np.arange(pieces + 1) * problem.chunk - missing, 1)
        most = np.minimum(np.arange(pieces + 1) * problem.chunk, total)
        cost = np.array(
            [
                row[few : many + 1].min() if c else 0.0
                for c, (few, many) in enumerate(zip(fewest, most, strict=True))
            ]
        )
        best = cost.copy()
        for _ in range(parts - 1):
            best = np.array(
                [(best[: c + 1] + cost[: c + 1][::-1]).min() for c in range(pieces + 1)]
            )
        return float(best[pieces])

    decode, prefill = problem.chunks
    # Chunks of the two sorts that are not full may lie in one part, or in two.
    pieces, tokens = decode + prefill, problem.tokens
    out = np.minimum(seconds[Work.O_GATHERED], seconds[Work.O_PARTIAL])
    gathers = np.minimum(seconds[Work.GATHER] + seconds[Work.GATHER_O], seconds[Work.REDUCE])
    rows = [
        (seconds[Work.KQV], MAX_NANO * PARTS),
        (out, MAX_NANO),
        (seconds[Work.UP_GATE], MAX_NANO),
        (seconds[Work.DOWN], MAX_NANO),
    ]
    compute = sum(least(row, pieces, tokens, parts) for row, parts in rows)
    many = MAX_NANO * PARTS
    network = 0.0
    if problem.network:
        network = least(seconds[Work.REDUCE], pieces, tokens, MAX_NANO)
        network += min(
            least(seconds[Work.REDUCE], pieces, tokens, MAX_NANO),
            least(gathers, pieces, tokens, many),
        )
    return (
        compute,
        least(seconds[Work.DECODE], decode, problem.decode_tokens, many) if decode else 0.0,
        least(seconds[Work.PREFILL], prefill, problem.prefill_tokens, many) if prefill else 0.0,
        network,
    )


def _least_alone(problem: CoSchedulingProblem) -> float:
    """Seconds of all operations one after the other, for the better of the two paths."""
    alone = whole(problem)
    gathered = Structure(
        alone.decode, alone.prefill, np.full(MAX_NANO, problem.network, dtype=np.bool_)
    )
    return float(min(alone.work(problem).sum(), gathered.work(problem).sum()))
