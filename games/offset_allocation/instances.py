"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from games.offset_allocation import picture
from games.offset_allocation.generator import test_problems, training_problem
from games.offset_allocation.problem import OffsetProblem, from_csv
from games.offset_allocation.solution import Offsets, objective
from games.sizes import parse_size
from hlo_frontend.errors import InputError


def read_instance(
    file: str | None = None,
    *,
    capacity: str | int | None = None,
    generated: int | None = None,
    test: int | None = None,
) -> OffsetProblem:
    """The problem of a CSV file, or a generated one; any peak fits without capacity.

    Args:
        file: of MiniMalloc's format.
        capacity: bytes, such as `1MiB`.
        generated: seed of a training problem.
        test: number of a test problem, which is larger.

    Raises:
        InputError: not exactly one of `file`, `generated` and `test`, or a bad one.
    """
    if sum(value is not None for value in (file, generated, test)) != 1:
        raise InputError("offset_allocation: expected one of file, generated, test")
    if any(value is not None and value < 0 for value in (generated, test)):
        raise InputError("offset_allocation: generated and test are numbers from 0")
    size = 2**62 if capacity is None else parse_size(str(capacity), "capacity")
    if file is not None:
        return from_csv(file, size)
    if test is not None:
        problem = test_problems(test + 1)[test][1]
    else:
        problem = training_problem(int(generated or 0))
    return problem if capacity is None else replace(problem, capacity=size)


def draw_solution(
    instance: Mapping[str, Any],
    problem: OffsetProblem,
    solution: Offsets,
    path: Path,
    *,
    method: str,
) -> None:
    """The picture of a solution of `read_instance(**instance)`.

    Where no capacity was given it shows what the solution needs.
    """
    if instance.get("capacity") is None:
        problem = replace(problem, capacity=int(objective(problem, solution)))
    picture.draw(problem, solution, path, method=method)
