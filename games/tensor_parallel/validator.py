"""Independent checker, after the contest's own evaluator: plain Python, nothing shared with rules.

`Evaluate` in github.com/google/iopddl (iopddl.cc): one strategy for each node, the usage at every
time within the limit, and the cost as an exact sum of integers. A chosen cost of 10**18 or more is
what the contest's files say for "not allowed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from games.tensor_parallel.problem import ShardingProblem
    from games.tensor_parallel.solution import Strategies

INFINITE = 10**18


def evaluate(problem: ShardingProblem, solution: Strategies) -> tuple[int, list[str]]:
    """(exact cost, every broken rule as one line); the cost is 0 if the choice cannot be read."""
    chosen = [int(value) for value in solution.choice]
    starts = problem.node_start.tolist()
    nodes = len(starts) - 1
    if len(chosen) != nodes:
        return 0, [f"{len(chosen)} strategies for {nodes} nodes"]
    for node, strategy in enumerate(chosen):
        count = starts[node + 1] - starts[node]
        if not 0 <= strategy < count:
            return 0, [f"node {node}: strategy {strategy} is not among its {count}"]
    faults = []
    cost = 0
    change: dict[int, int] = {}
    for node, (begin, end) in enumerate(problem.interval.tolist()):
        at = starts[node] + chosen[node]
        price = int(problem.node_cost[at])
        if price >= INFINITE:
            faults.append(f"node {node}: strategy {chosen[node]} is not allowed")
        cost += price
        if begin < end:
            used = int(problem.node_usage[at])
            change[begin] = change.get(begin, 0) + used
            change[end] = change.get(end, 0) - used
    edge_starts = problem.edge_start.tolist()
    for edge, (first, second) in enumerate(problem.edge_nodes.tolist()):
        width = starts[second + 1] - starts[second]
        price = int(problem.edge_cost[edge_starts[edge] + chosen[first] * width + chosen[second]])
        if price >= INFINITE:
            faults.append(
                f"edge {edge}: strategies {chosen[first]} of node {first} and {chosen[second]} of"
                f" node {second} do not go together"
            )
        cost += price
    if problem.usage_limit is not None:
        load = 0
        for time in sorted(change):
            load += change[time]
            if load > problem.usage_limit:
                faults.append(f"time {time}: usage {load} is above the limit {problem.usage_limit}")
    return cost, faults


def validate(problem: ShardingProblem, solution: Strategies) -> list[str]:
    """Every broken rule as one line; [] for a valid solution."""
    return evaluate(problem, solution)[1]
