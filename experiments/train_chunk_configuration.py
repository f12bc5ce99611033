"""Trains the configuration agent of chunk selection: how much search a query is worth.

    python -m experiments.train_chunk_configuration SET ... [--budgets 256,512,1024] [--out FILE]

Every value of each grid is played on every question, with a learned value that was trained on the
other half of the questions. The policies are linear softmaxes, trained to maximise what they are
expected to earn: a loss near the best, less a price for moves; token-F1 for the price of tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from baselines.chunk_selection import IMPROVE
from baselines.chunk_selection.configuration import GRID, OBSERVED, SCHEMA, observe
from baselines.chunk_selection.heuristics import value_greedy
from baselines.chunk_selection.tree_search import set_search
from experiments.chunk_evaluation import token_f1
from experiments.common import ROOT, run
from experiments.evidence_training import train
from experiments.retrieval_pools import Pool, load_pools, subset
from experiments.retrieval_sets import folds
from experiments.train_chunk_selection import lesson_of
from games.chunk_selection.problem import ChunkSelectionProblem, make_problem
from games.files import replace_file

Floats = npt.NDArray[np.float64]

PERCENT_WORTH = 1.0  # of a loss that is 1 % nearer to the best
MOVES_PRICE = 0.1  # of 1000 moves
EVALUATIONS = 200
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
    seen: list[Floats] = []
    earned: dict[str, list[list[float]]] = {name: [] for name in GRID}
    lessons = [lesson_of(name, load_pools(name, steps=True)) for name in options.sets]
    for half in (0, 1):
        others, own = [], []
        for lesson in lessons:
            # Sets of the same questions have them in the same half.
            held = folds(len(lesson.pools), 2) == half
            others += lesson.without(held)
            own += subset(lesson.pools, held)
        model = train(others, models=1, seed=half)
        for pool in own:
            for budget in budgets:
                problem = make_problem(
                    pool.question.text,
                    pool.chunks,
                    budget,
                    query_embedding=pool.query_embedding,
                    model=model,
                    features=pool.features,
                )
                greedy = value_greedy(problem)
                seen.append(observe(problem, greedy.objective))
                for name, values in play(pool, problem).items():
                    earned[name].append(values)
    states = np.stack(seen)
    policies = {name: fit(states, np.array(values)) for name, values in earned.items()}
    for name, played in earned.items():
        mean = np.array(played)
        chosen = mean[np.arange(len(mean)), np.argmax(states @ policies[name], axis=1)].mean()
        fixed = ", ".join(
            f"{v:g}: {m:.4f}" for v, m in zip(GRID[name], mean.mean(axis=0), strict=True)
        )
        print(f"{name}: agent {chosen:.4f}; always {fixed}", file=sys.stderr, flush=True)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "weights": {name: np.round(value, 5).tolist() for name, value in policies.items()},
    }
    replace_file(options.out, (json.dumps(data) + "\n").encode())


def play(pool: Pool, problem: ChunkSelectionProblem) -> dict[str, list[float]]:
    """What each value of each grid earns on one problem."""
    greedy = value_greedy(problem)
    moved = [
        greedy.objective
        if moves == 0
        else IMPROVE(
            problem, time_limit=0.0, seed=0, start=greedy.solution, moves=int(moves)
        ).objective
        for moves in GRID["moves"]
    ]
    explored = [
        set_search(problem, evaluations=EVALUATIONS, exploration=value).objective
        for value in GRID["exploration"]
    ]
    stopped = [
        token_f1(pool, value_greedy(replace(problem, cost_weight=value)).solution.order)
        for value in GRID["cost_weight"]
    ]
    best = min(*moved, *explored)
    price = [MOVES_PRICE * moves / 1000 for moves in GRID["moves"]]
    return {
        "moves": [
            -100 * PERCENT_WORTH * (loss / best - 1) - cost
            for loss, cost in zip(moved, price, strict=True)
        ],
        "exploration": [-100 * PERCENT_WORTH * (loss / best - 1) for loss in explored],
        "cost_weight": stopped,
    }


def fit(states: Floats, earned: Floats) -> Floats:
    """f64[OBSERVED, values]: the policy that earns most on states [Q, OBSERVED], [Q, values]."""
    scale = max(float(earned.std()), 1e-9)
    worth = jnp.asarray((earned - earned.mean(axis=1, keepdims=True)) / scale)
    given = jnp.asarray(states)
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
    return np.asarray(weights, dtype=np.float64)


if __name__ == "__main__":
    sys.exit(run(main))
