"""A pipeline as files: JSON with NanoFlow's field names, and a Chrome trace for Perfetto.

The JSON lists, under `operations`, each operation's nano-operations: `batch_idx` (number among the
nano-operations of that operation, in the order of the round), `batch_size` (tokens), `start_time`
and `end_time` (ms, in the round of a layer amid the timetable), `p_value` (speed of the share; of a
GEMM of the dynamic mode the mean over its time), `extra_dep` (the nano-operation that comes before
it on the same resource: the order to enforce). `nano_batch`, `part`, `share` (of the device) and
`layers_behind` (the first's layer minus this one's, in one round) are ours; `phase` reads it back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from games.co_scheduling.cost import Ints
from games.co_scheduling.device import LEVELS, Floats
from games.co_scheduling.problem import (
    ALL_SLOTS,
    DECODE,
    DOWN,
    GATHER,
    KQV,
    MAX_NANO,
    MODES,
    NET_D,
    NET_O,
    OUT,
    PARTS,
    PREFILL,
    RESOURCE,
    SLOTS,
    UP_GATE,
    CoSchedulingProblem,
    Structure,
)
from games.co_scheduling.solution import Pipeline, make_pipeline
from games.files import replace_file
from hlo_frontend.errors import InputError

SCHEMA = "compiler-rl/pipeline/1"
RESOURCES = ("compute", "memory", "network")
# NanoFlow's names: (all-reduce path, all-gather path).
_NAMES = {
    KQV: ("KQV", "KQV"),
    DECODE: ("GEMV", "GEMV"),
    PREFILL: ("PF", "PF"),
    GATHER: ("AG_GEMV", "AG_GEMV"),
    OUT: ("O2", "O"),
    NET_O: ("AR_O", "AG_O"),
    UP_GATE: ("UG", "UG"),
    DOWN: ("D", "D"),
    NET_D: ("AR_D", "AR_D"),
}


def operation(structure: Structure, slot: int) -> str:
    """NanoFlow's name of a slot's operation."""
    kind = slot % SLOTS
    kind = kind - kind % PARTS if kind < OUT else kind
    return _NAMES[kind][int(structure.gathered[slot // SLOTS])]


def nano_names(problem: CoSchedulingProblem, pipeline: Pipeline) -> dict[int, str]:
    """Operation and number of each slot that is there, like `KQV_0`, numbered by tokens."""
    count: dict[str, int] = {}
    names = {}
    for slot in np.flatnonzero(pipeline.structure.work(problem) > 0):
        name = operation(pipeline.structure, int(slot))
        names[int(slot)] = f"{name}_{count.get(name, 0)}"
        count[name] = count.get(name, 0) + 1
    return names


def to_json(problem: CoSchedulingProblem, pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline as JSON-able data; see the head of this file."""
    names = nano_names(problem, pipeline)
    tokens = pipeline.structure.tokens()
    work = pipeline.structure.work(problem)
    middle = problem.layers // 2
    origin = min(pipeline.start[slot, middle] for slot in names)
    before = _before(pipeline, names)
    least = min(np.floor(pipeline.phase[slot]) for slot in names)
    operations: dict[str, list[dict[str, Any]]] = {}
    for slot, name in names.items():
        start, end = pipeline.start[slot, middle], pipeline.end[slot, middle]
        operations.setdefault(name.rpartition("_")[0], []).append(
            {
                "nano_op": name,
                "batch_idx": int(name.rpartition("_")[2]),
                "batch_size": int(tokens[slot]),
                "start_time": (start - origin) * 1e3,
                "end_time": (end - origin) * 1e3,
                "p_value": float(work[slot] / (end - start)),
                "extra_dep": [before[slot]] if slot in before else [],
                "resource": RESOURCES[RESOURCE[slot % SLOTS]],
                "share": pipeline.level[slot] / LEVELS,
                "nano_batch": slot // SLOTS,
                "part": slot % SLOTS % PARTS if slot % SLOTS < OUT else None,
                "layers_behind": int(np.floor(pipeline.phase[slot]) - least),
                "phase": float(pipeline.phase[slot]),
            }
        )
    structure = pipeline.structure
    sizes = (structure.decode + structure.prefill).sum(axis=1)
    parts = (structure.decode + structure.prefill).ravel()
    return {
        "schema": SCHEMA,
        "mode": MODES[problem.mode],
        "layers": problem.layers,
        "splits": {
            "nano_batches": [int(size) for size in sizes if size],
            "kqv": [int(size) for size in parts if size],
            "decode": structure.decode.tolist(),
            "prefill": structure.prefill.tolist(),
            "gathered": structure.gathered.tolist(),
        },
        "operations": operations,
    }


def from_json(problem: CoSchedulingProblem, data: dict[str, Any]) -> Pipeline:
    """The pipeline that `to_json` wrote, with its timetable made anew.

    Raises:
        InputError: not such data, or not of this problem.
    """
    try:
        if data["schema"] != SCHEMA:
            raise InputError(f"schema {data['schema']!r}: expected {SCHEMA}")
        splits = data["splits"]
        decode, prefill = (_tokens(splits[key]) for key in ("decode", "prefill"))
        structure = Structure(decode, prefill, np.array(splits["gathered"], dtype=np.bool_))
        phase, level = np.zeros(ALL_SLOTS), np.full(ALL_SLOTS, LEVELS, dtype=np.int64)
        for rows in data["operations"].values():
            for row in rows:
                slot = _slot(row)
                phase[slot] = float(row["phase"])
                level[slot] = round(float(row["share"]) * LEVELS)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"not a schedule file ({error!r}); write one with --json") from error
    if (decode.sum(), prefill.sum()) != (problem.decode_tokens, problem.prefill_tokens):
        raise InputError("the schedule is of another batch; expected the tokens of this one")
    pipeline = make_pipeline(problem, structure, phase, level)
    if pipeline is None:
        raise InputError("the schedule's orders wait for each other; write it anew with --json")
    return pipeline


def _tokens(rows: Any) -> Ints:
    tokens = np.array(rows, dtype=np.int64)
    if tokens.shape != (MAX_NANO, PARTS) or (tokens < 0).any():
        raise ValueError(f"tokens of shape {tokens.shape}")
    return tokens


def _slot(row: dict[str, Any]) -> int:
    for kind, names in _NAMES.items():
        if row["nano_op"].rpartition("_")[0] in names:
            return int(row["nano_batch"]) * SLOTS + kind + int(row["part"] or 0)
    raise ValueError(f"operation {row['nano_op']}")


def _before(pipeline: Pipeline, names: dict[int, str]) -> dict[int, str]:
    """What comes before each slot on its resource, in a round of the timetable."""
    found = {}
    middle = pipeline.start.shape[1] // 2
    for slot in names:
        rivals = [
            other
            for other in names
            if RESOURCE[other % SLOTS] == RESOURCE[slot % SLOTS] and other != slot
        ]
        last = -np.inf
        for other in rivals:
            ends: Floats = pipeline.end[other]
            earlier = ends[ends <= pipeline.start[slot, middle] * (1 + 1e-12)]
            if len(earlier) and earlier[-1] > last:
                last = float(earlier[-1])
                found[slot] = names[other]
    return found


def chrome_trace(problem: CoSchedulingProblem, pipeline: Pipeline) -> dict[str, Any]:
    """The whole timetable in the Trace Event Format: times in microseconds, a row a resource.

    Perfetto and others take complete events of a row only if they nest, and round begin and length
    on their own: every event ends a nanosecond early, so that it never laps over the next.
    """
    names = nano_names(problem, pipeline)
    tokens = pipeline.structure.tokens()
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "args": {"name": problem.name}}
    ]
    for row, resource in enumerate(RESOURCES):
        events.append(
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": row, "args": {"name": resource}}
        )
    for slot, name in names.items():
        row = int(RESOURCE[slot % SLOTS])
        for layer in range(problem.layers):
            begin = round(pipeline.start[slot, layer] * 1e9)
            length = max(round(pipeline.end[slot, layer] * 1e9) - begin - 1, 0)
            events.append(
                {
                    "name": name,
                    "cat": RESOURCES[row],
                    "ph": "X",
                    "pid": 0,
                    "tid": row,
                    "ts": begin / 1e3,
                    "dur": length / 1e3,
                    "args": {
                        "layer": layer,
                        "nano_batch": slot // SLOTS,
                        "tokens": int(tokens[slot]),
                        "share": pipeline.level[slot] / LEVELS,
                    },
                }
            )
    events.sort(key=lambda event: event.get("ts", -1.0))
    return {"displayTimeUnit": "ms", "traceEvents": events}


def write(path: Path, data: dict[str, Any]) -> None:
    """Writes JSON; the file is whole or not there.

    Raises:
        InputError: the file cannot be written.
    """
    replace_file(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())
