"""`select()`: the chunks to put into a context, in order, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from baselines.chunk_selection.configuration import EVALUATION_PRICE, configure
from baselines.chunk_selection.heuristics import beam, value_greedy
from baselines.chunk_selection.local_search import local_search
from baselines.chunk_selection.tree_search import ScoreSets, set_search
from compiler_rl.solve import solve
from games.base import Result
from games.chunk_selection import explain
from games.chunk_selection.chunk import Chunk, CountTokens, is_count, make_chunks
from games.chunk_selection.explain import Reason
from games.chunk_selection.features import make_features
from games.chunk_selection.problem import (
    ALL_WEIGHT,
    ChunkSelectionProblem,
    check_budget,
    make_problem,
    ranked,
)
from games.chunk_selection.solution import Selection, arranged, lower_bound, worth
from games.chunk_selection.validator import validate
from games.chunk_selection.value import EvidenceModel
from hlo_frontend.errors import InputError

CANDIDATES = 64  # more than that, and the retriever's best are looked at


class Reranker(Protocol):
    """What may judge whole contexts: higher is better. `score_batch`, where there is one, gets
    many contexts at once: `score_batch(query, [[chunk, ...], ...]) -> [float, ...]`.
    """

    def score(self, query: str, chunks: Sequence[Chunk]) -> float:
        """The score of the chunks, in their order, as the context of the query."""


@dataclass(frozen=True)
class Trace:
    """How a selection came about.

    Attributes:
        method: who found it.
        taken: a reason for each chunk, in the order of the context.
        nearly_taken: the best of what was left out.
        budget, used, unused: tokens.
        cost_weight: price of the whole budget.
        recall: expected share of the evidence that is in the context.
        all_found: probability that all of it is.
        loss, bound: the objective, and what no selection is below.
        evaluations: of the value, or of the reranker.
        cap, exploration: of the reranker's search, see `set_search`; None without one.
        seconds: for everything.
        methods: the loss that each method reached.
        notes: what the user should know: candidates left out, a reranker that failed.
    """

    method: str
    taken: tuple[Reason, ...]
    nearly_taken: tuple[Reason, ...]
    budget: int
    used: int
    unused: int
    cost_weight: float
    recall: float
    all_found: float
    loss: float
    bound: float
    evaluations: int
    cap: int | None
    exploration: float | None
    seconds: float
    methods: Mapping[str, float]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As written."""
        return {
            **self.__dict__,
            "taken": [reason.to_json() for reason in self.taken],
            "nearly_taken": [reason.to_json() for reason in self.nearly_taken],
            "methods": dict(self.methods),
            "notes": list(self.notes),
        }


class Selected(NamedTuple):
    """The chunks in the order of the context, and the trace."""

    chunks: tuple[Chunk, ...]
    trace: Trace


def select(
    query: str,
    chunks: Iterable[str | Chunk | Mapping[str, Any]],
    budget: int,
    *,
    tokenizer: CountTokens | None = None,
    query_embedding: npt.ArrayLike | None = None,
    reranker: Reranker | Callable[[str, Sequence[Chunk]], float] | None = None,
    evaluations: int | None = None,
    evaluation_price: float = EVALUATION_PRICE,
    position_weights: Sequence[float] | None = None,
    all_weight: float = ALL_WEIGHT,
    cost_weight: float | None = 0.0,
    model: EvidenceModel | None = None,
    seed: int = 0,
    moves: int | None = None,
    time_limit: float | None = None,
) -> Selected:
    """Chooses and orders chunks for a query within a token budget.

    Args:
        query: the question.
        chunks: texts, `Chunk`s or mappings with `id` and `text` and optionally `score`,
            `embedding`, `n_tokens`, `title`, `metadata`.
        budget: tokens.
        tokenizer: number of tokens of a text, for chunks without `n_tokens`.
        query_embedding: by the model of the chunks' embeddings, if they have any.
        reranker: judges whole contexts; the search is then for its score, from the learned value's
            choice, and never ends below it by that score.
        evaluations: cap on contexts that the reranker sees; by the configuration agent if None,
            from none to 160.
        evaluation_price: what a context that the reranker sees has to bring for the agent, in
            percent of the evidence: 0.02 for a small model, 0.2 for one that takes a second.
        position_weights: how well each position of the context is read; the first is best if None.
        all_weight: worth of having all of the evidence, against that of each share of it.
        cost_weight: price of the whole budget; above 0 a chunk has to be worth its tokens. None
            leaves it to the configuration agent, which never leaves everything out.
        model: the learned value, by `load_model` of `games.chunk_selection.value` from a file that
            `compiler-rl calibrate` wrote; the one of the package if None.
        seed: the same input, seed and moves give the same answer.
        moves: of local search; by the configuration agent if None.
        time_limit: seconds for the whole portfolio of `solve()` instead.

    Raises:
        InputError: see `make_problem`; it is one line.
    """
    started = time.perf_counter()
    for name, number, least in (("evaluations", evaluations, 1), ("moves", moves, 0)):
        if number is not None and not is_count(number, least):
            raise InputError(f"{name} {number!r}: expected a whole number, at least {least}")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time_limit {time_limit}: expected seconds above 0")
    if not (np.isfinite(evaluation_price) and evaluation_price >= 0):
        raise InputError(f"evaluation_price {evaluation_price}: expected a number, at least 0")
    check_budget(budget)
    made = make_chunks(chunks, tokenizer)
    notes: list[str] = []
    problem = problem_of(
        query,
        made,
        budget,
        query_embedding=query_embedding,
        all_weight=all_weight,
        cost_weight=cost_weight or 0.0,
        model=model,
        notes=notes,
    )
    if cost_weight is None:
        settings = configure(problem, value_greedy(problem))
        priced = replace(problem, cost_weight=settings.cost_weight)
        # With few chunks the value is too unsure of all of them, and a price may leave nothing.
        problem = priced if value_greedy(priced).solution.order else problem
    outcome = find(problem, seed=seed, moves=moves, time_limit=time_limit)
    selection, method = outcome.solution, outcome.method
    spent = int(outcome.detail["evaluations"])
    selection = arranged(problem, selection, position_weights)
    cap = exploration = None
    if reranker is not None:
        settings = configure(
            problem, outcome, evaluation_price=evaluation_price, evaluations=evaluations
        )
        cap, exploration = settings.evaluations, settings.exploration
        found = set_search(
            problem,
            seed=seed,
            score=batched(reranker, problem),
            evaluations=cap,
            ordered=True,
            starts=[selection.order],
            cost=problem.cost_weight,
            exploration=exploration,
            time_limit=np.inf if time_limit is None else time_limit,
        )
        spent = int(found.detail["evaluations"])
        if not cap:
            notes.append("the reranker was not asked: no evaluation is expected to be worth it")
        if "fault" in found.detail:
            notes.append(f"{found.detail['fault']}; this is the best context until then")
        method = f"{method}, not scored by the reranker"
        if found.solution.order:
            selection, method = found.solution, "set_search with the reranker"
    if faults := validate(problem, selection):
        raise RuntimeError(f"the selection is not valid: {faults[0]}")
    value = worth(problem, selection.order)
    used = selection.tokens(problem)
    trace = Trace(
        method=method,
        taken=explain.taken(problem, selection),
        nearly_taken=explain.nearly_taken(problem, selection),
        budget=problem.budget,
        used=used,
        unused=problem.budget - used,
        cost_weight=problem.cost_weight,
        recall=value.recall,
        all_found=value.all_found,
        loss=value.loss,
        bound=outcome.bound if outcome.bound is not None else lower_bound(problem),
        evaluations=spent,
        cap=cap,
        exploration=exploration,
        seconds=time.perf_counter() - started,
        methods=outcome.detail["losses"],
        notes=tuple(notes),
    )
    return Selected(tuple(problem.chunks[i] for i in selection.order), trace)


def problem_of(
    query: str,
    chunks: Sequence[Chunk],
    budget: int,
    *,
    query_embedding: npt.ArrayLike | None,
    all_weight: float = ALL_WEIGHT,
    cost_weight: float = 0.0,
    model: EvidenceModel | None = None,
    notes: list[str],
) -> ChunkSelectionProblem:
    """The problem of the best CANDIDATES chunks; what is left out is said in `notes`."""
    kept = list(chunks)
    if len(kept) > CANDIDATES:
        if all(chunk.score is not None for chunk in kept):
            scores = np.array([chunk.score for chunk in kept])
        else:
            kept_plain = [replace(c, embedding=None) for c in kept]
            scores = make_features(query, kept_plain).score
        best = sorted(ranked(scores)[:CANDIDATES])
        notes.append(f"{len(kept) - CANDIDATES} of {len(kept)} chunks with low scores left out")
        kept = [kept[i] for i in best]
    too_large = sum((chunk.n_tokens or 0) > budget for chunk in kept)
    if 0 < too_large < len(kept):
        notes.append(f"{too_large} chunks are larger than the budget")
    return make_problem(
        query,
        kept,
        budget,
        query_embedding=query_embedding,
        all_weight=all_weight,
        cost_weight=cost_weight,
        model=model,
    )


def find(
    problem: ChunkSelectionProblem,
    *,
    seed: int = 0,
    moves: int | None = None,
    time_limit: float | None = None,
) -> Result[Selection]:
    """Greedy and a beam on the value and local search from there, or `solve()` with a time limit.

    Heuristics that do not see the value are not asked: where one of them has a lower loss, it is by
    chance, and it held less of the evidence in measurements.

    `detail` has `losses` of each method and `evaluations` of the value.
    """
    if time_limit is not None:
        result = solve(problem, time_limit=time_limit, seed=seed, workers=1)
        losses = {name: row["objective"] for name, row in result.detail["methods"].items()}
        return replace(result, detail={**result.detail, "losses": losses, "evaluations": 0})

    results = [value_greedy(problem), beam(problem)]
    best = min(results, key=lambda result: result.objective)
    if moves is None:
        moves = configure(problem, best).moves
    if moves > 0:
        results.append(
            local_search(problem, time_limit=np.inf, seed=seed, start=best.solution, moves=moves)
        )
        best = min(results, key=lambda result: result.objective)
    return replace(
        best,
        detail={
            "losses": {each.method: each.objective for each in results},
            "evaluations": sum(int(each.detail["evaluations"]) for each in results),
        },
    )


def batched(
    reranker: Reranker | Callable[[str, Sequence[Chunk]], float], problem: ChunkSelectionProblem
) -> ScoreSets:
    """The reranker as a scorer of sets of indices, in batches where it can."""
    many = getattr(reranker, "score_batch", None)
    one: Any = getattr(reranker, "score", reranker)
    if many is None and not callable(one):
        raise InputError(
            f"reranker {type(reranker).__name__}: expected a function or an object with"
            " score(query, chunks)"
        )

    def score(orders: Sequence[tuple[int, ...]]) -> Iterable[float]:
        contexts = [[problem.chunks[i] for i in order] for order in orders]
        if many is not None:
            scores: Iterable[float] = many(problem.query, contexts)
            return scores
        return (one(problem.query, context) for context in contexts)

    return score
