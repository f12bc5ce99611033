"""Search in a process of its own: `python -m compiler_rl.search.worker IN OUT`, pickles both.

What search compiles, once for each size of problem, can take longer than a short time limit and
cannot be stopped from inside; a process can.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from games.base import Result
from games.files import cache_folder

# Compiling takes longer than many a search: what was compiled is kept for the next one.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(cache_folder("jax")),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}


class Worker:
    """A search that runs aside; `result` is there once it is done, `stop` ends it."""

    def __init__(
        self, problem: Any, *, time_limit: float, simulations: int, seed: int, weights: Path | None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="compiler-rl-")
        self._out = Path(self._folder.name) / "out"
        given = Path(self._folder.name) / "in"
        options = {"time_limit": time_limit, "simulations": simulations, "seed": seed}
        given.write_bytes(pickle.dumps((problem, options, weights)))
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(given), str(self._out)],
            # The parent's threads have the cores; Ctrl-C is the parent's business.
            env={**CACHE, **os.environ, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def result(self) -> Result[Any] | None:
        """What it found, None while it is not done, or if it failed."""
        if self._process.poll() != 0 or not self._out.exists():
            return None
        found: Result[Any] = pickle.loads(self._out.read_bytes())
        return found

    def wait(self, seconds: float) -> None:
        """Until it is done, so long at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(seconds, 0.0))

    def stop(self) -> None:
        """Ends the process, done or not."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def main() -> None:
    """Runs in the process."""
    # Only the process needs what is imported here.
    from compiler_rl.search.play import play  # noqa: PLC0415
    from games.registry import game_of  # noqa: PLC0415

    problem, options, weights = pickle.loads(Path(sys.argv[1]).read_bytes())
    game = game_of(problem)
    if weights is None:
        result = play(game, problem, **options)
    else:
        from compiler_rl.agent.sampling import search_with  # noqa: PLC0415
        from compiler_rl.agent.weights import load  # noqa: PLC0415

        result = search_with(load(weights, game), problem, **options)
    partial = Path(sys.argv[2] + ".partial")
    partial.write_bytes(pickle.dumps(result))
    partial.rename(sys.argv[2])


if __name__ == "__main__":
    main()
