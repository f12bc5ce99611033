"""The power-control game: the one stochastic game, see `games.base.StochasticGame`.

A move is the action of one control step; the scenarios of a problem are played one after another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.power_control import rules, solution, validator
from games.power_control.constants import constant
from games.power_control.problem import PowerProblem, chances_of, row_of
from games.power_control.rules import (
    ACTIONS,
    LP,
    MICRO_STEP,
    MICRO_STEPS,
    Chance,
    Observation,
    Row,
    State,
    instance_watts,
)
from games.power_control.solution import Control, claims_of


class Arrays(NamedTuple):
    """The problem as arrays.

    Attributes:
        row: `requests` has a leading axis [E].
        chances: what chance did in the recorded scenarios, leading axes [E, T].
        rate: f32[2] requests a second of each class, on average: what `sampled_step` draws by.
        levers: bool[A] actions of the track.
        scale: f32[] the bound that rewards are measured by.
        servers: f32[] of the row; `hours`: f32[] of a scenario that count.
    """

    row: Row
    chances: Chance
    rate: jax.Array
    levers: jax.Array
    scale: jax.Array
    servers: jax.Array
    hours: jax.Array


class Position(NamedTuple):
    """`scenario` i32[] that is played, and the `state` of its row."""

    scenario: jax.Array
    state: State


class PowerControl:
    """Satisfies `games.base.StochasticGame`; what each part does is written there."""

    name = "power_control"
    unit = solution.UNIT
    objective = staticmethod(solution.objective)
    lower_bound = staticmethod(solution.lower_bound)
    validate = staticmethod(validator.validate)

    def arrays(self, problem: PowerProblem) -> Arrays:
        """Row, recorded chance and scale."""
        seconds = problem.arrivals.shape[1] * problem.scenarios
        rate = problem.arrivals.sum((0, 1), dtype=np.int64) / seconds
        return Arrays(
            row=row_of(problem),
            chances=chances_of(problem),
            rate=jnp.asarray(rate, jnp.float32),
            levers=jnp.asarray(np.isin(np.arange(len(ACTIONS)), problem.levers)),
            scale=jnp.float32(self.lower_bound(problem) * problem.scenarios),
            servers=jnp.float32(problem.servers),
            hours=jnp.float32(solution.hours(problem)),
        )

    def init(self, arrays: Arrays) -> Position:
        """The first scenario, the row empty."""
        return Position(jnp.int32(0), rules.init(arrays.row))

    def legal_actions(self, arrays: Arrays, position: Position) -> jax.Array:
        """Every action of the track, at any time."""
        return arrays.levers

    def step(
        self, arrays: Arrays, position: Position, action: Any
    ) -> tuple[Position, jax.Array, jax.Array]:
        """One control step of the recorded scenario."""
        at = (position.scenario, position.state.time)
        return self._step(arrays, position, action, jax.tree.map(lambda x: x[at], arrays.chances))

    def sampled_step(
        self, arrays: Arrays, position: Position, action: Any, key: jax.Array
    ) -> tuple[Position, jax.Array, jax.Array]:
        """One control step whose arrivals and request sizes are drawn by `key`, without faults."""
        counts, sizes = jax.random.split(key)
        arrivals = jax.random.poisson(counts, arrays.rate * MICRO_STEP, (MICRO_STEPS, 2))
        shape = arrays.chances.noise.shape[-1:]
        chance = Chance(
            arrivals=arrivals.astype(jnp.uint8),
            noise=jnp.ones(shape),
            delayed=jnp.int32(rules.DELAY),
            lost=jnp.asarray(False),
        )
        # The sizes of the requests to come are those of a random part of the table.
        length = arrays.row.requests.shape[-1]
        offset = jax.random.randint(sizes, (2,), 0, length)
        position = position._replace(state=position.state._replace(offset=offset))
        return self._step(arrays, position, action, chance)

    def _step(
        self, arrays: Arrays, position: Position, action: Any, chance: Chance
    ) -> tuple[Position, jax.Array, jax.Array]:
        before = position.state
        row = arrays.row._replace(requests=arrays.row.requests[position.scenario])
        chance = chance._replace(arrivals=chance.arrivals.astype(jnp.int32))
        state, _ = rules.advance(row, before, action, chance)
        now, then = state.totals, before.totals
        paid = (now.presence - then.presence) / arrays.servers
        paid += (now.brakes - then.brakes) * solution.BRAKE_COST
        paid += (now.rejected - then.rejected).sum() * solution.REJECTION_COST / arrays.servers
        scenarios, steps = arrays.chances.lost.shape
        reward = 1 / (scenarios * steps) - paid / arrays.hours / arrays.scale
        over = state.time >= steps
        fresh = rules.init(arrays.row)
        state = jax.tree.map(lambda new, old: jnp.where(over, new, old), fresh, state)
        scenario = position.scenario + over
        return Position(scenario, state), reward, scenario >= scenarios

    def observe(self, arrays: Arrays, position: Position) -> Observation:
        """What a controller sees."""
        return rules.observation(arrays.row, position.state)

    def num_actions(self, arrays: Arrays) -> int:
        """Nine, on either track."""
        return len(ACTIONS)

    def prior_logits(self, arrays: Arrays, position: Position) -> jax.Array:
        """The loosest action that would bring the last reading to 90 % of the budget."""
        seen = self.observe(arrays, position)
        copies = constant("row", "instances")
        idle, *_ = instance_watts(ACTIONS[0, LP], copies)
        idle = idle * copies * arrays.servers / arrays.row.budget
        _, _, decode = instance_watts(ACTIONS, copies)
        factor = jnp.asarray(decode.sum(1) / decode[0].sum())
        demand = jnp.maximum(seen.readings[-1] - idle, 0.0) / factor[seen.applied]
        over = jnp.maximum(idle + demand * factor - 0.9, 0.0)
        return -600.0 * over - 60.0 * (1 - factor)

    def prior_value(self, arrays: Arrays, position: Position) -> jax.Array:
        """Nothing is known."""
        return jnp.float32(0)

    def solution(self, problem: PowerProblem, actions: npt.ArrayLike) -> Control:
        """The actions of all scenarios, and what comes of them."""
        sent = np.asarray(actions, np.int8).reshape(problem.scenarios, -1)[:, : problem.steps]
        return Control("game", sent, claims_of(solution.totals_of(problem, sent)))


GAME = PowerControl()
