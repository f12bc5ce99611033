"""`compiler-rl power`: frequency caps that fit more servers under one breaker."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from baselines.power_control.simulate import play, unlimited
from baselines.power_control.table import POLICIES, get_policy
from compiler_rl.cli.common import console, require_folder, require_positive
from games.files import replace_file
from games.power_control.instances import read_instance
from games.power_control.problem import PowerProblem
from games.power_control.solution import summary
from hlo_frontend.errors import InputError

power = typer.Typer(no_args_is_help=True, help="Frequency caps for a row of inference servers.")


def register(app: typer.Typer) -> None:
    """Adds the game's commands."""
    app.add_typer(power, name="power")


@power.command(name="simulate")
def simulate(
    workload: Annotated[
        str,
        typer.Argument(
            help="Rate file (t_s,rate_rps), request trace (TIMESTAMP,ContextTokens,"
            "GeneratedTokens), poisson, or bursty."
        ),
    ],
    policy: Annotated[
        str, typer.Option(help=f"Comma-separated, or all: {', '.join(POLICIES)}.")
    ] = "no_cap,one_threshold_lp,one_threshold_all,polca",
    oversubscription: Annotated[
        float, typer.Option(help="Servers above those of the budget, as a share: 0 to 0.5.")
    ] = 0.3,
    days: Annotated[str, typer.Option(help="Days of the workload, as in 11-13 or 0,4.")] = "0",
    hours: Annotated[float, typer.Option(help="Hours of each day, the first is warm-up.")] = 24.0,
    seeds: Annotated[int, typer.Option(help="Scenarios of each day.")] = 1,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the report (JSON).")
    ] = None,
) -> None:
    """Plays policies against the same scenarios and compares them."""
    require_positive(seeds, "--seeds")
    if not 1 < hours <= 24:
        raise InputError(f"--hours {hours:g}: expected more than 1, which is warm-up, to 24")
    if not 0 <= oversubscription <= 0.5:
        raise InputError(f"--oversubscription {oversubscription:g}: expected 0 to 0.5")
    require_folder(json_out, "--json")
    names = list(POLICIES) if policy == "all" else [each.strip() for each in policy.split(",")]
    chosen = {name: get_policy(name) for name in names}
    problem = read_instance(
        workload, oversubscription, days=parse_days(days), seeds=seeds, hours=hours
    )
    started = time.perf_counter()
    rows = {}
    with console.status("simulating") as status:
        reference = unlimited(problem)
        for name, each in chosen.items():
            status.update(f"simulating {name}")
            rows[name] = summary(problem, play(problem, each), reference)
    console.print(
        f"{problem.name}: {problem.servers} servers under {problem.budget_w / 1e3:,.1f} kW,"
        f" {problem.scenarios} scenarios of {hours:g} h, the first hour of each not counted;"
        f" {time.perf_counter() - started:.1f} s",
        highlight=False,
    )
    console.print(policies_table(rows))
    if json_out is not None:
        replace_file(json_out, json.dumps(report(problem, rows), indent=1).encode())


def report(problem: PowerProblem, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The JSON report of a comparison."""
    winner = min(rows, key=lambda name: rows[name]["cost"])
    return {
        "game": "power_control",
        "objective": rows[winner]["cost"],
        "unit": "weighted request-seconds a server and hour",
        "winner": winner,
        "servers": problem.servers,
        "oversubscription": problem.oversubscription,
        "budget_w": problem.budget_w,
        "scenarios": problem.scenarios,
        "baselines": {name: {"objective": row["cost"], **row} for name, row in rows.items()},
    }


def policies_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A row for each policy."""
    table = Table(box=None, pad_edge=False)
    for column in (
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
        "objectives",
    ):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, row in rows.items():
        shares = ("hp_mean", "hp_p50", "hp_p99", "lp_mean", "lp_p50", "lp_p99")
        table.add_row(
            name,
            str(row["brakes"]),
            *(f"{row[key]:+.2%}" for key in shares),
            f"{row['lp_capped']:.1%}",
            f"{row['energy_mwh']:.2f}",
            "met" if row["objectives_met"] else "missed",
        )
    return table


def parse_days(text: str) -> list[int]:
    """Days of `11-13` or `0,4`.

    Raises:
        InputError: anything else.
    """
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last.isdecimal() or not last):
            raise InputError(f"--days {text}: expected days such as 0,4 or 11-13")
        days.extend(range(int(first), int(last or first) + 1))
    if not days:
        raise InputError(f"--days {text}: expected days such as 0,4 or 11-13")
    return days
