"""The row of the rules against the independent one, request by request."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from baselines.power_control.policies import LADDERS, act, start
from baselines.power_control.simulate import simulate
from games.power_control.instances import read_instance
from games.power_control.solution import Control, claims_of
from games.power_control.validator import replay, validate


@pytest.fixture(scope="module")
def played():
    """Forty tight minutes under POLCA and one without caps: brakes, queues and caps all happen."""
    problem = read_instance("poisson", 0.4, days=(0,), seeds=1)
    problem = replace(
        problem,
        arrivals=problem.arrivals[:, 15 * 3600 : 15 * 3600 + 2400],
        budget_w=180e3,
        warm_up_s=600.0,
    )
    both = jax.tree.map(lambda *leaves: np.stack(leaves), LADDERS["polca"], LADDERS["no_cap"])
    totals, (sent, *_) = simulate(problem, both, start, act, keep=True)
    return problem, totals, sent


def test_same_row_twice(played):
    problem, totals, sent = played
    assert totals.brakes[1, 0] > 0
    for policy in range(2):
        found = replay(problem, 0, sent[policy, 0])
        assert found["brakes"] == totals.brakes[policy, 0]
        np.testing.assert_allclose(found["energy"], totals.energy[policy, 0], rtol=1e-3)
        np.testing.assert_allclose(found["served"], totals.served[policy, 0], atol=2)
        np.testing.assert_allclose(found["latency"], totals.latency[policy, 0], rtol=2e-3)


def test_claims_are_checked(played):
    problem, totals, sent = played
    first = jax.tree.map(lambda leaf: leaf[1], totals)
    control = Control("no_cap", sent[1], claims_of(first))
    assert validate(problem, control) == []
    fewer = [{**control.claims[0], "brakes": control.claims[0]["brakes"] - 1}]
    assert "brakes" in validate(problem, replace(control, claims=tuple(fewer)))[0]
    assert "expected" in validate(problem, replace(control, actions=sent[1][:, :-1]))[0]
    wrong = sent[1].copy()
    wrong[0, 7] = 9
    assert "no action 9" in validate(problem, replace(control, actions=wrong))[0]
