from __future__ import annotations

import numpy as np
from instances import DEFINE, READ, make_problem

from baselines.memory_mapping.levels import home, level_positions, position_loops
from games.memory_mapping.solution import FastInterval, Mapping
from hlo_frontend.program import CopyWindow

LOOPS = [(1, 7, 3, -1), (1, 3, 2, 0), (3, 5, 2, 0)]


def problem_with_loops():
    return make_problem(
        compute=[1.0] * 8,
        buffers=[
            {"size": 1, "accesses": [(1, READ, None)], "initial": True},
            {"size": 1, "accesses": [(1, DEFINE, None), (2, READ, None)]},
            {"size": 1, "accesses": [(3, DEFINE, None), (5, READ, None)]},
        ],
        capacity=4,
        loops=LOOPS,
    )


def test_positions_strictly_inside_a_body_belong_to_its_loop():
    problem = problem_with_loops()
    loops = position_loops(problem)
    assert loops.tolist() == [-1, -1, 1, 0, 2, 0, 0, -1, -1]
    at = [np.flatnonzero(level_positions(problem, loops, loop)).tolist() for loop in (-1, 0, 1, 2)]
    assert at == [[0, 1, 7, 8], [1, 3, 5, 6, 7], [1, 2, 3], [3, 4, 5]]


def test_home_is_the_innermost_loop_that_holds_the_whole_life():
    problem = problem_with_loops()
    # A parameter is there before any loop, though it is first read inside of one.
    assert [home(problem, buffer) for buffer in range(3)] == [-1, 1, 0]


def test_a_parameter_that_stays_for_a_whole_body_is_copied_once():
    problem = problem_with_loops()
    stay = FastInterval(0, 1, 7, 0, copy_in=CopyWindow(1, 1))
    assert Mapping((stay,)).interval_executions(problem) == [1.0]
