"""The stays of a mapping as a CSV of MiniMalloc (github.com/google/minimalloc).

One row a stay, `id,lower,upper,size,offset`: in use during steps [lower, upper) of
`Program.steps`. The capacity, which MiniMalloc takes beside the file, is the problem's. What
instructions reserve for themselves is not in the file: an offset that MiniMalloc finds for these
rows anew may lie in it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from games.files import replace_file
from games.memory_mapping.explain import class_name
from games.memory_mapping.mapping_file import in_program_steps
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import Mapping
from hlo_frontend.program import Program

HEADER = ("id", "lower", "upper", "size", "offset")


def to_csv(program: Program, problem: MemoryMappingProblem, mapping: Mapping) -> str:
    """The CSV's text.

    An id is the position of the first value of the alias class and the step at which the stay
    starts, for example `fusion.3{0;1}@17`; MiniMalloc knows no quotes, so no id holds a comma.

    Args:
        program: what `problem` was made from.
        problem: gives sizes and steps.
        mapping: the stays.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(HEADER)
    for interval in sorted(mapping.intervals, key=lambda interval: interval.start):
        stay = in_program_steps(problem, interval)
        name = class_name(program, stay.buffer).replace(",", ";")
        size = int(problem.size[interval.buffer])
        rows.writerow((f"{name}@{stay.start}", stay.start, stay.end, size, stay.offset))
    return file.getvalue()


def write(path: Path, program: Program, problem: MemoryMappingProblem, mapping: Mapping) -> None:
    """Writes `to_csv` to `path`, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    replace_file(path, to_csv(program, problem, mapping).encode())
