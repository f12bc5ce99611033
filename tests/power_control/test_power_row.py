"""The simulated row: conservation, the frozen brake, latencies, and what POLCA makes of it."""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import pytest

from baselines.power_control.policies import LADDERS, act, ladder, start
from baselines.power_control.simulate import Policy, play, simulate, unlimited
from games.power_control.constants import table
from games.power_control.instances import read_instance
from games.power_control.rules import BRAKE_HOLD, BRAKE_LATENCY, IN_FLIGHT, SAFE_ACTION
from games.power_control.solution import summary


@pytest.fixture(scope="module")
def busy():
    """Two scenarios of an hour, ten minutes of warm-up each, at the busy end of a day."""
    problem = read_instance("poisson", 0.3, days=(0,), seeds=2, hours=24)
    hours = slice(15 * 3600, 16 * 3600)
    return type(problem)(
        name="busy",
        servers=problem.servers,
        arrivals=problem.arrivals[:, hours],
        requests=problem.requests,
        warm_up_s=600.0,
    )


def one(parameters):
    return jax.tree.map(lambda leaf: leaf[None], parameters)


def test_every_constant_has_a_source():
    for section in table().values():
        for entry in section.values():
            assert entry["source"] and set(entry) == {"value", "unit", "source"}


def test_requests_are_served_once(busy):
    totals = unlimited(busy)
    counted = busy.arrivals[:, 600:].sum(1)
    # What arrives late is still under way, or not yet counted, at the end.
    assert (totals.served <= counted).all()
    assert (totals.served >= counted * 0.8).all()
    np.testing.assert_array_equal(totals.histogram.sum(-1), totals.served)
    assert not totals.rejected.any() and not totals.brakes.any()


def test_latency_without_queue_is_the_requests_own(busy):
    quiet = type(busy)(
        name="quiet",
        servers=busy.servers,
        arrivals=np.broadcast_to(
            (np.arange(3600) % 20 == 0)[None, :, None].astype(np.uint8), (2, 3600, 2)
        ),
        requests=np.broadcast_to(
            np.float32([[2.0], [10.0]])[None, :, :, None], busy.requests.shape
        ),
        warm_up_s=600.0,
    )
    totals = unlimited(quiet)
    # A request that arrives at the begin of a second starts at once.
    assert totals.latency / totals.served == pytest.approx(12.0, abs=0.01)
    capped = play(quiet, Policy("", ladder((), 0.05, (), ground=4), start, act))
    slow = [2 * 1410 / f + 10 * (1 + 0.25 * (1410 / f - 1)) for f in (1110, 1305)]
    np.testing.assert_allclose(capped.latency[0] / capped.served[0], slow, atol=0.02)


def test_caps_take_effect_after_the_latency(busy):
    _, (sent, applied, _, _) = simulate(busy, one(LADDERS["polca"]), start, act, keep=True)
    assert (sent[..., :-IN_FLIGHT] == applied[..., IN_FLIGHT:]).all() or (applied == 4).any()
    assert set(np.unique(sent)) <= {0, 1, 2, 4}


def test_brake_engages_late_holds_and_leaves_safe_caps(busy):
    tight = type(busy)(
        name="tight",
        servers=busy.servers,
        arrivals=busy.arrivals,
        requests=busy.requests,
        budget_w=busy.budget_w * 0.8,
        warm_up_s=600.0,
    )
    totals, (_, applied, braked, readings) = simulate(
        tight, one(LADDERS["no_cap"]), start, act, keep=True
    )
    assert totals.brakes.min() > 0
    for scenario in range(2):
        over = np.flatnonzero(readings[0, scenario].ravel() > 1)
        begins = np.flatnonzero(np.diff(braked[0, scenario].astype(int)) == 1) + 1
        first = over[0] * 2  # seconds
        assert 0 <= begins[0] * 10 + 9 - first - BRAKE_LATENCY <= 10
        # It holds for 90 s, and safe caps are in force for the latency after it.
        assert braked[0, scenario, begins[0] : begins[0] + BRAKE_HOLD // 10].all()
        released = begins[0] + BRAKE_HOLD // 10
        assert (applied[0, scenario, released + 1 : released + IN_FLIGHT] == SAFE_ACTION).all()


def test_tighter_caps_use_less_and_take_longer(busy):
    reference = unlimited(busy)
    rows = [
        summary(busy, play(busy, Policy("", ladder((), 0.05, (), ground=a), start, act)), reference)
        for a in (2, 3, 5, 8)
    ]
    for loose, tight in pairwise(rows):
        assert loose["peak"] > tight["peak"]
        assert loose["lp_mean"] <= tight["lp_mean"] + 1e-9
        assert loose["hp_mean"] <= tight["hp_mean"] + 1e-9


def test_same_input_same_answer(busy):
    first, again = (play(busy, Policy("", LADDERS["thunderbolt"], start, act)) for _ in range(2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
