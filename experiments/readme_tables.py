"""Fills the marked blocks of the README from the committed results: no figure is typed by hand.

    python -m experiments.readme_tables [--check]

A block stands between `<!-- table:NAME -->` and `<!-- /table -->` and shows `results/NAME.json`; it
is empty as long as there is no such file. `--check` changes nothing, and fails if a block is not
what the results say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import (
    bench_agent,
    bench_chunk_calibration,
    bench_chunk_latency,
    bench_chunk_reranker,
    bench_chunk_selection,
    bench_chunk_transfer,
    bench_co_scheduling,
    bench_judge,
    bench_memory_mapping,
    bench_offsets,
    bench_power_control,
    bench_search,
    bench_sharding,
    bench_simulator,
    bench_suite,
    bench_sweep,
    bench_tensor_parallel,
    train_chunk_configuration,
)
from experiments.common import RESULTS, ROOT, Results, run
from hlo_frontend.errors import InputError

# Name of the block: the benchmark of its results, and the table that it shows.
TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "agent": (bench_agent.NAME, bench_agent.table),
    "portfolio": (bench_agent.NAME, bench_agent.table),
    "co_scheduling": (bench_co_scheduling.NAME, bench_co_scheduling.short_table),
    "mapping": (bench_memory_mapping.NAME, bench_memory_mapping.table),
    "large": (bench_memory_mapping.NAME, bench_memory_mapping.large_table),
    "judge": (bench_judge.NAME, bench_judge.table),
    "offsets": (bench_offsets.NAME, bench_offsets.table),
    "sharding": (bench_sharding.NAME, bench_sharding.table),
    "tensor_parallel": (bench_tensor_parallel.NAME, bench_tensor_parallel.table),
    "chunk_calibration": (bench_chunk_calibration.NAME, bench_chunk_calibration.short_table),
    "chunk_configuration": (train_chunk_configuration.NAME, train_chunk_configuration.table),
    "chunk_reranker": (bench_chunk_reranker.NAME, bench_chunk_reranker.table),
    "chunk_latency": (bench_chunk_latency.NAME, bench_chunk_latency.table),
    "chunk_transfer": (bench_chunk_transfer.NAME, bench_chunk_transfer.table),
    "chunk_selection": (bench_chunk_selection.NAME, bench_chunk_selection.short_table),
    "power_control": (bench_power_control.NAME, bench_power_control.table),
    "speed": (bench_simulator.NAME, bench_simulator.table),
    "search": (bench_search.NAME, bench_search.table),
    "standard": (bench_suite.NAME, bench_suite.table),
    "sweep": (bench_sweep.NAME, bench_sweep.table),
}
_BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills or checks the blocks.

    Raises:
        InputError: an unknown block; with `--check` also one that is out of date.
    """
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--check", action="store_true", help="only fail if it is out of date")
    options.add_argument("--readme", type=Path, default=ROOT / "README.md")
    options.add_argument("--results", type=Path, default=RESULTS, help="folder")
    chosen = options.parse_args(arguments)
    text = chosen.readme.read_text()
    filled = fill(text, chosen.results)
    if filled == text:
        return
    if chosen.check:
        raise InputError(
            f"{chosen.readme.name}: not what the results say; run"
            " `python -m experiments.readme_tables`"
        )
    chosen.readme.write_text(filled)


def fill(text: str, folder: Path) -> str:
    """The text with every block made anew from the results in `folder`."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{_content(match[2], folder)}{match[3]}"

    return _BLOCK.sub(block, text)


def _content(name: str, folder: Path) -> str:
    if name not in TABLES:
        raise InputError(f"block table:{name}: expected one of {', '.join(TABLES)}")
    benchmark, table = TABLES[name]
    path = folder / f"{name}.json"
    if not path.exists():
        return ""
    results = Results(path, benchmark)
    return f"{table(results)}\n\n{results.footer()}\n"


if __name__ == "__main__":
    sys.exit(run(main))
