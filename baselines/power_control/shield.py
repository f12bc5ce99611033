"""Rules outside of any policy that bound what it may do.

- A sensor that is silent or repeats itself for 30 s: LP 1110 / HP 1305; then POLCA decides until
  the sensor has been sound for a minute.
- A reading above POLCA's upper threshold: no class has a looser cap than POLCA would give it.
- Caps come off at most once in `LOOSEN` control steps; they go on at any time.

With 40 s from command to effect no rule can promise that the breaker holds; these only see to it
that a policy is not looser than POLCA where it matters. The brake itself belongs to the row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from baselines.power_control import policies
from baselines.power_control.simulate import Policy
from games.power_control.constants import constant
from games.power_control.rules import MEET, SAFE_ACTION, STEP, Observation

SILENT = round(30 / constant("timing", "reading_s"))  # readings
TRUST = round(60 / STEP)  # control steps of a sound sensor before the policy decides again
LOOSEN = 2  # control steps between two commands that take a cap off
UPPER = 0.89
REASONS = (
    "policy",
    "sensor silent",
    "sensor frozen",
    "trust regained",
    "as tight as POLCA",
    "rate",
)


class ShieldState(NamedTuple):
    """Of the policy inside and of POLCA; and numbers of the shield's own.

    Attributes:
        inner, polca: states.
        sound: i32[] control steps since the sensor was last silent or frozen.
        sent: i32[] the last action.
        since: i32[] control steps since a cap came off.
        reason: i32[] of REASONS, for the last action.
    """

    inner: Any
    polca: policies.LadderState
    sound: jax.Array
    sent: jax.Array
    since: jax.Array
    reason: jax.Array


def shielded(policy: Policy) -> Policy:
    """The policy within the shield's rules."""
    return Policy(
        policy.name,
        (policy.parameters, policies.LADDERS["polca"]),
        _starts(policy.start),
        _acts(policy.act),
    )


def _starts(inner: Any) -> Any:
    if inner not in _STARTS:

        def start(parameters: Any) -> ShieldState:
            zero = jnp.int32(0)
            polca = policies.start(parameters[1])
            return ShieldState(inner(parameters[0]), polca, zero + TRUST, zero, zero, zero)

        _STARTS[inner] = start
    return _STARTS[inner]


def _acts(inner: Any) -> Any:
    if inner not in _ACTS:

        def act(parameters: Any, state: ShieldState, seen: Observation, key: jax.Array) -> Any:
            memory, wanted = inner(parameters[0], state.inner, seen, key)
            ladder, safe = policies.act(parameters[1], state.polca, seen, key)
            return _judge(state._replace(inner=memory, polca=ladder), wanted, safe, seen)

        _ACTS[inner] = act
    return _ACTS[inner]


# One function for one policy's: what is compiled is found again by it.
_STARTS: dict[Any, Any] = {}
_ACTS: dict[Any, Any] = {}


def _judge(
    state: ShieldState, wanted: jax.Array, polca: jax.Array, seen: Observation
) -> tuple[ShieldState, jax.Array]:
    meet = jnp.asarray(MEET)
    last = seen.readings[-SILENT:]
    there = jnp.isfinite(last)
    silent = ~there.any()
    frozen = there.all() & (last == last[-1]).all() & (last[-1] > 0)
    sound = jnp.where(silent | frozen, 0, state.sound + 1)
    over = jnp.where(there, last, -1.0)[-5:].max() > UPPER
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
