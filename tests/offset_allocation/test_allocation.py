"""Offset allocation: the file format, the validator, and every solver against brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.offset_allocation import EXACT, HEURISTICS, allocate, cp_sat
from games.offset_allocation.problem import OffsetProblem, from_csv
from games.offset_allocation.solution import Offsets, lower_bound, objective, write_csv
from games.offset_allocation.validator import validate
from hlo_frontend.errors import InputError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "minimalloc"
CAPACITY = 1048576


def problem_of(rows, capacity=10**9) -> OffsetProblem:
    array = np.array(rows, dtype=np.int64).reshape(-1, 3)
    ids = tuple(str(i) for i in range(len(array)))
    return OffsetProblem(ids, array[:, 0].copy(), array[:, 1].copy(), array[:, 2].copy(), capacity)


def lowest_peak(problem: OffsetProblem) -> int:
    """First fit in every order: one of them gives an optimal packing."""
    best = None
    for order in itertools.permutations(range(len(problem.ids))):
        offset: dict[int, int] = {}
        for i in order:
            meets = sorted(
                (offset[j], offset[j] + int(problem.size[j]))
                for j in offset
                if problem.lower[i] < problem.upper[j] and problem.lower[j] < problem.upper[i]
            )
            at = 0
            for bottom, top in meets:
                if bottom - at >= problem.size[i]:
                    break
                at = max(at, top)
            offset[i] = at
        peak = max(offset[i] + int(problem.size[i]) for i in offset)
        best = peak if best is None else min(best, peak)
    assert best is not None
    return best


buffers = st.tuples(st.integers(0, 8), st.integers(1, 5), st.integers(1, 9)).map(
    lambda row: (row[0], row[0] + row[1], row[2])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(buffers, min_size=1, max_size=6))
def test_solvers_agree_with_brute_force(rows):
    problem = problem_of(rows)
    best = lowest_peak(problem)
    assert lower_bound(problem) <= best
    for solver in HEURISTICS.values():
        result = solver(problem, time_limit=1.0)
        assert validate(problem, result.solution) == []
        assert result.objective == objective(problem, result.solution) >= best
    proved = cp_sat(problem, time_limit=5.0)
    assert proved.proved_optimal
    assert proved.objective == best
    fits = EXACT.solve(problem_of(rows, best), time_limit=5.0)
    assert fits.objective == best
    assert validate(problem_of(rows, best), fits.solution) == []
    if best > max(row[2] for row in rows):
        assert EXACT.solve(problem_of(rows, best - 1), time_limit=5.0).detail["infeasible"]


def test_same_nodes_and_seed_give_the_same_offsets():
    rng = np.random.default_rng(5)
    start = rng.integers(0, 50, 60)
    rows = np.stack([start, start + rng.integers(1, 20, 60), rng.integers(1, 50, 60)], axis=1)
    problem = problem_of(rows, int(problem_of(rows).max_load[0] * 1.02))
    runs = [EXACT.solve(problem, time_limit=0, nodes=5000, seed=1) for _ in range(2)]
    assert (runs[0].solution.offset == runs[1].solution.offset).all()


def test_validator_names_the_broken_byte():
    problem = problem_of([(0, 4, 10), (2, 6, 10)], capacity=20)
    assert validate(problem, Offsets(np.array([0, 10]))) == []
    assert "share bytes [9, 10)" in validate(problem, Offsets(np.array([0, 9])))[0]
    assert "outside" in validate(problem, Offsets(np.array([0, 11])))[0]
    assert validate(problem, Offsets(np.array([0])))


def test_file_round_trip(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,lower,upper,size\na,0,3,4\nb,2,5,6\n")
    problem = from_csv(path, 10)
    result = allocate(problem, time_limit=1.0)
    write_csv(problem, result.solution, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "id,lower,upper,size,offset"
    assert {line.rsplit(",", 1)[0] for line in lines[1:]} == {"a,0,3,4", "b,2,5,6"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column 'id'"),
        ("id,lower,upper\na,0,1\n", "no column 'size'"),
        ("id,lower,upper,size\n", "no buffer"),
        ("id,lower,upper,size\na,0,1,-5\n", "line 2: size -5 is negative"),
        ("id,lower,upper,size\na,3,3,5\n", "line 2: upper 3 is not above lower 3"),
        ("id,lower,upper,size\na,0,1,x\n", "line 2: size is 'x'"),
        ("id,lower,upper,size\na,0,1,5\na,0,1,5\n", "line 3: id 'a' is already that of line 2"),
        ("id,lower,upper,size\na,0,1,500\n", "line 2: size 500 is larger"),
        ("id,lower,upper,size\na,0,2,60\nb,1,2,60\n", "120 bytes are alive at time 1"),
        ("id,lower,upper,size\na,0,1\n", "line 2: 3 cells"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as error:
        from_csv(path, 100)
    assert "\n" not in str(error.value)


def test_garbage_is_one_line(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError):
        from_csv(path, 100)


@pytest.mark.parametrize("name", list("BCDFGHJK"))
def test_challenging_instances_fit(name):
    path = SHARED / f"{name}.{CAPACITY}.csv"
    if not path.exists():
        pytest.skip("the MiniMalloc instances are not here (../shared/data)")
    problem = from_csv(path, CAPACITY)
    result = allocate(problem, time_limit=60.0)
    assert validate(problem, result.solution) == []
