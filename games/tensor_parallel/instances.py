"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from pathlib import Path

from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.problem import ShardingProblem


def read_instance(file: str) -> ShardingProblem:
    """The problem of an IOPDDL file."""
    return read_problem(Path(file))
