"""Fits the forecast and tunes POLCA, the nine-action ladder and the forecast on days 0-8.

Every family gets the same number of candidates. The ladders are tuned at each oversubscription, on
whole days. The forecast has one set of numbers for all, tuned within its shield on the busiest
hours at several levels, without what no caps could serve at the peaks, and with more bursts than
the days have. On the busiest hours the best static action of each oversubscription is found,
by trying all of them, and likewise the shield's margin at a noisy sensor.
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
from games.power_control.constants import constant
from games.power_control.instances import TRAIN_DAYS, read_instance
from games.power_control.problem import Faults, PowerProblem
from games.power_control.rules import ACTIONS
from games.power_control.workload import RISE

LEVELS = (0.30, 0.35, 0.40, 0.50)
BUSIEST = (0, 1, 8)  # of the training days
FITTED = ((0, 0.25), (1, 0.40))  # first of every third day, oversubscription
# What the forecast is tuned on: oversubscription, share of the instances that the peak keeps busy
# at most, bursts (as fitted if None), hours. The first draws go by the first, the last ones by all.
FORECAST_HOURS = ((0.45, 0.93, None, 10), (0.40, 0.93, 0.10, 4), (0.50, 0.80, 0.12, 10))
NOISY = (0.01, 0.03)  # deviations of a reading that the shield's margin is chosen at
NOISY_LEVEL = 0.35
MOST_BUSY = 0.93  # of the instances, at the peaks with a noisy sensor
MARGINS = (3.0, 4.0, 5.0, 6.0, 7.0)
PEAK_S = 600
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
    first, level = FITTED[1]
    clean = fit.clean_sensor(read_instance(file, level, TRAIN_DAYS[first::3]), first)._asdict()
    forecast = forecast_numbers(file, fitted, clean)
    families = {"polca": tuning.POLCA, "nine": tuning.NINE}
    data = {
        "fit": fitted._asdict(),
        "sensor": {**clean, "margin": margin(file, fitted, clean, forecast)},
        "forecast": forecast,
        "numbers": {
            **{name: tuned_numbers(file, name, family) for name, family in families.items()},
            "static": static_numbers(file),
        },
    }
    replace_file(chosen.out, (json.dumps(data, indent=1) + "\n").encode())


def busiest_hours(problem: PowerProblem, hours: int, most_busy: float = np.inf) -> PowerProblem:
    """Of each scenario the `hours` on end in which most requests arrive.

    The load comes up as `workload.arrivals` lets it: a row that fills up at once would brake.

    Args:
        problem: of whole days.
        hours: how many.
        most_busy: share of the instances that the busiest ten minutes may keep busy without caps;
            of a day with more, requests are left out at random.
    """
    seconds = hours * 3600
    rising = np.minimum((np.arange(seconds) + 1) / RISE, 1.0)[:, None]
    rng = np.random.default_rng(0)
    servers = problem.servers * constant("row", "instances")
    service = problem.requests.sum(1, dtype=np.float64).mean(2)  # [E, class]
    parts = []
    for came, took in zip(problem.arrivals, service, strict=True):
        before = np.concatenate([[0], np.cumsum(came.sum(1, dtype=np.int64))])
        first = int(np.argmax(before[seconds:] - before[:-seconds]))
        part = came[first : first + seconds]
        work = np.concatenate([[0], np.cumsum(part @ took)])
        busy = (work[PEAK_S:] - work[:-PEAK_S]).max() / PEAK_S / servers
        parts.append(rng.binomial(part, rising * min(most_busy / busy, 1.0)))
    return replace(problem, arrivals=np.stack(parts).astype(np.uint8))


def tuned_numbers(file: str, name: str, family: tuning.Family) -> Numbers:
    """The best numbers of a family at each oversubscription."""
    numbers: Numbers = {}
    for level in LEVELS:
        busiest = read_instance(file, level, BUSIEST)
        everything = read_instance(file, level, TRAIN_DAYS)
        best, cost = tuning.tune(family, [busiest], [everything])
        numbers[f"{level:.2f}"] = best
        print(f"+{level:.0%} {name}: {best}, cost {cost:,.1f}", flush=True)
    return numbers


def forecast_numbers(file: str, fitted: fit.Fit, clean: dict[str, float]) -> list[float]:
    """The best numbers of the forecast within its shield, for all oversubscriptions."""
    problems = [
        busiest_hours(read_instance(file, level, BUSIEST, cv=cv), hours, most)
        for level, most, cv, hours in FORECAST_HOURS
    ]
    family = tuning.within_shield(tuning.forecast_family(fitted), {**clean, "margin": 0.0})
    judge = tuning.shortfalls
    best, found = tuning.tune(family, problems[:1], problems, judge=judge)
    print(f"forecast: {best}, shortfall {found:,.2f}", flush=True)
    return best


def static_numbers(file: str) -> Numbers:
    """The action at each oversubscription that is best if it is never changed."""
    numbers: Numbers = {}
    for level in LEVELS:
        busiest = busiest_hours(read_instance(file, level, BUSIEST), HOURS)
        action, found = tuning.cheapest(tuning.STATIC, [busiest], range(len(ACTIONS)))
        numbers[f"{level:.2f}"] = [action]
        print(f"+{level:.0%} static: {action:.0f}, costs {[round(c, 1) for c in found]}")
    return numbers


def margin(file: str, fitted: fit.Fit, clean: dict[str, float], numbers: list[float]) -> float:
    """The shield's best margin for a noisy sensor."""
    family = tuning.forecast_family(fitted)
    policy = Policy("forecast", family.make(numbers), family.start, family.act)
    sound = busiest_hours(read_instance(file, NOISY_LEVEL, BUSIEST), HOURS, MOST_BUSY)
    noisy = [replace(sound, faults=Faults(noise=noise)) for noise in NOISY]
    best, found = tuning.cheapest(tuning.shield_family(policy, clean), noisy, MARGINS)
    print(f"margin: {best}, costs {[round(cost, 1) for cost in found]}", flush=True)
    return best


if __name__ == "__main__":
    sys.exit(run(main))
