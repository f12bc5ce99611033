"""Independent checker: the row again in plain numpy, request by request; nothing shared with rules.

It reads the constants file itself and keeps every request's own record, where the rules keep
instances and sums.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from games.power_control.problem import PowerProblem
    from games.power_control.solution import Control

CAPS = {
    0: (1410, 1410),
    1: (1275, 1410),
    2: (1110, 1410),
    3: (810, 1410),
    4: (1110, 1305),
    5: (810, 1305),
    6: (1110, 1110),
    7: (810, 1110),
    8: (810, 810),
}
GROUPS = 16
MOST_WAITING = 1024 - GROUPS


def validate(problem: PowerProblem, solution: Control, scenarios: int | None = None) -> list[str]:
    """Every broken rule as one line; [] for decisions that the row can carry out.

    The actions must be there for every control step of every scenario, each of the track's. What
    they claim (brakes, requests served and their latencies, in `solution.claims`) must be what
    comes out, in the first `scenarios` of them, all if None.
    """
    actions = np.asarray(solution.actions)
    steps = problem.arrivals.shape[1] // 10
    if actions.shape != (len(problem.arrivals), steps):
        return [
            f"actions of shape {actions.shape}: expected {len(problem.arrivals)} scenarios of"
            f" {steps} control steps"
        ]
    known = np.isin(actions, problem.levers)
    if not known.all():
        scenario, step = np.argwhere(~known)[0]
        return [f"scenario {scenario}, step {step}: no action {actions[scenario, step]}"]
    if (
        problem.faults.noise
        or problem.faults.dropout
        or problem.faults.stuck
        or problem.faults.lost
    ):
        return []  # which readings and commands were at fault is not replayed here
    faults = []
    for scenario, claim in enumerate(solution.claims[:scenarios]):
        found = replay(problem, scenario, actions[scenario])
        for name in ("brakes", "served", "latency"):
            wanted, came = np.asarray(claim[name], float), np.asarray(found[name], float)
            if not np.allclose(wanted, came, rtol=2e-3, atol=0.5):
                faults.append(
                    f"scenario {scenario}: {name} {wanted.tolist()} claimed, {came.tolist()} found"
                )
    return faults


def _tightened(action: int) -> int:
    """The loosest action with no class above LP 1110 / HP 1305 or what it had."""
    low, high = min(CAPS[action][0], 1110), min(CAPS[action][1], 1305)
    return max(
        (each for each, (lp, hp) in CAPS.items() if lp <= low and hp <= high),
        key=lambda each: sum(CAPS[each]),
    )


def replay(problem: PowerProblem, scenario: int, actions: Any) -> dict[str, Any]:
    """Brakes, requests served, their summed latency and MJ of one scenario under these actions.

    Without faults of the sensor or of commands: those of a problem that has some are not replayed.
    """
    data = tomllib.loads(Path(__file__).with_name("constants.toml").read_text())
    value = {key: entry["value"] for part in data.values() for key, entry in part.items()}
    copies = int(value["instances"])
    count = problem.servers // 2 * copies
    gpus = value["gpus"] / copies
    idle = value["fixed_w"] / copies + value["per_gpu_watt"] * gpus * value["idle_gpu_w"]
    extra = [
        value["per_gpu_watt"] * gpus * (value[f"{phase}_gpu_w"] - value["idle_gpu_w"])
        for phase in ("prompt", "decode")
    ]
    arrivals = problem.arrivals[scenario].astype(int)
    table = problem.requests[scenario].astype(float)
    waiting: list[list[tuple[float, int]]] = [[], []]
    # Of the request of each instance: prompt left, tokens left, arrival, end (0 while it runs).
    prompt_left, tokens_left, came, until = np.zeros((4, 2, count))
    number = [0, 0]
    in_force, flying = 0, [0, 0, 0, 0]
    brake_call = brake_until = -1
    brakes, energy = 0, 0.0
    served, latency = [0, 0], [0.0, 0.0]
    reading = 0.0
    for second in range(len(actions) * 10):
        if second % 10 == 0:
            in_force = flying.pop(0)
            flying.append(int(actions[second // 10]))
        braked = second < brake_until
        watts = 2 * count * idle
        for kind in range(2):
            room = MOST_WAITING - len(waiting[kind])
            for _ in range(min(int(arrivals[second, kind]), room, GROUPS)):
                waiting[kind].append((float(second), number[kind]))
                number[kind] += 1
            # A group starts one request a second, on its instance of the lowest number.
            free = (prompt_left[kind] <= 0) & (tokens_left[kind] <= 0)
            for group in range(GROUPS) if waiting[kind] else ():
                of_group = np.flatnonzero(free[group::GROUPS])
                if waiting[kind] and len(of_group):
                    at = group + GROUPS * int(of_group[0])
                    if until[kind, at] and came[kind, at] >= problem.warm_up_s:
                        served[kind] += 1
                        latency[kind] += until[kind, at] - came[kind, at]
                    came[kind, at], request = waiting[kind].pop(0)
                    until[kind, at] = 0.0
                    left = table[:, kind, request % table.shape[2]]
                    prompt_left[kind, at], tokens_left[kind, at] = left
            mhz = value["brake_mhz"] if braked else CAPS[in_force][kind]
            slower = value["max_mhz"] / mhz - 1
            speed = (
                1 / (1 + value["prompt_slowdown"] * slower),
                1 / (1 + value["decode_slowdown"] * slower),
            )
            ratio = mhz / value["max_mhz"]
            draw = (
                extra[0] * ratio ** value["prompt_power_exponent"],
                extra[1] * ratio ** value["decode_power_exponent"],
            )
            runs = (prompt_left[kind] > 0) | (tokens_left[kind] > 0)
            prompt = np.minimum(1.0, prompt_left[kind] / speed[0])
            tokens = np.minimum(1.0 - prompt, tokens_left[kind] / speed[1])
            prompt_left[kind] -= prompt * speed[0]
            tokens_left[kind] -= tokens * speed[1]
            prompt_left[kind][prompt_left[kind] < 1e-4] = 0.0
            tokens_left[kind][tokens_left[kind] < 1e-4] = 0.0
            watts += prompt.sum() * draw[0] + tokens.sum() * draw[1]
            over = runs & (prompt_left[kind] + tokens_left[kind] <= 0)
            until[kind][over] = second + prompt[over] + tokens[over]
        if second >= problem.warm_up_s:
            energy += watts * 1e-6
        if not braked and second == brake_call:
            brake_until = second + 1 + round(value["brake_hold_s"])
            brakes += second >= problem.warm_up_s
        reading += watts / problem.budget_w / 2
        if second % 2:
            holds = second + 1 < brake_until
            if reading > 1 and brake_call <= second and not holds:
                brake_call = second + round(value["brake_latency_s"])
            if holds:
                in_force, *flying = (_tightened(action) for action in (in_force, *flying))
            reading = 0.0
    return {"brakes": brakes, "served": served, "latency": latency, "energy": energy}
