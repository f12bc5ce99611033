"""Fits the forecast and tunes POLCA, the nine-action ladder and the forecast on days 0-8.

Every family gets the same number of evaluations on the same scenarios, at each oversubscription.
On the busiest hours the best static action of each oversubscription is found, by trying all of
them, and likewise the shield's margin at a noisy sensor.
The result is `baselines/power_control/tuned.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from baselines.power_control import fit, tuning
from baselines.power_control.simulate import Policy
from experiments.common import ROOT, run
from games.files import replace_file
from games.power_control.instances import TRAIN_DAYS, read_instance
from games.power_control.problem import Faults, PowerProblem
from games.power_control.rules import ACTIONS
from games.power_control.workload import RISE

LEVELS = (0.30, 0.35, 0.40, 0.50)
BUSIEST = (0, 1, 8)  # of the training days
FITTED = ((0, 0.25), (1, 0.40))  # first of every third day, oversubscription
NOISY = (0.01, 0.03)  # deviations of a reading that the shield's margin is chosen at
NOISY_LEVEL = 0.40
MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0)
HOURS = 4  # of each day, the busiest and one of warm-up: caps matter in no others
OUT = ROOT / "baselines" / "power_control" / "tuned.json"

Numbers = dict[str, list[float]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Tunes, and writes the numbers."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("trained", type=Path, help="rate file")
    options.add_argument("--out", type=Path, default=OUT)
    chosen = options.parse_args(arguments)
    file = str(chosen.trained)
    fitted = fit.fitted(
        [read_instance(file, level, TRAIN_DAYS[first::3]) for first, level in FITTED]
    )
    families = {
        "polca": tuning.POLCA,
        "nine": tuning.NINE,
        "forecast": tuning.forecast_family(fitted),
    }
    numbers = {name: tuned_numbers(file, name, family) for name, family in families.items()}
    numbers["static"] = static_numbers(file)
    data = {
        "fit": fitted._asdict(),
        "sensor": sensor_numbers(file, fitted, max(numbers["forecast"].values())),
        "numbers": numbers,
    }
    replace_file(chosen.out, (json.dumps(data, indent=1) + "\n").encode())


def busiest_hours(problem: PowerProblem) -> PowerProblem:
    """Of each scenario the `HOURS` on end in which most requests arrive.

    The load comes up as `workload.arrivals` lets it: a row that fills up at once would brake.
    """
    seconds = HOURS * 3600
    rising = np.minimum((np.arange(seconds) + 1) / RISE, 1.0)[:, None]
    rng = np.random.default_rng(0)
    parts = []
    for came in problem.arrivals:
        before = np.concatenate([[0], np.cumsum(came.sum(1, dtype=np.int64))])
        first = int(np.argmax(before[seconds:] - before[:-seconds]))
        parts.append(rng.binomial(came[first : first + seconds], rising))
    return replace(problem, arrivals=np.stack(parts).astype(np.uint8))


def tuned_numbers(file: str, name: str, family: tuning.Family) -> Numbers:
    """The best numbers of a family at each oversubscription."""
    numbers: Numbers = {}
    for level in LEVELS:
        busiest = read_instance(file, level, BUSIEST)
        everything = read_instance(file, level, TRAIN_DAYS)
        best, cost = tuning.tune(family, busiest, everything)
        numbers[f"{level:.2f}"] = best
        print(f"+{level:.0%} {name}: {best}, cost {cost:,.1f}", flush=True)
    return numbers


def static_numbers(file: str) -> Numbers:
    """The action at each oversubscription that is best if it is never changed."""
    numbers: Numbers = {}
    for level in LEVELS:
        busiest = busiest_hours(read_instance(file, level, BUSIEST))
        action, found = tuning.cheapest(tuning.STATIC, [busiest], range(len(ACTIONS)))
        numbers[f"{level:.2f}"] = [action]
        print(f"+{level:.0%} static: {action:.0f}, costs {[round(c, 1) for c in found]}")
    return numbers


def sensor_numbers(file: str, fitted: fit.Fit, numbers: list[float]) -> dict[str, float]:
    """What a clean sensor shows, and the best margin for a noisy one."""
    first, level = FITTED[1]
    clean = fit.clean_sensor(read_instance(file, level, TRAIN_DAYS[first::3]), first)._asdict()
    family = tuning.forecast_family(fitted)
    policy = Policy("forecast", family.make(numbers), family.start, family.act)
    sound = busiest_hours(read_instance(file, NOISY_LEVEL, BUSIEST))
    noisy = [replace(sound, faults=Faults(noise=noise)) for noise in NOISY]
    margin, found = tuning.cheapest(tuning.shield_family(policy, clean), noisy, MARGINS)
    print(f"margin: {margin}, costs {[round(cost, 1) for cost in found]}", flush=True)
    return {**clean, "margin": margin}


if __name__ == "__main__":
    sys.exit(run(main))
