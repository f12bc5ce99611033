"""Chunk selection: milliseconds of one `select` call, from texts with embeddings to the trace.

    python -m experiments.bench_chunk_latency NAME=PATH[+PATH...][:CUT]@BUDGETS ...

The value that ships, no reranker, one thread. Making the embeddings is not counted; reading the
texts, the value, the search, ordering and the reasons of the trace are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from baselines.chunk_selection import prepare
from compiler_rl.select import select
from experiments.bench_chunk_selection import named_sets
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from experiments.retrieval_pools import TOP, load_pools
from hlo_frontend.errors import InputError

NAME = "chunk_latency"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "chunk_latency.json", time_limit=5.0)
    options.add_argument("sets", nargs="*", metavar="NAME=PATH@BUDGETS")
    options.add_argument(
        "--questions", type=int, default=100, help="most of a set; default: %(default)s"
    )
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    prepare()
    for name, path, budgets in named_sets(chosen.sets):
        for budget in budgets:
            config = {"set": name, "budget": budget, "questions": chosen.questions}
            results.measure(config, partial(_measure, path, config))
    results.write_report(table(results))


def _measure(path: str, config: Cell) -> Cell:
    """Of questions with TOP candidates, each once, after one that does not count."""
    pools = [pool for pool in load_pools(path) if len(pool.chunks) == TOP]
    if not pools:
        raise InputError(f"{path}: no question with {TOP} candidates")
    drawn = np.random.default_rng(0).permutation(len(pools))[: config["questions"]]
    spent = []
    for index in (drawn[0], *drawn):
        pool = pools[index]
        started, busy = time.perf_counter(), time.process_time()
        select(
            pool.question.text, pool.chunks, config["budget"], query_embedding=pool.query_embedding
        )
        spent.append((time.perf_counter() - started, time.process_time() - busy))
    clock, processor = 1e3 * np.array(spent[1:]).T
    return {
        "questions": len(clock),
        "median": float(np.median(clock)),
        "p90": float(np.quantile(clock, 0.9)),
        "processor_median": float(np.median(processor)),
        "processor_p90": float(np.quantile(processor, 0.9)),
    }


def table(results: Results) -> str:
    """A row a set and budget: milliseconds of a question."""
    rows = []
    for cell in results.cells:
        config, found = cell["config"], cell["result"]
        keys = ("median", "p90", "processor_median", "processor_p90")
        figures = [f"{found[key]:.1f}" for key in keys]
        rows.append([f"{config['set']} @{config['budget']}", str(found["questions"]), *figures])
    header = ["set", "questions", "ms", "90 %", "ms of the processor", "90 %"]
    return markdown_table(header, rows)


if __name__ == "__main__":
    sys.exit(run(main))
