"""Trains the configuration agent of chunk selection: how much search a query is worth.

    python -m experiments.train_chunk_configuration SET ... [--budgets 256,512,1024] [--out FILE]

Every value of each grid is played on every question, and again with few of its candidates, with a
learned value that was trained on the other half of the questions. The policies are linear
softmaxes, trained to maximise what they are expected to earn: a low loss, less a price for moves;
token-F1 for the price of tokens; and for evaluations and exploration, which a reranker's search
has, the evidence that the search ends with, less a price for evaluations. The reranker there is a
judge that knows the evidence, but for noise. A policy gives way to the best constant if it does not
earn more than that on questions that it was not fitted on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from baselines.chunk_selection import IMPROVE
from baselines.chunk_selection.configuration import GRID, OBSERVED, SCHEMA, observe
from baselines.chunk_selection.heuristics import beam, value_greedy
from baselines.chunk_selection.tree_search import set_search
from experiments.chunk_evaluation import token_f1
from experiments.common import ROOT, run
from experiments.evidence_training import train
from experiments.retrieval_pools import Pool, load_pools, subset
from experiments.retrieval_sets import FULL, folds, recall
from experiments.train_chunk_selection import fewer, lesson_of
from games.chunk_selection.problem import ChunkSelectionProblem
from games.files import replace_file

Floats = npt.NDArray[np.float64]

POINTS = 100.0  # of the loss; what a selection earns that has all of the evidence
MOVES_PRICE = 0.1  # of 1000 moves, in these points
EVALUATION_PRICE = 0.02  # of one context that a reranker sees: a small model's few milliseconds
JUDGE_NOISE = 0.1  # of a reranker's score of a set, beside its recall
STEPS, RATE, DECAY = 1500, 0.05, 1e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Plays, trains, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="SET")
    parser.add_argument("--budgets", default="256,512,1024", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "baselines/chunk_selection/configuration.json"
    )
    options = parser.parse_args(arguments)
    budgets = [int(part) for part in options.budgets.split(",")]
    lessons = [lesson_of(name, load_pools(name, steps=True)) for name in options.sets]
    seen: list[Floats] = []
    halves: list[int] = []
    earned: dict[str, list[list[float]]] = {name: [] for name in GRID}
    draw = np.random.default_rng(0)
    for half in (0, 1):
        others, own = [], []
        for lesson in lessons:
            # Sets of the same questions have them in the same half.
            held = folds(len(lesson.pools), 2) == half
            others += lesson.without(held)
            own += subset(lesson.pools, held)
        model = train(others, models=1, seed=half)
        for pool in own + [fewer(pool, draw) for pool in own]:
            for budget in budgets:
                problem = pool.problem(budget, model, features=pool.features)
                seen.append(observe(problem, value_greedy(problem).objective))
                halves.append(half)
                for name, played in play(pool, problem).items():
                    earned[name].append(played)
    states, part = np.stack(seen), np.array(halves)
    policies = {}
    for name in GRID:
        values = np.array(earned[name])
        tried = held_out(states, values, part)
        pays = tried.policy - tried.constant > tried.error
        policies[name] = fit(states, values) if pays else constant(values)
        always = ", ".join(
            f"{value:g}: {mean:.4f}"
            for value, mean in zip(GRID[name], values.mean(axis=0), strict=True)
        )
        print(f"{name}: {tried}; always {always}", file=sys.stderr, flush=True)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "weights": {name: np.round(value, 5).tolist() for name, value in policies.items()},
    }
    replace_file(options.out, (json.dumps(data) + "\n").encode())


@dataclass(frozen=True)
class HeldOut:
    """What is earned by a policy on the half of the questions that it was not fitted on.

    Beside it the constant that is best on all questions, and the best value of each question;
    `error` is the standard error of the policy less the constant.
    """

    policy: float
    constant: float
    oracle: float
    error: float

    def __str__(self) -> str:
        return (
            f"policy {self.policy:.4f}, constant {self.constant:.4f}, oracle {self.oracle:.4f},"
            f" standard error {self.error:.4f}"
        )


def held_out(states: Floats, earned: Floats, part: npt.NDArray[np.int64]) -> HeldOut:
    """By halves `part` i64[Q] of the states [Q, OBSERVED] and what is earned [Q, values]."""
    policy = np.zeros(len(states))
    for half in (0, 1):
        own, other = part == half, part != half
        best = np.argmax(states[own] @ fit(states[other], earned[other]), axis=1)
        policy[own] = earned[own][np.arange(len(best)), best]
    fixed = earned[:, np.argmax(earned.mean(axis=0))]
    return HeldOut(
        policy=float(policy.mean()),
        constant=float(fixed.mean()),
        oracle=float(earned.max(axis=1).mean()),
        error=float((policy - fixed).std() / np.sqrt(len(states))),
    )


def constant(earned: Floats) -> Floats:
    """f64[OBSERVED, values]: the policy of the value that earns most on average."""
    weights = np.zeros((OBSERVED, earned.shape[1]))
    weights[0, np.argmax(earned.mean(axis=0))] = 1.0
    return weights


def play(pool: Pool, problem: ChunkSelectionProblem) -> dict[str, list[float]]:
    """What each value of each grid earns on one problem."""
    start = min(value_greedy(problem), beam(problem), key=lambda result: result.objective)
    moved = [
        IMPROVE(problem, time_limit=0.0, seed=0, start=start.solution, moves=int(moves)).objective
        if moves
        else start.objective
        for moves in GRID["moves"]
    ]
    most, calmest = int(GRID["evaluations"][-1]), GRID["exploration"][0]
    searched = [
        judged(pool, problem, start.solution.order, int(count), calmest)
        for count in GRID["evaluations"]
    ]
    explored = [
        judged(pool, problem, start.solution.order, most, value) for value in GRID["exploration"]
    ]
    stopped = [
        token_f1(pool, value_greedy(replace(problem, cost_weight=value)).solution.order)
        for value in GRID["cost_weight"]
    ]
    return {
        "moves": [
            -POINTS * loss - MOVES_PRICE * moves / 1000
            for loss, moves in zip(moved, GRID["moves"], strict=True)
        ],
        "evaluations": searched,
        "exploration": explored,
        "cost_weight": stopped,
    }


def judged(
    pool: Pool,
    problem: ChunkSelectionProblem,
    start: Sequence[int],
    evaluations: int,
    exploration: float,
) -> float:
    """Points of recall and of all of the evidence after search by a noisy judge, less its price."""

    def held(order: Sequence[int]) -> float:
        share = recall(pool.question, [pool.passages[i] for i in order])
        return (share + problem.all_weight * (share >= FULL)) / (1.0 + problem.all_weight)

    def score(orders: Sequence[tuple[int, ...]]) -> list[float]:
        return [
            # The same set has the same noise.
            held(order) + JUDGE_NOISE * np.random.default_rng(sorted(order)).normal()
            for order in orders
        ]

    found = set_search(
        problem, score=score, evaluations=evaluations, exploration=exploration, starts=[start]
    )
    return POINTS * held(found.solution.order) - EVALUATION_PRICE * evaluations


def fit(states: Floats, earned: Floats) -> Floats:
    """f64[OBSERVED, values]: the policy that earns most on states [Q, OBSERVED], [Q, values]."""
    # What a question earns with any value says nothing about which to choose.
    gained = earned - earned.mean(axis=1, keepdims=True)
    worth = jnp.asarray(gained / max(float(gained.std()), 1e-9))
    # The first number is always 1, and is no measure.
    centre, spread = states.mean(axis=0), np.maximum(states.std(axis=0), 1e-6)
    centre[0], spread[0] = 0.0, 1.0
    given = jnp.asarray((states - centre) / spread)
    optimizer = optax.adam(RATE)

    def loss(weights: jax.Array) -> jax.Array:
        policy = jax.nn.softmax(given @ weights, axis=1)
        return -(policy * worth).sum(axis=1).mean() + DECAY * (weights**2).sum()

    @jax.jit
    def step(weights: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return optax.apply_updates(weights, updates), state

    weights = jnp.zeros((OBSERVED, earned.shape[1]))
    state = optimizer.init(weights)
    for _ in range(STEPS):
        weights, state = step(weights, state)
    found = np.asarray(weights, dtype=np.float64) / spread[:, None]
    found[0] -= centre @ found
    return found


if __name__ == "__main__":
    sys.exit(run(main))
