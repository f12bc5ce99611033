"""The configuration agent: how much search a query is worth, after CORAG's (arXiv 2411.00744).

For each setting small networks predict, from a few numbers of the problem, what each choice would
bring; the agent takes the one that brings most after its price. They are trained on what each
choice brought on training questions (`python -m experiments.train_chunk_configuration`). What a
reranker's search may find is told best by the learned value itself: what is missed under each of
its hypotheses, and under how many of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.chunk_selection.belief import Belief
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, lower_bound
from games.chunk_selection.value import NOBODY

Floats = npt.NDArray[np.float64]

SCHEMA = "compiler-rl/configuration-agent/3"
POINTS = 100.0  # of a selection that has all of the evidence
MOVES = (0, 300, 1000, 3000)
MOVES_PRICE = 1e-4  # of one move, in points
EVALUATIONS = (0, 5, 10, 20, 40, 80, 160)
EXPLORATION = (0.5, 1.0, 2.0)
EVALUATION_PRICE = 0.02  # of one context that a reranker sees, in points: a few milliseconds
COST_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
# No evaluation needs no temperature.
SEARCHES = ((0, EXPLORATION[0]), *itertools.product(EVALUATIONS[1:], EXPLORATION))
# Moves or evaluations of each choice of a setting.
SPENT: dict[str, Floats] = {
    "moves": np.array(MOVES, dtype=np.float64),
    "search": np.array([count for count, _ in SEARCHES], dtype=np.float64),
    "cost_weight": np.zeros(len(COST_WEIGHTS)),
}

_RANKS = (1, 4, 16, 64, 256)  # hypotheses, the most promising first
OBSERVED = 9 + len(_RANKS)
# What the network of a setting sees. The shape of the value's probabilities tells data sets apart:
# an agent that sees it chooses worse for a reranker on a set that it has not learned from.
SEES = {
    "moves": slice(0, 8),
    "search": slice(5, OBSERVED),
    "cost_weight": slice(0, 8),
}
_FAR = 4.0  # standard deviations; further out nothing was learned


@dataclass(frozen=True)
class Configuration:
    """How much search a query is worth.

    Attributes:
        moves: of local search on the learned value.
        evaluations: of a reranker, by set search.
        exploration: of that search.
        cost_weight: price of the whole budget.
    """

    moves: int
    evaluations: int
    exploration: float
    cost_weight: float


@dataclass(frozen=True)
class Gains:
    """K networks of one hidden layer of tanh for one setting with V choices; their mean counts.

    `centre`, `spread` f64[F] of what they see; `inner` f64[K, F, hidden], `outer` f64[K, hidden,
    V], `direct` f64[K, F, V], `bias` f64[K, V], in points.
    """

    centre: Floats
    spread: Floats
    inner: Floats
    outer: Floats
    direct: Floats
    bias: Floats

    def __call__(self, seen: Floats) -> Floats:
        """f64[..., V] for f64[..., F]: what each choice brings, but for what all bring."""
        scaled = np.clip((seen - self.centre) / self.spread, -_FAR, _FAR)
        each = [
            np.tanh(scaled @ inner) @ outer + scaled @ direct + bias
            for inner, outer, direct, bias in zip(
                self.inner, self.outer, self.direct, self.bias, strict=True
            )
        ]
        return np.asarray(np.mean(each, axis=0))


def observe(problem: ChunkSelectionProblem, found: Result[Selection]) -> Floats:
    """f64[OBSERVED] of a problem and the selection that search would start from.

    Its gap to the bound, how sure the value is, how much of it needs several chunks, how much they
    repeat each other, the likeliest candidate; how many the budget holds, how many there are, what
    the selection misses; what the most promising hypotheses would bring, and of how many chunks the
    selection is.
    """
    chance = problem.probability
    sure = -float(chance @ np.log(np.maximum(chance, 1e-12))) / np.log(max(len(chance), 2))
    several = float(chance[(problem.members != NOBODY).sum(axis=1) > 1].sum())
    held = problem.budget / float(problem.tokens.mean())
    repeated = float(problem.overlap.sum() / problem.size - 1.0)
    loss = found.objective
    promised = np.sort(Belief(problem).promised(found.solution.order))[::-1]
    points = POINTS * promised / (1.0 + problem.all_weight)
    brought = [np.log1p(points[:rank].sum()) for rank in _RANKS]
    return np.array(
        [
            (loss - lower_bound(problem)) / max(loss, 1e-9),
            sure,
            several,
            np.tanh(repeated),
            float(problem.marginals.max()),
            np.log(held),
            np.log(problem.size) - 4.0,
            loss,
            *brought,
            np.log1p(len(found.solution.order)),
        ]
    )


def price_of(setting: str, evaluation_price: float) -> float:
    """What one move or evaluation costs, in points."""
    return {"moves": MOVES_PRICE, "search": evaluation_price}.get(setting, 0.0)


def configure(
    problem: ChunkSelectionProblem,
    found: Result[Selection],
    *,
    evaluation_price: float = EVALUATION_PRICE,
    evaluations: int | None = None,
) -> Configuration:
    """The settings for a problem.

    Args:
        problem: the problem.
        found: what greedy or a beam found.
        evaluation_price: what an evaluation of a reranker has to bring, in points of 100 for all of
            the evidence.
        evaluations: their number, where it is not to be chosen.
    """
    seen = observe(problem, found)
    best = {}
    for name, gains in agent().items():
        cost = price_of(name, evaluation_price) * SPENT[name]
        if name == "search" and evaluations is not None:
            # The exploration that is best for about so many.
            near = np.abs(np.log1p(SPENT[name]) - np.log1p(evaluations))
            cost = np.where(near > near.min(), np.inf, 0.0)
        best[name] = int(np.argmax(gains(seen[SEES[name]]) - cost))
    count, exploration = SEARCHES[best["search"]]
    return Configuration(
        moves=MOVES[best["moves"]],
        evaluations=count if evaluations is None else evaluations,
        exploration=exploration,
        cost_weight=COST_WEIGHTS[best["cost_weight"]],
    )


@cache
def agent() -> Mapping[str, Gains]:
    """The networks of each setting, as they come with the package."""
    text = files("baselines.chunk_selection").joinpath("configuration.json").read_text()
    return from_json(json.loads(text))


def to_json(agent: Mapping[str, Gains]) -> dict[str, Any]:
    """As data."""
    return {
        "schema": SCHEMA,
        "gains": {
            name: {part: np.round(value, 4).tolist() for part, value in gains.__dict__.items()}
            for name, gains in agent.items()
        },
    }


def from_json(data: Mapping[str, Any]) -> dict[str, Gains]:
    """The agent of such data."""
    return {
        name: Gains(**{part: np.array(value) for part, value in data["gains"][name].items()})
        for name in SPENT
    }
