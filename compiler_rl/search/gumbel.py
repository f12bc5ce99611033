"""Gumbel MuZero search over any game with its true simulator.

"Policy improvement by planning with Gumbel" (Danihelka et al., ICLR 2022): at the root, Gumbel
noise draws a few actions without replacement and Sequential Halving (Karnin et al., ICML 2013)
shares the simulations among them; below, actions are chosen so that their visits follow the policy
that the completed Q-values improve.

The trees are those of `mctx.gumbel_muzero_policy`, value by value (`tests/search` holds the two
against each other). What differs is the work. The way back up a simulation is for the whole batch
and several nodes of a path at once, and writes single entries, where mctx has a vectorised `while`
that copies the arrays of all trees at each level. Each node keeps its policy, and the action that
is to be followed from it with the child that it leads to, which change only when a simulation comes
back through it, so that the way down is one lookup a level. And the number of simulations may be
known only at run time.

Shapes: B games in the batch, N = simulations + 1 nodes in a tree, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

ROOT = 0
LEAST_RANGE = 1e-8  # that of mctx
# Nodes of a path that are backed up at once: as many as make about ROWS of the whole batch, but for
# FEWEST; as paths are short in small trees, one for every PER simulations at most. Measured by
# `experiments.bench_search`.
ROWS, FEWEST, PER = 128, 4, 32
_UNVISITED = -1
_MASKED = float(np.finfo(np.float32).min)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Node:
    """What search knows of a position.

    Attributes:
        state: the game's state, leaves [B, ...].
        logits: f32[B, A] of the policy, illegal actions at the least float.
        value: f32[B] estimate of the rewards still to come, 0 after the end.
        done: bool[B] the game is over.
    """

    state: Any
    logits: jax.Array
    value: jax.Array
    done: jax.Array


# (arrays, state) -> (f32[A] logits, f32[] value) of one position; legality is not its business.
Evaluate = Callable[[Any, Any], tuple[jax.Array, jax.Array]]


class Rules(Protocol):
    """The part of `games.base.Game` that search steps through."""

    def legal_actions(self, arrays: Any, state: Any) -> Any:
        """bool[num_actions]."""

    def step(self, arrays: Any, state: Any, action: Any) -> tuple[Any, Any, Any]:
        """(state, reward, done)."""

    def prior_logits(self, arrays: Any, state: Any) -> Any:
        """f32[num_actions]."""

    def prior_value(self, arrays: Any, state: Any) -> Any:
        """f32[]."""


@dataclass(frozen=True)
class Model:
    """A game with the policy and the value that guide search in it.

    Attributes:
        game: the game.
        evaluate: policy and value; the game's own if None.
        arrays_axis: 0 where each game of the batch has its own arrays, None where they share them,
            or a tree of these.
    """

    game: Rules
    evaluate: Evaluate | None = None
    arrays_axis: Any = None

    def root(self, arrays: Any, states: Any) -> Node:
        """The nodes of B positions."""
        over = jnp.zeros(jax.tree.leaves(states)[0].shape[0], jnp.bool_)
        return jax.vmap(self._node, in_axes=(self.arrays_axis, 0, 0))(arrays, states, over)

    def step(self, arrays: Any, states: Any, actions: jax.Array) -> tuple[Node, jax.Array]:
        """(nodes after one action each, f32[B] rewards)."""

        def one(arrays: Any, state: Any, action: jax.Array) -> tuple[Node, jax.Array]:
            state, reward, done = self.game.step(arrays, state, action)
            return self._node(arrays, state, done), reward

        return jax.vmap(one, in_axes=(self.arrays_axis, 0, 0))(arrays, states, actions)

    def _node(self, arrays: Any, state: Any, done: jax.Array) -> Node:
        if self.evaluate is None:
            logits = self.game.prior_logits(arrays, state)
            value = self.game.prior_value(arrays, state)
        else:
            logits, value = self.evaluate(arrays, state)
        legal = self.game.legal_actions(arrays, state)
        return Node(
            state=state,
            logits=jnp.where(legal, logits, _MASKED),
            value=jnp.where(done, 0.0, value),
            done=done,
        )


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        simulations: room for that many in a tree.
        considered: actions that Sequential Halving starts with.
        value_scale, visit_offset: a Q-value counts `(visit_offset + most visits) * value_scale`
            beside the logits (sigma in the paper).
        rescale: stretch the Q-values of each node to [0, 1] first.
        least_range: those that differ by less are stretched by as much as if they differed by that,
            so that errors of the value that are smaller stay small.
        backup: a node's value is the mean of what followed it, or the "max" of what followed its
            actions, which suits rules without chance and trusts the largest error.
    """

    simulations: int = 16
    considered: int = 16
    value_scale: float = 0.1
    visit_offset: float = 50.0
    rescale: bool = True
    least_range: float = LEAST_RANGE
    backup: Literal["mean", "max"] = "mean"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Tree:
    """B search trees. The root is node 0; simulation i adds node i + 1 at most.

    Attributes:
        states: u32[B, N, words] the game's states, packed.
        visits: i32[B, N].
        over: bool[B, N].
        values, raw_values: f32[B, N] backed up to the node; what was estimated first.
        actions, rewards: i32[B, N], f32[B, N] of the edge that leads to the node.
        follow, following: i32[B, N] the action to be followed from the node, if it is not the root,
            and the child that it leads to, -1 if there is none yet.
        children: i32[B, N, A] index of the child, -1 if it was never visited.
        logits, policy: f32[B, N, A] of the node, and their softmax.
        child_visits, child_q: i32[B, N, A], f32[B, N, A] reward and value of what follows.
        root_q: f32[B, A] the root's completed Q-values.
    """

    states: jax.Array
    over: jax.Array
    visits: jax.Array
    values: jax.Array
    raw_values: jax.Array
    actions: jax.Array
    rewards: jax.Array
    follow: jax.Array
    following: jax.Array
    children: jax.Array
    logits: jax.Array
    policy: jax.Array
    child_visits: jax.Array
    child_q: jax.Array
    root_q: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        action: i32[B] the action to play.
        policy: f32[B, A] the improved policy, a target for training.
        value: f32[B] the root's value.
        node: the node after the action.
        reward: f32[B] the reward of the action.
        tree: the trees.
    """

    action: jax.Array
    policy: jax.Array
    value: jax.Array
    node: Node
    reward: jax.Array
    tree: Tree


def search(
    model: Model,
    settings: Settings,
    arrays: Any,
    root: Node,
    key: jax.Array,
    *,
    gumbel_scale: jax.Array | float = 1.0,
    simulations: jax.Array | int | None = None,
    buffer: jax.Array | None = None,
) -> Found:
    """Searches from B positions.

    Args:
        model: the game and what guides the search.
        settings: sizes and scales.
        arrays: of the problem, or one for each game of the batch.
        root: the positions.
        key: of the Gumbel noise.
        gumbel_scale: f32[B] or one number; 0 for no noise.
        simulations: how many to run, 1 to `settings.simulations` (the default). With 1, the action
            is drawn from the root's policy.
        buffer: u32[B, N, words] of any content, to keep states in; made if None.
    """
    batch, num_actions = root.logits.shape
    scale = jnp.broadcast_to(jnp.asarray(gumbel_scale, jnp.float32), (batch,))
    gumbel = scale[:, None] * jax.random.gumbel(key, root.logits.shape)
    if buffer is None:
        buffer = make_buffer(settings, root.state)
    considered = jnp.asarray(_considered_visits(min(settings.considered, num_actions), settings))
    legal = root.logits > _MASKED
    count = jnp.minimum(legal.sum(axis=-1), considered.shape[0] - 1)
    everyone = jnp.arange(batch)

    def simulate(index: jax.Array, tree: Tree) -> Tree:
        wanted = considered[count, index]
        visits = tree.child_visits[:, ROOT]
        way = _descend(tree, _best_of(root.logits, gumbel, tree.root_q, visits, wanted))
        state = unpack(tree.states[everyone, way.node], root.state)
        node, reward = model.step(arrays, state, way.action)
        tree = _add(tree, index + 1, way, node, reward)
        return _back_up(tree, settings, way, reward, node.value)

    tree = _plant(root, settings, buffer)
    runs = settings.simulations if simulations is None else simulations
    tree = jax.lax.fori_loop(0, runs, simulate, tree)

    visits = tree.child_visits[:, ROOT]
    action = _best_of(root.logits, gumbel, tree.root_q, visits, visits.max(axis=-1))
    child = tree.children[everyone, ROOT, action]
    improved = jnp.where(legal, root.logits + tree.root_q, _MASKED)
    return Found(
        action=action,
        policy=jax.nn.softmax(improved),
        value=tree.values[:, ROOT],
        node=Node(
            state=unpack(tree.states[everyone, child], root.state),
            logits=tree.logits[everyone, child],
            value=tree.raw_values[everyone, child],
            done=tree.over[everyone, child],
        ),
        reward=tree.rewards[everyone, child],
        tree=tree,
    )


def make_buffer(settings: Settings, states: Any) -> jax.Array:
    """u32[B, N, words]: room for the states of the trees."""
    batch, words = pack(states).shape
    return jnp.zeros((batch, settings.simulations + 1, words), jnp.uint32)


def pack(states: Any) -> jax.Array:
    """u32[B, words]: the leaves of B states side by side; one array moves faster than many.

    Leaves are of 32 bits, or of bool, which takes a word each.
    """
    words = []
    for leaf in jax.tree.leaves(states):
        flat = leaf.reshape(leaf.shape[0], -1)
        if flat.dtype == jnp.bool_:
            flat = flat.astype(jnp.uint32)
        words.append(jax.lax.bitcast_convert_type(flat, jnp.uint32))
    return jnp.concatenate(words, axis=1)


def unpack(words: jax.Array, like: Any) -> Any:
    """The states that `pack` made the words of; `like` has their shapes and types."""
    leaves, structure = jax.tree.flatten(like)
    unpacked = []
    begin = 0
    for leaf in leaves:
        size = math.prod(leaf.shape[1:])
        flat = words[:, begin : begin + size].reshape(-1, *leaf.shape[1:])
        begin += size
        if leaf.dtype == jnp.bool_:
            unpacked.append(flat > 0)
        else:
            unpacked.append(jax.lax.bitcast_convert_type(flat, leaf.dtype))
    return jax.tree.unflatten(structure, unpacked)


def _considered_visits(actions: int, settings: Settings) -> np.ndarray:
    """i32[actions + 1, simulations]: row m has the visits that an action must have to be next.

    Sequential Halving with m actions, each of which is visited equally often in a round.
    """
    table = np.zeros((actions + 1, settings.simulations), dtype=np.int32)
    for considered in range(actions + 1):
        if considered <= 1:
            table[considered] = np.arange(settings.simulations)
            continue
        rounds = math.ceil(math.log2(considered))
        visits = [0] * considered
        left = considered
        sequence: list[int] = []
        while len(sequence) < settings.simulations:
            for _ in range(max(1, int(settings.simulations / (rounds * left)))):
                sequence += visits[:left]
                visits[:left] = [count + 1 for count in visits[:left]]
            left = max(2, left // 2)
        table[considered] = sequence[: settings.simulations]
    return table


def _plant(root: Node, settings: Settings, buffer: jax.Array) -> Tree:
    batch, num_actions = root.logits.shape
    nodes = (batch, settings.simulations + 1)
    edges = (*nodes, num_actions)
    zeros = jnp.zeros(nodes)
    tree = Tree(
        states=buffer.at[:, ROOT].set(pack(root.state)),
        over=jnp.zeros(nodes, jnp.bool_).at[:, ROOT].set(root.done),
        visits=jnp.zeros(nodes, jnp.int32).at[:, ROOT].set(1),
        values=zeros.at[:, ROOT].set(root.value),
        raw_values=zeros.at[:, ROOT].set(root.value),
        actions=jnp.full(nodes, _UNVISITED),
        rewards=zeros,
        follow=jnp.zeros(nodes, jnp.int32),
        following=jnp.full(nodes, _UNVISITED),
        children=jnp.full(edges, _UNVISITED),
        logits=jnp.zeros(edges).at[:, ROOT].set(root.logits),
        policy=jnp.zeros(edges).at[:, ROOT].set(jax.nn.softmax(root.logits)),
        child_visits=jnp.zeros(edges, jnp.int32),
        child_q=jnp.zeros(edges),
        root_q=jnp.zeros_like(root.logits),
    )
    everyone = jnp.arange(batch)
    completed = _completed(tree, settings, everyone, jnp.full(batch, ROOT))
    return replace(tree, root_q=completed)


class _Way(NamedTuple):
    """From the roots to the edges without a child that simulations end with.

    Attributes:
        node, action: i32[B] the edges.
        path: i32[N, B] the nodes from the root to these, in the first `depth` rows.
        depth: i32[B].
    """

    node: jax.Array
    action: jax.Array
    path: jax.Array
    depth: jax.Array


def _descend(tree: Tree, action: jax.Array) -> _Way:
    """From the roots by the first actions, then by those that are to be followed."""
    batch, nodes = tree.visits.shape
    everyone = jnp.arange(batch)

    def on_the_way(at: tuple[_Way, jax.Array, jax.Array]) -> jax.Array:
        return (at[1] != _UNVISITED).any()

    def down(at: tuple[_Way, jax.Array, jax.Array]) -> tuple[_Way, jax.Array, jax.Array]:
        way, child, level = at
        going = child != _UNVISITED
        node = jnp.where(going, child, way.node)
        way = way._replace(node=node, path=way.path.at[level].set(node), depth=way.depth + going)
        # A node that is an end stays one.
        return way, jnp.where(going, tree.following[everyone, node], child), level + 1

    roots = jnp.full(batch, ROOT)
    path = jnp.zeros((nodes, batch), jnp.int32)
    way = _Way(roots, action, path, jnp.ones(batch, jnp.int32))
    start = (way, tree.children[everyone, ROOT, action], jnp.int32(1))
    way = jax.lax.while_loop(on_the_way, down, start)[0]
    below = tree.follow[everyone, way.node]
    return way._replace(action=jnp.where(way.node == ROOT, action, below))


def _add(tree: Tree, index: jax.Array, way: _Way, node: Node, reward: jax.Array) -> Tree:
    """A new node in each tree, at the same index."""
    everyone = jnp.arange(way.node.shape[0])
    policy = jax.nn.softmax(node.logits)
    return replace(
        tree,
        states=tree.states.at[:, index].set(pack(node.state)),
        over=tree.over.at[:, index].set(node.done),
        visits=tree.visits.at[:, index].set(1),
        values=tree.values.at[:, index].set(node.value),
        raw_values=tree.raw_values.at[:, index].set(node.value),
        actions=tree.actions.at[:, index].set(way.action),
        rewards=tree.rewards.at[:, index].set(reward),
        # Its actions have one Q-value for all, so that the policy decides.
        follow=tree.follow.at[:, index].set(_first_largest(policy)),
        children=tree.children.at[everyone, way.node, way.action].set(index),
        logits=tree.logits.at[:, index].set(node.logits),
        policy=tree.policy.at[:, index].set(policy),
    )


def _back_up(
    tree: Tree, settings: Settings, way: _Way, reward: jax.Array, value: jax.Array
) -> Tree:
    """The new nodes' rewards and values f32[B] go up to the roots."""
    batch, nodes = tree.visits.shape
    everyone = jnp.arange(batch)
    block = min(max(FEWEST, ROWS // batch), max(1, settings.simulations // PER))
    trees = jnp.tile(everyone, block)

    def on_the_way(at: tuple[Tree, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return at[3] < way.depth.max()

    def up(
        at: tuple[Tree, jax.Array, jax.Array, jax.Array],
    ) -> tuple[Tree, jax.Array, jax.Array, jax.Array]:
        tree, gain, below, done = at
        step = done + jnp.arange(block)[:, None]  # above the new nodes
        level = way.depth - 1 - step
        node = way.path[jnp.maximum(level, 0), everyone]
        child = way.path[jnp.clip(level + 1, 0, nodes - 1), everyone]
        action = jnp.where(step == 0, way.action, tree.actions[everyone, child])
        gained = jnp.where(step == 0, reward, tree.rewards[everyone, child])
        count = tree.visits[everyone, node]
        gains = []
        for place in range(block):
            gain = gained[place] + gain
            gains.append(gain)
        if settings.backup == "mean":
            value = (tree.values[everyone, node] * count + jnp.stack(gains)) / (count + 1.0)
        else:
            value = _largest(tree, node, action, gained, below)
        # Above the root: beyond the end, which drops what is written.
        row = jnp.where(level >= 0, node, nodes)
        passed = gained + jnp.concatenate([below[None], value[:-1]])
        tree = replace(
            tree,
            values=tree.values.at[everyone, row].set(value, mode="drop"),
            visits=tree.visits.at[everyone, row].set(count + 1, mode="drop"),
            child_q=tree.child_q.at[everyone, row, action].set(passed, mode="drop"),
            child_visits=tree.child_visits.at[everyone, row, action].add(1, mode="drop"),
        )
        completed = _completed(tree, settings, trees, node.reshape(-1))
        follow = _inner_action(tree, completed, trees, node.reshape(-1)).reshape(row.shape)
        top = way.depth - 1 - done  # the root's place in the block
        of_root = completed.reshape(block, batch, -1)[jnp.clip(top, 0, block - 1), everyone]
        tree = replace(
            tree,
            follow=tree.follow.at[everyone, row].set(follow, mode="drop"),
            following=tree.following.at[everyone, row].set(
                tree.children[everyone, node, follow], mode="drop"
            ),
            root_q=jnp.where((top < block)[:, None] & (top >= 0)[:, None], of_root, tree.root_q),
        )
        return tree, gain, value[-1], done + block

    return jax.lax.while_loop(on_the_way, up, (tree, value, value, jnp.int32(0)))[0]


def _largest(
    tree: Tree, node: jax.Array, action: jax.Array, reward: jax.Array, below: jax.Array
) -> jax.Array:
    """f32[K, B]: the largest of what follows the actions of the nodes i32[K, B] of a path.

    `below` f32[B] is the value of the node below the first one; `action` and `reward` lead there.
    """
    everyone = jnp.arange(below.shape[0])
    known = tree.child_q[everyone, node]
    seen = tree.child_visits[everyone, node] > 0
    values = []
    for place in range(len(node)):
        taken = jax.nn.one_hot(action[place], known.shape[-1], dtype=jnp.bool_)
        followed = jnp.where(taken, (reward[place] + below)[:, None], known[place])
        below = jnp.where(seen[place] | taken, followed, -jnp.inf).max(axis=-1)
        values.append(below)
    return jnp.stack(values)


def _best_of(
    logits: jax.Array,
    gumbel: jax.Array,
    completed: jax.Array,
    visits: jax.Array,
    wanted: jax.Array,
) -> jax.Array:
    """Among the legal actions with the wanted number of visits the best `gumbel + logits + q`."""
    centred = logits - logits.max(axis=-1, keepdims=True)
    score = jnp.maximum(-1e9, gumbel + centred + completed)
    score = jnp.where(visits == wanted[:, None], score, -jnp.inf)
    score = jnp.where(logits > _MASKED, score, -jnp.inf)
    return _first_largest(score)


def _inner_action(tree: Tree, completed: jax.Array, trees: jax.Array, node: jax.Array) -> jax.Array:
    """i32[K]: the action of each of K nodes whose visits lag most behind the improved policy."""
    policy = jax.nn.softmax(tree.logits[trees, node] + completed)
    shares = tree.child_visits[trees, node] / tree.visits[trees, node][:, None]
    return _first_largest(policy - shares)


def _first_largest(scores: jax.Array) -> jax.Array:
    """i32[K]: `argmax` of f32[K, A]; two plain reductions are several times as fast."""
    last = scores.shape[-1] - 1
    largest = scores == scores.max(axis=-1, keepdims=True)
    return jnp.where(largest, jnp.arange(last + 1, dtype=jnp.int32), last).min(axis=-1)


def _completed(tree: Tree, settings: Settings, trees: jax.Array, node: jax.Array) -> jax.Array:
    """f32[K, A]: Q-values of the actions of K nodes i32[K] of trees i32[K], on the scale of logits.

    Actions without a visit get the mixed value of the paper's appendix D.
    """
    visits, q = tree.child_visits[trees, node], tree.child_q[trees, node]
    visited = visits > 0
    prior = jnp.maximum(float(np.finfo(np.float32).tiny), tree.policy[trees, node])
    seen = jnp.where(visited, prior, 0.0).sum(axis=-1, keepdims=True)
    mean = jnp.where(visited, prior * q / jnp.where(visited, seen, 1.0), 0.0).sum(axis=-1)
    count = tree.visits[trees, node]  # one more than its actions have
    mixed = (tree.raw_values[trees, node] + (count - 1) * mean) / count
    q = jnp.where(visited, q, mixed[:, None])
    if settings.rescale:
        low, high = q.min(axis=-1, keepdims=True), q.max(axis=-1, keepdims=True)
        q = (q - low) / jnp.maximum(high - low, settings.least_range)
    sharpness = (settings.visit_offset + visits.max(axis=-1, keepdims=True)) * settings.value_scale
    return sharpness * q
