"""The real TPU compiler as the judge: is there a better assignment than its own?

Fast memory is made scarce by giving the rest of the VMEM to instructions. The score is that of
`compiler-rl map --judge tpu`: the cycles that the compiler estimates, at the clock of the chip, and
the stalls of its copies as our simulator replays them. Needs the `tpu` extra (libtpu), no TPU.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from baselines.memory_mapping.msa import msa
from compiler_rl import tpu
from compiler_rl.judge import judge
from compiler_rl.solve import solve
from experiments.common import MIB, RESULTS, Cell, Results, markdown_table, parse_mib, parser, run
from experiments.programs import PROGRAMS
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from hlo_frontend.errors import InputError

NAME = "judge"
CHIP = "v5e"
DEFAULT = "mlp,alexnet,strassen49,decode,scan_transformer,resnet50"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "judge.json", time_limit=20.0)
    options.set_defaults(seeds=1)
    options.add_argument("--programs", default=DEFAULT, help="default: %(default)s")
    options.add_argument("--sizes", default="16MiB", help="default: %(default)s")
    options.add_argument("--compiles", type=int, default=60, help="default: %(default)s")
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    for program in chosen.programs.split(","):
        if program not in PROGRAMS:
            raise InputError(f"--programs {program}: expected some of {','.join(PROGRAMS)}")
        for size in parse_mib(chosen.sizes):
            for seed in range(chosen.seeds):
                config = {
                    "program": program,
                    "fast_memory": size,
                    "time_limit": chosen.time_limit,
                    "compiles": chosen.compiles,
                    "seed": seed,
                }
                results.measure(config, partial(_measure, config))
    results.write_report(report(results))


def _measure(config: Cell) -> Cell:
    chip = get_chip(CHIP)
    compiler = tpu.Compiler(
        f"experiments.programs:{config['program']}", chip, config["fast_memory"]
    )
    try:
        problem = from_program(compiler.unassigned, chip, compiler.capacity)
        found = solve(problem, time_limit=config["time_limit"], seed=config["seed"])
        heuristic = msa(problem, time_limit=1.0)
        mappings = {"our mapping": found.solution, "the MSA-like mapping": heuristic.solution}
        judged = judge(
            compiler, problem, mappings, compiles=config["compiles"], seed=config["seed"]
        )
    finally:
        compiler.close()
    return {
        "default": _facts(judged.default),
        "best": _facts(judged.best),
        "found_by": judged.found_by,
        "scores": judged.scores,
        "curve": judged.curve,
        "compiles": judged.compiles,
        "refused": judged.refused,
        "moved": _moved(judged.default, judged.best),
        "planned_s": found.objective,
        "all_slow_s": problem.all_slow,
        "options": dict(judged.best.options),
    }


def _facts(compiled: tpu.Compiled) -> dict[str, Any]:
    decisions = compiled.decisions
    return {
        "seconds": compiled.seconds,
        "cycles": compiled.cycles,
        "values": sum(decisions.produced.values()),
        "uses": sum(decisions.uses.values()),
        "copies": len(decisions.copies),
    }


def _moved(default: tpu.Compiled, best: tpu.Compiled) -> int:
    """Values and uses that are in another memory than by default."""
    before, after = default.decisions, best.decisions
    return sum(after.produced.get(key) != fast for key, fast in before.produced.items()) + sum(
        after.uses.get(key) != fast for key, fast in before.uses.items()
    )


def table(results: Results) -> str:
    """A row for each program: the compiler's default, the best found, and what is different."""
    header = (
        "program",
        "fast memory, MiB",
        "default, µs",
        "our mapping",
        "best found",
        "found by",
        "compilations",
        "moved",
    )
    return markdown_table(header, [_row(cell) for cell in results.cells])


def _row(cell: Cell) -> list[str]:
    result = cell["result"]
    default, best = result["default"]["seconds"], result["best"]["seconds"]
    ours = result["scores"].get("our mapping")
    return [
        cell["config"]["program"],
        f"{cell['config']['fast_memory'] // MIB}",
        f"{default * 1e6:,.2f}",
        "refused" if ours is None else f"{ours / default - 1:+.2%}",
        f"{best / default - 1:+.2%}" if best < default else "nothing better",
        result["found_by"],
        f"{result['compiles']}",
        f"{result['moved']}",
    ]


def report(results: Results) -> str:
    """The table, what changed in each program, and the verdict."""
    lines = ["# The compiler as the judge", "", table(results), ""]
    for cell in results.cells:
        lines += ["", f"## {cell['config']['program']}", "", *_details(cell["result"])]
    better = sum(
        cell["result"]["best"]["seconds"] < cell["result"]["default"]["seconds"]
        for cell in results.cells
    )
    never_worse = all(
        cell["result"]["best"]["seconds"] <= cell["result"]["default"]["seconds"]
        for cell in results.cells
    )
    lines += [
        "",
        "## Verdicts",
        "",
        f"- {'PASS' if never_worse else 'FAIL'} never worse than the compiler's default",
        f"- {'PASS' if better >= 3 else 'FAIL'} strictly better on at least three programs:"
        f" {better} of {len(results.cells)}",
    ]
    return "\n".join(lines)


def _details(result: Cell) -> list[str]:
    header = ("", "score, µs", "estimated cycles", "values in fast memory", "uses", "copies")
    rows = [
        [
            name,
            f"{facts['seconds'] * 1e6:,.2f}",
            f"{facts['cycles']:,}",
            *(f"{facts[key]}" for key in ("values", "uses", "copies")),
        ]
        for name, facts in (("default", result["default"]), ("best", result["best"]))
    ]
    scores = markdown_table(
        ("candidates", "best score, µs"),
        [[name, f"{value * 1e6:,.2f}"] for name, value in result["scores"].items()],
    )
    refused = f"The compiler refused {result['refused']} candidates."
    return [markdown_table(header, rows), "", scores, "", refused]


if __name__ == "__main__":
    sys.exit(run(main))
