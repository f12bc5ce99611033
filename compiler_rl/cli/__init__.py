"""The command line, `compiler-rl`: the outermost layer, which nothing imports."""

from __future__ import annotations

import os
import sys

import jax
import typer
from rich.console import Console

from compiler_rl.cli import (
    agent,
    chunk_selection,
    co_scheduling,
    memory_mapping,
    offset_allocation,
    power_control,
    sweep,
    tensor_parallel,
)
from compiler_rl.cli.common import evaluate_commands
from hlo_frontend.errors import InputError

app = typer.Typer(
    help="Compiler and scheduling decisions made by search that learns.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (
    memory_mapping,
    offset_allocation,
    tensor_parallel,
    co_scheduling,
    chunk_selection,
    power_control,
    agent,
    sweep,
):
    commands.register(app)
app.add_typer(evaluate_commands, name="evaluate")


def main() -> None:
    """Entry point: bad input ends in one line on standard error and exit status 2."""
    # Compile-time search needs no accelerator, and JAX without one says so at length.
    jax.config.update(  # type: ignore[no-untyped-call]
        "jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu")
    )
    try:
        app()
    except InputError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted before there was anything to return")
        sys.exit(130)
