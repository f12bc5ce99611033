"""The sharding problem: one strategy for each node, within a usage limit at every time.

It is the problem of the ASPLOS/EuroSys 2025 contest on intra-operator parallelism (IOPDDL), which
is that of Alpa and of XLA's auto-sharding (Zheng et al., OSDI 2022, eq. 1): minimise the sum of
the chosen strategies' node costs and of the edge costs of each pair of them, such that at every
time the usages of the nodes alive add up to the limit at most. `iopddl_file` reads the contest's
files; `frontend` makes the same problem from a JAX model and a mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hlo_frontend.errors import InputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

SCHEMA = "compiler-rl/tensor-parallel-problem/1"
FORBIDDEN = 10**18  # a cost from here on is infinite: the contest's convention
LARGEST = 2**53  # of finite costs and usages: sums stay exact as floats


@dataclass(frozen=True, eq=False)
class ShardingProblem:
    """Arrays of one problem. N nodes, S strategies of all nodes together, E edges.

    Attributes:
        name: what it is of.
        node_start: i64[N + 1] strategies of node n are `node_start[n]:node_start[n + 1]`.
        node_cost: i64[S]; FORBIDDEN or more where the strategy is not allowed.
        node_usage: i64[S] >= 0.
        interval: i64[N, 2] half-open times [begin, end) at which the node's usage counts.
        edge_nodes: i64[E, 2] the pair of nodes; a pair may stand more than once, costs add up.
        edge_start: i64[E + 1] costs of edge e are `edge_start[e]:edge_start[e + 1]`.
        edge_cost: i64[...] row-major over the strategies of the first and of the second node.
        usage_limit: at any time; None for no limit.
    """

    name: str
    node_start: Ints
    node_cost: Ints
    node_usage: Ints
    interval: Ints
    edge_nodes: Ints
    edge_start: Ints
    edge_cost: Ints
    usage_limit: int | None

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.node_start) - 1

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edge_start) - 1

    @cached_property
    def num_strategies(self) -> Ints:
        """i64[N] strategies of each node."""
        return np.diff(self.node_start)

    @cached_property
    def num_times(self) -> int:
        """The time from which on no node is alive."""
        return int(self.interval[:, 1].max(initial=0))

    def __post_init__(self) -> None:
        """Checks the arrays.

        Raises:
            InputError: they are no such problem; the message names node or edge.
        """
        counts = np.diff(self.node_start)
        if len(counts) == 0:
            raise InputError(f"{self.name}: no nodes, expected at least one")
        self._require(counts > 0, "node", "has no strategy, expected at least one")
        lower, upper = self.interval[:, 0], self.interval[:, 1]
        self._require(
            np.asarray((lower >= 0) & (lower <= upper)),
            "node",
            "has an interval that ends before it begins, or begins before 0",
        )
        owner = np.repeat(np.arange(len(counts)), counts)
        for what, values in (("cost", self.node_cost), ("usage", self.node_usage)):
            for bad, why in (
                (values < 0, "negative"),
                ((values > LARGEST) & (values < FORBIDDEN), "beyond 2**53"),
            ):
                if bad.any():
                    where = int(bad.argmax())
                    raise InputError(
                        f"{self.name}: node {owner[where]}: {what} {values[where]} is {why},"
                        f" expected 0 to 2**53 or, for what is not allowed, 10**18"
                    )
        ends = self.edge_nodes
        self._require(
            ((ends >= 0) & (ends < len(counts))).all(axis=1),
            "edge",
            f"names a node that is not among the {len(counts)}",
        )
        self._require(ends[:, 0] != ends[:, 1], "edge", "joins a node to itself")
        sizes = np.diff(self.edge_start)
        wanted = counts[ends[:, 0]] * counts[ends[:, 1]] if len(ends) else sizes
        wrong = np.flatnonzero(sizes != wanted)
        if len(wrong):
            edge = int(wrong[0])
            raise InputError(
                f"{self.name}: edge {edge} has {sizes[edge]} costs, expected {wanted[edge]}: one"
                f" for each pair of strategies of nodes {ends[edge, 0]} and {ends[edge, 1]}"
            )
        costs = self.edge_cost
        bad = (costs < 0) | ((costs > LARGEST) & (costs < FORBIDDEN))
        if bad.any():
            where = int(bad.argmax())
            edge = int(np.searchsorted(self.edge_start, where, side="right")) - 1
            raise InputError(
                f"{self.name}: edge {edge}: cost {costs[where]} is"
                f" {'negative' if costs[where] < 0 else 'beyond 2**53'}, expected 0 to 2**53 or,"
                " for what is not allowed, 10**18"
            )
        if self.usage_limit is not None and self.usage_limit < 0:
            raise InputError(f"{self.name}: usage_limit {self.usage_limit} is negative")

    def _require(self, good: npt.ArrayLike, what: str, why: str) -> None:
        wrong = np.flatnonzero(~np.asarray(good))
        if len(wrong):
            raise InputError(f"{self.name}: {what} {wrong[0]} {why}")

    def least_usage(self) -> tuple[int, int]:
        """(usage, time): the most that is used at one time if every node uses its least."""
        least = np.minimum.reduceat(self.node_usage, self.node_start[:-1])
        change = np.zeros(self.num_times + 1, dtype=np.int64)
        np.add.at(change, self.interval[:, 0], least)
        np.subtract.at(change, self.interval[:, 1], least)
        if self.num_times == 0:
            return 0, 0
        load = np.cumsum(change)[:-1]
        return int(load.max()), int(load.argmax())

    def save(self, path: Path) -> None:
        """Writes the problem to an `.npz` file, losslessly."""
        data = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        data["usage_limit"] = np.asarray(-1 if self.usage_limit is None else self.usage_limit)
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, schema=np.asarray(SCHEMA), **data)

    @classmethod
    def load(cls, path: Path) -> ShardingProblem:
        """Reads what `save` wrote.

        Raises:
            InputError: not such a file, or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                schema = str(data["schema"])
                values = {field.name: data[field.name] for field in fields(cls)}
        except Exception as error:  # numpy raises whatever the zip reader does
            raise InputError(f"{path}: not a saved sharding problem ({error})") from error
        if schema != SCHEMA:
            raise InputError(f"{path}: schema is {schema}, expected {SCHEMA}")
        limit = int(values.pop("usage_limit"))
        name = str(values.pop("name"))
        return cls(name=name, usage_limit=None if limit < 0 else limit, **values)
