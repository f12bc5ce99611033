"""A smaller problem with the same optimum.

Until nothing changes any more:

- arc consistency: an option whose pairs with all options of a neighbour are excluded goes;
- a node whose option follows from a neighbour's (one allowed pair in each row of their table) is
  merged into it: its costs, edges and usages become the neighbour's;
- a table of the form a[i] + b[j] is no interaction: the two parts become node costs;
- times at which the limit cannot be reached go, and so do times that another one implies; an
  option that alone uses more than there is room for goes;
- a node without usage at the times left and with two neighbours at most is eliminated: the least
  cost over its options becomes a cost of its neighbours (variable elimination);
- an option goes if another one of the node uses no more at any time and costs no more whatever
  the neighbours do (dead-end elimination, Goldstein, Biophys. J. 1994).

Every step keeps at least one optimal assignment, and `Graph.expand` undoes them.
"""

from __future__ import annotations

from collections import deque
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from numba import njit

from games.tensor_parallel.graph import Derived, Graph
from games.tensor_parallel.problem import FORBIDDEN, Floats, Ints, ShardingProblem
from hlo_frontend.errors import InputError

LARGEST_TABLE = 1 << 14  # cells of an edge that an elimination may make
ROUNDS = 8  # of all steps; what is left to gain after them is little

Use = tuple[int, int, Ints]  # begin, end, amount of each option


_KNOWN: WeakKeyDictionary[ShardingProblem, Graph] = WeakKeyDictionary()


def reduce(problem: ShardingProblem) -> Graph:
    """The problem's graph core, reduced without loss; the same one every time.

    Raises:
        InputError: no assignment keeps the limit, or none has a finite cost, as far as that shows.
    """
    if problem not in _KNOWN:
        _KNOWN[problem] = _reduced(problem)
    return _KNOWN[problem]


def _reduced(problem: ShardingProblem) -> Graph:
    limit = problem.usage_limit
    if limit is not None:
        least, time = problem.least_usage()
        if least > limit:
            raise InputError(
                f"{problem.name}: no feasible assignment: at time {time} the least usage is"
                f" {least}, above the limit {limit} by {least - limit}"
            )
    work = _Work(problem)
    for _ in range(ROUNDS):
        work.propagate()
        work.compress_times()
        work.propagate()
        work.eliminate()
        if not work.drop_dominated():
            break
    work.propagate()
    return work.graph()


class _Work:
    """The problem while it shrinks."""

    def __init__(self, problem: ShardingProblem) -> None:
        self.problem = problem
        starts = problem.node_start
        allowed = problem.node_cost < FORBIDDEN
        self.label: list[Ints] = []  # strategies of the node that are left
        self.cost: list[Floats] = []
        self.uses: list[list[Use]] = []
        self.alive = np.ones(problem.num_nodes, dtype=np.bool_)
        limited = problem.usage_limit is not None
        for node in range(problem.num_nodes):
            begin, end = starts[node], starts[node + 1]
            label = np.flatnonzero(allowed[begin:end])
            if not len(label):
                raise self._wiped_out(node)
            self.label.append(label)
            self.cost.append(problem.node_cost[begin:end][label].astype(np.float64))
            first, last = problem.interval[node]
            usage = problem.node_usage[begin:end][label]
            self.uses.append([(int(first), int(last), usage)] if limited and first < last else [])
        self.time = np.arange(problem.num_times)
        self.room = np.full(problem.num_times, problem.usage_limit or 0, dtype=np.int64)
        self.constant = 0.0
        self.derived: list[Derived] = []
        self.tables: dict[tuple[int, int], Floats] = {}
        self.neighbours: list[set[int]] = [set() for _ in range(problem.num_nodes)]
        self.queue: deque[tuple[int, int]] = deque()
        values = problem.edge_cost.astype(np.float64)
        values[problem.edge_cost >= FORBIDDEN] = np.inf
        counts = problem.num_strategies
        for edge, (a, b) in enumerate(problem.edge_nodes.tolist()):
            table = values[problem.edge_start[edge] : problem.edge_start[edge + 1]]
            table = table.reshape(counts[a], counts[b])
            if len(self.label[a]) < counts[a] or len(self.label[b]) < counts[b]:
                table = table[np.ix_(self.label[a], self.label[b])]
            self.add(a, b, table)

    def _wiped_out(self, node: int) -> InputError:
        return InputError(
            f"{self.problem.name}: no feasible assignment: every strategy of node {node} is"
            " excluded by infinite costs or by the usage limit"
        )

    def table(self, a: int, b: int) -> Floats:
        """Costs of the edge, rows for the options of `a`."""
        return self.tables[a, b] if a < b else self.tables[b, a].T

    def put(self, a: int, b: int, table: Floats) -> None:
        self.tables[min(a, b), max(a, b)] = table if a < b else table.T

    def add(self, a: int, b: int, table: Floats) -> None:
        """Adds costs of a pair, which may have some already."""
        if b in self.neighbours[a]:
            self.put(a, b, self.table(a, b) + table)
        else:
            self.put(a, b, table)
            self.neighbours[a].add(b)
            self.neighbours[b].add(a)
        self.queue.append((a, b))

    def cut(self, a: int, b: int) -> None:
        del self.tables[min(a, b), max(a, b)]
        self.neighbours[a].discard(b)
        self.neighbours[b].discard(a)

    def keep(self, node: int, kept: npt.NDArray[np.bool_]) -> None:
        """Leaves the node these options only."""
        if not kept.any():
            raise self._wiped_out(node)
        self.label[node] = self.label[node][kept]
        self.cost[node] = self.cost[node][kept]
        self.uses[node] = [(b, e, amount[kept]) for b, e, amount in self.uses[node]]
        for other in self.neighbours[node]:
            self.put(node, other, self.table(node, other)[kept])
            self.queue.append((node, other))

    def propagate(self) -> None:
        """Arc consistency, merges, tables without interaction."""
        while self.queue:
            a, b = self.queue.popleft()
            if b in self.neighbours[a]:
                self.settle(a, b)

    def settle(self, a: int, b: int) -> None:
        table = self.table(a, b)
        finite = np.isfinite(table)
        if finite.all():
            steps = table - table[:, :1]
            if (steps == steps[0]).all():
                self.cut(a, b)
                self.cost[a] = self.cost[a] + table[:, 0]
                self.cost[b] = self.cost[b] + steps[0]
            return
        for node, kept in ((a, finite.any(axis=1)), (b, finite.any(axis=0))):
            kept = np.asarray(kept)  # noqa: PLW2901
            if not kept.all():
                self.keep(node, kept)  # which puts the edge into the queue again
                return
        if (finite.sum(axis=1) == 1).all():
            self.merge(b, a, finite.argmax(axis=1))
        elif (finite.sum(axis=0) == 1).all():
            self.merge(a, b, finite.argmax(axis=0))

    def merge(self, node: int, into: int, follows: Ints) -> None:
        """`node` takes option `follows[i]` where `into` takes option i."""
        size = int(self.problem.num_strategies[into])
        choice = np.full(size, -1, dtype=np.int64)
        choice[self.label[into]] = self.label[node][follows]
        self.derived.append(Derived(node, (into,), choice))
        own = self.table(into, node)[np.arange(len(follows)), follows]
        self.cost[into] = self.cost[into] + own + self.cost[node][follows]
        self.cut(node, into)
        self.uses[into] += [(b, e, amount[follows]) for b, e, amount in self.uses[node]]
        for other in list(self.neighbours[node]):
            table = self.table(node, other)[follows]
            self.cut(node, other)
            self.add(into, other, table)
        self.retire(node)

    def retire(self, node: int) -> None:
        self.alive[node] = False
        self.uses[node] = []

    def compress_times(self) -> None:
        """Leaves only the times at which the limit may bind and that no other one implies."""
        nodes = np.flatnonzero(self.alive).tolist()
        horizon = len(self.room)
        lowered = np.zeros(horizon + 1, dtype=np.int64)
        highest = np.zeros(horizon + 1, dtype=np.int64)
        begins = np.zeros(horizon + 1, dtype=np.int64)
        ends = np.zeros(horizon + 1, dtype=np.int64)
        for node in nodes:
            merged: dict[tuple[int, int], Ints] = {}
            for begin, end, amount in self.uses[node]:
                least = int(amount.min())
                if least:
                    lowered[begin] += least
                    lowered[end] -= least
                    amount = amount - least  # noqa: PLW2901
                if amount.any():
                    known = merged.get((begin, end))
                    merged[begin, end] = amount if known is None else known + amount
            self.uses[node] = []
            for (begin, end), amount in merged.items():
                most = int(amount.max())
                highest[begin] += most
                highest[end] -= most
                begins[begin] += 1
                ends[end] += 1
                self.uses[node].append((begin, end, amount))
        self.room = self.room - np.cumsum(lowered)[:-1]
        if horizon and self.room.min() < 0:
            slot = int(self.room.argmin())
            limit = int(self.problem.usage_limit or 0)
            raise InputError(
                f"{self.problem.name}: no feasible assignment: at time {self.time[slot]} the least"
                f" usage is {limit - int(self.room[slot])}, above the limit {limit} by"
                f" {-int(self.room[slot])}"
            )
        binding = np.flatnonzero(np.cumsum(highest)[:-1] > self.room)
        kept = _tightest(binding, self.room, np.cumsum(begins), np.cumsum(ends))
        self.room, self.time = self.room[kept], self.time[kept]
        for node in nodes:
            if not self.uses[node]:
                continue
            uses = []
            fits = np.ones(len(self.label[node]), dtype=np.bool_)
            for begin, end, amount in self.uses[node]:
                first, last = (int(x) for x in np.searchsorted(kept, [begin, end]))
                if first < last:
                    uses.append((first, last, amount))
                    fits &= amount <= self.room[first:last].min()
            self.uses[node] = uses
            if not fits.all():
                self.keep(node, fits)

    def eliminate(self) -> None:
        """Eliminates nodes without usage that have two neighbours at most."""
        stack = np.flatnonzero(self.alive).tolist()
        while stack:
            node = stack.pop()
            near = sorted(self.neighbours[node])
            if not self.alive[node] or self.uses[node] or len(near) > 2:
                continue
            sizes = [len(self.label[other]) for other in near]
            joined = len(near) < 2 or near[1] in self.neighbours[near[0]]
            if not joined and sizes[0] * sizes[1] > LARGEST_TABLE:
                continue
            if not near:
                if len(self.label[node]) == 1:
                    continue  # a decision without a choice: `graph` fixes it
                self.keep(node, np.arange(len(self.label[node])) == self.cost[node].argmin())
                continue
            self.fold(node, near)
            self.propagate()
            stack += [other for other in near if self.alive[other]]

    def fold(self, node: int, near: list[int]) -> None:
        """Replaces a node by the least cost that it adds to its one or two neighbours."""
        sizes = [int(self.problem.num_strategies[other]) for other in near]
        choice = np.full(sizes, -1, dtype=np.int64)
        if len(near) == 1:
            joint = self.table(near[0], node) + self.cost[node]
        else:
            first, second = self.table(near[0], node), self.table(near[1], node)
            joint = (first + self.cost[node])[:, None, :] + second[None, :, :]
        best = joint.argmin(axis=-1)
        least = joint.min(axis=-1)
        choice[np.ix_(*(self.label[other] for other in near))] = self.label[node][best]
        self.derived.append(Derived(node, tuple(near), choice))
        for other in near:
            self.cut(node, other)
        self.retire(node)
        if len(near) == 1:
            other = near[0]
            self.cost[other] = self.cost[other] + least
            kept = np.isfinite(least)
            if not kept.all():
                self.keep(other, kept)
        else:
            self.add(near[0], near[1], least)

    def drop_dominated(self) -> bool:
        """Drops options that another one of their node replaces; whether there were any."""
        graph = self.graph()
        first, edges = graph.adjacency
        kept = np.ones(len(graph.cost), dtype=np.bool_)
        _dominated(
            graph.start,
            graph.cost,
            graph.edge,
            graph.edge_start,
            graph.edge_cost,
            first,
            edges,
            graph.use_start,
            graph.use_first,
            graph.amount,
            kept,
        )
        changed = False
        for decision, node in enumerate(graph.node.tolist()):
            options = kept[graph.start[decision] : graph.start[decision + 1]]
            if not options.all():
                changed = True
                self.keep(node, options)
        return changed

    def graph(self) -> Graph:
        """What is left, as arrays."""
        fixed = np.full(self.problem.num_nodes, -1, dtype=np.int64)
        constant = self.constant
        nodes = []
        for node in np.flatnonzero(self.alive).tolist():
            if len(self.label[node]) == 1 and not self.neighbours[node]:
                fixed[node] = self.label[node][0]
                constant += float(self.cost[node][0])
            else:
                nodes.append(node)
        number = {node: decision for decision, node in enumerate(nodes)}
        pairs = sorted((number[a], number[b], a, b) for a, b in self.tables)
        sizes = [self.tables[a, b].size for _, _, a, b in pairs]
        uses = [use for node in nodes for use in self.uses[node]]
        return Graph(
            node=np.array(nodes, dtype=np.int64),
            start=_starts([len(self.label[node]) for node in nodes]),
            strategy=_joined([self.label[node] for node in nodes]),
            cost=_costs([self.cost[node] for node in nodes]),
            edge=np.array([pair[:2] for pair in pairs], dtype=np.int64).reshape(-1, 2),
            edge_start=_starts(sizes),
            edge_cost=_costs([self.tables[a, b].ravel() for _, _, a, b in pairs]),
            use_start=_starts([len(self.uses[node]) for node in nodes]),
            use_begin=np.array([use[0] for use in uses], dtype=np.int64),
            use_end=np.array([use[1] for use in uses], dtype=np.int64),
            use_first=_starts([len(use[2]) for use in uses])[:-1],
            amount=_joined([use[2] for use in uses]),
            room=self.room,
            constant=constant,
            derived=tuple(reversed(self.derived)),
            fixed=fixed,
        )


def _starts(sizes: list[int]) -> Ints:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _costs(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.empty(0)


def _tightest(binding: Ints, room: Ints, begins: Ints, ends: Ints) -> Ints:
    """The binding times that no other one implies: with all its usages alive and no more room.

    `begins` and `ends` count the usages that have begun, or ended, up to and with each time.
    """
    kept: list[int] = []
    for time in binding.tolist():
        # Alive at the last one and here: all of them, if none ended in between.
        while kept and ends[time] == ends[kept[-1]] and room[time] <= room[kept[-1]]:
            kept.pop()
        if kept and begins[time] == begins[kept[-1]] and room[time] >= room[kept[-1]]:
            continue
        kept.append(time)
    return np.array(kept, dtype=np.int64)


@njit(cache=True, nogil=True)
def _dominated(
    start: Ints,
    cost: Floats,
    edge: Ints,
    edge_start: Ints,
    edge_cost: Floats,
    first: Ints,
    edges: Ints,
    use_start: Ints,
    use_first: Ints,
    amount: Ints,
    kept: npt.NDArray[np.bool_],
) -> None:
    """Sets `kept` to False for options that another kept one of the same decision replaces."""
    for d in range(start.size - 1):
        options = start[d + 1] - start[d]
        for s in range(options):
            for t in range(options):
                if s == t or not kept[start[d] + t]:
                    continue
                excess = cost[start[d] + t] - cost[start[d] + s]
                worse = False
                for c in range(use_start[d], use_start[d + 1]):
                    if amount[use_first[c] + t] > amount[use_first[c] + s]:
                        worse = True
                        break
                if worse:
                    continue
                for x in range(first[d], first[d + 1]):
                    e = edges[x]
                    forward = edge[e, 0] == d
                    other = edge[e, 1] if forward else edge[e, 0]
                    width = start[other + 1] - start[other]
                    most = -np.inf
                    for j in range(width):
                        if forward:
                            mine = edge_cost[edge_start[e] + t * width + j]
                            its = edge_cost[edge_start[e] + s * width + j]
                        else:
                            mine = edge_cost[edge_start[e] + j * options + t]
                            its = edge_cost[edge_start[e] + j * options + s]
                        if its < np.inf and mine - its > most:
                            most = mine - its
                    excess += most
                if excess <= 0:
                    kept[start[d] + s] = False
                    break
