from __future__ import annotations

import pytest
from instances import DEFINE, READ, brute_force, make_problem

from games.memory_mapping.solution import lower_bound


@pytest.mark.parametrize(("initial", "live_out"), [(True, False), (False, True)])
def test_only_what_lives_at_an_end_of_the_program_needs_slow_memory(initial, live_out):
    # Two lives of one buffer: one of them never has to touch slow memory.
    problem = make_problem(
        compute=[0.0] * 4,
        buffers=[
            {
                "size": 8,
                "accesses": [
                    (0, DEFINE if live_out else READ, 2),
                    (1, READ, 2),
                    (2, DEFINE, 3),
                    (3, READ, 50),
                ],
                "initial": initial,
                "live_out": live_out,
            }
        ],
        capacity=8,
    )
    best, _ = brute_force(problem)
    assert lower_bound(problem) <= best


def test_a_parameter_that_is_overwritten_unread_needs_no_copy():
    problem = make_problem(
        compute=[0.0, 0.0],
        buffers=[{"size": 8, "accesses": [(0, DEFINE, None), (1, READ, None)], "initial": True}],
        capacity=8,
    )
    best, _ = brute_force(problem)
    assert lower_bound(problem) == pytest.approx(best)
