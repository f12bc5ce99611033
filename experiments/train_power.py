"""Fits the forecast and tunes POLCA, the nine-action ladder and the forecast on days 0-8.

Every family gets the same number of evaluations on the same scenarios, at each oversubscription.
The result is `baselines/power_control/tuned.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines.power_control import fit, tuning
from experiments.common import ROOT, run
from games.files import replace_file
from games.power_control.instances import TRAIN_DAYS, read_instance

LEVELS = (0.30, 0.35, 0.40, 0.50)
BUSIEST = (0, 1, 8)  # of the training days
FITTED = ((0, 0.25), (1, 0.40))  # first of every third day, oversubscription
OUT = ROOT / "baselines" / "power_control" / "tuned.json"


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
        "forecast": tuning.forecast_family(fitted),
        "polca": tuning.POLCA,
        "nine": tuning.NINE,
    }
    numbers: dict[str, dict[str, list[float]]] = {name: {} for name in families}
    for level in LEVELS:
        busiest = read_instance(file, level, BUSIEST)
        everything = read_instance(file, level, TRAIN_DAYS)
        for name, family in families.items():
            best, cost = tuning.tune(family, busiest, everything)
            numbers[name][f"{level:.2f}"] = best
            print(f"+{level:.0%} {name}: {best}, cost {cost:,.1f}", flush=True)
    data = {"fit": fitted._asdict(), "numbers": numbers}
    replace_file(chosen.out, (json.dumps(data, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(run(main))
