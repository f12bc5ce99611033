"""Trains the configuration agent of chunk selection: how much search a query is worth.

    python -m experiments.train_chunk_configuration NAME=PATH[+PATH...][:CUT]@BUDGETS ...

Every choice of each setting is played on every question, and again with few of its candidates,
with a learned value that was trained without the question. Small networks learn what a choice
brings: of moves a lower loss, of the price of tokens token-F1, and of evaluations and exploration,
which a reranker's search has, the evidence that the search ends with. The reranker there is a judge
that knows the evidence, but for noise.

What the agent earns on questions that it was not fitted on, and on data sets that it was not fitted
on, stands beside the best constant. A setting where it earns no more than that on such questions is
left to the constant.
"""

from __future__ import annotations

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
from baselines.chunk_selection.configuration import (
    COST_WEIGHTS,
    EVALUATION_PRICE,
    EVALUATIONS,
    EXPLORATION,
    MOVES,
    POINTS,
    SEARCHES,
    SEES,
    SPENT,
    Gains,
    observe,
    price_of,
    to_json,
)
from baselines.chunk_selection.heuristics import beam, value_greedy
from baselines.chunk_selection.tree_search import set_search
from experiments.bench_chunk_selection import FOLDS, Bench, opened
from experiments.chunk_evaluation import token_f1
from experiments.chunk_judges import by_evidence, evidence
from experiments.common import RESULTS, ROOT, Cell, Results, markdown_table, parser, run
from experiments.retrieval_pools import Pool
from experiments.train_chunk_selection import MODELS, fewer
from games.base import Result
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection
from games.files import replace_file

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NAME = "chunk_configuration"
AGENT = ROOT / "baselines/chunk_selection/configuration.json"
TRIED_PRICES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of an evaluation
DRAWS = 2  # judges for each problem
NETWORKS, HIDDEN = 4, 16
STEPS, RATE, DECAY = 300, 0.01, 1e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Plays, trains and writes the agent if that was not measured yet; prints the report."""
    options = parser(__doc__, RESULTS / f"{NAME}.json", time_limit=0.0)
    options.add_argument("sets", nargs="*", metavar="NAME=PATH@BUDGETS")
    options.add_argument("--models", type=Path, help="folder to keep the trained values in")
    options.add_argument("--agent", type=Path, default=AGENT, help="file; default: the package's")
    chosen = options.parse_args(arguments)
    results, sets, bench = opened(chosen, NAME)
    if sets:
        config = {
            "sets": {name: [path.partition(":")[2], budgets] for name, path, budgets in sets},
            "folds": FOLDS,
            "models": MODELS,
        }
        budgets_of = {name: budgets for name, _, budgets in sets}
        results.measure(config, lambda: _train(played(bench, budgets_of), chosen.agent))
    results.write_report(report(results))


@dataclass(frozen=True)
class Played:
    """R problems: what is seen of them, and what each choice of each setting brought.

    Attributes:
        states: f64[R, OBSERVED].
        brought: f64[R, choices] for each setting, in points.
        spent: f64[R, choices] likewise, moves or evaluations that were made.
        fold: i64[R], alike for all problems of a question.
        question: i64[R].
        family: str[R], the data set.
        weight: f64[R], by which each named set counts alike.
    """

    states: Floats
    brought: dict[str, Floats]
    spent: dict[str, Floats]
    fold: Ints
    question: Ints
    family: npt.NDArray[np.str_]
    weight: Floats


def played(bench: Bench, budgets: dict[str, list[int]]) -> Played:
    """All questions of all sets at these budgets."""
    states: list[Floats] = []
    brought: dict[str, list[Floats]] = {name: [] for name in SPENT}
    spent: dict[str, list[Floats]] = {name: [] for name in SPENT}
    labels: list[tuple[str, str, int, int]] = []  # set, family, question, fold
    draw = np.random.default_rng(0)
    for name in bench.paths:
        folds = bench.fold(name)
        for number, whole in enumerate(bench.pools(name)):
            for pool in (whole, fewer(whole, draw)):
                for budget in budgets[name]:
                    if not pool.fits(budget):
                        continue
                    model = bench.model(int(folds[number]))
                    problem = pool.problem(budget, model, features=pool.features)
                    start = min(
                        value_greedy(problem), beam(problem), key=lambda result: result.objective
                    )
                    states.append(observe(problem, start))
                    for setting, (points, made) in play(pool, problem, start, number).items():
                        brought[setting].append(points)
                        spent[setting].append(made)
                    labels.append((name, bench.family(name), number, int(folds[number])))
        print(f"{name}: {len(states)} problems", file=sys.stderr, flush=True)
    sets, family, number_of, fold = (np.array(column) for column in zip(*labels, strict=True))
    _, question = np.unique(
        np.char.add(np.char.add(family, " "), number_of.astype(str)), return_inverse=True
    )
    weight = np.zeros(len(sets))
    for each in np.unique(sets):
        weight[sets == each] = 1.0 / (sets == each).mean()
    return Played(
        states=np.stack(states),
        brought={name: np.stack(values) for name, values in brought.items()},
        spent={name: np.stack(values) for name, values in spent.items()},
        fold=fold,
        question=question,
        family=family,
        weight=weight / weight.mean(),
    )


def play(
    pool: Pool, problem: ChunkSelectionProblem, start: Result[Selection], seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """(points, moves or evaluations made) of each choice on one problem, from that selection."""
    moved = [
        IMPROVE(problem, time_limit=0.0, seed=0, start=start.solution, moves=moves).objective
        if moves
        else start.objective
        for moves in MOVES
    ]
    stopped = [
        token_f1(pool, value_greedy(replace(problem, cost_weight=weight)).solution.order)
        for weight in COST_WEIGHTS
    ]
    judged = [_judged(pool, problem, start.solution.order, [seed, draw]) for draw in range(DRAWS)]
    points, made = np.mean(judged, axis=0)
    return {
        "moves": (-POINTS * np.array(moved), SPENT["moves"]),
        "search": (points, made),
        "cost_weight": (POINTS * np.array(stopped), SPENT["cost_weight"]),
    }


def _judged(
    pool: Pool, problem: ChunkSelectionProblem, start: Sequence[int], seed: Sequence[int]
) -> Floats:
    """f64[2, choices]: points of evidence after search by a judge with noise drawn by the seed, and
    evaluations.

    A smaller cap ends the same search earlier, so one search of each temperature tells all caps.
    """
    held, judge = evidence(pool, problem), by_evidence(pool, problem, seed)
    seen: list[tuple[float, float]] = []

    def score(orders: Sequence[tuple[int, ...]]) -> list[float]:
        scores = list(judge(orders))
        seen.extend(zip(scores, map(held, orders), strict=True))
        return scores

    found = {SEARCHES[0]: (POINTS * held(start), 0)}
    for exploration in EXPLORATION:
        seen.clear()
        set_search(
            problem,
            score=score,
            evaluations=EVALUATIONS[-1],
            exploration=exploration,
            starts=[start],
            seed=seed[-1],
        )
        scores, true = np.array(seen).T
        for count in EVALUATIONS[1:]:
            best = true[np.argmax(scores[:count])]
            found[count, exploration] = (POINTS * best, min(count, len(seen)))
    return np.array([found[choice] for choice in SEARCHES]).T


def fit(states: Floats, brought: Floats, weight: Floats) -> Gains:
    """Networks that predict brought [R, V] from states [R, F], problems counting by their weight.

    What all choices of a problem bring says nothing about which to take.
    """
    mean = constant(states, brought, weight)
    gained = brought - brought.mean(axis=1, keepdims=True)
    unit = max(float(gained.std()), 1e-9)
    features, choices = states.shape[1], brought.shape[1]
    given = jnp.asarray((states - mean.centre) / mean.spread)
    wanted = jnp.asarray((gained - mean.bias) / unit)
    each = jnp.asarray(weight / weight.mean())[:, None]
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def loss(weights: dict[str, jax.Array]) -> jax.Array:
        found = jnp.tanh(given @ weights["inner"]) @ weights["outer"]
        found += given @ weights["direct"] + weights["bias"]
        size = sum((weights[part] ** 2).sum() for part in ("inner", "outer", "direct"))
        return (each * (found - wanted) ** 2).mean() + DECAY * size

    @jax.jit
    @jax.vmap
    def trained(key: jax.Array) -> dict[str, jax.Array]:
        first, second = jax.random.split(key)
        weights = {
            "inner": 0.4 * jax.random.normal(first, (features, HIDDEN)),
            "outer": 0.05 * jax.random.normal(second, (HIDDEN, choices)),
            "direct": jnp.zeros((features, choices)),
            "bias": jnp.zeros(choices),
        }

        def step(carry: Any, _: None) -> tuple[Any, None]:
            weights, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weights), state)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, optimizer.init(weights)), None, length=STEPS)[0][0]

    found = {
        name: np.asarray(value, dtype=np.float64)
        for name, value in trained(jax.random.split(jax.random.key(0), NETWORKS)).items()
    }
    return replace(
        mean,
        inner=found["inner"],
        outer=unit * found["outer"],
        direct=unit * found["direct"],
        bias=mean.bias + unit * found["bias"],
    )


def constant(states: Floats, brought: Floats, weight: Floats) -> Gains:
    """A network that predicts what the choices bring on average."""
    features, choices = states.shape[1], brought.shape[1]
    gained = brought - brought.mean(axis=1, keepdims=True)
    return Gains(
        centre=states.mean(axis=0),
        spread=np.maximum(states.std(axis=0), 1e-6),
        inner=np.zeros((1, features, 1)),
        outer=np.zeros((1, 1, choices)),
        direct=np.zeros((1, features, choices)),
        bias=np.average(gained, axis=0, weights=weight)[None],
    )


def _train(data: Played, out: Path) -> Cell:
    """Compares the agent with constants, writes the agent, and returns the comparison."""
    compared: list[Cell] = []
    agent: dict[str, Gains] = {}
    for setting, brought in data.brought.items():
        states = data.states[:, SEES[setting]]
        rows = [
            {"setting": setting, "held_out": name, **row}
            for name, parts in (("questions", data.fold), ("data sets", data.family))
            for row in compare(data, setting, parts)
        ]
        compared += rows
        own = [row for row in rows if row["held_out"] == "questions"]
        pays = sum(row["difference"] for row in own) > sum(row["error"] for row in own)
        agent[setting] = (fit if pays else constant)(states, brought, data.weight)
    replace_file(out, (json.dumps(to_json(agent)) + "\n").encode())
    return {"problems": len(data.states), "compared": compared}


def compare(data: Played, setting: str, parts: npt.NDArray[Any]) -> list[Cell]:
    """What the agent and the best constant earn on parts [R] that they were not fitted on.

    A row for each price of an evaluation, or one where it does not matter.
    """
    states, brought = data.states[:, SEES[setting]], data.brought[setting]
    predicted = {fitted: np.zeros_like(brought) for fitted in (fit, constant)}
    for part in np.unique(parts):
        out = parts == part
        for fitted, values in predicted.items():
            values[out] = fitted(states[~out], brought[~out], data.weight[~out])(states[out])
    tried = TRIED_PRICES if setting == "search" else (EVALUATION_PRICE,)
    return [_row(data, setting, predicted[fit], predicted[constant], price) for price in tried]


def _row(
    data: Played, setting: str, predicted: Floats, typical: Floats, evaluation_price: float
) -> Cell:
    price = price_of(setting, evaluation_price)
    earned = data.brought[setting] - price * data.spent[setting]
    every = np.arange(len(earned))

    def mean(values: Floats) -> float:
        return float(np.average(values, weights=data.weight))

    def taken(gains: Floats) -> Ints:
        return np.asarray(np.argmax(gains - price * SPENT[setting], axis=1))

    own, fixed = taken(predicted), taken(typical)
    gain = earned[every, own] - earned[every, fixed]
    # Problems of one question have their chance in common.
    off = data.weight * (gain - mean(gain))
    error = np.sqrt((np.bincount(data.question, off) ** 2).sum()) / data.weight.sum()
    return {
        "price": evaluation_price if setting == "search" else None,
        "none": mean(earned[:, 0]),
        "constant": mean(earned[every, fixed]),
        "agent": mean(earned[every, own]),
        "best": mean(earned.max(axis=1)),
        "difference": mean(gain),
        "error": float(error),
        "by_family": {
            Path(name).name: float(np.average(gain[which], weights=data.weight[which]))
            for name in np.unique(data.family)
            for which in (data.family == name,)
        },
        "spent": [
            mean(data.spent[setting][every, fixed]),
            mean(data.spent[setting][every, own]),
        ],
        "shares": {
            kind: [round(mean(choices == choice), 4) for choice in range(earned.shape[1])]
            for kind, choices in (("constant", fixed), ("agent", own))
        },
    }


def table(results: Results) -> str:
    """A row for each setting, price and kind of held-out questions."""
    header = [
        *("decides", "price", "not seen before", "least", "best constant", "agent"),
        *("agent less constant", "best for each", "evaluations, constant / agent"),
    ]
    rows = []
    for cell in results.cells:
        for row in cell["result"]["compared"]:
            price, searches = row["price"], row["price"] is not None
            rows.append(
                [
                    row["setting"].replace("_", " "),
                    f"{price:g}" if searches else "",
                    row["held_out"],
                    *(f"{row[key]:.2f}" for key in ("none", "constant", "agent")),
                    f"{row['difference']:+.2f} ± {row['error']:.2f}",
                    f"{row['best']:.2f}",
                    " / ".join(f"{made:.0f}" for made in row["spent"]) if searches else "",
                ]
            )
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """The table under a heading."""
    return "\n\n".join(["# What the configuration agent earns, in points of 100", table(results)])


if __name__ == "__main__":
    sys.exit(run(main))
