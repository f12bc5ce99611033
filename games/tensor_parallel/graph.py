"""The graph core of the game: decisions, costs on them and on pairs, usage over time.

What the rules, the search and every solver work on. `reduction.reduce` makes it from a problem,
with fewer decisions and times but the same optimum, and says how to come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from games.tensor_parallel.problem import Floats, Ints


@dataclass(frozen=True)
class Derived:
    """How a node that was merged or eliminated follows from others.

    Attributes:
        node: the node.
        given: one or two nodes.
        choice: i64[K...] its strategy for each strategy of those; -1 where they never are.
    """

    node: int
    given: tuple[int, ...]
    choice: Ints


class Net(NamedTuple):
    """The arrays of a graph that native kernels take; see `Graph`.

    `first` and `edges` are its adjacency; `into[e]` is where the messages of edge e start: those
    for the options of its first decision, then those for its second one's.
    """

    start: Ints
    cost: Floats
    edge: Ints
    edge_start: Ints
    edge_cost: Floats
    first: Ints
    edges: Ints
    into: Ints
    use_start: Ints
    use_begin: Ints
    use_end: Ints
    use_first: Ints
    amount: Ints
    room: Ints


@dataclass(frozen=True, eq=False)
class Graph:
    """Arrays of a reduced problem. D decisions, E edges, C usages, T times that may bind.

    Attributes:
        node: i64[D] node of the problem that the decision is about.
        start: i64[D + 1] options of decision d are `start[d]:start[d + 1]`, one at least.
        strategy: i64[S] strategy of the node that the option stands for.
        cost: f64[S] finite.
        edge: i64[E, 2] pairs of decisions, first < second, each pair once at most.
        edge_start: i64[E + 1].
        edge_cost: f64[...] row-major over the options of the two; inf where they exclude each
            other. Every row and every column has a finite entry.
        use_start: i64[D + 1] usages of decision d are `use_start[d]:use_start[d + 1]`.
        use_begin, use_end: i64[C] half-open times.
        use_first: i64[C] amounts of usage c, one for each option of its decision, start there.
        amount: i64[...] >= 0.
        room: i64[T] what the usages at that time may add up to.
        constant: the cost of all that is not decided.
        derived: how the other nodes follow, in an order in which each has what it needs.
        fixed: i64[N] strategy of nodes that have no choice, -1 of the others.
    """

    node: Ints
    start: Ints
    strategy: Ints
    cost: Floats
    edge: Ints
    edge_start: Ints
    edge_cost: Floats
    use_start: Ints
    use_begin: Ints
    use_end: Ints
    use_first: Ints
    amount: Ints
    room: Ints
    constant: float
    derived: tuple[Derived, ...]
    fixed: Ints

    @property
    def num_decisions(self) -> int:
        """D."""
        return len(self.node)

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edge)

    @property
    def num_times(self) -> int:
        """T."""
        return len(self.room)

    @cached_property
    def adjacency(self) -> tuple[Ints, Ints]:
        """(i64[D + 1], i64[2 E]): edges of decision d, by index."""
        ends = self.edge.reshape(-1)
        order = np.argsort(ends, kind="stable")
        first = np.searchsorted(ends[order], np.arange(self.num_decisions + 1))
        return first.astype(np.int64), (order // 2).astype(np.int64)

    @cached_property
    def net(self) -> Net:
        """The arrays for native kernels."""
        first, edges = self.adjacency
        sizes = np.diff(self.start)[self.edge].sum(axis=1)
        return Net(
            start=self.start,
            cost=self.cost,
            edge=self.edge,
            edge_start=self.edge_start,
            edge_cost=self.edge_cost,
            first=first,
            edges=edges,
            into=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            use_start=self.use_start,
            use_begin=self.use_begin,
            use_end=self.use_end,
            use_first=self.use_first,
            amount=self.amount,
            room=self.room,
        )

    def expand(self, options: Ints) -> Ints:
        """i64[N]: the strategy of every node of the problem, from i64[D] options."""
        choice = self.fixed.copy()
        choice[self.node] = self.strategy[self.start[:-1] + options]
        for rule in self.derived:
            choice[rule.node] = rule.choice[tuple(choice[node] for node in rule.given)]
        return choice

    def total(self, options: Ints) -> float:
        """The problem's cost of i64[D] options."""
        total = self.constant + self.cost[self.start[:-1] + options].sum()
        if self.num_edges:
            first, second = self.edge.T
            width = np.diff(self.start)[second]
            cell = self.edge_start[:-1] + options[first] * width + options[second]
            total += self.edge_cost[cell].sum()
        return float(total)

    def load(self, options: Ints) -> Ints:
        """i64[T]: what the options use."""
        change = np.zeros(self.num_times + 1, dtype=np.int64)
        owner = np.repeat(np.arange(self.num_decisions), np.diff(self.use_start))
        used = self.amount[self.use_first + options[owner]]
        np.add.at(change, self.use_begin, used)
        np.subtract.at(change, self.use_end, used)
        return np.cumsum(change)[:-1]

    def options_of(self, choice: Ints) -> Ints | None:
        """The options that stand for a choice of strategies; None if a rule was not followed."""
        options = np.zeros(self.num_decisions, dtype=np.int64)
        for decision, node in enumerate(self.node):
            begin, end = self.start[decision : decision + 2]
            found = np.flatnonzero(self.strategy[begin:end] == choice[node])
            if not len(found):
                return None
            options[decision] = found[0]
        return options
