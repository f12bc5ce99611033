"""Tree search against a scorer of sets: CORAG's as published, and a search over sets.

The scorer stands for what is dear: a reranker's score of the query with all chosen chunks, or the
learned value. Each evaluation counts; what was scored once is never scored again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from baselines.chunk_selection.belief import Belief
from baselines.chunk_selection.heuristics import BatchLoss
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem, ranked
from games.chunk_selection.solution import Selection, objective

Floats = npt.NDArray[np.float64]
# Ordered sets of candidates to scores, higher is better; what comes one at a time is kept where
# a later one fails.
ScoreSets = Callable[[Sequence[tuple[int, ...]]], Iterable[float]]

CORAG_EXPLORATION, CORAG_COST = 2.4, 0.1  # the paper's settings
CORAG_ITERATIONS = 10
EXPLORATION = 1.0
BATCH = 4  # sets scored before the scores are looked at
WIDTH = 8  # additions that are scored when a set is expanded
TREE_EXPLORATION = 0.1  # in units of the spread of scores
DEFAULT_EVALUATIONS = 400


class EndedError(Exception):
    """No more evaluations: the cap is reached, or the scorer failed."""


@dataclass
class Scored:
    """A scorer with its memory, its cap and the best set so far.

    Attributes:
        score: the scorer.
        cap: evaluations that it may make.
        ordered: whether the order of a set counts.
        prices: f64[N] of the candidates, taken off the score.
        fault: why it had to end, None unless the scorer failed.
        best: the best set so far, `best_score` its score.
        curve: (evaluations, best score) at each improvement.
    """

    score: ScoreSets
    cap: int
    ordered: bool = False
    prices: Floats | None = None
    known: dict[tuple[int, ...], float] = field(default_factory=dict)
    fault: str | None = None
    best: tuple[int, ...] = ()
    best_score: float = -math.inf
    evaluations: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def key(self, order: tuple[int, ...]) -> tuple[int, ...]:
        """Equal for what has the same score."""
        return order if self.ordered else tuple(sorted(order))

    def __call__(self, orders: Sequence[tuple[int, ...]]) -> list[float]:
        """The scores of sets that the budget allows; new ones in one call of the scorer.

        Raises:
            EndedError: the cap does not allow all of them, or the scorer failed; what the cap
                allows is scored and counts.
        """
        new: dict[tuple[int, ...], tuple[int, ...]] = {}
        for order in orders:
            key = self.key(order)
            if key not in self.known:
                new.setdefault(key, order)
        asked = list(new.items())[: max(self.cap - self.evaluations, 0)]
        if asked:
            self._ask(asked)
        if len(asked) < len(new):
            raise EndedError
        return [self.known[self.key(order)] for order in orders]

    def _ask(self, asked: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
        try:
            scores = self.score([order for _, order in asked])
            if isinstance(scores, Sized) and len(scores) != len(asked):
                self.fault = f"the reranker gave {len(scores)} scores for {len(asked)} sets"
            else:
                for (key, order), given in zip(asked, scores, strict=True):
                    score = float(given) - self._price(order)
                    if not math.isfinite(score):
                        self.fault = f"the reranker returned {score}"
                        break
                    self._keep(key, order, score)
        except Exception as error:  # a user's function may raise anything
            said = " ".join(str(error).split())
            self.fault = f"the reranker failed: {type(error).__name__} {said}".rstrip()
        if self.fault:
            self.fault += f", after {self.evaluations} evaluations"
            raise EndedError

    def _price(self, order: tuple[int, ...]) -> float:
        return 0.0 if self.prices is None else float(self.prices[list(order)].sum())

    def _keep(self, key: tuple[int, ...], order: tuple[int, ...], score: float) -> None:
        self.evaluations += 1
        self.known[key] = score
        if score > self.best_score:
            self.best, self.best_score = order, score
            self.curve.append((self.evaluations, score))


def value_scorer(problem: ChunkSelectionProblem) -> ScoreSets:
    """The learned value as a scorer: what the loss is below that of nothing."""
    losses = BatchLoss(problem)
    return lambda orders: list(1.0 + problem.all_weight - losses(orders))


def corag(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = math.inf,
    seed: int = 0,
    score: ScoreSets | None = None,
    iterations: int = CORAG_ITERATIONS,
    exploration: float = CORAG_EXPLORATION,
    cost: float = CORAG_COST,
    evaluations: int = 10**9,
) -> Result[Selection]:
    """CORAG's search as published (arXiv 2411.00744): UCT over ordered prefixes.

    An expansion adds every candidate that is left and scores all of the prefixes in one batch;
    UCB = V/N + C sqrt(ln N_parent / N) - cost * tokens / budget; the answer is the best prefix at
    any depth within the budget, which filters and does not end the game.
    """
    del seed  # nothing is random
    started = time.perf_counter()
    scored = Scored(score or value_scorer(problem), evaluations, ordered=True)
    children: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    total: dict[tuple[int, ...], float] = {(): 0.0}
    visits: dict[tuple[int, ...], int] = {(): 0}

    def used(order: tuple[int, ...]) -> int:
        return int(problem.tokens[list(order)].sum())

    def bound(child: tuple[int, ...], parent: tuple[int, ...]) -> float:
        if not visits[child]:
            return math.inf
        spread = math.sqrt(math.log(max(visits[parent], 1)) / visits[child])
        price = cost * used(child) / problem.budget
        return total[child] / visits[child] + exploration * spread - price

    with contextlib.suppress(EndedError, KeyboardInterrupt):
        for _ in range(iterations):
            if time.perf_counter() - started > time_limit:
                break
            path: list[tuple[int, ...]] = [()]
            while children.get(path[-1]):
                parent = path[-1]
                path.append(max(children[parent], key=lambda child: bound(child, parent)))
            leaf = path[-1]
            if leaf in children:  # nothing fits below it
                reward = scored.known.get(leaf, 0.0)
            else:
                left = problem.budget - used(leaf)
                grown = [
                    (*leaf, int(i))
                    for i in np.flatnonzero(problem.tokens <= left)
                    if int(i) not in leaf
                ]
                children[leaf] = grown
                for child in grown:
                    total[child], visits[child] = 0.0, 0
                scores = scored(grown)
                for child, value in zip(grown, scores, strict=True):
                    total[child], visits[child] = value, 1
                reward = max(scores, default=scored.known.get(leaf, 0.0))
            for node in path:
                visits[node] += 1
                total[node] += reward
    return _result("corag", problem, scored, started)


@dataclass
class _Node:
    """A set in the table: what was scored, its children and visits."""

    order: tuple[int, ...]
    score: float
    children: list[tuple[int, ...]] | None = None
    visits: int = 0
    best: float = -math.inf  # of what is below, itself included


def set_search(
    problem: ChunkSelectionProblem,
    *,
    time_limit: float = math.inf,
    seed: int = 0,
    score: ScoreSets | None = None,
    evaluations: int = DEFAULT_EVALUATIONS,
    exploration: float = EXPLORATION,
    cost: float = 0.0,
    width: int = WIDTH,
    ordered: bool = False,
    starts: Sequence[Sequence[int]] = (),
) -> Result[Selection]:
    """Search over sets by a scorer, a few sets at a time, in two ways.

    One scores sets that are best under hypotheses of the evidence, drawn by how well they explain
    the scores so far (`belief.py`). The other changes single chunks of the best set. Either goes on
    as long as it finds a better set, else it is the other's turn; so a scorer that the hypotheses
    explain is searched by them, and any other by changes. Where neither has a new set, a best-first
    tree search over sets with a transposition table looks for a better one.

    A set is one node of the tree whatever order it was reached in. An expansion scores its `width`
    most promising additions in one batch; a child is chosen by the best score below it and how
    rarely it was visited. Stopping is an action: a set competes with what is below it, so the
    answer may leave budget unused. A smaller cap ends the same search earlier.

    Args:
        time_limit: seconds.
        seed: of the draws.
        score: of sets; the learned value if None.
        evaluations: cap on scored sets.
        exploration: temperature of the draws: below 1 the likeliest hypotheses are drawn more
            often than they are likely, above 1 less often.
        cost: price of the whole budget, in units of the score.
        width: additions tried of a set, and exchanges of a chunk.
        ordered: the order counts for the scorer.
        starts: selections to score first, such as a heuristic's.
    """
    started = time.perf_counter()
    scored = Scored(
        score or value_scorer(problem),
        evaluations,
        ordered,
        prices=cost * problem.tokens / problem.budget,
    )
    deadline = started + time_limit
    with contextlib.suppress(EndedError, KeyboardInterrupt):
        scored([tuple(int(i) for i in each) for each in starts if len(each)])
        belief = Belief(problem)
        random = np.random.default_rng(seed)
        table: dict[tuple[int, ...], _Node] = {(): _Node((), 0.0)}
        closed: set[tuple[int, ...]] = set()
        told, drawing, without = 0, True, 0
        while time.perf_counter() < deadline:
            for order, value in list(scored.known.items())[told:]:
                belief.add(order, value)
            told, best = len(scored.known), scored.best_score
            # What no hypothesis has is worth a try by the value before the scores.
            worth = belief.expected() + 1e-3 * problem.marginals
            preferred = ranked(worth / np.sqrt(problem.tokens))
            if drawing:
                batch = _draws(problem, scored, belief, exploration, random)
            else:
                batch = single_changes(problem, scored, preferred, width)[:BATCH]
            scored(batch)
            without = 0 if batch else without + 1
            if without == 2:
                if () in closed:
                    break
                _grow(problem, scored, preferred, table, closed, deadline, width)
                drawing, without = False, 0
            elif scored.best_score <= best:
                drawing = not drawing
    return _result("set_search", problem, scored, started)


def _draws(
    problem: ChunkSelectionProblem,
    scored: Scored,
    belief: Belief,
    temperature: float,
    random: np.random.Generator,
) -> list[tuple[int, ...]]:
    """The best set by all hypotheses and the best by single ones, drawn, as far as they are new;
    none where less than half of a batch is.
    """
    place = np.argsort(ranked(problem.marginals))
    batch: dict[tuple[int, ...], None] = {}
    for tried in range(2 * BATCH):
        drawn = belief.draw(random, temperature) if tried else belief.best(belief.weights())
        # Likely evidence first, as `solution.arranged` has it.
        order = tuple(sorted(drawn, key=lambda i: place[i]))
        if order and scored.key(order) not in scored.known:
            batch[order] = None
        if len(batch) == BATCH:
            break
    return list(batch) if len(batch) >= BATCH / 2 else []


def single_changes(
    problem: ChunkSelectionProblem, scored: Scored, preferred: list[int], width: int = WIDTH
) -> list[tuple[int, ...]]:
    """New sets that are one change from the best: drops, additions, exchanges, and where the order
    counts another first chunk.

    Args:
        problem: the problem.
        scored: the scorer.
        preferred: candidates, the ones to try first in front.
        width: exchanges for each chunk; half of the additions.
    """
    best = scored.best
    left = problem.budget - int(problem.tokens[list(best)].sum())
    outside = [i for i in preferred if i not in best]
    trials = [tuple(x for x in best if x != out) for out in best if len(best) > 1]
    trials += [(*best, i) for i in outside if problem.tokens[i] <= left][: 2 * width]
    for out in sorted(best, key=preferred.index, reverse=True):
        room = left + int(problem.tokens[out])
        fitting = [i for i in outside if problem.tokens[i] <= room][:width]
        trials += [tuple(i if x == out else x for x in best) for i in fitting]
    if scored.ordered:
        trials += [(first, *(x for x in best if x != first)) for first in best[1:]]
    return [trial for trial in trials if scored.key(trial) not in scored.known]


def _grow(
    problem: ChunkSelectionProblem,
    scored: Scored,
    preferred: list[int],
    table: dict[tuple[int, ...], _Node],
    closed: set[tuple[int, ...]],
    deadline: float,
    width: int,
) -> None:
    """Grows the tree until a set is better than all before, or nothing is left to grow."""
    value = scored.best_score
    while scored.best_score <= value and () not in closed and time.perf_counter() < deadline:
        path: list[tuple[int, ...]] = [()]
        while (children := table[path[-1]].children) is not None:
            open_ = [child for child in children if child not in closed]
            if not open_:
                break
            parent = table[path[-1]]
            spread = max(
                max(table[c].best for c in children) - min(table[c].best for c in children), 1e-6
            )
            path.append(
                max(
                    open_,
                    key=lambda c: (
                        table[c].best
                        + TREE_EXPLORATION
                        * spread
                        * math.sqrt(parent.visits + 1)
                        / (table[c].visits + 1)
                    ),
                )
            )
        node = table[path[-1]]
        if node.children is None:
            _expand(problem, scored, preferred, table, node, width)
        elif all(child in closed for child in node.children):
            closed.add(path[-1])
        for key in path:
            table[key].visits += 1
        for key in reversed(path):
            below = table[key].children or []
            table[key].best = max([table[key].score, *(table[child].best for child in below)])
            if table[key].children is not None and all(child in closed for child in below):
                closed.add(key)


def _expand(
    problem: ChunkSelectionProblem,
    scored: Scored,
    preferred: list[int],
    table: dict[tuple[int, ...], _Node],
    node: _Node,
    width: int,
) -> None:
    left = problem.budget - int(problem.tokens[list(node.order)].sum())
    # The first chunk decides most, so all of the root's promising children are scored.
    most = width if node.order else 2 * width
    grown = [
        (*node.order, i) for i in preferred if i not in node.order and problem.tokens[i] <= left
    ][:most]
    node.children = []
    if not grown:
        return
    for order, value in zip(grown, scored(grown), strict=True):
        key = scored.key(order)
        if key not in table:
            table[key] = _Node(order, value, best=value)
        node.children.append(key)


def _result(
    method: str, problem: ChunkSelectionProblem, scored: Scored, started: float
) -> Result[Selection]:
    selection = Selection(scored.best)
    return Result(
        method=method,
        solution=selection,
        objective=objective(problem, selection),
        wall_s=time.perf_counter() - started,
        detail={
            "evaluations": scored.evaluations,
            "score": scored.best_score if scored.best else None,
            "score_curve": scored.curve,
            **({"fault": scored.fault} if scored.fault else {}),
        },
    )
