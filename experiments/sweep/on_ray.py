"""A sweep's cells on a running Ray cluster (extra `ray`), one core each.

Nodes need the same package, and nothing else: results travel to the machine that runs the sweep,
which alone writes them. A cell whose node is lost runs again on another one; what was recorded is
recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from compiler_rl.cluster import RETRIES, connected
from experiments.sweep.config import CellConfig
from experiments.sweep.execute import ONE_THREAD, Executor, Measure, record_of, work
from hlo_frontend.errors import InputError

WAIT_S = 10.0  # until the size of the cluster is looked at again


def ray_executor(address: str | None = None) -> Executor:
    """An executor on the cluster at an address, or on one of its own on this machine.

    Args:
        address: such as `127.0.0.1:6379` or `auto`; None for that of `RAY_ADDRESS`, or else a
            cluster that is started here.

    Raises:
        InputError: the extra is not installed, or the cluster cannot be reached.
    """

    def execute(
        cells: Sequence[CellConfig], workers: int, measure: Measure
    ) -> Iterator[tuple[CellConfig, dict[str, Any]]]:
        """At most `workers` cells at a time, or as many as the cluster has cores if that is 0."""
        with connected("--executor ray", address) as ray:
            task = ray.remote(
                num_cpus=1,
                max_retries=RETRIES,
                runtime_env={"env_vars": ONE_THREAD},
            )(work)
            waiting = list(reversed(cells))
            running: dict[Any, CellConfig] = {}
            try:
                while waiting or running:
                    room = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
                    while waiting and len(running) < room:
                        cell = waiting.pop()
                        running[task.remote(cell, measure)] = cell
                    done, _ = ray.wait(list(running), timeout=WAIT_S)
                    for reference in done:
                        cell = running.pop(reference)
                        try:
                            record = ray.get(reference)
                        except ray.exceptions.RayError as error:
                            record = record_of(cell, _raiser(error))
                        yield cell, record
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)

    return execute


def _raiser(error: Exception) -> Callable[[], dict[str, Any]]:
    def outcome() -> dict[str, Any]:
        last = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise InputError(f"not done by Ray: {last}")

    return outcome
