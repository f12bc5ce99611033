"""`compiler-rl power`: frequency caps that fit more servers under one breaker."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from baselines.power_control import forecast
from baselines.power_control.simulate import record, unlimited
from baselines.power_control.table import (
    CLAIRVOYANT,
    CONTROLLERS,
    DEFAULT,
    POLICIES,
    controller,
    get_policy,
)
from compiler_rl.cli.common import console, require_folder, require_positive
from compiler_rl.power.actuator import DryRun, Nvml
from compiler_rl.power.audit import AuditLog
from compiler_rl.power.controller import Controller, Decision
from compiler_rl.power.exporter import METRIC, scrape
from compiler_rl.power.loop import run as run_loop
from compiler_rl.power.replay import replay
from compiler_rl.power.telemetry_file import read_telemetry
from games.files import replace_file
from games.power_control import decisions_file, picture, validator
from games.power_control.instances import read_instance
from games.power_control.problem import Faults, PowerProblem, made_for
from games.power_control.rules import ACTIONS, STEP
from games.power_control.solution import UNIT, Control, claims_of, summary
from hlo_frontend.errors import InputError

PLOTS = (".svg", ".png")
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
    ] = f"no_cap,one_threshold_lp,one_threshold_all,polca,polca_tuned,{DEFAULT}",
    oversubscription: Annotated[
        float, typer.Option(help="Servers above those of the budget, as a share: 0 to 0.5.")
    ] = 0.3,
    days: Annotated[str, typer.Option(help="Days of the workload, as in 11-13 or 0,4.")] = "0",
    hours: Annotated[float, typer.Option(help="Hours of each day, the first is warm-up.")] = 24.0,
    seeds: Annotated[int, typer.Option(help="Scenarios of each day.")] = 1,
    noise: Annotated[float, typer.Option(help="Fault: deviation of readings, as 0.03.")] = 0.0,
    dropout: Annotated[float, typer.Option(help="Fault: share of readings missing.")] = 0.0,
    stuck: Annotated[float, typer.Option(help="Fault: share of time that the sensor hangs.")] = 0.0,
    lag: Annotated[float, typer.Option(help="Fault: seconds that readings are late.")] = 2.0,
    lost: Annotated[float, typer.Option(help="Fault: share of commands that are lost.")] = 0.0,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison (JSON).")
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(help="Write the winner's decisions (.csv, .parquet or .json)."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the winner's chart of its first scenario (.svg, .png)."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--report", help="Write one page (Markdown).")
    ] = None,
) -> None:
    """Plays policies against the same scenarios and compares them."""
    require_positive(seeds, "--seeds")
    if not 1 < hours <= 24:
        raise InputError(f"--hours {hours:g}: expected more than 1, which is warm-up, to 24")
    if not 0 <= oversubscription <= 0.6:
        raise InputError(f"--oversubscription {oversubscription:g}: expected 0 to 0.6")
    for value, option in (
        (noise, "--noise"),
        (dropout, "--dropout"),
        (stuck, "--stuck"),
        (lost, "--lost"),
    ):
        if not 0 <= value < 1:
            raise InputError(f"{option} {value:g}: expected a share from 0 to below 1")
    if not 0 <= lag <= 30:
        raise InputError(f"--lag {lag:g}: expected 0 to 30 seconds")
    _require_outputs(json_out, decisions, plot, page)
    names = list(POLICIES) if policy == "all" else [each.strip() for each in policy.split(",")]
    for name in names:
        if name not in POLICIES:
            raise InputError(f"--policy {name}: expected some of {', '.join(POLICIES)}, or all")
    problem = read_instance(
        workload,
        oversubscription,
        days=parse_days(days),
        seeds=seeds,
        hours=hours,
        faults=Faults(noise, dropout, stuck, lag, lost),
    )
    started = time.perf_counter()
    rows: dict[str, dict[str, Any]] = {}
    controls = {}
    with console.status("simulating") as status:
        try:
            reference = unlimited(problem)
            for name in names:
                status.update(f"simulating {name}")
                begin = time.perf_counter()
                totals, kept = record(problem, get_policy(name, problem))
                rows[name] = summary(problem, totals, reference)
                rows[name]["wall_s"] = time.perf_counter() - begin
                controls[name] = (Control(name, kept[0], claims_of(totals)), kept)
        except KeyboardInterrupt:
            if not rows:
                raise
            console.print("interrupted: the policies until then")
        winner = min(
            (name for name in rows if name != CLAIRVOYANT or len(rows) == 1),
            key=lambda name: float(rows[name]["cost"]),
        )
        control, kept = controls[winner]
        status.update(f"checking {winner} by the other simulator")
        faultless = problem.faults == Faults()
        broken = validator.validate(problem, control, scenarios=1) if faultless else []
    console.print(
        f"{problem.name}: {problem.servers} servers under {problem.budget_w / 1e3:,.1f} kW,"
        f" {problem.scenarios} scenarios of {problem.steps * STEP / 3600:g} h, the first hour of"
        f" each not counted; {time.perf_counter() - started:.1f} s",
        highlight=False,
    )
    console.print(policies_table(rows))
    data = report(problem, rows, winner, validated=faultless and not broken)
    line = verdict(problem, rows, winner)
    console.print(line, highlight=False)
    if json_out is not None:
        replace_file(json_out, json.dumps(data, indent=1).encode())
    applied, braked, readings = (each[0] for each in kept[1:])
    if decisions is not None:
        decisions_file.write(decisions, _columns(kept))
    if plot is not None:
        title = f"{winner}: {problem.servers} servers, budget {problem.budget_w / 1e3:,.1f} kW"
        picture.draw_scenario(applied, braked, readings, plot, title)
    if page is not None:
        replace_file(page, one_page(problem, rows, winner, line).encode())
    if broken:
        raise RuntimeError(f"the simulators disagree: {broken[0]}")


def _require_outputs(
    json_out: Path | None, decisions: Path | None, plot: Path | None, page: Path | None
) -> None:
    files = ((json_out, "--json"), (decisions, "--decisions"), (plot, "--plot"), (page, "--report"))
    for path, option in files:
        require_folder(path, option)
    decisions_file.require_table(decisions, "--decisions")
    if plot is not None and plot.suffix not in PLOTS:
        raise InputError(f"--plot {plot}: expected a name ending in {', '.join(PLOTS)}")


def _columns(kept: Any) -> dict[str, Any]:
    """The table of decisions: a row for each scenario and control step."""
    sent, applied, braked, readings = kept
    scenarios, steps = sent.shape
    mhz = ACTIONS.astype(int)
    return {
        "scenario": np.repeat(np.arange(scenarios), steps),
        "t_s": np.tile(np.arange(steps) * STEP, scenarios),
        "lp_mhz": mhz[sent.ravel(), 0],
        "hp_mhz": mhz[sent.ravel(), 1],
        "lp_mhz_in_force": mhz[applied.ravel(), 0],
        "hp_mhz_in_force": mhz[applied.ravel(), 1],
        "brake": braked.ravel(),
        "power_over_budget": readings.mean(-1).ravel().astype(float),
    }


def report(
    problem: PowerProblem, rows: dict[str, dict[str, Any]], winner: str, *, validated: bool
) -> dict[str, Any]:
    """The JSON report of a comparison."""
    return {
        "game": "power_control",
        "objective": rows[winner]["cost"],
        "unit": UNIT,
        "winner": winner,
        "validated": validated,
        "validated_scenarios": int(validated),
        "servers": problem.servers,
        "oversubscription": problem.oversubscription,
        "budget_w": problem.budget_w,
        "scenarios": problem.scenarios,
        "baselines": {name: {"objective": row["cost"], **row} for name, row in rows.items()},
    }


def verdict(problem: PowerProblem, rows: dict[str, dict[str, Any]], winner: str) -> str:
    """What to make of it, in plain words."""
    row = rows[winner]
    met = "every objective met" if row["objectives_met"] else "not every objective met"
    return (
        f"{winner} costs least: {row['brakes']} brakes and {met} with {problem.servers} servers,"
        f" {problem.oversubscription:+.0%} on those that the budget was made for; mean latency"
        f" {row['lp_mean']:+.2%} LP, {row['hp_mean']:+.2%} HP."
    )


def one_page(problem: PowerProblem, rows: dict[str, dict[str, Any]], winner: str, line: str) -> str:
    """The one-page report, Markdown."""
    header = (
        "| policy | brakes | HP P50 | HP P99 | LP P50 | LP P99 | LP capped | MWh | objectives |"
    )
    lines = [
        f"# {problem.name}",
        "",
        line,
        "",
        f"Budget {problem.budget_w / 1e3:,.1f} kW; {problem.scenarios} scenarios.",
        "",
        header,
        "| --- |" + " ---: |" * 8,
    ]
    for name, row in rows.items():
        seconds = " | ".join(
            f"{row[f'{key}_s']:.1f} s ({row[key]:+.1%})"
            for key in ("hp_p50", "hp_p99", "lp_p50", "lp_p99")
        )
        lines.append(
            f"| {name}{' (best)' if name == winner else ''} | {row['brakes']} | {seconds} |"
            f" {row['lp_capped']:.0%} | {row['energy_mwh']:.2f} |"
            f" {'met' if row['objectives_met'] else 'missed'} |"
        )
    lines += [
        "",
        "In brackets: against the same requests without caps under a breaker that bears anything."
        " The simulator's curves are assumptions where `constants.toml` says so. With 40 s from"
        " command to effect no controller can guarantee that the brake stays off.",
    ]
    return "\n".join(lines) + "\n"


@power.command(name="replay")
def replay_telemetry(
    telemetry: Annotated[
        Path, typer.Argument(help="Recorded telemetry (.csv or .parquet): t_s,watts[,brake].")
    ],
    budget_kw: Annotated[float, typer.Option(help="What the breaker bears, kW.")],
    servers: Annotated[int, typer.Option(help="Servers of the row.")],
    policy: Annotated[str, typer.Option(help=f"One of {', '.join(CONTROLLERS)}.")] = DEFAULT,
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the report (JSON).")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="Write the decisions (.csv, .parquet or .json).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the chart (.svg, .png).")] = None,
    audit: Annotated[Path | None, typer.Option(help="Append each decision to this log.")] = None,
) -> None:
    """Says what a policy would have decided on recorded telemetry, which stays as it is."""
    _require_outputs(json_out, decisions, plot, None)
    made = _controller(policy, budget_kw, servers)
    recording = read_telemetry(telemetry)
    for note in recording.notes:
        console.print(f"{telemetry}: {note}", highlight=False)
    found: dict[str, list[Decision]] = {}
    if audit is None:
        found[policy] = replay(made, recording)
    else:
        with AuditLog(audit) as log:
            found[policy] = replay(made, recording, log)
    if policy != "polca":
        found["polca"] = replay(_controller("polca", budget_kw, servers), recording)
    rows = {name: _decided(each) for name, each in found.items()}
    table = Table(box=None, pad_edge=False)
    for column in (
        "policy",
        "decisions",
        "LP capped",
        "HP capped",
        "brakes asked",
        "by the shield",
    ):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            str(row["decisions"]),
            f"{row['lp_capped']:.1%}",
            f"{row['hp_capped']:.1%}",
            str(row["brakes_asked"]),
            str(sum(row["reasons"].values()) - row["reasons"].get("policy", 0)),
        )
    console.print(table)
    own = found[policy]
    columns = {
        "t_s": [each.time_s for each in own],
        "lp_mhz": [each.lp_mhz for each in own],
        "hp_mhz": [each.hp_mhz for each in own],
        "brake": [each.brake for each in own],
        "power_over_budget": [each.power for each in own],
        "reason": [each.reason for each in own],
        "sensor_noise": [each.noise for each in own],
        "notes": ["; ".join(each.notes) for each in own],
    }
    if decisions is not None:
        decisions_file.write(decisions, columns)
    if json_out is not None:
        data = {
            "game": "power_control",
            "objective": rows[policy]["lost_work"],
            "unit": "mean share of work lost to caps, HP weighed by 4",
            "winner": min(rows, key=lambda name: float(rows[name]["lost_work"])),
            "validated": False,  # a recording cannot say what other caps would have done
            "notes": recording.notes,
            "baselines": {n: {"objective": r["lost_work"], **r} for n, r in rows.items()},
        }
        replace_file(json_out, json.dumps(data, indent=1).encode())
    if plot is not None and own:
        order = np.argsort(recording.time_s, kind="stable")
        brakes = [each.time_s / 3600 for each in own if each.brake]
        picture.draw(
            recording.time_s[order] / 3600,
            recording.watts[order] / (budget_kw * 1e3),
            np.array([each.time_s / 3600 for each in own]),
            np.array([each.action for each in own]),
            np.array(brakes),
            plot,
            f"{policy} on {telemetry.name}: caps that it would have asked for",
        )


def _decided(decisions: list[Decision]) -> dict[str, Any]:
    """Counts of a controller's decisions."""
    count = max(len(decisions), 1)
    lost = forecast.plant().lost @ np.array([1.0, 4.0])
    return {
        "decisions": len(decisions),
        "lp_capped": sum(each.lp_mhz < ACTIONS.max() for each in decisions) / count,
        "hp_capped": sum(each.hp_mhz < ACTIONS.max() for each in decisions) / count,
        "lost_work": float(sum(float(lost[each.action]) for each in decisions) / count),
        "brakes_asked": sum(each.brake for each in decisions),
        "reasons": dict(Counter(each.reason for each in decisions)),
    }


def _controller(policy: str, budget_kw: float, servers: int) -> Controller:
    require_positive(budget_kw, "--budget-kw")
    require_positive(servers, "--servers")
    if not math.isfinite(budget_kw):
        raise InputError(f"--budget-kw {budget_kw}: expected a positive number")
    extra = servers / made_for(budget_kw * 1e3) - 1
    with console.status("compiling the policy"):
        return Controller(controller(policy, extra), budget_w=budget_kw * 1e3, servers=servers)


@power.command(name="run")
def run(
    exporter: Annotated[str, typer.Argument(help="URL of the exporter's metrics.")],
    budget_kw: Annotated[float, typer.Option(help="What the breaker bears, kW.")],
    servers: Annotated[int, typer.Option(help="Servers that the exporter reports on.")],
    audit: Annotated[Path, typer.Option(help="Log of decisions; appended to, synced.")],
    policy: Annotated[str, typer.Option(help=f"One of {', '.join(CONTROLLERS)}.")] = DEFAULT,
    metric: Annotated[
        str, typer.Option(help="DCGM's watts of each GPU, or any metric in watts of the row.")
    ] = METRIC,
    act: Annotated[
        str, typer.Option(help="dry-run, or nvml: lock the clocks of this machine's GPUs.")
    ] = "dry-run",
    gpu_class: Annotated[
        str, typer.Option("--class", help="With nvml: whose requests the GPUs serve, lp or hp.")
    ] = "lp",
    steps: Annotated[
        int | None, typer.Option(help="Decisions to make, 10 s each; until Ctrl-C if not given.")
    ] = None,
    pace: Annotated[
        float, typer.Option(help="Times as fast: only against a recorded or simulated exporter.")
    ] = 1.0,
) -> None:
    """Controls a row: reads an exporter, decides every 10 s, logs, and acts if told to."""
    require_positive(pace, "--pace")
    if steps is not None:
        require_positive(steps, "--steps")
    if not exporter.startswith(("http://", "https://")):
        raise InputError(f"{exporter}: expected the http:// or https:// URL of an exporter")
    if act not in ("dry-run", "nvml"):
        raise InputError(f"--act {act}: expected dry-run or nvml")
    actuator = Nvml(gpu_class) if act == "nvml" else DryRun()
    made = _controller(policy, budget_kw, servers)

    def shown(decision: Decision, done: list[str]) -> None:
        power = "no reading" if math.isnan(decision.power) else f"{decision.power:6.1%}"
        said = [
            *decision.notes,
            *([f"sensor noise {decision.noise:.1%}"] if decision.noise else []),
        ]
        notes = f" ({'; '.join(said)})" if said else ""
        console.print(
            f"{decision.time_s:8.0f} s  {power} of the budget  LP {decision.lp_mhz} HP"
            f" {decision.hp_mhz} MHz  {decision.reason}{notes}"
            f"{'  BRAKE' if decision.brake else ''}",
            highlight=False,
        )
        for line in done if act == "nvml" else ():
            console.print(f"            {line}", highlight=False)

    read = partial(scrape, exporter, metric=metric, servers=servers)
    with AuditLog(audit) as log:
        made_decisions = run_loop(made, read, actuator, log, steps=steps, pace=pace, report=shown)
    console.print(f"{len(made_decisions)} decisions in {audit}", highlight=False)


def policies_table(rows: dict[str, dict[str, Any]]) -> Table:
    """A row for each policy; latency increases in %, the share of time that LP is capped."""
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
        "capped",
        "MWh",
        "SLOs",
    ):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, row in rows.items():
        shares = ("hp_mean", "hp_p50", "hp_p99", "lp_mean", "lp_p50", "lp_p99")
        table.add_row(
            name,
            str(row["brakes"]),
            *(f"{100 * row[key]:+.1f}" for key in shares),
            f"{row['lp_capped']:.0%}",
            f"{row['energy_mwh']:.1f}",
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
