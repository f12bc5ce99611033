"""A choice of strategies, its cost, and the contest's solution format.

The contest's solvers print the strategy of each node as one bracketed list; that is the format of
a solution file: `[0, 1, 2, 0, 0]`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from games.files import replace_file
from games.tensor_parallel.problem import Ints, ShardingProblem
from hlo_frontend.errors import InputError


@dataclass(frozen=True, eq=False)
class Strategies:
    """The strategy of each node.

    Attributes:
        choice: i64[N] index among the node's own strategies.
    """

    choice: Ints


def objective(problem: ShardingProblem, solution: Strategies) -> float:
    """Sum of the node and edge costs of the choice."""
    choice = solution.choice
    total = problem.node_cost[problem.node_start[:-1] + choice].sum(dtype=np.float64)
    if problem.num_edges:
        first, second = problem.edge_nodes.T
        cell = choice[first] * problem.num_strategies[second] + choice[second]
        total += problem.edge_cost[problem.edge_start[:-1] + cell].sum(dtype=np.float64)
    return float(total)


def lower_bound(problem: ShardingProblem) -> float:
    """Sum of the least cost of every node and every edge: no choice costs less."""
    total = np.minimum.reduceat(problem.node_cost, problem.node_start[:-1]).sum(dtype=np.float64)
    if problem.num_edges:
        least = np.minimum.reduceat(problem.edge_cost, problem.edge_start[:-1])
        total += least.sum(dtype=np.float64)
    return float(total)


def peak_usage(problem: ShardingProblem, solution: Strategies) -> tuple[int, int]:
    """(usage, time) of the time at which most is used."""
    used = problem.node_usage[problem.node_start[:-1] + solution.choice]
    change = np.zeros(problem.num_times + 1, dtype=np.int64)
    np.add.at(change, problem.interval[:, 0], used)
    np.subtract.at(change, problem.interval[:, 1], used)
    load = np.cumsum(change)
    return int(load.max()), int(load.argmax())


def write(path: Path, solution: Strategies) -> None:
    """Writes the solution in the contest's format, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    replace_file(path, (json.dumps(solution.choice.tolist()) + "\n").encode())


def read(path: Path) -> Strategies:
    """Reads what `write`, or a solver of the contest, wrote.

    Raises:
        InputError: the file cannot be read or is no list of whole numbers.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not a list of strategies ({error})") from error
    if not isinstance(data, list) or not all(type(value) is int for value in data):
        raise InputError(f"{path}: expected one list of whole numbers, a strategy for each node")
    return Strategies(np.array(data, dtype=np.int64))
