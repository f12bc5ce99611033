"""Costs learned from the compiler's estimates, on bundled pairs of dumps."""

from __future__ import annotations

import numpy as np
import pytest

from compiler_rl.judge import Costs
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from games.memory_mapping.xla_options import decide
from hlo_frontend import load
from hlo_frontend.examples import example_path

CHIP = get_chip("v5e")
PROGRAMS = ("mlp", "alexnet", "decode", "resnet50")


def seconds(program):
    return sum(
        (step.estimated_cycles or 0) * step.executions / CHIP.clock_hz for step in program.steps
    )


@pytest.fixture(params=PROGRAMS)
def pair(request):
    """The problem, its program, and the program with the compiler's assignment."""
    program = load(example_path(f"{request.param}.v5e.nomsa"))
    return from_program(program, CHIP), program, load(example_path(f"{request.param}.v5e"))


def test_everything_in_slow_memory_costs_what_the_compiler_estimates(pair):
    problem, program, _ = pair
    costs = Costs(problem, program, CHIP.clock_hz).problem()
    # Some instructions have no estimate, others no access.
    assert costs.all_slow == pytest.approx(seconds(program), rel=0.01)


def test_it_learns_what_the_assignment_saved(pair):
    problem, program, assigned = pair
    costs = Costs(problem, program, CHIP.clock_hz)
    decisions = decide(assigned, assigned.assignment)
    fast = costs.in_fast(decisions)
    assert 0 < fast.sum() < len(fast)
    first = costs.problem()
    costs.observe(assigned, decisions)
    learned = costs.problem()
    assert learned.all_slow == pytest.approx(first.all_slow)
    slow = learned.fixed_slow + np.bincount(
        problem.access_step[~fast],
        weights=learned.access_slow[~fast],
        minlength=problem.num_steps,
    )
    predicted = np.maximum(learned.compute, slow).sum()
    observed = learned.all_slow - (seconds(program) - seconds(assigned))
    assert predicted == pytest.approx(observed, rel=0.02)
