"""Chunk selection: evidence found within a budget, learned value and search against baselines.

    python -m experiments.bench_chunk_selection NAME=PATH[+PATH...][:CUT]@BUDGETS ...

The learned value is cross-fitted: a question's choice comes from a model that has seen neither the
question nor, in the row `select (zero-shot)`, anything of its data set (sets with a common first
path are one data set). Questions are dealt to folds at random, alike for all sets. Baselines marked
with * have the configuration that was best on the other half of the questions.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from baselines.chunk_selection import EXACT, HEURISTICS, IMPROVE, KNAPSACK
from baselines.chunk_selection import heuristics as rankers
from baselines.chunk_selection.tree_search import corag, set_search
from compiler_rl.select import find
from experiments.chunk_evaluation import (
    STOP_COST,
    Selector,
    bootstrap,
    counted,
    measured,
    oracle,
    summary,
)
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from experiments.evidence_examples import Example
from experiments.evidence_training import train
from experiments.retrieval_pools import Pool, family_of, load_pools
from experiments.retrieval_sets import folds, recall
from experiments.train_chunk_selection import MODELS, Lesson, lesson_of
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.value import EvidenceModel, load_model, to_json
from games.files import replace_file
from hlo_frontend.errors import InputError

NAME = "chunk_selection"
FOLDS = 4
Rows = dict[str, list[dict[str, float]]]

UNTUNED: dict[str, Selector] = {
    **HEURISTICS,
    "corag": corag,
    "set_search": set_search,
    "select": find,
}
GRIDS: dict[str, list[Selector]] = {
    "mmr*": [partial(rankers.mmr, weight=weight, hybrid=True) for weight in (0.5, 0.7, 0.9)],
    "dpp*": [partial(rankers.dpp, sharpness=value) for value in (2.0, 4.0, 8.0, 16.0)],
    "knapsack*": [partial(KNAPSACK, sharpness=value) for value in (1.0, 3.0, 6.0)],
    "submodular*": [
        partial(rankers.submodular, diversity=diversity, power=power)
        for diversity, power in itertools.product((0.0, 0.5), (0.0, 0.5))
    ],
    "bridge_greedy*": [
        partial(rankers.bridge_greedy, weight=weight, power=power)
        for weight, power in itertools.product((0.3, 0.8), (0.0, 0.5))
    ],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "chunk_selection.json", time_limit=5.0)
    options.add_argument("sets", nargs="*", metavar="NAME=PATH@BUDGETS")
    options.add_argument(
        "--exact", type=int, default=5, help="questions that CP-SAT proves; default: %(default)s"
    )
    options.add_argument(
        "--questions", type=int, default=200, help="most of a set; default: %(default)s"
    )
    options.add_argument("--models", type=Path, help="folder to keep the trained values in")
    chosen = options.parse_args(arguments)
    results, sets, bench = opened(chosen, NAME)
    given = {
        "questions": chosen.questions,
        "exact": chosen.exact,
        "time_limit": chosen.time_limit,
    }
    for config in configurations(sets, **given):
        results.measure(config, partial(bench.measure, config))
    results.write_report(report(results))


def measure_trainings(
    description: str | None,
    name: str,
    measure: Callable[[Bench, Cell], Cell],
    report: Callable[[Results], str],
    arguments: Sequence[str] | None,
) -> None:
    """The command of a benchmark with a cell for each set, budget and training.

    Args:
        description: of the command.
        name: of the benchmark and its results file.
        measure: the cell of a configuration.
        report: the text under the results.
        arguments: of the command line; the process's own if None.
    """
    options = parser(description, RESULTS / f"{name}.json", time_limit=5.0)
    options.add_argument("sets", nargs="*", metavar="NAME=PATH@BUDGETS")
    options.add_argument("--models", type=Path, help="folder to keep the trained values in")
    chosen = options.parse_args(arguments)
    results, sets, bench = opened(chosen, name)
    for seed in range(chosen.seeds):
        for config in configurations(sets, seed=seed):
            results.measure(config, partial(measure, bench, config))
    results.write_report(report(results))


def opened(
    chosen: argparse.Namespace, name: str
) -> tuple[Results, list[tuple[str, str, list[int]]], Bench]:
    """The results file, the sets and the bench of a command with `sets` and `--models`."""
    sets = named_sets(chosen.sets)
    bench = Bench({name: path for name, path, _ in sets}, chosen.models)
    return Results(chosen.out, name), sets, bench


def configurations(sets: Sequence[tuple[str, str, list[int]]], **given: Any) -> list[Cell]:
    """The configuration of the cell of each set and budget, with what else is given."""
    return [
        {
            "set": name,
            "budget": budget,
            "cut": path.partition(":")[2],
            "folds": FOLDS,
            "models": MODELS,
            **given,
        }
        for name, path, budgets in sets
        for budget in budgets
    ]


def named_sets(given: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    """(name, what `load_sets` reads, budgets) of each `NAME=PATH@BUDGETS`.

    Raises:
        InputError: one has another form.
    """
    return [_named(text) for text in given]


def _named(text: str) -> tuple[str, str, list[int]]:
    name, equals, rest = text.partition("=")
    path, at, budgets = rest.rpartition("@")
    sizes = budgets.split(",")
    if not (equals and at and path and all(size.isdecimal() for size in sizes)):
        raise InputError(f"{text}: expected NAME=PATH@BUDGETS such as musique=file.json@512,1024")
    return name, path, [int(size) for size in sizes]


class Bench:
    """Pools of all sets, and the values trained for them when they are needed."""

    def __init__(self, paths: dict[str, str], models: Path | None) -> None:
        self.paths = paths
        self._folder = models or Path(tempfile.mkdtemp())
        self._pools: dict[str, list[Pool]] = {}
        self._lessons: dict[str, Lesson] = {}

    def pools(self, name: str) -> list[Pool]:
        """The questions of a set with their candidates."""
        if name not in self._pools:
            self._pools[name] = load_pools(self.paths[name], steps=True)
        return self._pools[name]

    def family(self, name: str) -> str:
        """The data set that a set is of."""
        return family_of(self.paths[name])

    def fold(self, name: str) -> np.ndarray:
        """i64[Q]: the fold of each question."""
        # The same question has the same fold however its documents are cut.
        return folds(len(self.pools(name)), FOLDS)

    def model(self, held_out: int | str, seed: int = 0) -> EvidenceModel:
        """Trained without a fold, or without a family."""
        label = held_out if isinstance(held_out, int) else Path(held_out).name
        path = self._folder / f"without-{label}-{seed}.json"
        if path.exists():
            return load_model(path)
        examples: list[Example] = []
        for name in self.paths:
            if isinstance(held_out, str) and self.family(name) == held_out:
                continue
            if name not in self._lessons:
                self._lessons[name] = lesson_of(self.paths[name], self.pools(name))
            # Without a family, nothing of the others is held out.
            fold = -1 if isinstance(held_out, str) else held_out
            examples += self._lessons[name].without(self.fold(name) == fold)
        print(f"training without {label}: {len(examples)} examples", file=sys.stderr, flush=True)
        model = train(examples, models=MODELS, seed=seed)
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(to_json(model)).encode())
        return model

    def measure(self, config: Cell) -> Cell:
        """Every method on one set and budget."""
        name, budget = config["set"], config["budget"]
        pools = self.pools(name)
        fold = self.fold(name)
        rows: Rows = {}
        equal: dict[str, list[float]] = {key: [] for key in ("greedy", "set_search", "annealing")}
        proved: list[dict[str, float]] = []
        tuned: dict[str, list[list[dict[str, float]]]] = {
            key: [[] for _ in grid] for key, grid in GRIDS.items()
        }
        zero_shot = self.model(self.family(name))
        drawn = np.random.default_rng(0).permutation(len(pools))[: config["questions"]]
        for number, index in enumerate(sorted(drawn.tolist())):
            pool, part = pools[index], int(fold[index])
            problem, seconds = _timed(partial(pool.problem, budget, self.model(part)))
            make = partial(pool.problem, budget, features=problem.features)
            for method, selector in UNTUNED.items():
                rows.setdefault(method, []).append(measured(pool, problem, selector, seconds))
            for method, grid in GRIDS.items():
                for each, selector in zip(tuned[method], grid, strict=True):
                    each.append(measured(pool, problem, selector, seconds))
            stopping = make(self.model(part), cost_weight=STOP_COST)
            rows.setdefault("select, stops", []).append(measured(pool, stopping, find, seconds))
            away = make(zero_shot)
            rows.setdefault("select (zero-shot)", []).append(measured(pool, away, find, seconds))
            rows.setdefault("oracle", []).append(measured(pool, problem, partial(oracle, pool)))
            _compare(problem, equal)
            if number < config["exact"]:
                proved.append(_proved(problem, config["time_limit"]))
        for method, found in tuned.items():
            rows[method] = _two_fold(found)
        reference = [row["recall"] for row in rows["select"]]
        return {
            "questions": len(drawn),
            "pool_recall": float(np.mean([recall(p.question, p.passages) for p in pools])),
            "methods": {method: summary(found) for method, found in rows.items()},
            "select_less": {
                method: bootstrap(reference, [row["recall"] for row in found])
                for method, found in rows.items()
                if method != "select"
            },
            "equal_evaluations": {
                method: counted(equal[method], equal["greedy"], tolerance=1e-6)
                for method in ("set_search", "annealing")
            },
            "exact": {key: float(np.mean([each[key] for each in proved])) for key in proved[0]}
            if proved
            else {},
        }


def _timed(make: Callable[[], ChunkSelectionProblem]) -> tuple[ChunkSelectionProblem, float]:
    started = time.perf_counter()
    return make(), time.perf_counter() - started


def _compare(problem: ChunkSelectionProblem, equal: dict[str, list[float]]) -> None:
    """Greedy on the value, and what two searches reach with as many evaluations."""
    greedy = rankers.value_greedy(problem)
    evaluations = max(int(greedy.detail["evaluations"]), 1)
    equal["greedy"].append(greedy.objective)
    found = set_search(problem, evaluations=evaluations)
    equal["set_search"].append(found.objective)
    annealed = IMPROVE(problem, time_limit=0.0, seed=0, moves=evaluations)
    equal["annealing"].append(annealed.objective)


def _proved(problem: ChunkSelectionProblem, time_limit: float) -> dict[str, float]:
    """How far greedy and `select` are from what CP-SAT finds and proves of the same value."""
    exact = EXACT.solve(problem, time_limit=time_limit, seed=0)
    value = find(problem)
    greedy = rankers.value_greedy(problem)
    best = min(exact.objective, value.objective)
    return {
        "proved": float(exact.proved_optimal),
        "greedy_gap": greedy.objective / best - 1,
        "select_gap": value.objective / best - 1,
        "bound_gap": 1 - (exact.bound or 0.0) / best,
        "seconds": exact.wall_s,
    }


def _two_fold(found: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    """Each question with the configuration that has the best mean recall on the other half."""
    recalls = np.array([[row["recall"] for row in each] for each in found])
    half = folds(recalls.shape[1], 2, seed=1)
    best = [int(np.argmax(recalls[:, half != part].mean(axis=1))) for part in (0, 1)]
    return [found[best[part]][i] for i, part in enumerate(half.tolist())]


ORDER = (
    *("dense_fill", "hybrid_fill", "mmr", "mmr*", "dpp*", "knapsack*", "submodular*", "adagres"),
    *("bridge_greedy*", "corag", "value_greedy", "beam", "set_search", "select"),
    *("select (zero-shot)", "select, stops", "oracle"),
)


SHORT = (
    *("dense_fill", "hybrid_fill", "dpp*", "bridge_greedy*"),
    *("select", "select (zero-shot)", "oracle"),
)


def short_table(results: Results) -> str:
    """The README's rows of `table`, and search against greedy."""
    return "\n\n".join(
        [
            table(results, SHORT),
            "Wins / ties / losses against greedy on the same value at equal evaluations:",
            search_table(results),
        ]
    )


def table(results: Results, methods: Sequence[str] = ORDER) -> str:
    """A row a method, a column a set and budget: recall (rate with all evidence).

    Windows cut evidence anywhere, so their sets have a column more: spans of which a part is there.
    """
    header = ["method"]
    rows = [[method] for method in methods]
    for cell in results.cells:
        config = cell["config"]
        name = f"{config['set']} @{config['budget']}"
        cut = config.get("cut")  # not in cells from before there were windows
        header += [name, f"{name}, spans"] if cut else [name]
        for row in rows:
            found = cell["result"]["methods"][row[0]]
            row.append(f"{found['recall']:.3f} ({found['all_gold']:.2f})")
            if cut:
                row.append(f"{found['touched']:.3f}")
    return markdown_table(header, rows)


def search_table(results: Results) -> str:
    """Wins / ties / losses of searches against greedy at equal evaluations of the same value, and
    how far greedy is from the best of all and CP-SAT, where that was asked.
    """
    rows = []
    for cell in results.cells:
        config, result = cell["config"], cell["result"]
        equal, exact = result["equal_evaluations"], result["exact"]
        rows.append(
            [
                f"{config['set']} @{config['budget']}",
                *(
                    f"{equal[m]['wins']} / {equal[m]['ties']} / {equal[m]['losses']}"
                    for m in ("set_search", "annealing")
                ),
                *(
                    f"{exact[k]:.2%}" if exact else "-"
                    for k in ("greedy_gap", "select_gap", "proved")
                ),
            ]
        )
    header = ["set", "set search", "annealing", "greedy over best", "select over best", "proved"]
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """All tables."""
    parts = ["# Chunk selection", "Recall (rate with all of the evidence).", table(results)]
    for title, method, keys in (
        (
            "What `select` costs and how its context reads, with and without stopping",
            ("select", "select, stops", "hybrid_fill"),
            ("token_f1", "answer", "ndcg", "tokens", "evaluations", "ms"),
        ),
    ):
        rows = []
        for cell, name in itertools.product(results.cells, method):
            found = cell["result"]["methods"][name]
            config = cell["config"]
            rows.append(
                [f"{config['set']} @{config['budget']}", name]
                + [f"{found[k]:.3f}" if found[k] < 1 else f"{found[k]:,.1f}" for k in keys]
            )
        parts += [f"## {title}", markdown_table(["set", "method", *keys], rows)]
    rows = []
    for cell in results.cells:
        config, result = cell["config"], cell["result"]
        less = result["select_less"]
        methods = result["methods"]
        others = [m for m in ORDER if m in rankers_of(methods)]
        best = max(others, key=lambda m: methods[m]["recall"])
        rows.append(
            [
                f"{config['set']} @{config['budget']}",
                *(_difference(less[m]) for m in ("hybrid_fill", "bridge_greedy*")),
                f"{best}: {_difference(less[best])}",
                _difference(less["select (zero-shot)"]),
            ]
        )
    header = ["set", "hybrid fill", "bridge greedy*", "best baseline", "zero-shot"]
    parts += [
        "## Recall of `select` less that of others: paired bootstrap, 95 %",
        markdown_table(header, rows),
    ]
    parts += [
        "## Search against greedy on the same value, equal evaluations: wins / ties / losses",
        search_table(results),
    ]
    return "\n\n".join(parts)


def rankers_of(methods: dict[str, Any]) -> list[str]:
    """Those that use no learned value."""
    learned = ("select", "oracle", "value_greedy", "beam", "set_search", "corag")
    return [m for m in methods if not m.startswith(learned)]


def _difference(found: dict[str, float]) -> str:
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


if __name__ == "__main__":
    sys.exit(run(main))
