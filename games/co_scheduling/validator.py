"""An independent checker of pipelines: nothing of the simulator or the rules of the game is used.

It reads the timetable and checks, with numpy only, each rule that `solution.py` lists.
"""

from __future__ import annotations

import numpy as np

from games.co_scheduling.cost import Work
from games.co_scheduling.device import Floats
from games.co_scheduling.problem import CoSchedulingProblem, Structure
from games.co_scheduling.solution import Pipeline

_NANO, _PARTS, _SLOTS = 4, 2, 13
_TOLERANCE = 1e-7  # relative, of work done and of times
_SHOWN = 3  # faults of one sort
_RESOURCES = {"compute": (0, 1, 8, 10, 11), "memory": (2, 3, 4, 5), "network": (6, 7, 9, 12)}
# What must be done, in the same layer, before each slot of a nano-batch starts.
_NEEDS: dict[int, tuple[int, ...]] = {
    2: (0,),
    3: (1,),
    4: (0,),
    5: (1,),
    6: (2, 4),
    7: (3, 5),
    8: (0, 1, 2, 3, 4, 5, 6, 7),
    9: (8,),
    10: (8, 9),
    11: (10,),
    12: (11,),
}


def validate(problem: CoSchedulingProblem, pipeline: Pipeline) -> list[str]:
    """Every broken rule as one line; [] for a legal pipeline."""
    faults = _structure_faults(problem, pipeline.structure)
    if faults:
        return faults
    shape = (_NANO * _SLOTS, problem.layers)
    if pipeline.start.shape != shape or pipeline.end.shape != shape:
        return [f"timetable of shape {pipeline.start.shape}, expected {shape}"]
    level = np.asarray(pipeline.level)
    if level.shape != shape[:1] or ((level < 1) | (level > 10)).any():
        return ["levels: expected one of 1 to 10 tenths for each nano-operation"]
    work = _seconds(problem, pipeline.structure)
    there = work > 0
    start, end = pipeline.start, pipeline.end
    if np.isnan(start[there]).any() or np.isnan(end[there]).any():
        return ["a nano-operation is missing in some layer"]
    if not (np.isnan(start[~there]).all() and np.isnan(end[~there]).all()):
        return ["a nano-operation runs that the structure does not have"]
    slack = _TOLERANCE * float(np.nanmax(end))
    if (start[there] < -slack).any() or (end[there] <= start[there]).any():
        return ["a nano-operation starts before 0, or ends before it starts"]
    return (
        _order_faults(there, start, end, slack)
        + _overlap_faults(there, start, end, slack)
        + _work_faults(problem, work, level, start, end)
    )


def _structure_faults(problem: CoSchedulingProblem, structure: Structure) -> list[str]:
    faults = []
    for name, tokens, total in (
        ("decode", structure.decode, problem.decode_tokens),
        ("prefill", structure.prefill, problem.prefill_tokens),
    ):
        if tokens.shape != (_NANO, _PARTS) or (tokens < 0).any():
            faults.append(f"{name} tokens: expected {_NANO} x {_PARTS} numbers, none negative")
        elif tokens.sum() != total:
            faults.append(f"{name} tokens add up to {tokens.sum()}, the batch has {total}")
    if structure.gathered.shape != (_NANO,):
        faults.append(f"paths: expected {_NANO}")
    elif structure.gathered.any() and not problem.network:
        faults.append("a nano-batch gathers, but there is no network")
    return faults


def _seconds(problem: CoSchedulingProblem, structure: Structure) -> Floats:
    """f64[_NANO * _SLOTS]: seconds of each nano-operation alone, from the problem's table."""
    work = np.zeros((_NANO, _SLOTS))
    table = problem.seconds
    for nano in range(_NANO):
        decode, prefill = structure.decode[nano], structure.prefill[nano]
        both = decode + prefill
        gathers = bool(structure.gathered[nano])
        for part in range(_PARTS):
            work[nano, part] = table[Work.KQV, both[part]]
            work[nano, 2 + part] = table[Work.DECODE, decode[part]]
            work[nano, 4 + part] = table[Work.PREFILL, prefill[part]]
            work[nano, 6 + part] = table[Work.GATHER, both[part]] if gathers else 0.0
        every = int(both.sum())
        work[nano, 8] = table[Work.O_GATHERED if gathers else Work.O_PARTIAL, every]
        work[nano, 9] = table[Work.GATHER_O if gathers else Work.REDUCE, every]
        work[nano, 10] = table[Work.UP_GATE, every]
        work[nano, 11] = table[Work.DOWN, every]
        work[nano, 12] = table[Work.REDUCE, every]
    return work.reshape(-1)


def _name(slot: int | np.integer, layer: int | np.integer) -> str:
    return f"slot {slot % _SLOTS} of nano-batch {slot // _SLOTS} in layer {layer}"


def _order_faults(there: np.ndarray, start: Floats, end: Floats, slack: float) -> list[str]:
    faults = []
    for slot in np.flatnonzero(there):
        base = slot - slot % _SLOTS
        for need in _NEEDS.get(int(slot % _SLOTS), ()):
            if there[base + need]:
                early = np.flatnonzero(start[slot] < end[base + need] - slack)
                faults += [
                    f"{_name(slot, layer)} starts before {_name(base + need, layer)} is done"
                    for layer in early
                ]
        if slot % _SLOTS < _PARTS:
            for last in range(base, base + _SLOTS):
                if there[last]:
                    early = np.flatnonzero(start[slot, 1:] < end[last, :-1] - slack)
                    faults += [
                        f"{_name(slot, layer + 1)} starts before {_name(last, layer)} is done"
                        for layer in early
                    ]
    return faults[:_SHOWN]


def _overlap_faults(there: np.ndarray, start: Floats, end: Floats, slack: float) -> list[str]:
    faults = []
    for resource, kinds in _RESOURCES.items():
        slots = [slot for slot in np.flatnonzero(there) if slot % _SLOTS in kinds]
        if not slots:
            continue
        begin, stop = start[slots].ravel(), end[slots].ravel()
        order = np.argsort(begin, kind="stable")
        clash = np.flatnonzero(begin[order][1:] < stop[order][:-1] - slack)
        faults += [
            f"{resource} runs two nano-operations at {begin[order][at + 1]:.9f} s" for at in clash
        ]
    return faults[:_SHOWN]


def _work_faults(
    problem: CoSchedulingProblem, work: Floats, level: np.ndarray, start: Floats, end: Floats
) -> list[str]:
    """Shares that do not fit, and nano-operations whose time is not that of their work."""
    there = np.flatnonzero(work > 0)
    times = np.unique(np.concatenate([start[there].ravel(), end[there].ravel()]))
    used = {name: np.zeros(len(times) - 1) for name in _RESOURCES}
    for slot in there:
        name = next(key for key, kinds in _RESOURCES.items() if slot % _SLOTS in kinds)
        first = np.searchsorted(times, start[slot])
        last = np.searchsorted(times, end[slot])
        for begin, stop in zip(first, last, strict=True):
            used[name][begin:stop] += level[slot] / 10.0
    faults = []
    length = np.diff(times)
    # Segments that rounding alone makes do not count.
    real = length > _TOLERANCE * times[-1]
    both = used["memory"] + used["network"]
    whole = both + used["compute"] if problem.mode == 1 else both
    if problem.mode != 0 and (whole[real] > 1.0 + 1e-9).any():
        at = int(np.flatnonzero(real & (whole > 1.0 + 1e-9))[0])
        faults.append(f"shares add up to {whole[at]:.1f} at {times[at]:.9f} s")
    left = np.concatenate([[0.0], np.cumsum(length * (1.0 - both))])
    for slot in there:
        kind = slot % _SLOTS
        took = end[slot] - start[slot]
        if problem.mode == 0:
            made = took
        elif kind in _RESOURCES["compute"] and problem.mode == 2:
            made = np.interp(end[slot], times, left) - np.interp(start[slot], times, left)
        else:
            row = 0 if kind in _RESOURCES["compute"] else 1 if kind in (2, 3) else 2
            row = 3 if kind in _RESOURCES["network"] else row
            made = took * problem.speed[row, level[slot]]
        wrong = np.flatnonzero(np.abs(made - work[slot]) > _TOLERANCE * times[-1])
        faults += [
            f"{_name(slot, layer)} does {made[layer]:.9f} s of its {work[slot]:.9f} s of work"
            for layer in wrong
        ]
    return faults[:_SHOWN]
