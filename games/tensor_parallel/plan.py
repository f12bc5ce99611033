"""Plans for a model's parameters: as specs by path, as rules, as what `jax.jit` takes.

A spec has for each dimension of a parameter the mesh axes that split it. Rules are ordered pairs of
a regular expression on the parameter's path and a `PartitionSpec`; the first that matches counts,
as in EasyLM; the last one, `.*`, leaves the rest whole. Logical-axis rules, as in T5X and MaxText,
name the dimensions first and then say which mesh axis each name is split over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
from jax.sharding import PartitionSpec

from games.tensor_parallel.frontend import NONE, ModelGraph, path_of
from games.tensor_parallel.problem import FORBIDDEN, Ints, ShardingProblem

Spec = tuple[tuple[str, ...], ...]
Rules = list[tuple[str, Spec]]


def specs_of(graph: ModelGraph, choice: Ints) -> dict[str, Spec]:
    """The spec of each parameter under i64[groups] strategies."""
    return {
        path: _spec(graph, group, graph.strategies(group)[int(choice[group])])
        for path, group in graph.params.items()
    }


def _spec(graph: ModelGraph, group: int, letters: Sequence[int]) -> Spec:
    node = graph.nodes[graph.members[group][0]]
    return tuple(
        tuple(graph.mesh.names[axis] for axis, on in enumerate(letters) if on == d and on != NONE)
        for d in range(len(node.sizes))
    )


def with_specs(
    graph: ModelGraph, problem: ShardingProblem, specs: Mapping[str, Spec]
) -> ShardingProblem:
    """The problem with the parameters' strategies as given: what the rest then costs at least.

    A group whose members are given different specs goes by its first member.
    """
    allowed: dict[int, Spec] = {}
    for path, group in graph.params.items():
        allowed.setdefault(group, specs[path])
    cost = problem.node_cost.copy()
    for group, spec in allowed.items():
        begin = problem.node_start[group]
        for option, letters in enumerate(graph.strategies(group)):
            if _spec(graph, group, letters) != spec:
                cost[begin + option] = FORBIDDEN
    return replace(problem, node_cost=cost)


def rules_of(specs: Mapping[str, Spec]) -> Rules:
    """Ordered rules that give each parameter its spec: numbers in paths match any, if they may."""
    patterns: dict[str, dict[str, Spec]] = {}
    for path, spec in specs.items():
        patterns.setdefault(_pattern(path), {})[path] = spec
    general: Rules = []
    exact: Rules = []
    for pattern, members in patterns.items():
        counts: dict[Spec, int] = {}
        for spec in members.values():
            counts[spec] = counts.get(spec, 0) + 1
        usual = max(counts, key=lambda spec: counts[spec])
        exact += [(re.escape(p) + "$", s) for p, s in members.items() if s != usual]
        if any(usual) or len(counts) > 1:
            general.append((pattern, usual))
    rules = [*exact, *general, (".*", ())]
    # A shorter pattern may match the end of another path: then the whole path says which.
    if any(spec_for(rules, path) != spec for path, spec in specs.items() if any(spec)) or any(
        any(spec_for(rules, path)) for path, spec in specs.items() if not any(spec)
    ):
        whole = [(re.escape(path) + "$", spec) for path, spec in specs.items() if any(spec)]
        return [*whole, (".*", ())]
    return rules


def _pattern(path: str) -> str:
    pieces = [r"\d+" if piece.isdecimal() else re.escape(piece) for piece in path.split("/")]
    return "^" + "/".join(pieces) + "$"


def spec_for(rules: Rules, path: str) -> Spec:
    """The spec of the first rule that matches."""
    for pattern, spec in rules:
        if re.search(pattern, path):
            return spec
    return ()


def partition_spec(spec: Spec) -> PartitionSpec:
    """The spec as JAX has it."""
    entries = [axes[0] if len(axes) == 1 else (axes or None) for axes in spec]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)  # type: ignore[no-untyped-call]


def match_rules(rules: Rules, params: Any) -> Any:
    """A pytree of `PartitionSpec` like `params`: `in_shardings` once put on a mesh."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: partition_spec(spec_for(rules, path_of(keys))), params
    )


def logical_axes(
    graph: ModelGraph, specs: Mapping[str, Spec]
) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, str | tuple[str, ...] | None]]]:
    """(names of each parameter's dimensions, mesh axes of each name).

    Dimensions that products and sums put together share a name, as far as they are split alike.
    """
    parent: dict[tuple[int, int], tuple[int, int]] = {}

    def find(item: tuple[int, int]) -> tuple[int, int]:
        while parent.setdefault(item, item) != item:
            item = parent[item]
        return item

    for use in graph.uses:
        wanted = {d: letter for letter, d in use.wanted}
        for letter, d in use.made:
            if d in wanted:
                parent[find((use.source, letter))] = find((use.target, wanted[d]))
    names: dict[tuple[tuple[int, int], tuple[str, ...]], str] = {}
    axes: dict[str, tuple[str, ...]] = {}
    rules: list[tuple[str, str | tuple[str, ...] | None]] = []
    for index, node in enumerate(graph.nodes):
        if node.kind != "param":
            continue
        found = []
        for d, split in enumerate(specs[node.path]):
            key = (find((index, d)), split)
            if key not in names:
                names[key] = f"axis_{len(names)}_{node.sizes[d]}"
                rules.append((names[key], split[0] if len(split) == 1 else (split or None)))
            found.append(names[key])
        axes[node.path] = tuple(found)
    return axes, rules


def shown(spec: Spec) -> str:
    """A spec as a reader of JAX writes it."""
    return str(partition_spec(spec)).replace("PartitionSpec", "P")
