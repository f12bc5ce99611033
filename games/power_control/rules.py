"""A row of inference servers under one breaker, in JAX: what a decision does to power and latency.

Low-priority (LP) and high-priority (HP) requests have servers of their own, half of the row each,
and one queue each, first come first served. A server runs `instances` copies of the model; a copy
serves one request at a time, the prompt first, then the tokens. Frequency sets speed and power.

Chance outcomes (arrivals, faults of sensors and commands) come from outside, in a `Chance`: a
recorded day replays them, `sample_chance` draws them. The rules themselves are deterministic.

The brake, which belongs to the row and not to the controller: a reading above the budget engages
it `brake_latency_s` later. It holds every server at `brake_mhz` for `brake_hold_s`. While it holds,
every command in flight is tightened to LP 1110 / HP 1305 at least, so that such caps come off by
commands that were given after the release, and no earlier than the capping latency after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from games.power_control.constants import constant

MAX_MHZ = constant("curves", "max_mhz")
# (LP MHz, HP MHz) of each action, loosest first; POLCA's levers are the four of `FOUR`.
ACTIONS = np.array(
    [
        (1410, 1410),
        (1275, 1410),
        (1110, 1410),
        (810, 1410),
        (1110, 1305),
        (810, 1305),
        (1110, 1110),
        (810, 1110),
        (810, 810),
    ],
    dtype=np.float32,
)
FOUR = (0, 1, 2, 4)
SAFE_ACTION = 4  # LP 1110 / HP 1305: the tightest of POLCA's levers
LP, HP = 0, 1


def _meet() -> Any:
    """i32[A, A]: the loosest action that is as tight as both."""
    most = np.minimum(ACTIONS[:, None], ACTIONS[None])
    fits = (most[:, :, None] >= ACTIONS).all(-1)
    return np.where(fits, ACTIONS.sum(1), -1).argmax(-1).astype(np.int32)


MEET = _meet()
HP_WEIGHT = 4.0

MICRO_STEP = constant("timing", "micro_step_s")
STEP = constant("timing", "control_step_s")
MICRO_STEPS = round(STEP / MICRO_STEP)
PER_READING = round(constant("timing", "reading_s") / MICRO_STEP)
READINGS_PER_STEP = MICRO_STEPS // PER_READING
WINDOW = 30  # readings that a controller sees
DELAY = round(constant("timing", "telemetry_delay_s") / constant("timing", "reading_s"))
MOST_DELAY = 15  # readings: the 30-s lag of a fault
IN_FLIGHT = round(constant("timing", "capping_latency_s") / STEP)  # commands
BRAKE_LATENCY = round(constant("timing", "brake_latency_s") / MICRO_STEP)
BRAKE_HOLD = round(constant("timing", "brake_hold_s") / MICRO_STEP)

GROUPS = 16  # of a class's instances; each group starts at most one request in a micro-step
QUEUE = 1024  # requests waiting in a class; what arrives beyond is turned away
BINS = 2048  # of latency, logarithmic
LEAST_LATENCY, MOST_LATENCY = 0.5, 5000.0  # seconds


class Row(NamedTuple):
    """What does not change while a row is simulated.

    Attributes:
        up: bool[2, N] the instances of each class that exist.
        budget: f32[] W.
        instances: f32[] of a server.
        requests: f32[2, L, 2] seconds of prompt and of tokens at full speed; a class's requests
            go through its L rows in order, from `State.offset`.
        oversubscription: f32[] servers above those that the budget was made for, as a share.
        warm_up: f32[] seconds from the start whose requests do not count.
    """

    up: jax.Array
    budget: jax.Array
    instances: jax.Array
    requests: jax.Array
    oversubscription: jax.Array
    warm_up: jax.Array


class Chance(NamedTuple):
    """What chance does in one control step.

    Attributes:
        arrivals: i32[M, 2] requests of each class in each micro-step.
        noise: f32[R] factor on each reading of the row's sensor; nan: there is none; inf: it
            repeats the one before.
        delayed: i32[] readings by which the controller's view is late.
        lost: bool[] the command does not arrive; the one before stays.
    """

    arrivals: jax.Array
    noise: jax.Array
    delayed: jax.Array
    lost: jax.Array


class Totals(NamedTuple):
    """Sums over the time after warm-up.

    Attributes:
        brakes: i32[] times that the brake was engaged.
        energy: f32[] MJ.
        capped: f32[2] seconds that a class was capped.
        served, latency: f32[2] requests ended, and the sum of their seconds.
        rejected: i32[2] requests turned away.
        histogram: i32[2, BINS] of latency.
        peak: f32[] highest reading over the budget.
        rise: f32[] largest rise of a reading over the one 40 s before, over the budget.
        presence: f32[] request-seconds in queue and service, HP weighed by 4: by Little's law the
            sum of all latencies.
        over: f32[] seconds above the budget.
    """

    brakes: jax.Array
    energy: jax.Array
    capped: jax.Array
    served: jax.Array
    latency: jax.Array
    rejected: jax.Array
    histogram: jax.Array
    peak: jax.Array
    rise: jax.Array
    presence: jax.Array
    over: jax.Array


class State(NamedTuple):
    """What changes.

    Attributes:
        time: i32[] control steps since the start.
        work: f32[2, N, 2] seconds of prompt and tokens left, at full speed.
        arrived: f32[2, N] when an instance's request arrived; `ended`: when it was done, -1 if it
            is not or was counted already.
        queue: f32[2, QUEUE] arrival times, a ring.
        head, tail: i32[2] number of the next request to start, and to arrive.
        offset: i32[2] row of `Row.requests` of request 0.
        commanded: i32[] the last action that the controller sent.
        in_flight: i32[IN_FLIGHT] actions under way, the next to take effect first.
        applied: i32[] the action in force.
        brake_in: i32[] micro-steps until the brake engages, -1 if it is not called for.
        brake_left: i32[] micro-steps that the brake still holds, 0 if it does not.
        readings: f32[MOST_DELAY + WINDOW] as the sensor gave them, over the budget, latest last.
        truth: f32[21] true power of the last 40 s, over the budget, latest last.
        totals: sums.
    """

    time: jax.Array
    work: jax.Array
    arrived: jax.Array
    ended: jax.Array
    queue: jax.Array
    head: jax.Array
    tail: jax.Array
    offset: jax.Array
    commanded: jax.Array
    in_flight: jax.Array
    applied: jax.Array
    brake_in: jax.Array
    brake_left: jax.Array
    readings: jax.Array
    truth: jax.Array
    totals: Totals


class Observation(NamedTuple):
    """What a controller sees; nothing of the requests.

    Attributes:
        readings: f32[WINDOW] of the row over the budget, latest last, late; nan: missing.
        commanded, applied: i32[] actions: the last sent, and the one in force.
        in_flight: i32[IN_FLIGHT] actions under way, the next to take effect first.
        brake: bool[] the brake holds.
        step: i32[] control steps since midnight.
        oversubscription: f32[] servers above those that the budget was made for, as a share.
    """

    readings: jax.Array
    commanded: jax.Array
    applied: jax.Array
    in_flight: jax.Array
    brake: jax.Array
    step: jax.Array
    oversubscription: jax.Array


def speeds(mhz: Any) -> tuple[Any, Any]:
    """Speed of prompts and of tokens at a frequency; 1 at the highest."""
    slower = MAX_MHZ / mhz - 1
    prompt = 1 / (1 + constant("curves", "prompt_slowdown") * slower)
    return prompt, 1 / (1 + constant("curves", "decode_slowdown") * slower)


def instance_watts(mhz: Any, instances: Any) -> tuple[Any, Any, Any]:
    """W of an instance's share of a server: without work, and what prompts and tokens add."""
    gpus = constant("server", "gpus") / instances
    per_watt = constant("server", "per_gpu_watt")
    idle_gpu = constant("server", "idle_gpu_w")
    idle = constant("server", "fixed_w") / instances + per_watt * gpus * idle_gpu
    ratio = mhz / MAX_MHZ
    prompt = constant("server", "prompt_gpu_w") - idle_gpu
    decode = constant("server", "decode_gpu_w") - idle_gpu
    return (
        idle,
        per_watt * gpus * prompt * ratio ** constant("curves", "prompt_power_exponent"),
        per_watt * gpus * decode * ratio ** constant("curves", "decode_power_exponent"),
    )


def init(row: Row) -> State:
    """An empty row, uncapped."""
    shape = row.up.shape
    count = jnp.zeros(2, jnp.int32)
    totals = Totals(
        brakes=jnp.int32(0),
        energy=jnp.float32(0),
        capped=jnp.zeros(2),
        served=jnp.zeros(2),
        latency=jnp.zeros(2),
        rejected=count,
        histogram=jnp.zeros((2, BINS), jnp.int32),
        peak=jnp.float32(0),
        rise=jnp.float32(0),
        presence=jnp.float32(0),
        over=jnp.float32(0),
    )
    return State(
        time=jnp.int32(0),
        work=jnp.zeros((2, *shape)),
        arrived=jnp.zeros(shape),
        ended=jnp.full(shape, -1.0),
        queue=jnp.zeros((2, QUEUE)),
        head=count,
        tail=count,
        offset=count,
        commanded=jnp.int32(0),
        in_flight=jnp.zeros(IN_FLIGHT, jnp.int32),
        applied=jnp.int32(0),
        brake_in=jnp.int32(-1),
        brake_left=jnp.int32(0),
        readings=jnp.zeros(MOST_DELAY + WINDOW),
        truth=jnp.zeros(21),
        totals=totals,
    )


def _micro_step(row: Row, state: State, arrivals: jax.Array, now: jax.Array) -> Any:
    """(state, W of the row, latencies f32[2, GROUPS] counted, 0 where none)."""
    # Arrivals go to the end of the queue.
    lane = jnp.arange(GROUPS)
    room = QUEUE - GROUPS - (state.tail - state.head)
    taken = jnp.minimum(arrivals, jnp.minimum(room, GROUPS))
    cells = (state.tail[:, None] + lane) % QUEUE
    queue = state.queue.at[jnp.arange(2)[:, None], cells].set(now)
    tail = state.tail + taken
    rejected = arrivals - taken

    # The first free instance of each group takes a request from its front; what that instance
    # served before is counted now.
    depth = row.up.shape[1]
    free = row.up & (state.work.sum(0) <= 0)
    level = jnp.arange(depth)[:, None]
    first = jnp.where(free, level, depth).min(1)  # [2, G]
    able = first < depth
    rank = jnp.cumsum(able, axis=1) - 1
    begins = able & (rank < (tail - state.head)[:, None])
    chosen = begins[:, None] & (level == first[:, None])  # [2, D, G]
    number = state.head[:, None] + rank
    both = jnp.arange(2)[:, None]
    fresh = row.requests[:, both, (state.offset[:, None] + number) % row.requests.shape[2]]
    counted = chosen & (state.ended >= 0) & (state.arrived >= row.warm_up)
    latencies = jnp.where(counted, state.ended - state.arrived, 0.0).sum(1)
    arrived = jnp.where(chosen, queue[both, number % QUEUE][:, None], state.arrived)
    work = jnp.where(chosen, fresh[:, :, None], state.work)
    ended = jnp.where(chosen, -1.0, state.ended)
    head = state.head + begins.sum(1)

    # Prompts, and in the time that they leave, tokens.
    braked = state.brake_left > 0
    caps = jnp.asarray(ACTIONS)[state.applied]
    mhz = jnp.where(braked, constant("curves", "brake_mhz"), caps)[:, None, None]
    prompt_speed, decode_speed = speeds(mhz)
    idle_w, prompt_w, decode_w = instance_watts(mhz, row.instances)
    prompt_s = jnp.minimum(MICRO_STEP, work[0] / prompt_speed)
    decode_s = jnp.minimum(MICRO_STEP - prompt_s, work[1] / decode_speed)
    left = jnp.stack([work[0] - prompt_s * prompt_speed, work[1] - decode_s * decode_speed])
    left = jnp.where(left < 1e-4, 0.0, left)
    over = (work.sum(0) > 0) & (left.sum(0) <= 0)
    ended = jnp.where(over, now + prompt_s + decode_s, ended)
    prompt_sum, decode_sum = prompt_s.sum((1, 2)), decode_s.sum((1, 2))
    watts = (
        idle_w * row.up.sum()
        + (prompt_sum * prompt_w[:, 0, 0] + decode_sum * decode_w[:, 0, 0]).sum() / MICRO_STEP
    )
    here = (work.sum(0) > 0).sum((1, 2)) + tail - head
    presence = (here[LP] + HP_WEIGHT * here[HP]) * MICRO_STEP

    # The brake's clock.
    brake_in = jnp.where(state.brake_in > 0, state.brake_in - 1, state.brake_in)
    engages = (brake_in == 0) & ~braked
    brake_left = jnp.where(engages, BRAKE_HOLD, jnp.maximum(state.brake_left - 1, 0))
    brake_in = jnp.where(brake_in == 0, -1, brake_in)

    counts = now >= row.warm_up
    totals = state.totals._replace(
        brakes=state.totals.brakes + (engages & counts),
        energy=state.totals.energy + jnp.where(counts, watts * MICRO_STEP * 1e-6, 0.0),
        capped=state.totals.capped + jnp.where(counts, (mhz[:, 0, 0] < MAX_MHZ) * MICRO_STEP, 0.0),
        rejected=state.totals.rejected + rejected * counts,
        presence=state.totals.presence + jnp.where(counts, presence, 0.0),
        over=state.totals.over + jnp.where(counts & (watts > row.budget), MICRO_STEP, 0.0),
    )
    state = state._replace(
        work=left,
        arrived=arrived,
        ended=ended,
        queue=queue,
        head=head,
        tail=tail,
        brake_in=brake_in,
        brake_left=brake_left,
        totals=totals,
    )
    return state, watts, latencies


def advance(row: Row, state: State, action: Any, chance: Chance) -> tuple[State, jax.Array]:
    """One control step: (state, f32[R] true readings over the budget)."""
    safe = jnp.asarray(MEET[SAFE_ACTION])
    action = jnp.asarray(action, jnp.int32)
    before = jnp.where(state.time > 0, state.in_flight[-1], jnp.int32(0))
    sent = jnp.where(chance.lost, before, action)
    applied = state.in_flight[0]
    in_flight = jnp.concatenate([state.in_flight[1:], sent[None]])
    state = state._replace(applied=applied, in_flight=in_flight, commanded=action)
    started = state.time.astype(jnp.float32) * STEP

    def reading(state: State, given: Any) -> tuple[State, Any]:
        arrivals, noise, number = given
        watts = jnp.float32(0)
        latencies = []
        for micro in range(PER_READING):
            now = started + (number * PER_READING + micro) * MICRO_STEP
            state, used, took = _micro_step(row, state, arrivals[micro], now)
            watts = watts + used / PER_READING
            latencies.append(took)
        true = watts / row.budget
        seen = jnp.where(jnp.isinf(noise), state.readings[-1], true * noise)
        counts = started + number * PER_READING * MICRO_STEP >= row.warm_up
        totals = state.totals._replace(
            peak=jnp.where(counts, jnp.maximum(state.totals.peak, true), state.totals.peak),
            rise=jnp.where(
                counts, jnp.maximum(state.totals.rise, true - state.truth[1]), state.totals.rise
            ),
        )
        called = (seen > 1) & (state.brake_in < 0) & (state.brake_left == 0)
        braked = state.brake_left > 0
        state = state._replace(
            brake_in=jnp.where(called, BRAKE_LATENCY, state.brake_in),
            in_flight=jnp.where(braked, safe[state.in_flight], state.in_flight),
            applied=jnp.where(braked, safe[state.applied], state.applied),
            readings=jnp.concatenate([state.readings[1:], seen[None]]),
            truth=jnp.concatenate([state.truth[1:], true[None]]),
            totals=totals,
        )
        return state, (true, jnp.stack(latencies))

    numbers = jnp.arange(READINGS_PER_STEP)
    arrivals = chance.arrivals.reshape(READINGS_PER_STEP, PER_READING, 2)
    state, (true, latencies) = jax.lax.scan(reading, state, (arrivals, chance.noise, numbers))
    took = jnp.moveaxis(latencies, 2, 0).reshape(2, -1)
    bins = jnp.clip(
        jnp.log(jnp.maximum(took, LEAST_LATENCY) / LEAST_LATENCY)
        * ((BINS - 1) / np.log(MOST_LATENCY / LEAST_LATENCY)),
        0,
        BINS - 1,
    ).astype(jnp.int32)
    ends = took > 0
    totals = state.totals._replace(
        histogram=state.totals.histogram.at[jnp.arange(2)[:, None], bins].add(ends),
        served=state.totals.served + ends.sum(1),
        latency=state.totals.latency + took.sum(1),
    )
    return state._replace(time=state.time + 1, totals=totals), true


def observation(row: Row, state: State, delayed: Any = DELAY) -> Observation:
    """What the controller sees, `delayed` readings late."""
    readings = jax.lax.dynamic_slice(state.readings, (MOST_DELAY - delayed,), (WINDOW,))
    return Observation(
        readings=readings,
        commanded=state.commanded,
        applied=state.applied,
        in_flight=state.in_flight,
        brake=state.brake_left > 0,
        step=state.time % round(86400 / STEP),
        oversubscription=row.oversubscription,
    )
