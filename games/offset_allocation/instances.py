"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from dataclasses import replace

from games.offset_allocation.generator import training_problem
from games.offset_allocation.problem import OffsetProblem, from_csv
from games.sizes import parse_size
from hlo_frontend.errors import InputError


def read_instance(
    file: str | None = None, *, capacity: str | int | None = None, generated: int | None = None
) -> OffsetProblem:
    """The problem of a CSV file, or a generated one by its seed; any peak fits without capacity."""
    if (file is None) == (generated is None):
        raise InputError("offset_allocation: expected one of file, generated")
    size = 2**62 if capacity is None else parse_size(str(capacity), "capacity")
    if file is not None:
        return from_csv(file, size)
    problem = training_problem(int(generated or 0))
    return problem if capacity is None else replace(problem, capacity=size)
