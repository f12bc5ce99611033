"""The mapping file: what a user takes away, as JSON.

Schema `compiler-rl/memory-mapping/1`. Steps are indices into `Program.steps`, the full flattened
schedule (not the problem's shorter line); an interval [start, end) of steps is half-open; a copy
window [start, done) runs during those steps. Beside each step stands the name of the instruction.

    {
      "schema": "compiler-rl/memory-mapping/1",
      "program": {"name", "source", "fingerprint"},
      "chip": {every field of Chip},
      "fast_memory": bytes that values may use,
      "objective": modelled seconds, "all_slow": modelled seconds, "unit": "s",
      "method": who found it,
      "values": [one row for each value of the program, in schedule order
        {
          "value": position, as `Value.position`,
          "shape", "size": bytes rounded up to the alignment,
          "alias_class": index into Program.buffers,
          "memory_space": "fast" | "slow" | "mixed" | "fixed"  (fixed: prescribed by the program),
          "stays": [  (the stays of its alias class that this value is part of)
            {
              "offset": bytes,
              "start": step, "end": step, "start_instruction", "last_instruction",
              "copy_in": null | {"start": step, "done": step,
                                 "start_before": instruction, "done_before": instruction},
              "copy_out": null | {the same; instruction names are null for the end of the program}
            }
          ],
          "produced_in": "fast" | "slow",
          "uses": [{"instruction", "step", "operand", "index", "memory_space": "fast" | "slow"}],
          "why_slow": null | one line, for a value that is not in fast memory all its life
        }
      ]
    }

A stay is a stay of the whole alias class: values of one class that are live in one of its steps
must all list it, alike (that is what the validator means by a broken alias). A value is live from
its definition (the start of the program, if it is there before) to its last use or, for a result,
to the end of the program; a loop that its class lives into counts as a whole.

The accesses of a value are its uses, and its definition if that writes bytes. `memory_space` is
"fast" if fast memory serves them all, "mixed" if some, "slow" if none or there is no stay. The
uses of a "fixed" value, and the production of whatever is there before the program, are "slow".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from games.files import replace_file
from games.memory_mapping.chips import Chip
from games.memory_mapping.explain import NO_TRAFFIC, why_slow
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping, objective
from hlo_frontend.errors import InputError
from hlo_frontend.program import CopyWindow, Program, Value

SCHEMA = "compiler-rl/memory-mapping/1"

Json = dict[str, Any]


def to_json(
    program: Program, problem: MemoryMappingProblem, chip: Chip, mapping: Mapping, *, method: str
) -> Json:
    """The mapping file's content.

    Args:
        program: what `problem` was made from.
        problem: made for `chip`.
        chip: goes into the file, which so stands on its own.
        mapping: a legal mapping of `problem`.
        method: who found it.

    Raises:
        InputError: `problem` is of another program.
    """
    _require(program, problem.fingerprint, f"the problem is of {problem.name}")
    stays: dict[int, list[FastInterval]] = {}
    for interval in sorted(mapping.intervals, key=lambda interval: interval.start):
        stay = in_program_steps(problem, interval)
        stays.setdefault(stay.buffer, []).append(stay)
    reasons = why_slow(problem, mapping, program)
    return {
        "schema": SCHEMA,
        "program": {
            "name": program.name,
            "source": program.source,
            "fingerprint": program.fingerprint,
        },
        "chip": asdict(chip),
        "fast_memory": int(problem.capacity),
        "objective": objective(problem, mapping),
        "all_slow": problem.all_slow,
        "unit": "s",
        "method": method,
        "values": [
            _row(program, index, stays.get(value.buffer, []), reasons, problem.alignment)
            for index, value in enumerate(program.values)
        ],
    }


def from_json(problem: MemoryMappingProblem, program: Program, data: Json) -> Mapping:
    """The mapping that `to_json` wrote, its stays in the order of their steps.

    Args:
        problem: made from `program`, for the chip and the fast memory of the file.
        program: the program that the file names.
        data: what `read` returned.

    Raises:
        InputError: the file is for another program, or its stays contradict each other or cannot
            be stays of this problem. Whether the mapping is legal is the validator's business.
    """
    name = data["program"]["name"]
    _require(program, problem.fingerprint, f"the problem is of {problem.name}")
    _require(program, data["program"]["fingerprint"], f"the mapping is of {name}")
    if len(data["values"]) != len(program.values):
        raise InputError(
            f"mapping of {name}: {len(data['values'])} values, but the program has"
            f" {len(program.values)}; write the mapping again"
        )
    movable = set(problem.program_buffer.tolist())
    found: dict[tuple[int, int], tuple[FastInterval, str]] = {}
    for value, row in zip(program.values, data["values"], strict=True):
        if row["value"] != value.position or row["alias_class"] != value.buffer:
            raise InputError(
                f"mapping of {name}: row '{row['value']}' stands where the program has"
                f" '{value.position}' of alias class {value.buffer}; write the mapping again"
            )
        for entry in row["stays"]:
            stay = _stay(entry, value, len(program.steps))
            if value.buffer not in movable:
                raise InputError(
                    f"mapping of {name}: {value.position} has a stay, but cannot be moved in this"
                    " problem; give the fast memory that the mapping was made for"
                )
            known, holder = found.setdefault((stay.buffer, stay.start), (stay, value.position))
            if known != stay:
                raise InputError(
                    f"mapping of {name}: {holder} and {value.position} share their bytes, but the"
                    f" stays of the two from step {stay.start} differ; they must be alike"
                )
    stays = sorted((stay for stay, _ in found.values()), key=lambda s: (s.start, s.buffer))
    return Mapping(tuple(in_problem_steps(problem, stay) for stay in stays))


def write(path: Path, data: Json) -> None:
    """Writes what `to_json` returned, and what was added to it, one value a line.

    Raises:
        InputError: the file cannot be written; what was there before is still there.
    """
    rows = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in data["values"])
    head = {key: value for key, value in data.items() if key != "values"}
    text = json.dumps(head, indent=2, allow_nan=False).removesuffix("\n}")
    replace_file(path, f'{text},\n  "values": [\n{rows}\n  ]\n}}\n'.encode())


def read(path: Path) -> Json:
    """Reads a mapping file and checks that it has every field of the schema, of the right type.

    Raises:
        InputError: the file cannot be read, is no JSON, or is not of the schema.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); expected a mapping file") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema is {schema!r}, expected {SCHEMA!r}")
    wrong = _mismatch(data, _FILE, "")
    if wrong is not None:
        raise InputError(f"{path}: {wrong}")
    checked: Json = data
    return checked


def in_program_steps(problem: MemoryMappingProblem, interval: FastInterval) -> FastInterval:
    """The stay with its buffer as index in `Program.buffers` and its steps in `Program.steps`.

    A stay reaches from its first to its last kept step. So do its windows: a copy-in starts, and
    is done, right before the step it is named by; a copy-out right after the step before.
    """
    step = problem.program_step
    start, end = int(step[interval.start]), int(step[interval.end - 1]) + 1
    ready = start
    copy_in = copy_out = None
    if interval.copy_in is not None:
        done = interval.copy_in.done
        ready = int(step[done]) if done < interval.end else end
        copy_in = CopyWindow(int(step[interval.copy_in.start]), ready)
    if interval.copy_out is not None:
        begin, done = interval.copy_out.start, interval.copy_out.done
        # What is copied out has been written, or else copied in, before.
        left = max(int(step[begin - 1]) + 1, ready)
        copy_out = CopyWindow(left, max(int(step[done - 1]) + 1, left))
    buffer = int(problem.program_buffer[interval.buffer])
    return FastInterval(buffer, start, end, interval.offset, copy_in, copy_out)


def in_problem_steps(problem: MemoryMappingProblem, stay: FastInterval) -> FastInterval:
    """The inverse of `in_program_steps`: a position between kept steps becomes the next of them."""

    def position(step: int) -> int:
        return int(np.searchsorted(problem.program_step, step))

    def window(copy: CopyWindow | None) -> CopyWindow | None:
        return None if copy is None else CopyWindow(position(copy.start), position(copy.done))

    return FastInterval(
        int(np.flatnonzero(problem.program_buffer == stay.buffer)[0]),
        position(stay.start),
        position(stay.end),
        stay.offset,
        window(stay.copy_in),
        window(stay.copy_out),
    )


def _require(program: Program, fingerprint: str, what: str) -> None:
    if fingerprint != program.fingerprint:
        raise InputError(
            f"{program.source}: {what}, whose fingerprint is not that of this program;"
            " give the program that it was made from"
        )


def _row(
    program: Program,
    index: int,
    class_stays: Sequence[FastInterval],
    reasons: dict[int, str],
    alignment: int,
) -> Json:
    value = program.values[index]
    first, end = _life(program, index)
    stays = [stay for stay in class_stays if stay.start < end and first < stay.end]

    def space(step: int) -> str:
        return "fast" if any(stay.ready <= step < stay.end for stay in stays) else "slow"

    produced_in = space(value.def_step) if value.def_bytes > 0 else "slow"
    served = [space(use.step) for use in value.uses] + [produced_in] * (value.def_bytes > 0)
    if program.buffers[value.buffer].fixed_space is not None:
        memory_space = "fixed"
    elif not stays or (served and "fast" not in served):
        memory_space = "slow"
    else:
        memory_space = "mixed" if "slow" in served else "fast"
    return {
        "value": value.position,
        "shape": value.shape,
        "size": -(-value.size // alignment) * alignment,
        "alias_class": value.buffer,
        "memory_space": memory_space,
        "stays": [_stay_json(program, stay) for stay in stays],
        "produced_in": produced_in,
        "uses": [
            {
                "instruction": program.steps[use.step].name,
                "step": use.step,
                "operand": use.operand,
                "index": list(use.index),
                "memory_space": space(use.step),
            }
            for use in value.uses
        ],
        "why_slow": None if memory_space == "fast" else reasons.get(value.buffer, NO_TRAFFIC),
    }


def _life(program: Program, index: int) -> tuple[int, int]:
    """Steps [start, end) in which the value may hold data; see the module's docstring."""
    value = program.values[index]
    buffer = program.buffers[value.buffer]
    there_before = buffer.initial and value.def_bytes == 0
    start = min(value.def_step, buffer.live_start) if there_before else value.def_step
    end = max((use.step for use in value.uses), default=value.def_step) + 1
    if buffer.live_out and buffer.values[-1] == index:
        end = len(program.steps)
    for loop in sorted(program.loops, key=lambda loop: loop.end - loop.start):
        if start < loop.end and loop.start < end and buffer.live_start < loop.start:
            start, end = min(start, loop.start), max(end, loop.end)
    return start, end


def _stay_json(program: Program, stay: FastInterval) -> Json:
    def name(step: int) -> str | None:
        return program.steps[step].name if step < len(program.steps) else None

    def window(copy: CopyWindow | None) -> Json | None:
        if copy is None:
            return None
        return {
            "start": copy.start,
            "done": copy.done,
            "start_before": name(copy.start),
            "done_before": name(copy.done),
        }

    return {
        "offset": int(stay.offset),
        "start": stay.start,
        "end": stay.end,
        "start_instruction": name(stay.start),
        "last_instruction": name(stay.end - 1),
        "copy_in": window(stay.copy_in),
        "copy_out": window(stay.copy_out),
    }


def _stay(entry: Json, value: Value, num_steps: int) -> FastInterval:
    windows = [
        None if copy is None else CopyWindow(copy["start"], copy["done"])
        for copy in (entry["copy_in"], entry["copy_out"])
    ]
    stay = FastInterval(value.buffer, entry["start"], entry["end"], entry["offset"], *windows)
    for copy in (CopyWindow(stay.start, stay.end), stay.copy_in, stay.copy_out):
        if copy is not None and not (
            0 <= stay.start <= copy.start <= copy.done <= stay.end <= num_steps
        ):
            raise InputError(
                f"mapping: {value.position}: steps [{copy.start}, {copy.done}) of its stay"
                f" [{stay.start}, {stay.end}) are out of order or not among the {num_steps} steps"
            )
    return stay


# The schema, for `read`: a type; a tuple of alternatives, None for null; a list of what each entry
# is; or the fields of an object.
_NUMBER = (float, int)
_TEXT_OR_NULL = (str, None)
_WINDOW = (
    {"start": int, "done": int, "start_before": _TEXT_OR_NULL, "done_before": _TEXT_OR_NULL},
    None,
)
_FILE: Any = {
    "schema": str,
    "program": {"name": str, "source": str, "fingerprint": str},
    "chip": {
        "name": str,
        "peak_flops": _NUMBER,
        "slow_bandwidth": _NUMBER,
        "fast_bandwidth": _NUMBER,
        "fast_bytes": int,
        "memory_space": int,
        "alignment": int,
        "clock_hz": _NUMBER,
    },
    "fast_memory": int,
    "objective": _NUMBER,
    "all_slow": _NUMBER,
    "unit": str,
    "method": str,
    "values": [
        {
            "value": str,
            "shape": str,
            "size": int,
            "alias_class": int,
            "memory_space": str,
            "stays": [
                {
                    "offset": int,
                    "start": int,
                    "end": int,
                    "start_instruction": str,
                    "last_instruction": str,
                    "copy_in": _WINDOW,
                    "copy_out": _WINDOW,
                }
            ],
            "produced_in": str,
            "uses": [
                {
                    "instruction": str,
                    "step": int,
                    "operand": int,
                    "index": [int],
                    "memory_space": str,
                }
            ],
            "why_slow": _TEXT_OR_NULL,
        }
    ],
}


def _mismatch(data: object, schema: Any, where: str) -> str | None:
    """The first place where the data is not of the schema, as a message."""
    if isinstance(schema, tuple):
        if data is None and None in schema:
            return None
        wrong = [_mismatch(data, option, where) for option in schema if option is not None]
        return None if None in wrong else wrong[0]
    if isinstance(schema, dict):
        if not isinstance(data, dict):
            return f"field '{where}' is {_short(data)}, expected an object"
        for key, inner in schema.items():
            inside = f"{where}.{key}" if where else key
            if key not in data:
                return f"field '{inside}' is missing"
            wrong_field = _mismatch(data[key], inner, inside)
            if wrong_field is not None:
                return wrong_field
        return None
    if isinstance(schema, list):
        if not isinstance(data, list):
            return f"field '{where}' is {_short(data)}, expected a list"
        for index, entry in enumerate(data):
            wrong_entry = _mismatch(entry, schema[0], f"{where}[{index}]")
            if wrong_entry is not None:
                return wrong_entry
        return None
    if isinstance(data, bool) or not isinstance(data, schema):
        return f"field '{where}' is {_short(data)}, expected {_TYPE_NAMES[schema]}"
    return None


_TYPE_NAMES = {int: "an integer", float: "a number", str: "a text"}


def _short(data: object) -> str:
    text = json.dumps(data)
    return text if len(text) <= 40 else f"{text[:40]}..."
