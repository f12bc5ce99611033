"""Small random problems, and the optimum of each by trying everything."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from games.tensor_parallel.problem import FORBIDDEN, ShardingProblem
from games.tensor_parallel.solution import Strategies
from games.tensor_parallel.validator import evaluate


def random_problem(seed: int, nodes: int = 6, options: int = 3, infinite: float = 0.3):
    """A connected problem; some pairs and strategies are excluded, the limit binds mostly."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, options + 1, nodes)
    starts = np.concatenate([[0], np.cumsum(counts)])
    size = int(starts[-1])
    cost = random.integers(0, 20, size)
    usage = random.integers(0, 10, size)
    begin = random.integers(0, 6, nodes)
    interval = np.stack([begin, begin + random.integers(0, 5, nodes)], axis=1)
    pairs = [(int(random.integers(0, node)), node) for node in range(1, nodes)]
    for _ in range(nodes // 2):
        a, b = random.choice(nodes, 2, replace=False)
        pairs.append((int(a), int(b)))
    edges, edge_starts = [], [0]
    for a, b in pairs:
        table = random.integers(0, 20, counts[a] * counts[b])
        table[random.random(len(table)) < infinite] = FORBIDDEN
        if random.random() < 0.2:
            table[:] = 3  # nothing that the pair decides
        edges.append(table)
        edge_starts.append(edge_starts[-1] + len(table))
    problem = ShardingProblem(
        name=f"random {seed}",
        node_start=starts.astype(np.int64),
        node_cost=cost.astype(np.int64),
        node_usage=usage.astype(np.int64),
        interval=interval.astype(np.int64),
        edge_nodes=np.array(pairs, dtype=np.int64),
        edge_start=np.array(edge_starts, dtype=np.int64),
        edge_cost=np.concatenate(edges).astype(np.int64),
        usage_limit=None,
    )
    if random.random() < 0.2:
        return problem
    # From where nothing else fits to where little is excluded.
    return replace(problem, usage_limit=problem.least_usage()[0] + int(random.integers(0, 12)))


def optimum(problem: ShardingProblem) -> int | None:
    """The least cost of all assignments, None if none is valid."""
    best = None
    for choice in itertools.product(*(range(k) for k in problem.num_strategies.tolist())):
        cost, faults = evaluate(problem, Strategies(np.array(choice)))
        if not faults and (best is None or cost < best):
            best = cost
    return best
