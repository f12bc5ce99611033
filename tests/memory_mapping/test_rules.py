from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import mapping_makers
import numpy as np
import pytest
from check_game import Player, check_game
from instances import DEFINE, READ, UPDATE, big_problem, make_problem, random_problem

from games.memory_mapping import GAME
from games.memory_mapping.moves import bucket, make_arrays, make_rows
from games.memory_mapping.plan import add_plan
from games.memory_mapping.state import (
    COPY_EARLY,
    COPY_LATE,
    COPY_LOOP,
    DROP,
    KEEP,
    KEEP_WRITE_BACK,
)
from games.registry import game_of, get_game
from hlo_frontend.program import CopyWindow


def saving(problem, objective):
    return 1.0 - objective / problem.all_slow


def larger(problem):
    moves, units = make_rows(problem)
    add_plan(moves, units)
    return make_arrays(moves, units, bucket(bucket(len(moves["unit"])) + 1))


check = functools.partial(check_game, GAME, saving=saving, larger=larger)


def test_small_problems_with_loops_updates_and_limits():
    check([random_problem(seed, steps=4 + seed % 12, buffers=2 + seed % 9) for seed in range(60)])


def test_programs_with_nested_loops():
    rng = np.random.default_rng(0)
    check([mapping_makers.random_problem(rng)[1] for _ in range(30)])


def test_more_stays_and_steps_than_the_state_holds():
    check([big_problem(seed, steps=220, buffers=240) for seed in range(2)], tolerance=3e-5)


def test_the_registry_knows_the_game():
    assert get_game("memory_mapping") is GAME
    assert game_of(random_problem(0)) is GAME
    with pytest.raises(TypeError):
        game_of("not a problem")


class Table:
    """Plays a problem by hand: `legal()` and `play(action)` one move after the other."""

    def __init__(self, problem):
        self.problem = problem
        self.arrays = GAME.arrays(problem)
        self.state = GAME.init(self.arrays)
        self.actions = []
        self.rewards = []
        self.done = False

    def legal(self):
        return set(np.flatnonzero(GAME.legal_actions(self.arrays, self.state)))

    def play(self, *actions):
        for action in actions:
            assert action in self.legal(), f"{action} is not among {self.legal()}"
            self.state, reward, self.done = STEP(self.arrays, self.state, jnp.int32(action))
            self.actions.append(action)
            self.rewards.append(float(reward))

    def stays(self):
        """The stays of the finished game, whose rewards are checked."""
        assert self.done
        mapping = GAME.solution(self.problem, np.array(self.actions))
        assert GAME.validate(self.problem, mapping) == []
        gained = saving(self.problem, GAME.objective(self.problem, mapping))
        assert sum(self.rewards) == pytest.approx(gained, abs=1e-5)
        return mapping.intervals


STEP = jax.jit(GAME.step)


def buffer(size, *accesses, **flags):
    return {"size": size, "accesses": [(*access, None) for access in accesses], **flags}


def test_a_value_is_produced_in_fast_memory_and_read_there():
    table = Table(
        make_problem(compute=[0, 0, 0], buffers=[buffer(8, (0, DEFINE), (2, READ))], capacity=8)
    )
    assert table.legal() == {DROP, KEEP, KEEP_WRITE_BACK}
    table.play(KEEP)
    assert table.legal() == {DROP, KEEP}
    table.play(KEEP)
    (stay,) = table.stays()
    assert (stay.start, stay.end, stay.copy_in, stay.copy_out) == (0, 3, None, None)
    # Two accesses of 8 seconds become two of 0.4.
    assert table.rewards == pytest.approx([7.6 / 16, 7.6 / 16])


def test_a_prefetch_starts_as_late_as_the_idle_time_before_its_use_allows():
    # Copying takes 8 seconds; each of the first steps leaves 5 idle.
    problem = make_problem(
        compute=[5, 5, 5, 0],
        buffers=[
            buffer(8, (3, READ), initial=True),
            *(buffer(1, (step, DEFINE)) for step in range(3)),
        ],
        capacity=16,
    )
    table = Table(problem)
    table.play(DROP, DROP, DROP)
    assert table.legal() == {DROP, COPY_LATE, COPY_EARLY}
    table.play(COPY_LATE)
    (stay,) = table.stays()
    assert stay.copy_in == CopyWindow(1, 3)


def test_a_prefetch_without_idle_time_makes_the_program_wait():
    problem = make_problem(
        compute=[0, 0],
        buffers=[buffer(8, (0, READ), (1, READ), initial=True)],
        capacity=8,
    )
    table = Table(problem)
    assert table.legal() == {DROP, COPY_EARLY}
    table.play(COPY_EARLY, KEEP)
    (stay,) = table.stays()
    assert stay.copy_in == CopyWindow(0, 0)
    # 16 seconds become a copy of 8 and two accesses of 0.4.
    assert sum(table.rewards) == pytest.approx(7.2 / 16)


def test_later_prefetches_do_not_delay_earlier_ones():
    # Both copies need all of the idle time of steps 0 and 1 for themselves.
    problem = make_problem(
        compute=[9, 9, 0, 0],
        buffers=[
            buffer(16, (2, READ), initial=True),
            buffer(16, (3, READ), initial=True),
            buffer(1, (0, DEFINE)),
            buffer(1, (1, DEFINE)),
        ],
        capacity=64,
    )
    table = Table(problem)
    table.play(DROP, DROP, COPY_LATE)
    assert COPY_LATE not in table.legal()
    table.play(COPY_EARLY)
    first, second = sorted(table.stays(), key=lambda stay: stay.buffer)
    assert first.copy_in == CopyWindow(0, 2)
    assert second.copy_in is not None
    assert second.copy_in.done == 3


def test_dirty_data_keeps_its_room_until_it_is_written_back():
    problem = make_problem(
        compute=[0, 0, 0],
        buffers=[
            buffer(8, (0, DEFINE), (2, READ)),
            buffer(8, (1, DEFINE), (2, READ)),
        ],
        capacity=8,
    )
    table = Table(problem)
    table.play(KEEP)
    assert table.legal() == {DROP}  # there is no room
    table.play(DROP)
    table.play(DROP)  # waits for the write-back
    table.play(DROP)
    (stay,) = table.stays()
    assert stay.copy_out == CopyWindow(2, 2)
    assert table.rewards[-2] == pytest.approx(-8 / 32)


def test_a_write_back_makes_room():
    problem = make_problem(
        compute=[0, 20, 0, 0],
        buffers=[
            buffer(8, (0, DEFINE), (3, READ)),
            buffer(1, (1, DEFINE)),
            buffer(8, (2, DEFINE), (3, READ)),
        ],
        capacity=8,
    )
    table = Table(problem)
    table.play(KEEP_WRITE_BACK, DROP)
    assert KEEP in table.legal()
    table.play(KEEP)
    table.play(DROP)
    table.play(KEEP)
    first, second = table.stays()
    assert (first.end, first.copy_out) == (2, CopyWindow(1, 2))
    assert (second.start, second.end) == (2, 4)


def test_a_result_of_the_program_ends_in_slow_memory():
    problem = make_problem(
        compute=[0, 20],
        buffers=[buffer(8, (0, DEFINE), live_out=True), buffer(1, (1, DEFINE))],
        capacity=8,
    )
    table = Table(problem)
    assert table.legal() == {DROP, KEEP_WRITE_BACK}
    table.play(KEEP_WRITE_BACK, DROP)
    (stay,) = table.stays()
    assert stay.copy_out == CopyWindow(1, 2)
    assert sum(table.rewards) == pytest.approx(7.6 / problem.all_slow)


def test_a_weight_stays_in_fast_memory_for_all_of_a_loop():
    problem = make_problem(
        compute=[40, 0, 0, 0],
        buffers=[
            buffer(8, (2, READ), initial=True),
            buffer(1, (0, DEFINE)),
            buffer(1, (1, DEFINE)),
            buffer(1, (3, DEFINE)),
        ],
        capacity=16,
        loops=[(1, 3, 10, -1)],
    )
    table = Table(problem)
    table.play(DROP, DROP)
    assert COPY_LOOP in table.legal()
    table.play(COPY_LOOP, DROP)
    (stay,) = table.stays()
    assert stay.copy_in == CopyWindow(0, 1)
    assert stay.end == 3


def test_what_a_loop_updates_can_be_held_or_left_alone():
    problem = make_problem(
        compute=[0, 0, 0, 0],
        buffers=[buffer(8, (0, DEFINE), (1, UPDATE), (2, READ), (3, READ))],
        capacity=8,
        loops=[(1, 3, 10, -1)],
    )
    table = Table(problem)
    table.play(KEEP)
    assert table.legal() == {KEEP}  # the loop cannot write it back for itself
    table.play(KEEP)
    assert table.legal() == {KEEP}
    table.play(KEEP)
    assert table.legal() == {DROP, KEEP}
    table.play(KEEP)
    (stay,) = table.stays()
    assert (stay.start, stay.end) == (0, 4)


def test_a_stay_that_is_worth_more_is_not_overwritten():
    # Two places of 8; the third buffer takes that of the one that is never read again.
    problem = make_problem(
        compute=[0] * 4,
        buffers=[
            buffer(8, (0, DEFINE), (1, READ)),
            buffer(8, (0, DEFINE), (3, READ)),
            buffer(8, (2, DEFINE), (3, READ)),
        ],
        capacity=16,
    )
    table = Table(problem)
    table.play(KEEP, KEEP, KEEP, KEEP)
    assert table.legal() == {DROP, KEEP}
    table.play(KEEP, KEEP)
    assert len({stay.offset for stay in table.stays()}) == 2


def test_the_prior_is_better_than_chance():
    player = Player(GAME)
    gains = []
    for seed in range(4):
        arrays = GAME.arrays(big_problem(seed, steps=40, buffers=40))
        chance, prior = (player.play(arrays, seed, weight)[1].sum() for weight in (0.0, 100.0))
        gains.append(prior - chance)
    assert min(gains) > 0.02


def test_the_value_is_nothing_after_the_end_and_features_are_finite():
    arrays = GAME.arrays(random_problem(3))
    state = GAME.init(arrays)
    for _ in range(arrays.length):
        features = GAME.observe(arrays, state)
        assert all(bool(jnp.isfinite(value).all()) for value in features.values())
        legal = GAME.legal_actions(arrays, state)
        state, _, done = STEP(arrays, state, jnp.argmax(legal))
        if done:
            break
    assert float(GAME.prior_value(arrays, state)) == 0.0
