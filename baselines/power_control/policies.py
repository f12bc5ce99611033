"""Threshold policies, POLCA's and its rivals': one ladder of caps with other numbers on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.power_control.rules import IN_FLIGHT, Observation

Array = jax.Array | npt.NDArray[Any]

RUNGS = 4
NEVER = 9.0  # a threshold that no reading reaches


class Ladder(NamedTuple):
    """Caps by thresholds on the latest reading.

    A reading above `up[i]` leads to rung i+1 or higher, and at most to the first rung whose
    `dwell` was not spent on the one below; a reading below `down[i]` leads to rung i or lower, each
    step down with probability `release`.

    Attributes:
        up, down: f32[RUNGS] readings over the budget.
        dwell: i32[RUNGS] control steps on the rung below before this one may be entered.
        actions: i32[RUNGS + 1] of each rung, the ground first.
        release: f32[] 1 for a release at once.
    """

    up: Array
    down: Array
    dwell: Array
    actions: Array
    release: Array


class LadderState(NamedTuple):
    """`rung` i32[], the control steps on it `since` i32[], and the last `reading` f32[]."""

    rung: jax.Array
    since: jax.Array
    reading: jax.Array


def ladder(
    up: Any, gap: Any, actions: Any, dwell: Any = (), ground: int = 0, release: float = 1.0
) -> Ladder:
    """A ladder of RUNGS rungs or fewer; a rung comes off `gap` below its threshold."""
    count = len(up)
    gaps = [gap] * count if isinstance(gap, float) else list(gap)
    spare = RUNGS - count
    down = [high - low for high, low in zip(up, gaps, strict=True)]
    last = actions[-1] if actions else ground
    # NumPy's, because some are made on import, and JAX's arrays would start its devices there.
    return Ladder(
        up=np.array([*up, *[NEVER] * spare], np.float32),
        down=np.array([*down, *[NEVER] * spare], np.float32),
        dwell=np.array([*(dwell or [0] * count), *[0] * spare], np.int32),
        actions=np.array([ground, *actions, *[last] * spare], np.int32),
        release=np.array(release, np.float32),
    )


def polca(
    low: float = 0.80, high: float = 0.89, gap: float = 0.05, high_gap: float | None = None
) -> Ladder:
    """POLCA (arXiv 2308.12908): LP 1275 above `low`, LP 1110 above `high`, then HP 1305 too.

    HP is capped if the reading is still above `high` once the cap of LP is in force.
    """
    wide = gap if high_gap is None else high_gap
    return ladder((low, high, high), (gap, wide, wide), (1, 2, 4), (0, 0, IN_FLIGHT + 1))


def static(action: int) -> Ladder:
    """The same action at any time."""
    return ladder((), 0.05, (), ground=action)


LADDERS: dict[str, Ladder] = {
    "no_cap": ladder((), 0.05, ()),
    "one_threshold_lp": ladder((0.89,), 0.05, (2,)),
    "one_threshold_all": ladder((0.89,), 0.05, (6,)),
    "polca": polca(),
    # Thunderbolt (OSDI'20): two thresholds, a soft and a hard cut, each undone at random.
    "thunderbolt": ladder((0.85, 0.95), 0.05, (2, 7), release=0.1),
}


def start(_: Ladder) -> LadderState:
    """On the ground."""
    return LadderState(jnp.int32(0), jnp.int32(0), jnp.float32(0))


def act(
    policy: Ladder, state: LadderState, seen: Observation, key: jax.Array
) -> tuple[LadderState, jax.Array]:
    """(state, action) after the latest reading; a missing one counts as the one before it."""
    latest = seen.readings[-1]
    reading = jnp.where(jnp.isfinite(latest), latest, state.reading)
    rungs = jnp.arange(RUNGS)
    reached = (reading > policy.up).sum()
    # The first rung above that must wait stops the climb.
    waits = (state.since < policy.dwell) & (rungs == state.rung)
    waits = waits | ((policy.dwell > 0) & (rungs > state.rung))
    limit = jnp.where(waits, rungs, RUNGS).min()
    climbed = jnp.maximum(state.rung, jnp.minimum(reached, limit))
    held = (reading >= policy.down).sum()
    falls = (held < state.rung) & (jax.random.uniform(key) < policy.release)
    gentle = jnp.where(policy.release < 1, jnp.maximum(held, state.rung - 1), held)
    rung = jnp.where(falls, gentle, climbed)
    since = jnp.where(rung == state.rung, state.since + 1, 0)
    return LadderState(rung, since, reading), jnp.asarray(policy.actions)[rung]
