"""Speed of the memory-mapping game's parts, each on one problem.

- `rules`: moves a second of random legal games in JAX, one at a time and 64 in a batch, and the
  seconds that compiling such a game takes;
- `simulator`: evaluations a second of whole mappings;
- `local_search`: moves a second, one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

from baselines.memory_mapping.local_search import local_search
from baselines.memory_mapping.msa import msa
from experiments.common import MIB, RESULTS, Cell, Results, markdown_table, parse_mib, parser, run
from games.memory_mapping.chips import get_chip
from games.memory_mapping.game import GAME
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.simulator import simulate
from hlo_frontend import load
from hlo_frontend.examples import example_path

NAME = "speed"
BATCH = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "speed.json", time_limit=5.0)
    options.add_argument("--programs", default="strassen49", help="default: %(default)s")
    options.add_argument("--sizes", default="16MiB", help="default: %(default)s")
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    for name in chosen.programs.split(","):
        program = load(example_path(f"{name}.v5e.nomsa"))
        for size in parse_mib(chosen.sizes):
            problem = from_program(program, get_chip("v5e"), size)
            for part in PARTS:
                for seed in range(chosen.seeds):
                    config = {
                        "program": name,
                        "fast_memory": size,
                        "time_limit": chosen.time_limit,
                        "part": part,
                        "seed": seed,
                    }
                    results.measure(config, partial(_measure, problem, config))
    results.write_report(report(results))


def _measure(problem: MemoryMappingProblem, config: Cell) -> Cell:
    return PARTS[config["part"]](problem, config["time_limit"], config["seed"])


def _rate(once: Callable[[], Any], units: int, time_limit: float) -> float:
    """Units a second of a call that does `units` of them; the first call is not counted."""
    once()
    calls, begin = 0, perf_counter()
    while (seconds := perf_counter() - begin) < time_limit or not calls:
        once()
        calls += 1
    return calls * units / seconds


def _rules(problem: MemoryMappingProblem, time_limit: float, seed: int, batch: int) -> Cell:
    arrays = GAME.arrays(problem)
    length = arrays.length

    def game(arrays: Any, key: jax.Array) -> jax.Array:
        def move(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            legal = GAME.legal_actions(arrays, state)
            action = jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
            state, reward, _ = GAME.step(arrays, state, action)
            return state, reward

        return jax.lax.scan(move, GAME.init(arrays), jax.random.split(key, length))[1].sum()

    keys = jax.random.split(jax.random.key(seed), batch)
    games = jax.vmap(game, in_axes=(None, 0))
    return _compiled_rate(games, (arrays, keys), batch * int(arrays.num_moves), time_limit)


def _compiled_rate(
    function: Callable[..., jax.Array], inputs: tuple[Any, ...], units: int, time_limit: float
) -> Cell:
    begin = perf_counter()
    compiled = jax.jit(function).lower(*inputs).compile()
    compile_s = perf_counter() - begin
    rate = _rate(lambda: compiled(*inputs).block_until_ready(), units, time_limit)
    return {"rate": rate, "compile_s": compile_s}


def _simulator(problem: MemoryMappingProblem, time_limit: float, seed: int) -> Cell:
    mapping = msa(problem, time_limit=time_limit, seed=seed).solution
    return {"rate": _rate(lambda: simulate(problem, mapping), 1, time_limit)}


def _local_search(problem: MemoryMappingProblem, time_limit: float, seed: int) -> Cell:
    local_search(problem, time_limit=0.1, seed=seed)  # loads the kernels, or compiles them
    result = local_search(problem, time_limit=time_limit, seed=seed)
    return {"rate": result.detail["moves"] / result.wall_s}


PARTS: dict[str, Callable[[MemoryMappingProblem, float, int], Cell]] = {
    "rules": partial(_rules, batch=1),
    f"rules x {BATCH}": partial(_rules, batch=BATCH),
    "simulator": _simulator,
    "local_search": _local_search,
}
UNITS = {
    "simulator": "evaluations/s",
}


def table(results: Results) -> str:
    """One row for each part of each problem: the median over the runs."""
    groups: dict[tuple[str, int, float, str], list[Cell]] = {}
    for cell in results.cells:
        config = cell["config"]
        key = (config["program"], config["fast_memory"], config["time_limit"], config["part"])
        groups.setdefault(key, []).append(cell["result"])
    rows = []
    for (program, size, _, part), found in groups.items():
        rates = [result["rate"] for result in found]
        compiling = [result["compile_s"] for result in found if "compile_s" in result]
        rows.append(
            [
                f"{program}, {size // MIB} MiB",
                part,
                f"{median(rates):,.0f}",
                f"{min(rates):,.0f}–{max(rates):,.0f}",
                UNITS.get(part.split()[0], "moves/s"),
                f"{median(compiling):.1f}" if compiling else "-",
            ]
        )
    return markdown_table(["problem", "part", "rate", "min–max", "unit", "compile, s"], rows)


def report(results: Results) -> str:
    """The table under a title."""
    return f"# Speed of the parts\n\n{table(results)}"


if __name__ == "__main__":
    sys.exit(run(main))
