"""`PowerProblem`: a row of servers, and the scenarios that a controller is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.power_control.constants import constant
from games.power_control.rules import (
    ACTIONS,
    DELAY,
    GROUPS,
    MICRO_STEPS,
    READINGS_PER_STEP,
    Chance,
    Row,
)
from hlo_frontend.errors import InputError

WARM_UP = 3600.0  # seconds at the start of a scenario that do not count
MOST_OVERSUBSCRIPTION = 0.6  # the rows' arrays have room for it
HALF = round(constant("row", "servers") * (1 + MOST_OVERSUBSCRIPTION)) // 2


@dataclass(frozen=True)
class Faults:
    """What goes wrong between row and controller.

    Attributes:
        noise: standard deviation of a reading, as a share of it.
        dropout: share of readings that are missing.
        stuck: share of time for which the sensor repeats itself, 60 s at a time.
        lag: seconds by which the controller's readings are late.
        lost: share of commands that do not arrive.
    """

    noise: float = 0.0
    dropout: float = 0.0
    stuck: float = 0.0
    lag: float = constant("timing", "telemetry_delay_s")
    lost: float = 0.0


NO_FAULTS = Faults()


@dataclass(frozen=True, eq=False)
class PowerProblem:
    """A row, and the scenarios on which every controller is judged alike.

    Attributes:
        name: for tables and messages.
        servers: of the row.
        budget_w: what the breaker bears.
        arrivals: u8[E, S, 2] requests of LP and HP in each second of each scenario.
        requests: f32[E, 2, 2, L] seconds of prompts and of tokens (second axis) of the requests
            of LP and HP (third axis), gone through in order, again and again.
        warm_up_s: seconds at the start of each scenario that do not count.
        faults: of sensors and commands.
        seed: of the faults.
        levers: the actions of the track: all nine, or `rules.FOUR`, POLCA's.
    """

    name: str
    servers: int
    arrivals: npt.NDArray[np.uint8]
    requests: npt.NDArray[np.float32]
    budget_w: float = constant("row", "budget_w")
    warm_up_s: float = WARM_UP
    faults: Faults = field(default=NO_FAULTS)
    seed: int = 0
    levers: tuple[int, ...] = tuple(range(len(ACTIONS)))

    def __post_init__(self) -> None:
        if self.servers % 2 or not 2 <= self.servers <= 2 * HALF:
            raise InputError(
                f"{self.name}: {self.servers} servers; expected an even number up to {2 * HALF}"
            )
        if self.arrivals.ndim != 3 or self.steps < 1:
            raise InputError(f"{self.name}: no scenario of {MICRO_STEPS} seconds or more")

    @property
    def scenarios(self) -> int:
        """Number of scenarios."""
        return len(self.arrivals)

    @property
    def steps(self) -> int:
        """Control steps of a scenario."""
        return int(self.arrivals.shape[1]) // MICRO_STEPS

    @property
    def oversubscription(self) -> float:
        """Servers above those that the budget was made for, as a share."""
        return self.servers / int(constant("row", "servers")) - 1


def servers_at(oversubscription: float) -> int:
    """An even number of servers, at most so many above those that the budget was made for."""
    pairs = constant("row", "servers") * (1 + oversubscription) / 2
    return 2 * int(pairs + 1e-9)


def made_for(budget_w: float) -> float:
    """Servers that a budget is made for, by the row of `constants.toml`."""
    return float(constant("row", "servers") * budget_w / constant("row", "budget_w"))


def row_of(problem: PowerProblem) -> Row:
    """The rows of all scenarios: `requests` has a leading axis [E], the rest is shared."""
    copies = round(constant("row", "instances"))
    depth = -(-HALF * copies // GROUPS)
    number = np.arange(depth * GROUPS).reshape(depth, GROUPS)
    up = np.broadcast_to(number < problem.servers // 2 * copies, (2, depth, GROUPS))
    return Row(
        up=jnp.asarray(up),
        budget=jnp.float32(problem.budget_w),
        instances=jnp.float32(copies),
        requests=jnp.asarray(problem.requests),
        oversubscription=jnp.float32(problem.oversubscription),
        warm_up=jnp.float32(problem.warm_up_s),
    )


def chances_of(problem: PowerProblem) -> Chance:
    """What chance does in every control step of every scenario: leading axes [E, T]."""
    shape = (problem.scenarios, problem.steps)
    faults = problem.faults
    arrivals = problem.arrivals[:, : problem.steps * MICRO_STEPS]
    rng = np.random.default_rng([problem.seed, 1])
    readings = (*shape, READINGS_PER_STEP)
    noise = 1 + faults.noise * rng.standard_normal(readings)
    if faults.stuck:
        # Steps of six begin a stretch of 60 s each.
        begins = rng.random((shape[0], -(-shape[1] // 6))) < faults.stuck
        noise[np.repeat(begins, 6, axis=1)[:, : shape[1]]] = np.inf
    noise[rng.random(readings) < faults.dropout] = np.nan
    late = round(faults.lag / constant("timing", "reading_s"))
    return Chance(
        arrivals=jnp.asarray(arrivals.reshape(*shape, MICRO_STEPS, 2)),
        noise=jnp.asarray(noise, jnp.float32),
        delayed=jnp.full(shape, max(late, DELAY), jnp.int32),
        lost=jnp.asarray(rng.random(shape) < faults.lost),
    )


def joined(problems: Sequence[PowerProblem]) -> PowerProblem:
    """One problem with the scenarios of all; the row and the faults are the first one's."""
    first = problems[0]
    return PowerProblem(
        name=first.name,
        servers=first.servers,
        arrivals=np.concatenate([each.arrivals for each in problems]),
        requests=np.concatenate([each.requests for each in problems]),
        budget_w=first.budget_w,
        warm_up_s=first.warm_up_s,
        faults=first.faults,
        seed=first.seed,
        levers=first.levers,
    )
