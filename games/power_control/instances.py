"""Problems by what a command or a file of experiments says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from games.power_control import picture, workload
from games.power_control.constants import constant
from games.power_control.problem import NO_FAULTS, Faults, PowerProblem, joined, servers_at
from games.power_control.solution import Control, steps_of
from games.power_control.workload import DAY, Floats
from hlo_frontend.errors import InputError

TRAIN_DAYS, TEST_DAYS = range(9), range(11, 14)
POISSON, BURSTY = "poisson", "bursty"
BURSTY_CV = 0.5  # of the 20-s factors of the bursty generator
GENERATED_DAYS = 14


def read_instance(
    file: str,
    oversubscription: float = 0.3,
    days: Sequence[int] = (0,),
    seeds: int = 1,
    hours: float = 24.0,
    cv: float | None = None,
    faults: Faults = NO_FAULTS,
) -> PowerProblem:
    """A problem of scenarios of a workload, one for each day and seed.

    Args:
        file: a rate file (`t_s,rate_rps`), a trace (`TIMESTAMP,ContextTokens,GeneratedTokens`),
            or the name of a generator, `poisson` or `bursty`.
        oversubscription: servers above those that the budget was made for, as a share.
        days: of a rate file or a generator.
        seeds: scenarios of each day.
        hours: of each day, from midnight.
        cv: of the bursts; the fitted one if None.
        faults: of sensors and commands.

    Raises:
        InputError: no such file or day, or more servers than the simulator has room for.
    """
    servers = servers_at(oversubscription)
    copies = servers // 2 * round(constant("row", "instances"))
    seconds = round(hours * 3600)
    path = Path(file)
    if file not in (POISSON, BURSTY) and _is_trace(path):
        made = [_of_trace(path, copies, seed) for seed in range(seeds)]
    else:
        if file in (POISSON, BURSTY):
            busy = _generated_profile()
            spread = 0.0 if file == POISSON else BURSTY_CV
        else:
            rates, window = workload.read_rates(path)
            total = round(len(rates) * window)
            busy = workload.busy_profile(rates, window, total)
            spread = constant("arrivals", "burst_cv")
        spread = spread if cv is None else cv
        made = []
        for day in days:
            part = busy[day * DAY : day * DAY + seconds]
            if day < 0 or len(part) < seconds:
                raise InputError(f"{file}: day {day} is not there; it has {len(busy) // DAY} days")
            for seed in range(seeds):
                rng = np.random.default_rng([seed, day])
                table = workload.request_table(rng)
                service = table.sum(-1, dtype=np.float64).mean(1)
                made.append((workload.arrivals(rng, part, copies, service, spread), table))
    size = min(table.shape[1] for _, table in made)  # of a trace, classes are drawn by seed
    problems = [
        PowerProblem(
            name=f"{path.stem} +{oversubscription:.0%}",
            servers=servers,
            arrivals=came[None],
            requests=table[:, :size].transpose(2, 0, 1)[None],
            faults=faults,
        )
        for came, table in made
    ]
    return joined(problems)


def draw_solution(
    instance: Mapping[str, Any],
    problem: PowerProblem,
    solution: Control,
    path: Path,
    *,
    method: str,
) -> None:
    """The picture of a solution of `read_instance(**instance)`: its first scenario."""
    del instance
    applied, braked, readings = (part[0] for part in steps_of(problem, solution.actions))
    title = f"{method}: {problem.servers} servers, budget {problem.budget_w / 1e3:,.1f} kW"
    picture.draw_scenario(applied, braked, readings, path, title)


def _generated_profile() -> Floats:
    """A day of every day: least at night, .85 of the instances busy at the daily peak."""
    hours = (np.arange(GENERATED_DAYS * DAY) % DAY) / 3600
    most = constant("arrivals", "busy_at_p99")
    return np.asarray(most * (0.65 - 0.35 * np.cos((hours - 3.0) / 24 * 2 * np.pi)))


def _is_trace(path: Path) -> bool:
    try:
        with path.open(errors="replace") as lines:
            return "TIMESTAMP" in lines.readline()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _of_trace(
    path: Path, copies: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The trace, an hour of warm-up at its start played twice, scaled to the row.

    Each request goes to LP or HP by a fair coin, and comes as often as it takes for the p99 of the
    rate of a minute to keep `busy_at_p99` of the instances busy, within two seconds of its time.
    """
    seconds, tokens = workload.read_trace(path)
    rng = np.random.default_rng([seed, 0])
    took = workload.seconds_of(tokens[:, 0], tokens[:, 1])
    work = took.sum(1, dtype=np.float64)
    length = int(seconds[-1]) + 1
    a_minute = np.bincount((seconds // 60).astype(int), work) / 60
    scale = 2 * copies * constant("arrivals", "busy_at_p99") / np.quantile(a_minute, 0.99)
    times = int(scale) + (rng.random(len(seconds)) < scale % 1)
    number = np.repeat(np.arange(len(seconds)), times)
    came = np.clip(seconds[number] + rng.uniform(-2, 2, len(number)), 0, length - 1e-6)
    order = np.argsort(came, kind="stable")
    number, came = number[order], came[order]
    kind = rng.integers(0, 2, len(number))
    counts = np.zeros((length, 2), np.int64)
    np.add.at(counts, (came.astype(int), kind), 1)
    tables = [took[number[kind == k]] for k in range(2)]
    size = min(len(each) for each in tables)
    repeated = np.concatenate([counts[: min(length, 3600)], counts])
    return np.minimum(repeated, 255).astype(np.uint8), np.stack([each[:size] for each in tables])
