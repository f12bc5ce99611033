"""The line of moves of a problem, as padded arrays for the rules.

The game begins with a complete assignment within the limit, the plan that the dual decodes, and
goes through the decisions that the dual is least sure of: one move each, which keeps the plan's
option or takes another one. Everything else stays as planned. As the plan fits, keeping it is
always legal, so there is no dead end, whatever the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

import jax
import jax.numpy as jnp
import numpy as np

from games.tensor_parallel.dual import known_dual
from games.tensor_parallel.graph import Graph
from games.tensor_parallel.messages import priced_costs
from games.tensor_parallel.problem import Floats, Ints, ShardingProblem
from games.tensor_parallel.reduction import reduce
from hlo_frontend.errors import InputError

MOST_MOVES = 256
MOST_OPTIONS = 32  # of a move: the cheapest by belief, and the plan's
MOST_NEIGHBOURS = 32  # of a move among the moves; decisions with more stay as planned
MOST_TIMES = 1024  # at which the moves could break the limit; fewer moves where there are more
PLAN_WORK = 3e8  # table entries that message passing looks at for the plan
LEAST = 8  # smallest size of a bucket


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Arrays:
    """M moves of K options, G neighbours, C usages each; T times. Costs are fractions of `scale`.

    Attributes:
        num_moves: i32[] moves that are no padding.
        options: i32[M] options that are no padding.
        plan: i32[M] the plan's option.
        cost: f32[M, K] above the plan's, with all neighbours that are no moves as planned.
        doubt: f32[M, K] belief of the dual above its least, by its mean.
        neighbour: i32[M, G] moves; M where there is none.
        table: f32[M, G, K, K] rows for the move's own options; inf excludes a pair.
        begin, end: i32[M, C] half-open times.
        amount: f32[M, C, K] of usage, as a fraction of the largest room.
        room: f32[T] with all moves as planned there is that much left.
    """

    num_moves: jax.Array
    options: jax.Array
    plan: jax.Array
    cost: jax.Array
    doubt: jax.Array
    neighbour: jax.Array
    table: jax.Array
    begin: jax.Array
    end: jax.Array
    amount: jax.Array
    room: jax.Array
    length: int = field(metadata={"static": True})
    width: int = field(metadata={"static": True})


@dataclass(frozen=True)
class Line:
    """What the moves stand for in the graph.

    Attributes:
        graph: the graph.
        plan: i64[D] options.
        decisions: i64[M] of the moves, in the order of play.
        options: for each move the options that its actions stand for.
        belief: for each move the dual's cost of these options above the least.
    """

    graph: Graph
    plan: Ints
    decisions: Ints
    options: list[Ints]
    belief: list[Floats]


def line_of(problem: ShardingProblem) -> Line:
    """The moves of a problem.

    Raises:
        InputError: no assignment within the limit is known to begin with.
    """
    graph = reduce(problem)
    sweeps = int(np.clip(PLAN_WORK / (2 * len(graph.edge_cost) + 1), 50, 1000))
    dual = known_dual(problem, inf, sweeps)
    if dual.options is None:
        raise InputError(
            f"{problem.name}: found no assignment within the usage limit to begin a game with"
        )
    plan = dual.options
    priced = np.empty(len(graph.cost))
    priced_costs(graph.net, dual.prices, priced)
    belief = _beliefs(graph, priced, dual.messages)
    margin = np.full(graph.num_decisions, inf)
    first, _ = graph.adjacency
    for decision, costs in enumerate(belief):
        if len(costs) > 1:
            margin[decision] = np.delete(costs, plan[decision]).min() - costs[plan[decision]]
    chosen: list[int] = []
    for decision in np.argsort(margin, kind="stable").tolist():
        if len(chosen) == MOST_MOVES or margin[decision] == inf:
            break
        if first[decision + 1] - first[decision] <= MOST_NEIGHBOURS:
            chosen.append(decision)
    while len(_binding(graph, plan, chosen)) > MOST_TIMES:
        chosen = chosen[: len(chosen) // 2]
    options, kept = [], []
    for decision in chosen:
        order = np.argsort(belief[decision], kind="stable")[:MOST_OPTIONS]
        if plan[decision] not in order:
            order[-1] = plan[decision]
        order = np.sort(order)
        options.append(order)
        kept.append(belief[decision][order])
    return Line(graph, plan, np.array(chosen, dtype=np.int64), options, kept)


def _beliefs(graph: Graph, priced: Floats, messages: Floats) -> list[Floats]:
    """For each decision the priced costs and all messages to it, above the least."""
    net = graph.net
    total = priced.copy()
    for edge, (a, b) in enumerate(graph.edge.tolist()):
        middle = net.into[edge] + graph.start[a + 1] - graph.start[a]
        total[graph.start[a] : graph.start[a + 1]] += messages[net.into[edge] : middle]
        total[graph.start[b] : graph.start[b + 1]] += messages[middle : net.into[edge + 1]]
    parts = np.split(total, graph.start[1:-1])
    return [part - part.min() for part in parts] if graph.num_decisions else []


def _uses(graph: Graph, decision: int) -> list[tuple[int, int, Ints]]:
    count = graph.start[decision + 1] - graph.start[decision]
    return [
        (
            int(graph.use_begin[use]),
            int(graph.use_end[use]),
            graph.amount[graph.use_first[use] : graph.use_first[use] + count],
        )
        for use in range(graph.use_start[decision], graph.use_start[decision + 1])
    ]


def _binding(graph: Graph, plan: Ints, chosen: list[int]) -> Ints:
    """Times at which the moves could use more than there is room for."""
    change = np.zeros(graph.num_times + 1, dtype=np.int64)
    for decision in chosen:
        for begin, end, amount in _uses(graph, decision):
            more = amount.max() - amount[plan[decision]]
            change[begin] += more
            change[end] -= more
    return np.flatnonzero(np.cumsum(change)[:-1] > graph.room - graph.load(plan))


def _bucket(size: int) -> int:
    return max(LEAST, 1 << (size - 1).bit_length()) if size else LEAST


def arrays_of(line: Line) -> Arrays:
    """The padded arrays of a line of moves."""
    graph, plan = line.graph, line.plan
    decisions = line.decisions.tolist()
    place = {decision: move for move, decision in enumerate(decisions)}
    times = _binding(graph, plan, decisions)
    first, edges = graph.adjacency
    near = [
        [
            (int(e), int(graph.edge[e].sum()) - decision)
            for e in edges[first[decision] : first[decision + 1]]
        ]
        for decision in decisions
    ]
    uses = [_uses(graph, decision) for decision in decisions]
    length = _bucket(len(decisions))
    width = _bucket(max((len(own) for own in line.options), default=1))
    degree = _bucket(max((sum(o in place for _, o in own) for own in near), default=0))
    shown = _bucket(max((len(own) for own in uses), default=0))
    cost = np.full((length, width), np.inf)
    doubt = np.full((length, width), np.inf)
    cost[len(decisions) :] = doubt[len(decisions) :] = 0.0
    neighbour = np.full((length, degree), length)
    table = np.zeros((length, degree, width, width))
    begin, end = np.zeros((2, length, shown), dtype=np.int64)
    amount = np.zeros((length, shown, width))
    planned = np.zeros(length, dtype=np.int64)
    counts = np.ones(length, dtype=np.int64)
    scale = max(graph.total(plan), 1.0)
    for move, decision in enumerate(decisions):
        own = line.options[move]
        counts[move] = len(own)
        planned[move] = int(np.flatnonzero(own == plan[decision])[0])
        costs = graph.cost[graph.start[decision] + own].copy()
        filled = 0
        for e, other in near[move]:
            rows = _table(graph, e, decision)
            if other in place:
                theirs = line.options[place[other]]
                neighbour[move, filled] = place[other]
                table[move, filled, : len(own), : len(theirs)] = rows[np.ix_(own, theirs)]
                filled += 1
            else:
                costs += rows[own, plan[other]]
        cost[move, : len(own)] = (costs - costs[planned[move]]) / scale
        doubt[move, : len(own)] = line.belief[move]
        for k, (start, stop, used) in enumerate(uses[move]):
            begin[move, k], end[move, k] = np.searchsorted(times, [start, stop])
            amount[move, k, : len(own)] = used[own] - used[plan[decision]]
    mean = float(doubt[np.isfinite(doubt)].mean()) if decisions else 1.0
    unit = float(graph.room.max(initial=1)) or 1.0
    room = np.full(_bucket(len(times)), 1.0)
    room[: len(times)] = (graph.room - graph.load(plan))[times] / unit
    return Arrays(
        num_moves=jnp.int32(len(decisions)),
        options=jnp.asarray(counts, jnp.int32),
        plan=jnp.asarray(planned, jnp.int32),
        cost=jnp.asarray(cost, jnp.float32),
        doubt=jnp.asarray(doubt / (mean or 1.0), jnp.float32),
        neighbour=jnp.asarray(neighbour, jnp.int32),
        table=jnp.asarray(table / scale, jnp.float32),
        begin=jnp.asarray(begin, jnp.int32),
        end=jnp.asarray(end, jnp.int32),
        amount=jnp.asarray(amount / unit, jnp.float32),
        room=jnp.asarray(room, jnp.float32),
        length=length,
        width=width,
    )


def _table(graph: Graph, edge: int, decision: int) -> Floats:
    a, b = graph.edge[edge]
    cells = graph.edge_cost[graph.edge_start[edge] : graph.edge_start[edge + 1]]
    table = cells.reshape(graph.start[a + 1] - graph.start[a], graph.start[b + 1] - graph.start[b])
    return table if a == decision else table.T
