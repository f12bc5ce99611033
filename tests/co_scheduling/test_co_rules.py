"""Simulator, rules and validator: three pieces of code that have to agree."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from co_instances import problem_of, random_levels, random_structure
from hypothesis import given, settings
from hypothesis import strategies as st

from games.co_scheduling import GAME
from games.co_scheduling.problem import (
    ALL_SLOTS,
    COMPUTE,
    DYNAMIC,
    MAX_NANO,
    NO_INTERFERENCE,
    RESOURCE,
    SLOTS,
    STATIC,
    cut,
)
from games.co_scheduling.solution import (
    evaluate,
    lower_bound,
    make_pipeline,
    objective,
    whole,
)
from games.co_scheduling.structures import (
    CUTS,
    alone,
    candidates,
    chunk_counts,
    count_chunks,
    fixed_levels,
    spread_phases,
    two_halves,
)

PROBLEMS = {mode: problem_of(mode) for mode in (NO_INTERFERENCE, STATIC, DYNAMIC)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(list(PROBLEMS)), st.booleans())
def test_whatever_can_be_executed_is_valid(seed, mode, greedy):
    rng = np.random.default_rng(seed)
    problem = replace(PROBLEMS[mode], layers=int(rng.integers(1, 25)))
    structure = random_structure(problem, rng)
    phase = spread_phases(problem, structure) + rng.normal(0, 0.1, ALL_SLOTS)
    level = random_levels(rng)
    value = evaluate(problem, structure, phase, level, greedy=greedy)
    pipeline = make_pipeline(problem, structure, phase, level, greedy=greedy)
    if pipeline is None:
        assert value == np.inf
        assert not greedy
        return
    assert GAME.validate(problem, pipeline) == []
    # The one skips rounds, the other one does not.
    assert value == pytest.approx(objective(problem, pipeline), rel=1e-7)
    assert value >= lower_bound(problem) * (1 - 1e-9)


def test_sequential_time_is_the_sum_of_the_work():
    for problem in PROBLEMS.values():
        structure = whole(problem)
        value = evaluate(problem, structure, spread_phases(problem, structure), alone())
        assert value == pytest.approx(structure.work(problem).sum(), rel=1e-12)


def test_two_operations_side_by_side_by_hand():
    """One layer, two nano-batches: the timetable of a dynamic schedule, computed by hand."""
    problem = problem_of(DYNAMIC, decode=256, prefill=0, layers=1, tp=1)
    structure = two_halves(problem)
    work = structure.work(problem).reshape(MAX_NANO, SLOTS)
    levels = fixed_levels(10, 3, 2)
    phase = spread_phases(problem, structure, lag=0.02)
    pipeline = make_pipeline(problem, structure, phase, levels)
    kqv, attention, out = work[0, 0], work[0, 2], work[0, 8]
    speed = problem.speed[1, 3]
    # The second KQV runs at .7 beside the first attention, which is slower than it.
    assert pipeline.start[SLOTS, 0] == pytest.approx(kqv)
    assert pipeline.end[SLOTS, 0] == pytest.approx(kqv + kqv / 0.7)
    assert pipeline.end[2, 0] == pytest.approx(kqv + attention / speed)
    # Then O of the first waits for its attention, and runs beside that of the second.
    begin = kqv + attention / speed
    assert pipeline.start[8, 0] == pytest.approx(begin)
    beside = min(attention / speed, out / 0.7)
    expected = out / 0.7 if beside == out / 0.7 else beside + out - 0.7 * beside
    assert pipeline.end[8, 0] == pytest.approx(begin + expected)


def test_levels_slow_down_and_orders_can_wait_for_each_other():
    problem = PROBLEMS[STATIC]
    structure = two_halves(problem)
    phase = spread_phases(problem, structure)
    values = [evaluate(problem, structure, phase, fixed_levels(level, 2, 2)) for level in (1, 3, 6)]
    assert values[0] > values[1] > values[2]
    backwards = phase.copy()
    backwards[:SLOTS] = phase[:SLOTS][::-1]
    assert make_pipeline(problem, structure, backwards, alone()) is None


def _legal():
    problem = PROBLEMS[STATIC]
    structure = two_halves(problem)
    pipeline = make_pipeline(
        problem, structure, spread_phases(problem, structure), fixed_levels(5, 3, 2)
    )
    assert GAME.validate(problem, pipeline) == []
    return problem, pipeline


def test_validator_finds_each_broken_rule():
    problem, pipeline = _legal()
    slots = np.flatnonzero(pipeline.structure.work(problem) > 0)
    for slot in slots:
        start, end = pipeline.start.copy(), pipeline.end.copy()
        start[slot, 3] -= 1e-4
        end[slot, 3] -= 1e-4
        early = replace(pipeline, start=start, end=end)
        faults = GAME.validate(problem, early)
        waited = pipeline.start[slot, 3] - _free(pipeline, slots, slot, 3)
        assert faults or waited >= 1e-4 - 1e-12
        shorter = pipeline.end.copy()
        shorter[slot, 3] -= 1e-5
        assert GAME.validate(problem, replace(pipeline, end=shorter))
        missing = pipeline.start.copy()
        missing[slot, 3] = np.nan
        assert GAME.validate(problem, replace(pipeline, start=missing))
    full = pipeline.level.copy()
    full[:] = 10
    assert GAME.validate(problem, replace(pipeline, level=full))
    full[:] = 11
    assert GAME.validate(problem, replace(pipeline, level=full))
    tokens = pipeline.structure.decode.copy()
    tokens[0, 0] -= 1
    fewer = replace(pipeline.structure, decode=tokens)
    assert "add up to" in GAME.validate(problem, replace(pipeline, structure=fewer))[0]


def _free(pipeline, slots, slot, layer) -> float:
    """When everything that ends before a slot's start has ended."""
    begin = pipeline.start[slot, layer]
    ends = pipeline.end[slots]
    before = ends[ends <= begin + 1e-12]
    return before.max() if before.size else 0.0


def test_validator_adds_up_shares():
    problem, pipeline = _legal()
    # The same timetable is too fast for what one device can give.
    ideal = replace(problem, mode=NO_INTERFERENCE)
    fast = make_pipeline(ideal, pipeline.structure, pipeline.phase, fixed_levels(10, 10, 10))
    assert GAME.validate(ideal, fast) == []
    faults = GAME.validate(problem, fast)
    assert any("shares add up" in fault for fault in faults)


@jax.jit
def _random_play(arrays, key):
    """(actions, sum of rewards, done, whether there always was a legal action)."""

    def move(state, key):
        legal = GAME.legal_actions(arrays, state)
        action = jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
        state, reward, done = GAME.step(arrays, state, action)
        return state, (action, reward, done, legal.any() | done)

    keys = jax.random.split(key, 60)
    _, (actions, rewards, done, legal) = jax.lax.scan(move, GAME.init(arrays), keys)
    return actions, rewards.sum(), done[-1], legal.all()


@pytest.mark.parametrize("mode", list(PROBLEMS))
@pytest.mark.parametrize("tp", [1, 8])
def test_random_games_are_legal_and_rewards_are_the_saving(mode, tp):
    problem = problem_of(mode, decode=500, prefill=200, layers=20, tp=tp)
    arrays = GAME.arrays(problem)
    reference = whole(problem).work(problem).sum()
    for seed in range(6):
        actions, total, done, legal = _random_play(arrays, jax.random.key(seed))
        assert done
        assert legal
        pipeline = GAME.solution(problem, np.asarray(actions))
        assert GAME.validate(problem, pipeline) == []
        saving = np.log(reference / GAME.objective(problem, pipeline))
        # The rules simulate the first layers and go on at their pace.
        assert float(total) == pytest.approx(saving, abs=5e-3)


def test_games_of_all_problems_share_what_is_compiled():
    _random_play(GAME.arrays(problem_of(STATIC)), jax.random.key(0))
    before = _random_play._cache_size()
    _random_play(GAME.arrays(problem_of(DYNAMIC, decode=300, tp=1)), jax.random.key(0))
    assert _random_play._cache_size() == before


def test_features_are_finite():
    arrays = GAME.arrays(PROBLEMS[DYNAMIC])
    features = GAME.observe(arrays, GAME.init(arrays))
    assert features
    assert all(bool(jnp.isfinite(value).all()) for value in features.values())


def test_structures_keep_all_tokens_and_differ():
    problem = problem_of(decode=700, prefill=300)
    keys = set()
    for structure in candidates(problem):
        assert structure.decode.sum() == 700
        assert structure.prefill.sum() == 300
        again = count_chunks(problem, structure)
        assert (
            cut(problem, again[0], again[1], structure.gathered).decode == structure.decode
        ).all()
        keys.add(
            (structure.decode.tobytes(), structure.prefill.tobytes(), structure.gathered.tobytes())
        )
    assert len(keys) > 20
    halves = chunk_counts(problem, CUTS[1], 1, mixed=True).sum(axis=(0, 2))
    assert abs(halves[0] - halves[1]) <= 1


def test_compute_is_never_given_more_than_memory_and_network_leave():
    problem = PROBLEMS[DYNAMIC]
    structure = two_halves(problem)
    pipeline = make_pipeline(
        problem, structure, spread_phases(problem, structure), fixed_levels(1, 6, 4)
    )
    assert GAME.validate(problem, pipeline) == []
    gemms = np.flatnonzero(
        (structure.work(problem) > 0) & (RESOURCE[np.arange(ALL_SLOTS) % SLOTS] == COMPUTE)
    )
    took = pipeline.end[gemms] - pipeline.start[gemms]
    assert (took >= structure.work(problem)[gemms, None] * (1 - 1e-9)).all()
