"""Chunk selection with a reranker: what searches make of the same number of its evaluations.

    python -m experiments.bench_chunk_reranker NAME=PATH[+PATH...][:CUT]@BUDGETS ...

The reranker is one of the judges of `experiments.chunk_judges`. All but CORAG's search, which is as
published, begin with the set of the learned value, which is cross-fitted.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from baselines.chunk_selection.tree_search import (
    BATCH,
    EndedError,
    Scored,
    ScoreSets,
    corag,
    set_search,
    single_changes,
)
from compiler_rl.select import find
from experiments.bench_chunk_selection import Bench, configurations, opened
from experiments.chunk_judges import by_dense_evidence, by_embedding, by_evidence, evidence
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from experiments.retrieval_pools import Pool
from games.chunk_selection.problem import ChunkSelectionProblem, ranked

NAME = "chunk_reranker"
CAPS = (10, 25, 50, 100, 200)
HOT, COLD = 0.3, 0.02  # annealing, in standard deviations of the scores so far
ALIKE = 1e-9

Judge = Callable[[Pool, ChunkSelectionProblem, Sequence[int]], ScoreSets]
JUDGES: dict[str, Judge] = {
    "evidence": by_evidence,
    "evidence, diluted": by_dense_evidence,
    "embedding": by_embedding,
}
# (problem, judge, cap, first set, seed) -> (best set, its score)
Found = tuple[tuple[int, ...], float]
Searcher = Callable[[ChunkSelectionProblem, ScoreSets, int, tuple[int, ...], int], Found]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / f"{NAME}.json", time_limit=0.0)
    options.add_argument("sets", nargs="*", metavar="NAME=PATH@BUDGETS")
    options.add_argument(
        "--questions", type=int, default=100, help="most of a set; default: %(default)s"
    )
    options.add_argument("--models", type=Path, help="folder to keep the trained values in")
    chosen = options.parse_args(arguments)
    results, sets, bench = opened(chosen, NAME)
    for config in configurations(sets, questions=chosen.questions):
        results.measure(config, partial(_measure, bench, config))
    results.write_report(report(results))


def by_corag(
    problem: ChunkSelectionProblem, judge: ScoreSets, cap: int, first: tuple[int, ...], seed: int
) -> Found:
    """CORAG's search as published, for as many evaluations."""
    del first, seed
    result = corag(problem, score=judge, evaluations=cap, iterations=cap)
    return result.solution.order, float(result.detail["score"])


def by_changes(
    problem: ChunkSelectionProblem, judge: ScoreSets, cap: int, first: tuple[int, ...], seed: int
) -> Found:
    """Hill climbing: drops, additions and exchanges, the value's favourites first."""
    del seed
    scored = Scored(judge, cap)
    with contextlib.suppress(EndedError):
        scored([first])
        rate = problem.marginals / np.sqrt(problem.tokens)
        while trials := single_changes(problem, scored, ranked(rate)):
            scored(trials[:BATCH])
    return scored.best, scored.best_score


def by_annealing(
    problem: ChunkSelectionProblem, judge: ScoreSets, cap: int, first: tuple[int, ...], seed: int
) -> Found:
    """Metropolis over sets: a candidate, drawn by the value, comes in and others go at random until
    the budget holds; or one goes.
    """
    scored = Scored(judge, cap)
    random = np.random.default_rng(seed)
    rate = problem.marginals / np.sqrt(problem.tokens) + 1e-9
    chance = 0.9 * rate / rate.sum() + 0.1 / problem.size
    with contextlib.suppress(EndedError):
        now, value = list(first), scored([first])[0]
        for _ in range(20 * cap):  # sets that were scored before are free
            new = list(now)
            added = int(random.choice(problem.size, p=chance))
            if added in new:
                new.remove(added)
            elif problem.tokens[added] <= problem.budget:
                random.shuffle(new)
                new.append(added)
                while problem.tokens[new].sum() > problem.budget:
                    new.pop(0)
            if not new:
                continue
            after = scored([tuple(new)])[0]
            spread = max(float(np.std(list(scored.known.values()))), 1e-9)
            heat = spread * HOT * (COLD / HOT) ** (scored.evaluations / cap)
            if after >= value or random.random() < np.exp((after - value) / heat):
                now, value = new, after
    return scored.best, scored.best_score


def by_set_search(
    problem: ChunkSelectionProblem, judge: ScoreSets, cap: int, first: tuple[int, ...], seed: int
) -> Found:
    """The package's search."""
    result = set_search(problem, score=judge, evaluations=cap, starts=[first], seed=seed)
    return result.solution.order, float(result.detail["score"])


METHODS: dict[str, Searcher] = {
    "CORAG": by_corag,
    "hill climbing": by_changes,
    "annealing": by_annealing,
    "set search": by_set_search,
}
OWN = "set search"


def _measure(bench: Bench, config: Cell) -> Cell:
    """For each judge, method and cap: points of evidence, and the comparison of scores."""
    name, budget = config["set"], config["budget"]
    pools, fold = bench.pools(name), bench.fold(name)
    drawn = np.random.default_rng(0).permutation(len(pools))[: config["questions"]]
    scores, points = _empty(), _empty()
    start: list[float] = []
    for number in sorted(drawn.tolist()):
        pool = pools[number]
        problem = pool.problem(budget, bench.model(int(fold[number])), features=pool.features)
        first, held = find(problem).solution.order, evidence(pool, problem)
        start.append(100.0 * held(first))
        for judge, make in JUDGES.items():
            judged = make(pool, problem, [number])
            for method, search in METHODS.items():
                for cap in CAPS:
                    order, score = search(problem, judged, cap, first, number)
                    scores[judge][method][cap].append(score)
                    points[judge][method][cap].append(100.0 * held(order))
    return {
        "questions": len(start),
        "start": float(np.mean(start)),
        "judges": {
            judge: {
                str(cap): {
                    "evidence": {m: float(np.mean(points[judge][m][cap])) for m in METHODS},
                    "less": {
                        m: _counted(scores[judge][OWN][cap], scores[judge][m][cap])
                        for m in METHODS
                        if m != OWN
                    },
                }
                for cap in CAPS
            }
            for judge in JUDGES
        },
    }


def _empty() -> dict[str, dict[str, dict[int, list[float]]]]:
    return {judge: {method: {cap: [] for cap in CAPS} for method in METHODS} for judge in JUDGES}


def _counted(own: Sequence[float], other: Sequence[float]) -> list[int]:
    """Wins, ties and losses, higher scores being better."""
    less = np.array(own) - np.array(other)
    return [int(n.sum()) for n in (less > ALIKE, np.abs(less) <= ALIKE, less < -ALIKE)]


def table(results: Results) -> str:
    """A row for each judge and cap, all sets together."""
    others = [method for method in METHODS if method != OWN]
    header = ["judge", "evaluations", *(f"{method}, evidence" for method in METHODS)]
    header += [f"against {method}" for method in others]
    cells = [cell["result"] for cell in results.cells]
    rows = []
    for judge in JUDGES:
        for cap in map(str, CAPS):
            found = [cell["judges"][judge][cap] for cell in cells]
            means = [np.mean([each["evidence"][method] for each in found]) for method in METHODS]
            counts = [np.sum([each["less"][method] for each in found], axis=0) for method in others]
            rows.append(
                [
                    judge,
                    cap,
                    *(f"{mean:.1f}" for mean in means),
                    *(" / ".join(str(n) for n in count) for count in counts),
                ]
            )
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """The table, and what it begins with."""
    start = np.mean([cell["result"]["start"] for cell in results.cells])
    return "\n\n".join(
        [
            "# What a search makes of a reranker's evaluations",
            f"Evidence, in points of 100: {start:.1f} before any evaluation. Against the others:"
            " wins / ties / losses of set search by the judge's own score.",
            table(results),
        ]
    )


if __name__ == "__main__":
    sys.exit(run(main))
