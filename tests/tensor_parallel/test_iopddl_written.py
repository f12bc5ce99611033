"""Problems written in the contest's format are read back as they were."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import random_problem

from games.tensor_parallel.instances import read_instance
from games.tensor_parallel.iopddl_file import read_problem, write_problem
from hlo_frontend.errors import InputError


def same(first, second):
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 8), packed=st.booleans())
def test_written_problems_are_read_back(tmp_path_factory, seed, nodes, packed):
    problem = random_problem(seed, nodes) if nodes > 1 else one_node()
    path = tmp_path_factory.mktemp("iopddl") / ("p.json.gz" if packed else "p.json")
    write_problem(path, problem)
    same(read_problem(path), problem)


def one_node():
    problem = random_problem(0, 2)
    size = int(problem.node_start[1])
    return dataclasses.replace(
        problem,
        node_start=problem.node_start[:2],
        node_cost=problem.node_cost[:size],
        node_usage=problem.node_usage[:size],
        interval=problem.interval[:1],
        edge_nodes=np.zeros((0, 2), dtype=np.int64),
        edge_start=np.zeros(1, dtype=np.int64),
        edge_cost=np.zeros(0, dtype=np.int64),
    )


def test_a_models_problem_goes_through_the_contests_format(tmp_path):
    problem = read_instance(model="opt-125m", layers=1)
    write_problem(tmp_path / "model.json.gz", problem)
    same(read_problem(tmp_path / "model.json.gz"), problem)
    with pytest.raises(InputError, match="cannot be written"):
        write_problem(tmp_path / "no" / "model.json", problem)
    with pytest.raises(InputError, match="expected one of file, model"):
        read_instance()
