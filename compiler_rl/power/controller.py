"""`Controller.decide(telemetry) -> Decision`: a policy within the shield, on measured watts."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from baselines.power_control import sensor
from baselines.power_control.shield import REASONS, shielded
from baselines.power_control.simulate import Policy
from games.power_control.constants import constant
from games.power_control.problem import made_for
from games.power_control.rules import ACTIONS, IN_FLIGHT, STEP, WINDOW, Observation

READING = constant("timing", "reading_s")
MOST = 2.0  # times the budget: no row draws that under its breaker
DAY = 86400


@dataclass(frozen=True)
class Telemetry:
    """What was read of the row.

    Attributes:
        time_s: seconds of any clock that does not go backwards, when the watts were read.
        watts: of the row; nan where the sensor gave nothing.
        brake: the row's power brake holds.
    """

    time_s: float
    watts: float
    brake: bool = False


@dataclass(frozen=True)
class Decision:
    """What is to be done from now on.

    Attributes:
        time_s: of the telemetry that it follows.
        action: number of the action.
        lp_mhz, hp_mhz: frequency caps of the two classes.
        brake: the last reading is above the budget: brake, if the row does not do so itself.
        reason: who decided: the policy, or which rule of the shield.
        power: the last reading over the budget, nan without one.
        noise: standard deviation of a reading, as a share of it; 0 while the sensor seems clean.
        notes: what was wrong with the telemetry.
    """

    time_s: float
    action: int
    lp_mhz: int
    hp_mhz: int
    brake: bool
    reason: str
    power: float
    noise: float
    notes: tuple[str, ...] = ()


@cache
def _compiled(shielded_act: Any) -> Any:
    """Jitted (parameters, state, observation, key, step) -> (state, action, reason, noise)."""

    def act(parameters: Any, state: Any, seen: Observation, key: Any, number: Any) -> Any:
        state, action = shielded_act(parameters, state, seen, jax.random.fold_in(key, number))
        noise = jnp.sqrt(sensor.variance_of(parameters.sensor, state.sensor))
        return state, action, state.reason, noise

    return jax.jit(act)


class Controller:
    """Follows one row; `observe` as often as there are readings, `decide` every control step."""

    def __init__(self, policy: Policy, *, budget_w: float, servers: int, seed: int = 0) -> None:
        """Compiles the policy, which takes a second or two.

        Args:
            policy: to be shielded.
            budget_w: what the breaker bears.
            servers: of the row.
            seed: of the policy's own chance.
        """
        guarded = shielded(policy)
        self.name = policy.name
        self.budget_w = budget_w
        self._parameters = guarded.parameters
        self._state = guarded.start(guarded.parameters)
        # Power without work is known by the budget that the policy was made for.
        self._extra = np.float32(servers / made_for(budget_w) - 1)
        self._key = jax.random.key(seed)
        self._steps = 0
        self._sent: deque[int] = deque([0] * (IN_FLIGHT + 1), maxlen=IN_FLIGHT + 1)
        self._readings: deque[tuple[float, float]] = deque(maxlen=4 * WINDOW)
        self._brake = False
        self._notes: list[str] = []
        self._act = _compiled(guarded.act)
        self._call(self._observation(0.0))

    def observe(self, telemetry: Telemetry) -> None:
        """Takes in a reading; one that cannot be counts as missing, and is noted."""
        time_s, watts = telemetry.time_s, telemetry.watts
        if not math.isfinite(time_s):
            self._notes.append(f"time {time_s} ignored")
            return
        if self._readings and time_s <= self._readings[-1][0]:
            self._notes.append(f"clock went from {self._readings[-1][0]:g} s to {time_s:g} s")
            if time_s > self._readings[-1][0] - WINDOW * READING:
                return
            # A clock that was set back for good: what was read before cannot be placed any more.
            self._readings.clear()
        if not math.isfinite(watts):
            self._notes.append("no reading")
            watts = math.nan
        elif not 0 < watts <= MOST * self.budget_w:
            self._notes.append(f"{watts:g} W cannot be")
            watts = math.nan
        self._brake = telemetry.brake
        self._readings.append((time_s, watts / self.budget_w))

    def decide(self, telemetry: Telemetry) -> Decision:
        """The caps from now on; to be called once for every control step of 10 s.

        Whatever the telemetry holds, there is a decision: by the shield where it is no use.
        """
        self.observe(telemetry)
        # A time that is no number cannot place the readings: the last one that is does.
        last = self._readings[-1][0] if self._readings else 0.0
        now = telemetry.time_s if math.isfinite(telemetry.time_s) else last
        seen = self._observation(max(now, last))
        action, reason, noise = self._call(seen, keep=True)
        self._sent.append(action)
        self._steps += 1
        sound = seen.readings[np.isfinite(seen.readings)]
        power = float(seen.readings[-1])
        notes = tuple(
            what if count == 1 else f"{what} ({count} times)"
            for what, count in Counter(self._notes).items()
        )
        self._notes = []
        lp, hp = ACTIONS[action]
        return Decision(
            time_s=telemetry.time_s,
            action=action,
            lp_mhz=int(lp),
            hp_mhz=int(hp),
            brake=bool(len(sound) and np.isfinite(power) and power > 1),
            reason=REASONS[reason],
            power=power,
            noise=round(noise, 4),
            notes=notes,
        )

    def _call(self, seen: Observation, *, keep: bool = False) -> tuple[int, int, float]:
        state, action, reason, noise = self._act(
            self._parameters, self._state, seen, self._key, np.int32(self._steps)
        )
        if keep:
            self._state = state
        return int(action), int(reason), float(noise)

    def _observation(self, now: float) -> Observation:
        window = np.full(WINDOW, np.nan, np.float32)
        for time_s, power in self._readings:
            back = int((now - time_s) / READING)
            if 0 <= back < WINDOW:
                window[WINDOW - 1 - back] = power
        sent = list(self._sent)
        return Observation(
            readings=window,  # type: ignore[arg-type]  # numpy in, no copies before the call
            commanded=np.int32(sent[-1]),  # type: ignore[arg-type]
            applied=np.int32(sent[0]),  # type: ignore[arg-type]
            in_flight=np.asarray(sent[1:], np.int32),  # type: ignore[arg-type]
            brake=np.bool_(self._brake),  # type: ignore[arg-type]
            step=np.int32(now % DAY / STEP),  # type: ignore[arg-type]
            oversubscription=self._extra,  # type: ignore[arg-type]
        )
