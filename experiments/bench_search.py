"""Simulations a second of Gumbel search: ours, mctx's own, and a plain Python tree search.

The games: a made-up one (a state of 1 KB, 32 actions, a network of two layers of 64) that costs
little beside the search, so that the search itself is measured; offset allocation (400 bytes, 16
actions), guided by its own prior and by an untrained network of width 64 that sees pairs of
actions; and memory mapping on Strassen-49 (8 KB, 6 actions), whose rules cost more than the search.
Both engines get the same rules, policy and value, compiled before the clock starts; `tests/search`
holds their trees against each other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from compiler_rl.agent.config import Config
from compiler_rl.agent.weights import new_agent, shape_of
from compiler_rl.search.gumbel import Model, Settings, search
from experiments.common import MIB, RESULTS, Cell, Results, markdown_table, parser, run
from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import from_program
from games.offset_allocation.generator import tight
from games.registry import get_game
from hlo_frontend import load
from hlo_frontend.examples import example_path

NAME = "search"
MADE_UP = "made up"
GAMES = (MADE_UP, "offset_allocation", "offset_allocation, network", "memory_mapping")
ENGINES = ("ours", "mctx", "python")
BATCHES = (1, 32)
SIMULATIONS = (16, 64, 256)
WIDTH = 64
EXPLORATION = 1.25  # of the Python search's UCT


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "search.json", time_limit=3.0)
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    for game in GAMES:
        for batch in BATCHES:
            for simulations in SIMULATIONS:
                for seed in range(chosen.seeds):
                    for engine in ENGINES:
                        if engine == "python" and (batch > 1 or game != "offset_allocation"):
                            continue
                        config = {
                            "game": game,
                            "batch": batch,
                            "simulations": simulations,
                            "time_limit": chosen.time_limit,
                            "seed": seed,
                            "engine": engine,
                        }
                        results.measure(config, partial(_measure, config))
    results.write_report(report(results))


def _measure(config: Cell) -> Cell:
    if config["engine"] == "python":
        return {"rate": _python_rate(config["simulations"], config["time_limit"], config["seed"])}
    rules, arrays, states = _position(config["game"], config["batch"])
    model, settings = Model(rules), Settings(simulations=config["simulations"])

    def own(arrays: Any, states: Any, key: jax.Array) -> jax.Array:
        return search(model, settings, arrays, model.root(arrays, states), key).action

    engine = own if config["engine"] == "ours" else partial(_stock, model, settings, rules)
    inputs = (arrays, states, jax.random.key(config["seed"]))
    begin = perf_counter()
    compiled = jax.jit(engine).lower(*inputs).compile()
    compile_s = perf_counter() - begin
    compiled(*inputs).block_until_ready()
    calls, begin = 0, perf_counter()
    while (seconds := perf_counter() - begin) < config["time_limit"]:
        compiled(*inputs).block_until_ready()
        calls += 1
    units = config["batch"] * config["simulations"]
    return {"rate": calls * units / seconds, "compile_s": compile_s}


def _position(name: str, batch: int) -> tuple[Any, Any, Any]:
    """(rules, arrays, states): the first position of a game, `batch` times."""
    if name == MADE_UP:
        rules: Any = _MadeUp()
        return rules, rules.arrays(), jnp.zeros((batch, rules.WORDS))
    game_name, _, network = name.partition(", ")
    game = get_game(game_name)
    if game_name == "memory_mapping":
        program = load(example_path("strassen49.v5e.nomsa"))
        problem: Any = from_program(program, get_chip("v5e"), 16 * MIB)
    else:
        problem = _rectangle()
    rules = game
    if network:
        agent = new_agent(game, Config(width=WIDTH), shape_of(game, [game.arrays(problem)]))
        rules = agent.player
    arrays = rules.arrays(problem)
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), rules.init(arrays))
    return rules, arrays, states


class _MadeUp:
    """A game whose state remembers the last moves, with random weights for policy and value."""

    WORDS, ACTIONS = 256, 32

    def arrays(self) -> list[jax.Array]:
        """The weights of the layers."""
        sizes = (self.WORDS, WIDTH, WIDTH, self.ACTIONS + 1)
        keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
        return [
            jax.random.normal(key, shape) / math.sqrt(shape[0])
            for key, shape in zip(keys, pairwise(sizes), strict=True)
        ]

    def step(self, arrays: Any, state: jax.Array, action: jax.Array) -> tuple[Any, Any, Any]:
        """No reward and no end."""
        after = jnp.roll(state, 1).at[0].set(action / self.ACTIONS)
        return after, jnp.float32(0.0), jnp.asarray(False)

    def legal_actions(self, arrays: Any, state: jax.Array) -> jax.Array:
        """All."""
        return jnp.ones(self.ACTIONS, jnp.bool_)

    def prior_logits(self, arrays: Any, state: jax.Array) -> jax.Array:
        """The network's."""
        return self._heads(arrays, state)[:-1]

    def prior_value(self, arrays: Any, state: jax.Array) -> jax.Array:
        """The network's."""
        return self._heads(arrays, state)[-1]

    def _heads(self, arrays: Any, state: jax.Array) -> jax.Array:
        first, second, last = arrays
        return jax.nn.relu(jax.nn.relu(state @ first) @ second) @ last


def _rectangle() -> Any:
    return tight(0, buffers=30, times=20, capacity=1024)


def _stock(
    model: Model, settings: Settings, rules: Any, arrays: Any, states: Any, key: jax.Array
) -> jax.Array:
    """The same search by mctx."""

    def step(
        arrays: Any, _: jax.Array, action: jax.Array, states: Any
    ) -> tuple[mctx.RecurrentFnOutput, Any]:
        node, reward = model.step(arrays, states, action)
        discount = jnp.where(node.done, 0.0, 1.0)
        output = mctx.RecurrentFnOutput(
            reward=reward, discount=discount, prior_logits=node.logits, value=node.value
        )
        return output, node.state

    node = model.root(arrays, states)
    return mctx.gumbel_muzero_policy(
        arrays,
        key,
        mctx.RootFnOutput(prior_logits=node.logits, value=node.value, embedding=node.state),
        step,
        num_simulations=settings.simulations,
        invalid_actions=~jax.vmap(partial(rules.legal_actions, arrays))(states),
        max_num_considered_actions=settings.considered,
    ).action


class _Position:
    """A position of offset allocation in Python and numpy, with the rules of the JAX game."""

    def __init__(self, problem: Any) -> None:
        arrays = get_game("offset_allocation").arrays(problem)
        count = len(problem.ids)
        self.first, self.last = np.asarray(arrays.first)[:count], np.asarray(arrays.last)[:count]
        self.taken = np.asarray(arrays.taken)[:count]
        self.low = np.zeros(count, dtype=np.int64)
        self.left = np.ones(count, dtype=bool)
        self.bound = int(arrays.bound)

    def after(self, buffer: int) -> _Position:
        """With the buffer placed."""
        copy = object.__new__(_Position)
        copy.__dict__ = dict(self.__dict__)
        copy.left = self.left.copy()
        copy.left[buffer] = False
        floor = self.low[buffer] + self.taken[buffer]
        meets = (self.first < self.last[buffer]) & (self.last > self.first[buffer]) & copy.left
        copy.low = np.where(meets, np.maximum(self.low, floor), self.low)
        copy.bound = max(self.bound, int(floor))
        return copy

    def moves(self) -> list[int]:
        """The buffers with the lowest offsets under which none fits."""
        left = np.flatnonzero(self.left)
        order = left[np.argsort(self.low[left], kind="stable")][:16]
        limit = (self.low + self.taken)[left].min()
        return [int(k) for k in order if self.low[k] < limit] or [int(order[0])]


class _Branch:
    """A node of the plain search."""

    def __init__(self, position: _Position) -> None:
        self.position = position
        self.children: dict[int, _Branch] = {}
        self.moves = position.moves() if position.left.any() else []
        self.visits, self.total = 0, 0.0


def _python_rate(simulations: int, time_limit: float, seed: int) -> float:
    """Simulations a second of UCT with dictionaries and objects, from the first position."""
    random = np.random.default_rng(seed)
    start = _Position(_rectangle())
    count, begin = 0, perf_counter()
    while perf_counter() - begin < time_limit:
        root = _Branch(start)
        for _ in range(simulations):
            path = [root]
            while path[-1].moves:
                node = path[-1]
                fresh = [move for move in node.moves if move not in node.children]
                if fresh:
                    move = fresh[int(random.integers(len(fresh)))]
                    node.children[move] = _Branch(node.position.after(move))
                    path.append(node.children[move])
                    break
                path.append(max(node.children.values(), key=partial(_score, node.visits)))
            value = start.bound - path[-1].position.bound
            for node in path:
                node.visits += 1
                node.total += value / start.bound
        count += simulations
    return count / (perf_counter() - begin)


def _score(visits: int, child: _Branch) -> float:
    bonus = EXPLORATION * math.sqrt(math.log(visits) / child.visits)
    return child.total / child.visits + bonus


def table(results: Results) -> str:
    """A row for each game, batch and number of simulations: medians, and ours over mctx."""
    groups: dict[tuple[str, int, int], dict[str, list[Cell]]] = {}
    for cell in results.cells:
        config = cell["config"]
        key = (config["game"], config["batch"], config["simulations"])
        groups.setdefault(key, {}).setdefault(config["engine"], []).append(cell["result"])
    rows = []
    for (game, batch, simulations), engines in groups.items():
        rates = {name: [cell["rate"] for cell in cells] for name, cells in engines.items()}
        # Runs of the two engines took turns, so that each pair saw the same machine.
        ratios = [own / stock for own, stock in zip(rates["ours"], rates["mctx"], strict=True)]
        compiling = [median(cell["compile_s"] for cell in engines[name]) for name in ENGINES[:2]]
        rows.append(
            [
                game,
                f"{batch}",
                f"{simulations}",
                *(f"{median(rates[name]):,.0f}" if name in rates else "" for name in ENGINES),
                f"{median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})",
                f"{compiling[0]:.1f} / {compiling[1]:.1f}",
            ]
        )
    header = ("game", "batch", "simulations", *ENGINES, "ours / mctx", "compile, s")
    return markdown_table(header, rows)


def report(results: Results) -> str:
    """The table under a title."""
    return f"# Simulations a second\n\n{table(results)}"


if __name__ == "__main__":
    sys.exit(run(main))
