"""A Ray cluster (extra `ray`): connecting to one, and tasks on it that outlive a lost node."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hlo_frontend.errors import InputError

RETRIES = 3  # of a task whose worker or node is lost
CONNECT_S = 5.0


@contextmanager
def connected(option: str, address: str | None = None) -> Iterator[Any]:
    """Ray, connected to the cluster at an address, or to one of its own on this machine.

    Args:
        option: of the command line that asked for it, for messages.
        address: such as `127.0.0.1:6379` or `auto`; None for that of `RAY_ADDRESS`, or else a
            cluster that is started here, and stopped at the end.

    Raises:
        InputError: the extra is not installed, or the cluster cannot be reached.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise InputError(
            f'{option}: ray is not installed; pip install "compiler-rl[ray]"'
        ) from error
    started = not ray.is_initialized()
    if started:
        wanted = address or os.environ.get("RAY_ADDRESS") or "local"
        _require_reachable(wanted)
        try:
            ray.init(address=wanted, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"--ray-address {wanted}: cannot be reached ({line})") from error
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _require_reachable(address: str) -> None:
    """Ray itself waits for minutes where nothing answers."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"--ray-address {address}: cannot be reached ({error})") from error


def run_all(
    ray: Any, function: Callable[[Any], Any], tasks: Sequence[Any], env: Mapping[str, str]
) -> list[Any]:
    """`function` of every task, one core each; each result is fetched as soon as it is there.

    A task whose node is lost runs again on another one; what was fetched is not done again.

    Raises:
        InputError: a task's worker was lost again and again.
    """
    remote = ray.remote(num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": dict(env)})(
        function
    )
    running = {remote.remote(task): number for number, task in enumerate(tasks)}
    results: list[Any] = [None] * len(tasks)
    try:
        while running:
            done, _ = ray.wait(list(running))
            for reference in done:
                number = running.pop(reference)
                try:
                    results[number] = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.as_instanceof_cause() from None
                except ray.exceptions.RayError as error:
                    raise InputError(
                        f"a worker was lost {RETRIES + 1} times ({type(error).__name__})"
                    ) from error
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return results
