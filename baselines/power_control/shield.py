"""Rules outside of any policy that bound what it may do.

- A sensor that is silent or repeats itself for 30 s: LP 1110 / HP 1305; then POLCA decides until
  the sensor has been sound for a minute.
- A noisy sensor: policy and POLCA decide by smoothed readings over a smaller budget, see `sensor`.
- A reading above POLCA's upper threshold: no class has a looser cap than POLCA would give it.
- Caps come off at most once in `LOOSEN` control steps; they go on at any time.

With 40 s from command to effect no rule can promise that the breaker holds; these only see to it
that a policy is not looser than POLCA where it matters. The brake itself belongs to the row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from baselines.power_control import forecast, policies, sensor
from baselines.power_control.sensor import Sensor, SensorState
from baselines.power_control.simulate import Policy
from baselines.power_control.tuned import tuned
from games.power_control.constants import constant
from games.power_control.rules import MEET, SAFE_ACTION, STEP, Observation

SILENT = round(30 / constant("timing", "reading_s"))  # readings
TRUST = round(60 / STEP)  # control steps of a sound sensor before the policy decides again
LOOSEN = 2  # control steps between two commands that take a cap off
UPPER = 0.89
OVER = 5  # readings whose highest is held against it
REASONS = (
    "policy",
    "sensor silent",
    "sensor frozen",
    "trust regained",
    "as tight as POLCA",
    "rate",
)


class ShieldState(NamedTuple):
    """Of the policy inside, of POLCA and of the sensor; and numbers of the shield's own.

    Attributes:
        inner, polca, sensor: states.
        sound: i32[] control steps since the sensor was last silent or frozen.
        sent: i32[] the last action.
        since: i32[] control steps since a cap came off.
        reason: i32[] of REASONS, for the last action.
    """

    inner: Any
    polca: policies.LadderState
    sensor: SensorState
    sound: jax.Array
    sent: jax.Array
    since: jax.Array
    reason: jax.Array


class Shield(NamedTuple):
    """Parameters: of the policy `inner`, of `polca` and of the `sensor`."""

    inner: Any
    polca: policies.Ladder
    sensor: Sensor


def sensor_of(numbers: dict[str, float]) -> Sensor:
    """The parameters by what training days said: `clean`, `drift` and `margin`."""
    single = {name: jnp.float32(value) for name, value in numbers.items()}
    return Sensor(**single, plant=forecast.plant())


def shielded(policy: Policy, numbers: dict[str, float] | None = None) -> Policy:
    """The policy within the shield's rules; `numbers` of the sensor, as tuned if None."""
    numbers = tuned()["sensor"] if numbers is None else numbers
    made = Shield(policy.parameters, policies.LADDERS["polca"], sensor_of(numbers))
    return Policy(policy.name, made, _starts(policy.start), _acts(policy.act))


def _starts(inner: Any) -> Any:
    if inner not in _STARTS:

        def start(parameters: Shield) -> ShieldState:
            zero = jnp.int32(0)
            return ShieldState(
                inner=inner(parameters.inner),
                polca=policies.start(parameters.polca),
                sensor=sensor.start(),
                sound=zero + TRUST,
                sent=zero,
                since=zero,
                reason=zero,
            )

        _STARTS[inner] = start
    return _STARTS[inner]


def _acts(inner: Any) -> Any:
    if inner not in _ACTS:

        def act(parameters: Shield, state: ShieldState, seen: Observation, key: jax.Array) -> Any:
            noise, clear = sensor.seen_through(parameters.sensor, state.sensor, seen)
            memory, wanted = inner(parameters.inner, state.inner, clear, key)
            ladder, safe = policies.act(parameters.polca, state.polca, clear, key)
            state = state._replace(inner=memory, polca=ladder, sensor=noise)
            return _judge(state, wanted, safe, seen, jnp.nanmax(clear.readings[-OVER:]))

        _ACTS[inner] = act
    return _ACTS[inner]


# One function for one policy's: what is compiled is found again by it.
_STARTS: dict[Any, Any] = {}
_ACTS: dict[Any, Any] = {}


def _judge(
    state: ShieldState, wanted: jax.Array, polca: jax.Array, seen: Observation, power: jax.Array
) -> tuple[ShieldState, jax.Array]:
    meet = jnp.asarray(MEET)
    last = seen.readings[-SILENT:]
    there = jnp.isfinite(last)
    silent = ~there.any()
    frozen = there.all() & (last == last[-1]).all() & (last[-1] > 0)
    sound = jnp.where(silent | frozen, 0, state.sound + 1)
    over = power > UPPER
    action = jnp.where(over, meet[wanted, polca], wanted)
    reason = jnp.where(over & (action != wanted), 4, 0)
    distrust = sound < TRUST
    action = jnp.where(distrust, meet[polca, SAFE_ACTION * (sound < 1)], action)
    reason = jnp.where(distrust, 3, reason)
    action = jnp.where(silent | frozen, meet[state.sent, SAFE_ACTION], action)
    reason = jnp.where(silent, 1, jnp.where(frozen, 2, reason))
    looser = meet[action, state.sent] != action
    early = looser & (state.since < LOOSEN)
    action = jnp.where(early, meet[action, state.sent], action)
    reason = jnp.where(early & (reason == 0), 5, reason)
    loosened = meet[action, state.sent] != action
    since = jnp.where(loosened, 0, state.since + 1)
    return state._replace(sound=sound, sent=action, since=since, reason=reason), action
