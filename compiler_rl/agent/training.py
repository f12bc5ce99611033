"""Training: clone the best of noisy games, then learn from games played with search."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from tensorboardX import SummaryWriter

from compiler_rl.agent import weights as weight_files
from compiler_rl.agent.actors import Actors, Part, play_here
from compiler_rl.agent.config import Config
from compiler_rl.agent.guided import Imitating
from compiler_rl.agent.network import View, masked, two_hot
from compiler_rl.agent.replay import Replay
from compiler_rl.agent.selfplay import Games, SelfPlay, joined, stack
from compiler_rl.agent.weights import Agent, new_agent, shape_of
from compiler_rl.search.gumbel import Settings
from games.base import Game, Result
from games.registry import GAMES
from hlo_frontend.errors import InputError

VERSION = 2  # of checkpoints
KEPT = 3  # checkpoints
CLONE_NOISE = 1.0  # Gumbel scale of the boldest game of a cloning iteration
VALUE_WEIGHT, REWARD_WEIGHT = 0.5, 1.0  # of the losses, beside the policy's
CLIP = 1.0  # of the gradient's norm
AVERAGED = 200  # gradient steps over which the weights that play are averaged


@dataclass(frozen=True)
class Progress:
    """One iteration.

    Attributes:
        iteration: just done.
        saving: mean over its games.
        best: mean over the best game of each problem so far.
        loss: mean over its gradient steps.
        simulations: simulations a second.
        left_s: estimate of the seconds left.
    """

    iteration: int
    saving: float
    best: float
    loss: float
    simulations: float
    left_s: float


def train(
    game: Game,
    config: Config,
    out: Path,
    *,
    report: Callable[[Progress], None] | None = None,
    actors: Actors = play_here,
) -> Agent:
    """Trains an agent; goes on from the last checkpoint in `out` if there is one.

    Leaves in `out` the checkpoints, `weights.crlw`, `progress.jsonl` and TensorBoard's scalars.
    The same configuration gives the same weights on the same machine, interrupted or not, whoever
    plays the games (`actors`).

    Raises:
        InputError: checkpoints of another game, configuration or version, or damaged ones; a loss
            that is not a number (the last good checkpoint stays).
    """
    trainer = _Trainer(game, config, out, actors)
    try:
        trainer.run(report)
    finally:
        trainer.close()
    return trainer.agent


class _Trainer:
    """The state of a training run."""

    def __init__(self, game: Game, config: Config, out: Path, actors: Actors) -> None:
        self.game = game
        self.actors = actors
        self.config = config
        self.out = out
        generator = import_module(f"{GAMES[game.name]}.generator")
        self.problems = [
            generator.training_problem(config.seed * 100_000 + number)
            for number in range(config.instances)
        ]
        self.arrays = [game.arrays(problem) for problem in self.problems]
        self.buckets: dict[str, list[int]] = {}
        for number, arrays in enumerate(self.arrays):
            self.buckets.setdefault(str(jax.tree.map(jnp.shape, arrays)), []).append(number)
        self.agent = new_agent(game, config, shape_of(game, self.arrays, config))
        self.optimizer = optax.chain(
            optax.clip_by_global_norm(CLIP), optax.adamw(config.learning_rate)
        )
        self.weights = self.agent.weights  # before averaging
        self.moments = self.optimizer.init(self.weights)
        self.replay = Replay(config.replay)
        self.iteration = 0
        self.update = jax.jit(
            partial(_update, self.agent.graph, self.optimizer, config.model, config.bins)
        )
        out.mkdir(parents=True, exist_ok=True)
        self.manager = ocp.CheckpointManager(
            (out / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=KEPT),
        )
        self._restore()
        self.scalars = SummaryWriter(str(out / "tensorboard"), purge_step=self.iteration)

    def run(self, report: Callable[[Progress], None] | None) -> None:
        """All iterations that are left."""
        started, first = time.perf_counter(), self.iteration
        if self.iteration == 0 and self.config.annealing:
            self._imitate()
        while self.iteration < self.config.iterations:
            begun = time.perf_counter()
            simulations, saving = self._play()
            played = time.perf_counter() - begun
            loss = self._learn()
            self.iteration += 1
            if not np.isfinite(loss):
                raise InputError(
                    f"{self.out}: the loss of iteration {self.iteration} is not a number; the last"
                    f" good checkpoint is of iteration {self.manager.latest_step() or 0}; lower"
                    " learning_rate, and train on from there"
                )
            done = time.perf_counter() - started
            left = done / (self.iteration - first) * (self.config.iterations - self.iteration)
            best = float(np.mean(sorted(self.replay.best.values())))
            progress = Progress(self.iteration, saving, best, loss, simulations / played, left)
            self._log(progress)
            last = self.iteration == self.config.iterations
            if self.iteration % self.config.checkpoint_every == 0 or last:
                self._save()
            if report is not None:
                report(progress)
        weight_files.save(self.agent, self.out / "weights.crlw")

    def _play(self) -> tuple[int, float]:
        """The games of an iteration: (simulations, mean saving)."""
        config = self.config
        random = np.random.default_rng([config.seed, self.iteration])
        key = jax.random.key(int(random.integers(2**31)))
        groups = list(self.buckets.values())
        sizes = np.array([len(group) for group in groups])
        group = groups[int(random.choice(len(groups), p=sizes / sizes.sum()))]
        cloning = self.iteration < config.cloning
        tries = config.tries if cloning else 1
        number = config.batch // tries
        chosen = random.choice(group, size=number, replace=number > len(group)).repeat(tries)
        if cloning:
            noise = np.tile(np.linspace(0.0, CLONE_NOISE, tries), number)
        else:
            noise = np.linspace(config.calmest, 1.0, number)
        simulations = 1 if cloning else config.simulations
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.agent.weights)]
        parts = [
            Part(
                game=self.game.name,
                config=config,
                shape=self.agent.shape,
                weights=leaves,
                arrays=stack([self.arrays[problem] for problem in own]),
                key=np.asarray(jax.random.key_data(jax.random.fold_in(key, index))),
                noise=loud,
                simulations=simulations,
            )
            for index, (own, loud) in enumerate(
                zip(
                    np.split(chosen, config.parts),
                    np.split(noise, config.parts),
                    strict=True,
                )
            )
        ]
        games = joined(self.actors(parts))
        for index, problem in enumerate(chosen):
            self.replay.offer(int(problem), games, index)
        if cloning:
            self._clone(games, tries)
        else:
            self.replay.add(self.iteration, games)
        return int(games.active.sum()) * simulations, float(games.savings.mean())

    def _imitate(self) -> None:
        """Games near what local search finds, to be copied move by move."""
        name = f"{GAMES[self.game.name]}.imitation"
        if find_spec(name) is None:
            return
        imitation = import_module(name)
        wishes = []
        for number, (problem, arrays) in enumerate(zip(self.problems, self.arrays, strict=True)):
            found = annealed(self.game, problem, self.config.annealing, number)
            wishes.append(imitation.wishes(arrays, problem, found.solution))
        player = SelfPlay(
            self.game,
            Imitating(self.agent.player.game, imitation.agreement),
            Settings(simulations=1),
            self.agent.shape.num_actions,
        )
        key = jax.random.key(self.config.seed)
        for group in self.buckets.values():
            # Of one size, so that it is compiled once.
            for begin in range(0, len(group), self.config.batch):
                chosen = np.resize(group[begin : begin + self.config.batch], self.config.batch)
                games = player.play(
                    stack([wishes[problem] for problem in chosen]),
                    stack([self.arrays[problem] for problem in chosen]),
                    key,
                    np.zeros(self.config.batch),
                    1,
                )
                for index, problem in enumerate(chosen):
                    self.replay.offer(int(problem), games, index)
                    self.replay.add(0, games.of(index).cloned())

    def _clone(self, games: Games, tries: int) -> None:
        """The best game of each problem, to be copied move by move."""
        savings = games.savings.reshape(-1, tries)
        for number, best in enumerate(savings.argmax(axis=1)):
            self.replay.add(self.iteration, games.of(number * tries + int(best)).cloned())

    def _learn(self) -> float:
        """The gradient steps of an iteration: the mean loss."""
        config = self.config
        random = np.random.default_rng([config.seed, self.iteration, 1])
        sample = self.replay.sample(
            random,
            (config.updates, config.minibatch),
            config.elite,
            config.unroll if config.model == "learned" else 1,
        )
        done = self.iteration * config.updates
        self.weights, average, self.moments, losses = self.update(
            self.weights, self.agent.weights, self.moments, done, sample
        )
        self.agent = dataclasses.replace(self.agent, weights=average)
        return float(losses.mean())

    def _log(self, progress: Progress) -> None:
        row = dataclasses.asdict(progress)
        with (self.out / "progress.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name in ("saving", "best", "loss", "simulations"):
            self.scalars.add_scalar(name, row[name], progress.iteration)

    def _identity(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.config)
        # What a run may go on with differently.
        for name in ("iterations", "checkpoint_every"):
            del config[name]
        return {"version": VERSION, "game": self.game.name, "config": config}

    def _save(self) -> None:
        tree = {
            "weights": _leaves(self.weights),
            "average": _leaves(self.agent.weights),
            "moments": _leaves(self.moments),
            "replay": _filled(self.replay.to_tree()),
        }
        self.manager.save(
            self.iteration,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(tree),
                identity=ocp.args.JsonSave(self._identity()),
            ),
        )
        self.manager.wait_until_finished()

    def _restore(self) -> None:
        step = self.manager.latest_step()
        if step is None:
            return
        where = self.out / "checkpoints" / str(step)
        try:
            found = self.manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(), identity=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # orbax raises whatever its storage does
            raise InputError(
                f"{where}: the checkpoint is damaged ({type(error).__name__}); remove it to go on"
                " from the one before"
            ) from error
        if found.identity != json.loads(json.dumps(self._identity())):
            raise InputError(
                f"{where}: a checkpoint of another game, configuration or version; give another"
                " folder"
            )
        tree = found.state
        self.agent = dataclasses.replace(
            self.agent, weights=_restored(self.agent.weights, tree["average"], where)
        )
        self.weights = _restored(self.weights, tree["weights"], where)
        self.moments = _restored(self.moments, tree["moments"], where)
        self.replay.from_tree(tree["replay"])
        self.iteration = step

    def close(self) -> None:
        """Ends the writers."""
        self.manager.close()
        self.scalars.close()


def annealed(game: Game, problem: Any, moves: int, seed: int) -> Result[Any]:
    """What local search finds in so many moves from the best heuristic solution."""
    solvers = import_module(f"baselines.{game.name}")
    found = [
        heuristic(problem, time_limit=math.inf, seed=seed)
        for heuristic in solvers.HEURISTICS.values()
    ]
    best = min(found, key=lambda result: result.objective)
    improved = solvers.IMPROVE(
        problem, time_limit=math.inf, seed=seed, start=best.solution, moves=moves
    )
    return min((best, improved), key=lambda result: result.objective)


def _leaves(tree: Any) -> dict[str, Any]:
    return {f"{index:04d}": leaf for index, leaf in enumerate(jax.tree.leaves(tree))}


def _restored(like: Any, leaves: dict[str, Any], where: Path) -> Any:
    wanted, structure = jax.tree.flatten(like)
    found = [jnp.asarray(leaves[key]) for key in sorted(leaves)]
    if [leaf.shape for leaf in found] != [jnp.shape(leaf) for leaf in wanted]:
        raise InputError(f"{where}: weights of another shape; give another folder")
    return jax.tree.unflatten(structure, found)


def _filled(tree: dict[str, Any]) -> dict[str, Any]:
    """Without empty branches and arrays, which the storage does not take."""
    return {
        key: _filled(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if (value if isinstance(value, dict) else np.size(value))
    }


def _update(
    graph: Any,
    optimizer: optax.GradientTransformation,
    model: str,
    bins: int,
    weights: Any,
    average: Any,
    moments: Any,
    done: int,
    sample: dict[str, jax.Array],
) -> tuple[Any, Any, Any, jax.Array]:
    """Gradient steps on minibatches [U, MB, steps, ...].

    Args:
        graph, optimizer, model, bins: what is trained, and how.
        weights, average: as they are, and their mean over the last AVERAGED steps.
        moments: of the optimizer.
        done: steps before.
        sample: the minibatches.

    Returns:
        (weights, average, moments, losses f32[U]).
    """
    of_one = _unrolled_loss if model == "learned" else _loss

    def loss(weights: Any, batch: dict[str, jax.Array]) -> jax.Array:
        network = nnx.merge(graph, weights)
        return jax.vmap(lambda each: of_one(network, bins, each))(batch).mean()

    def step(carry: tuple[Any, ...], batch: dict[str, jax.Array]) -> tuple[Any, jax.Array]:
        weights, average, moments, count = carry
        value, gradient = jax.value_and_grad(loss)(weights, batch)
        change, moments = optimizer.update(gradient, moments, weights)
        weights = optax.apply_updates(weights, change)
        share = 1.0 / jnp.minimum(count + 1, AVERAGED)
        average = jax.tree.map(lambda mean, now: mean + share * (now - mean), average, weights)
        return (weights, average, moments, count + 1), value

    carry = (weights, average, moments, jnp.int32(done))
    (weights, average, moments, _), losses = jax.lax.scan(step, carry, sample)
    return weights, average, moments, losses


def _seen(position: dict[str, jax.Array], step: int) -> View:
    return View(**{field.name: position[field.name][step] for field in dataclasses.fields(View)})


def _policy_loss(logits: jax.Array, policy: jax.Array, legal: jax.Array) -> jax.Array:
    shares = jax.nn.log_softmax(masked(logits, legal))
    return -jnp.where(policy > 0, policy * shares, 0.0).sum()


def _value_loss(logits: jax.Array, target: jax.Array, bins: int) -> jax.Array:
    return -(two_hot(target, bins) * jax.nn.log_softmax(logits)).sum()


def _loss(network: Any, bins: int, position: dict[str, jax.Array]) -> jax.Array:
    """Of one position: the policy's cross entropy and the value's."""
    seen = _seen(position, 0)
    more, value = network(seen)
    return _policy_loss(
        seen.prior + more, position["policy"][0], seen.legal
    ) + VALUE_WEIGHT * _value_loss(value, position["returns"][0] - seen.base, bins)


def _unrolled_loss(network: Any, bins: int, positions: dict[str, jax.Array]) -> jax.Array:
    """Of some positions in a row, all predicted from what is seen of the first (MuZero)."""
    seen = _seen(positions, 0)
    latent, base = network.latent(seen), seen.base
    steps = positions["action"].shape[0]
    total = jnp.float32(0.0)
    for step in range(steps):
        active = positions["active"][step].astype(jnp.float32)
        more, value = network.predict(latent)
        logits = seen.prior + more if step == 0 else more
        legal = positions["legal"][step]
        policy = _policy_loss(logits, positions["policy"][step], legal)
        worth = _value_loss(value, positions["returns"][step] - base, bins)
        latent, reward = network.step(latent, positions["action"][step])
        wrong = (reward - positions["reward"][step]) ** 2
        total += active * (policy + VALUE_WEIGHT * worth + REWARD_WEIGHT * wrong)
        base = base - positions["reward"][step]
        # Half of the gradient goes through each step, as in MuZero.
        latent = 0.5 * latent + 0.5 * jax.lax.stop_gradient(latent)
    return total / steps
