"""Controllers of a row under its breaker: test days and a service that none was trained on.

Days 0-8 of the first rate file are for training (`train_power`), days 11-13 are the test; the other
file's service was never trained on. All policies face the same arrivals, seed by
seed; the first hour of each day does not count. Latencies are against the same scenarios without
caps under a breaker that bears anything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from baselines.power_control.simulate import play, unlimited
from baselines.power_control.table import CLAIRVOYANT, POLICIES, get_policy
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from games.power_control.instances import TEST_DAYS, read_instance
from games.power_control.problem import Faults, PowerProblem
from games.power_control.rules import Totals
from games.power_control.solution import summary

NAME = "power_control"
LEVELS = (0.30, 0.35, 0.40, 0.50)
FURTHER = (0.45, 0.55)  # for the largest oversubscription; servers come in pairs, 5 % at a time
OURS = ("forecast_shielded", "forecast")
BEST = (*OURS, "polca", "polca_tuned", "ladder_tuned", "scenario_mpc")
FAULTS = {
    "noise 1 %": Faults(noise=0.01),
    "noise 3 %": Faults(noise=0.03),
    "dropout 20 %": Faults(dropout=0.2),
    "stuck sensor 5 %": Faults(stuck=0.05),
    "30-s lag": Faults(lag=30.0),
    "10 % of commands lost": Faults(lost=0.1),
}
FAULT_POLICIES = ("polca", "polca_tuned", *OURS)
FAULT_LEVEL = 0.35


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / f"{NAME}.json", time_limit=0.0)
    options.add_argument("trained", type=Path, help="rate file whose days 0-8 were trained on")
    options.add_argument("unseen", type=Path, help="rate file of the other service")
    options.set_defaults(seeds=5)
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    sets: dict[str, dict[str, Any]] = {
        "test": {"file": str(chosen.trained), "days": TEST_DAYS, "seeds": chosen.seeds},
        "unseen": {"file": str(chosen.unseen), "days": (0,), "seeds": chosen.seeds},
    }
    made = Settings(sets)
    rivals = [name for name in POLICIES if name != CLAIRVOYANT]
    for name, levels, faults, policies in (
        ("unseen", (0.35,), ("",), OURS),
        ("unseen", (FAULT_LEVEL,), tuple(FAULTS), FAULT_POLICIES),
        ("unseen", (0.40, 0.45, 0.50), ("",), OURS),
        ("test", (0.35, 0.50, 0.40), ("",), OURS),
        ("unseen", (0.35, 0.40, 0.50, 0.30), ("",), rivals),
        ("test", (0.35, 0.50, 0.40, 0.30), ("",), rivals),
        ("unseen", (0.45, 0.55), ("",), BEST),
        ("test", (0.45, 0.55), ("",), BEST),
        ("unseen", (0.35,), ("",), POLICIES),
        ("unseen", (0.40, 0.50, 0.30, 0.45), ("",), (CLAIRVOYANT,)),
        ("test", LEVELS, ("",), (CLAIRVOYANT,)),
    ):
        for level in levels:
            for fault in faults:
                for policy in policies:
                    made.measure(results, name, level, fault, policy)
    results.write_report(report(results))


class Settings:
    """The problems of all cells, each with what its requests take without caps and breaker."""

    def __init__(self, sets: dict[str, dict[str, Any]]) -> None:
        """`sets`: arguments of `read_instance` by name."""
        self._sets = sets
        self._made: dict[tuple[str, float], tuple[PowerProblem, Totals]] = {}

    def measure(self, results: Results, name: str, level: float, fault: str, policy: str) -> Cell:
        """The cell of one policy in one setting."""

        def measurement() -> Cell:
            if (name, level) not in self._made:
                clean = read_instance(**self._sets[name], oversubscription=level)
                self._made = {(name, level): (clean, unlimited(clean))}
            clean, reference = self._made[name, level]
            problem = replace(clean, faults=FAULTS[fault]) if fault else clean
            begin = time.process_time()
            totals = play(problem, get_policy(policy, problem))
            seconds = time.process_time() - begin
            row = summary(problem, totals, reference)
            return {**row, "control_steps_per_cpu_s": problem.scenarios * problem.steps / seconds}

        config = {
            "set": name,
            "oversubscription": level,
            "fault": fault,
            "policy": policy,
            "seeds": self._sets[name]["seeds"],
        }
        return results.measure(config, measurement)


def report(results: Results) -> str:
    """All tables."""
    parts = []
    for name, title in (("test", "Test days 11-13"), ("unseen", "A service never trained on")):
        parts.append(f"## {title}\n\n{_rows(results, name)}")
    parts.append(f"## Largest oversubscription\n\n{largest_table(results)}")
    parts.append(f"## Faults, +35 %, a service never trained on\n\n{fault_table(results)}")
    rates = [cell["result"]["control_steps_per_cpu_s"] for cell in results.cells]
    if rates:
        rates.sort()
        parts.append(
            f"Control steps a second of one core, policy and compilation included: median"
            f" {rates[len(rates) // 2]:,.0f}, {rates[0]:,.0f} to {rates[-1]:,.0f}."
        )
    return "# Power control\n\n" + "\n\n".join(parts)


def _cells(results: Results, name: str, fault: str = "") -> list[Cell]:
    return [
        cell
        for cell in results.cells
        if (cell["config"]["set"], cell["config"]["fault"]) == (name, fault)
    ]


def _rows(results: Results, name: str, levels: Sequence[float] = (*LEVELS, *FURTHER)) -> str:
    header = (
        "servers",
        "policy",
        "brakes",
        "HP mean",
        "HP P50",
        "HP P99",
        "LP mean",
        "LP P50",
        "LP P99",
        "LP capped",
        "MWh",
        "SLOs",
    )
    rows = []
    cells = sorted(
        _cells(results, name),
        key=lambda cell: (
            cell["config"]["oversubscription"],
            POLICIES.index(cell["config"]["policy"]),
        ),
    )
    for cell in cells:
        config, row = cell["config"], cell["result"]
        if config["oversubscription"] not in levels:
            continue
        shares = ("hp_mean", "hp_p50", "hp_p99", "lp_mean", "lp_p50", "lp_p99")
        rows.append(
            [
                f"+{config['oversubscription']:.0%}",
                config["policy"].replace("_", " "),
                str(row["brakes"]),
                *(f"{row[key]:.1%}" for key in shares),
                f"{row['lp_capped']:.0%}",
                f"{row['energy_mwh']:.1f}",
                "met" if row["objectives_met"] else "missed",
            ]
        )
    return markdown_table(header, rows)


def table(results: Results) -> str:
    """For the README: +35 % on the service never seen, and the largest oversubscription."""
    rows = _rows(results, "unseen", (0.35,))
    return f"{rows}\n\n{largest_table(results)}"


def largest_table(results: Results) -> str:
    """Up to which level each policy had no brake and met every objective, at all levels below."""
    cells = {
        (cell["config"]["set"], cell["config"]["policy"], cell["config"]["oversubscription"]): cell
        for cell in results.cells
        if not cell["config"]["fault"]
    }
    rows = []
    for policy in (each for each in POLICIES if each in BEST):
        line = [policy.replace("_", " ")]
        for name in ("test", "unseen"):
            best = "none"
            for level in sorted((*LEVELS, *FURTHER)):
                cell = cells.get((name, policy, level))
                if cell is None:
                    best = "not measured"
                    break
                if not cell["result"]["objectives_met"]:
                    break
                best = f"+{level:.0%}"
            line.append(best)
        rows.append(line)
    return markdown_table(("no brake, every SLO met, up to", "test days", "service unseen"), rows)


def fault_table(results: Results) -> str:
    """Brakes under each fault."""
    rows = []
    for fault in FAULTS:
        cells = {c["config"]["policy"]: c["result"] for c in _cells(results, "unseen", fault)}
        rows.append(
            [fault]
            + [
                f"{cells[p]['brakes']} ({cells[p]['lp_mean']:.1%})" if p in cells else ""
                for p in FAULT_POLICIES
            ]
        )
    header = ("brakes (LP mean)", *(policy.replace("_", " ") for policy in FAULT_POLICIES))
    return markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(run(main))
