"""`compiler-rl train` and `compiler-rl evaluate agent`: networks that guide search."""

from __future__ import annotations

import dataclasses
import json
import logging
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from rich.table import Table

from compiler_rl.agent.config import Config, read_config
from compiler_rl.agent.evaluation import Row, evaluate, methods
from compiler_rl.agent.weights import load, new_agent, shape_of
from compiler_rl.cli.common import console, evaluate_commands, require_folder
from compiler_rl.cluster import connected
from games.base import Game
from games.files import replace_file
from games.registry import GAMES, get_game
from hlo_frontend.errors import InputError


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(name="train")(train_agent)
    evaluate_commands.command(name="agent")(evaluate_agent)


def train_agent(
    game: Annotated[str, typer.Argument(help="Name of the game.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, scalars and weights.")],
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    executor: Annotated[
        str, typer.Option(help="process, or ray: the parts of a batch on a cluster.")
    ] = "process",
    ray_address: Annotated[
        str | None, typer.Option(help="Of the cluster; none: one on this machine.")
    ] = None,
) -> None:
    """Trains an agent for a game, or goes on where training was cut off."""
    # Orbax and TensorBoard take seconds to import, which only training should wait for.
    from compiler_rl.agent.actors import on_ray  # noqa: PLC0415
    from compiler_rl.agent.training import Progress, train  # noqa: PLC0415

    chosen = _trainable(game)
    settings = read_config(config)
    require_folder(out, "--out")
    # Orbax warns whenever it waits for the disk, between the lines of the progress.
    logging.getLogger("absl").setLevel(logging.ERROR)

    def report(progress: Progress) -> None:
        console.print(
            f"{progress.iteration:4d} of {settings.iterations}: saving {progress.saving:.4f},"
            f" best {progress.best:.4f}, loss {progress.loss:.3f},"
            f" {progress.simulations:,.0f} simulations/s, {progress.left_s:,.0f} s left",
            highlight=False,
            soft_wrap=True,
        )

    if executor == "ray":
        with connected("--executor ray", ray_address) as ray:
            train(chosen, settings, out, report=report, actors=on_ray(ray))
    elif executor == "process":
        train(chosen, settings, out, report=report)
    else:
        raise InputError(f"--executor {executor}: expected process or ray")
    console.print(f"{out / 'weights.crlw'}: the trained weights", highlight=False)


def evaluate_agent(
    weights: Annotated[list[Path], typer.Argument(help="Weight files; none: the game's prior.")],
    game: Annotated[str, typer.Option(help="Name of the game.")],
    problems: Annotated[int, typer.Option(help="Test problems.")] = 6,
    time_limits: Annotated[str, typer.Option(help="Seconds, separated by commas.")] = "1,10",
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 1,
    simulations: Annotated[int, typer.Option(help="Of search, for each move.")] = 16,
    json_out: Annotated[Path | None, typer.Option("--json", help="Report to write.")] = None,
) -> None:
    """Compares agents with the game's solvers on problems that were never trained on."""
    chosen = _trainable(game)
    require_folder(json_out, "--json")
    limits = _seconds(time_limits)
    tests = import_module(f"{GAMES[game]}.generator").test_problems(problems)
    shape = shape_of(chosen, [chosen.arrays(problem) for _, problem in tests])
    agents = [("prior", new_agent(chosen, Config(), shape))]
    agents += [(path.stem, load(path, chosen)) for path in weights]
    with console.status("evaluating") as status:
        rows = evaluate(
            chosen,
            tests,
            methods(chosen, agents, simulations),
            time_limits=limits,
            seeds=seeds,
            report=status.update,
        )
    console.print(_table(rows, limits))
    if json_out is not None:
        report = [dataclasses.asdict(row) | {"gap": row.gap} for row in rows]
        data = {"game": game, "unit": chosen.unit, "rows": report}
        replace_file(json_out, json.dumps(data, indent=1).encode())


def _trainable(name: str) -> Game:
    able = [each for each, package in GAMES.items() if find_spec(f"{package}.generator")]
    if name not in able:
        raise InputError(f"game {name}: no training problems; expected one of {', '.join(able)}")
    return get_game(name)


def _seconds(text: str) -> list[float]:
    try:
        limits = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--time-limits {text}: expected numbers such as 1,10") from error
    if not all(limit > 0 for limit in limits):
        raise InputError(f"--time-limits {text}: expected positive numbers")
    return limits


def _table(rows: list[Row], limits: list[float]) -> Table:
    """Mean gap to the best known of each method at each limit, and its seconds at the last."""
    table = Table(box=None, pad_edge=False)
    table.add_column("method")
    for limit in limits:
        table.add_column(f"gap at {limit:g} s", justify="right")
    table.add_column("seconds", justify="right")
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        gaps = [mean(row.gap for row in own if row.time_limit == limit) for limit in limits]
        wall = mean(row.wall_s for row in own if row.time_limit == limits[-1])
        table.add_row(method, *(f"{gap:.2%}" for gap in gaps), f"{wall:.2f}")
    return table
