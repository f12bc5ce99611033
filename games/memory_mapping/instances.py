"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from collections.abc import Mapping as Table
from pathlib import Path
from typing import Any

from games.memory_mapping import picture
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.solution import Mapping
from games.sizes import parse_size
from hlo_frontend import load
from hlo_frontend.examples import example_path

EXAMPLE = "example:"


def source(dump: str) -> Path:
    """The path of a dump, or of a bundled one by `example:NAME`."""
    return example_path(dump.removeprefix(EXAMPLE)) if dump.startswith(EXAMPLE) else Path(dump)


def read_instance(
    dump: str, *, fast_memory: str | int | None = None, chip: str = "v5e"
) -> MemoryMappingProblem:
    """The problem of mapping a dump's program."""
    size = None if fast_memory is None else parse_size(str(fast_memory), "fast_memory")
    return from_program(load(source(dump)), get_chip(chip), size)


def draw_solution(
    instance: Table[str, Any],
    problem: MemoryMappingProblem,
    solution: Mapping,
    path: Path,
    *,
    method: str,
) -> None:
    """The picture of a solution of `read_instance(**instance)`."""
    picture.draw(problem, load(source(instance["dump"])), solution, path, method=method)
