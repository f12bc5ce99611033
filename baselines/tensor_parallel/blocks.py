"""Local search over trees of decisions, native: many decisions change at once, at the least cost.

A move draws random trees of neighbouring decisions, such that no edge but the trees' own joins two
of them, holds all others, and finds the best options of the trees by dynamic programming ("block
coordinate descent with subtrees"; Sontag & Jaakkola, AISTATS 2009, have the dual of it). Where
these do not fit the limit, a tree is decided from its root on, each decision by the least
cost-to-go that still fits. Several trees in one move can trade room with each other.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from games.tensor_parallel.graph import Net
from games.tensor_parallel.messages import add_usage, fits
from games.tensor_parallel.problem import Floats, Ints

UInt64 = npt.NDArray[np.uint64]


@njit(cache=True, nogil=True)
def uniform(state: UInt64) -> float:
    """A random number in [0, 1); splitmix64 (Steele et al., OOPSLA 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    mixed = state[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return float(mixed >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True, nogil=True)
def _grow(
    net: Net,
    size: int,
    roots: int,
    tree: Ints,
    parent: Ints,
    link: Ints,
    seen: Ints,
    place: Ints,
    state: UInt64,
) -> int:
    """A random induced forest of at most `size` decisions; how many it has.

    `roots` is the number of its trees at most, `seen` counts the forest's neighbours of each
    decision, -1 for those in it, and is all zero before; `place` is where a decision stands in it.
    """
    decisions = net.start.size - 1
    root = int(decisions * uniform(state))
    tree[0], parent[0], link[0] = root, -1, -1
    count = 1
    candidates = np.empty(64 + 4 * size, np.int64)
    edge_of = np.empty(64 + 4 * size, np.int64)
    waiting = 0
    place[root] = 0
    added = 0
    trees = 1
    while True:
        d = tree[added]
        seen[d] = -1
        first, degree = net.first[d], net.first[d + 1] - net.first[d]
        shift = int(degree * uniform(state)) if degree else 0
        for k in range(degree):
            e = net.edges[first + (k + shift) % degree]
            other = net.edge[e, 0] + net.edge[e, 1] - d
            if seen[other] >= 0:
                seen[other] += 1
                if seen[other] == 1 and waiting < candidates.size:
                    candidates[waiting], edge_of[waiting] = other, e
                    waiting += 1
        added = -1
        if trees < roots and count * roots >= size * trees:
            waiting = 0  # this tree has its share
        while waiting > 0 and count < size:
            pick = int(waiting * uniform(state))
            other, e = candidates[pick], edge_of[pick]
            waiting -= 1
            candidates[pick], edge_of[pick] = candidates[waiting], edge_of[waiting]
            if seen[other] == 1:
                above = net.edge[e, 0] + net.edge[e, 1] - other
                tree[count], parent[count], link[count] = other, place[above], e
                place[other] = count
                added = count
                count += 1
                break
        if added < 0:
            root = int(decisions * uniform(state))
            if trees == roots or count == size or seen[root] != 0:
                break
            tree[count], parent[count], link[count] = root, -1, -1
            place[root] = count
            added = count
            count += 1
            trees += 1
    return count


@njit(cache=True, nogil=True)
def _forget(net: Net, tree: Ints, count: int, seen: Ints) -> None:
    for k in range(count):
        d = tree[k]
        seen[d] = 0
        for x in range(net.first[d], net.first[d + 1]):
            e = net.edges[x]
            seen[net.edge[e, 0]] = 0
            seen[net.edge[e, 1]] = 0


@njit(cache=True, nogil=True)
def search_blocks(
    net: Net,
    priced: Floats,
    options: Ints,
    load: Ints,
    best: Ints,
    total: float,
    best_total: float,
    moves: int,
    size: int,
    roots: int,
    temperature: float,
    downhill: bool,
    state: UInt64,
) -> tuple[float, float]:
    """Takes moves from a feasible start; (cost of `options`, cost of `best`), without prices.

    Args:
        net: the graph.
        priced: f64[S] costs that the moves go by; `net.cost` for true ones.
        options, load: i64[D], i64[T] where the search is; changed.
        best: i64[D] the cheapest feasible options so far, by `net.cost`.
        total, best_total: their costs.
        moves: how many forests.
        size: decisions of the largest one.
        roots: trees of it, at most.
        temperature: of the priced cost, in its unit: noise on the options and the rise accepted.
        downhill: whether a move has to lower the true cost; the priced one else.
        state: of the random numbers.
    """
    decisions = net.start.size - 1
    widest = 0
    for d in range(decisions):
        widest = max(widest, net.start[d + 1] - net.start[d])
    tree, parent = np.empty(size, np.int64), np.empty(size, np.int64)
    link, fresh = np.empty(size, np.int64), np.empty(size, np.int64)
    seen, place = np.zeros(decisions, np.int64), np.zeros(decisions, np.int64)
    value, pick = np.empty((size, widest)), np.empty((size, widest), np.int64)
    own = np.empty((size, widest))
    for _ in range(moves):
        wanted = 1 + int(size * uniform(state))
        trees = 1 + int(roots * uniform(state))
        count = _grow(net, min(wanted, size), trees, tree, parent, link, seen, place, state)
        for k in range(count):
            d = tree[k]
            width = net.start[d + 1] - net.start[d]
            for s in range(width):
                own[k, s] = priced[net.start[d] + s]
            for x in range(net.first[d], net.first[d + 1]):
                e = net.edges[x]
                forward = net.edge[e, 0] == d
                other = net.edge[e, 1] if forward else net.edge[e, 0]
                if seen[other] < 0:
                    continue
                if forward:
                    step = net.start[other + 1] - net.start[other]
                    at = net.edge_start[e] + options[other]
                    for s in range(width):
                        own[k, s] += net.edge_cost[at + s * step]
                else:
                    at = net.edge_start[e] + options[other] * width
                    for s in range(width):
                        own[k, s] += net.edge_cost[at + s]
            for s in range(width):
                value[k, s] = own[k, s]
                if temperature > 0:
                    value[k, s] -= temperature * math.log(uniform(state) + 1e-300) * 0.5
        for k in range(count - 1, 0, -1):
            if parent[k] >= 0:
                _to_parent(net, tree, parent, link, k, value, pick)
        _forget(net, tree, count, seen)

        changed = False
        for k in range(count):
            if parent[k] >= 0:
                fresh[k] = pick[k, fresh[parent[k]]]
            else:
                fresh[k] = 0
                for s in range(1, net.start[tree[k] + 1] - net.start[tree[k]]):
                    if value[k, s] < value[k, fresh[k]]:
                        fresh[k] = s
            changed |= fresh[k] != options[tree[k]]
        if not changed:
            continue
        before = _priced_of(net, tree, parent, link, count, own, options, fresh, False)
        after = _priced_of(net, tree, parent, link, count, own, options, fresh, True)
        premium = _premium(net, priced, tree, count, options, fresh)
        rise = after - before - premium if downhill else after - before
        if not _better(rise, temperature, state):
            continue
        if not _apply(net, tree, count, options, fresh, load):
            if not _constrained(net, tree, parent, link, count, value, options, fresh, load):
                continue
            after = _priced_of(net, tree, parent, link, count, own, options, fresh, True)
            premium = _premium(net, priced, tree, count, options, fresh)
            rise = after - before - premium if downhill else after - before
            if not _better(rise, temperature, state):
                for k in range(count):
                    add_usage(net, tree[k], fresh[k], -1, load)
                    add_usage(net, tree[k], options[tree[k]], 1, load)
                continue
        total += after - before - premium
        for k in range(count):
            options[tree[k]] = fresh[k]
        if total < best_total - 1e-9 * abs(best_total):
            best_total = total
            best[:] = options
    return total, best_total


@njit(cache=True, nogil=True)
def _premium(net: Net, priced: Floats, tree: Ints, count: int, options: Ints, fresh: Ints) -> float:
    """How much more prices add to the fresh options than to the old ones."""
    total = 0.0
    for k in range(count):
        new, old = net.start[tree[k]] + fresh[k], net.start[tree[k]] + options[tree[k]]
        total += priced[new] - net.cost[new] - (priced[old] - net.cost[old])
    return total


@njit(cache=True, nogil=True)
def _better(rise: float, temperature: float, state: UInt64) -> bool:
    if rise <= 0:
        return True
    return temperature > 0 and uniform(state) < math.exp(-rise / temperature)


@njit(cache=True, nogil=True)
def _to_parent(
    net: Net, tree: Ints, parent: Ints, link: Ints, k: int, value: Floats, pick: Ints
) -> None:
    """Adds the least cost of the subtree at k to the options of its parent."""
    e, d = link[k], tree[k]
    width = net.start[d + 1] - net.start[d]
    up = parent[k]
    above = net.start[tree[up] + 1] - net.start[tree[up]]
    if net.edge[e, 1] == d:
        for i in range(above):
            at = net.edge_start[e] + i * width
            least, chosen = np.inf, 0
            for s in range(width):
                entry = net.edge_cost[at + s] + value[k, s]
                if entry < least:
                    least, chosen = entry, s
            value[up, i] += least
            pick[k, i] = chosen
    else:
        at = net.edge_start[e]
        for i in range(above):
            least, chosen = np.inf, 0
            for s in range(width):
                entry = net.edge_cost[at + s * above + i] + value[k, s]
                if entry < least:
                    least, chosen = entry, s
            value[up, i] += least
            pick[k, i] = chosen


@njit(cache=True, nogil=True)
def _pair(net: Net, e: int, above: int, option: int, its: int) -> float:
    """Cost of edge e if decision `above` takes `option` and the other one `its`."""
    other = net.edge[e, 0] + net.edge[e, 1] - above
    if net.edge[e, 0] == above:
        return net.edge_cost[
            net.edge_start[e] + option * (net.start[other + 1] - net.start[other]) + its
        ]
    return net.edge_cost[
        net.edge_start[e] + its * (net.start[above + 1] - net.start[above]) + option
    ]


@njit(cache=True, nogil=True)
def _priced_of(
    net: Net,
    tree: Ints,
    parent: Ints,
    link: Ints,
    count: int,
    own: Floats,
    options: Ints,
    fresh: Ints,
    new: bool,
) -> float:
    total = 0.0
    for k in range(count):
        mine = fresh[k] if new else options[tree[k]]
        total += own[k, mine]
        if parent[k] >= 0:
            up = parent[k]
            its = fresh[up] if new else options[tree[up]]
            total += _pair(net, link[k], tree[up], its, mine)
    return total


@njit(cache=True, nogil=True)
def _apply(net: Net, tree: Ints, count: int, options: Ints, fresh: Ints, load: Ints) -> bool:
    """Moves the load to the fresh options if they fit; whether they do."""
    for k in range(count):
        if fresh[k] != options[tree[k]]:
            add_usage(net, tree[k], options[tree[k]], -1, load)
    for k in range(count):
        if fresh[k] != options[tree[k]] and not fits(net, tree[k], fresh[k], load):
            for j in range(k):
                if fresh[j] != options[tree[j]]:
                    add_usage(net, tree[j], fresh[j], -1, load)
            for j in range(count):
                if fresh[j] != options[tree[j]]:
                    add_usage(net, tree[j], options[tree[j]], 1, load)
            return False
    return True


@njit(cache=True, nogil=True)
def _constrained(
    net: Net,
    tree: Ints,
    parent: Ints,
    link: Ints,
    count: int,
    value: Floats,
    options: Ints,
    fresh: Ints,
    load: Ints,
) -> bool:
    """Decides the tree from the root on by what fits; if all of it does, it is in the load."""
    for k in range(count):
        add_usage(net, tree[k], options[tree[k]], -1, load)
    ranked = np.empty(value.shape[1])
    for k in range(count):
        d = tree[k]
        width = net.start[d + 1] - net.start[d]
        for s in range(width):
            ranked[s] = value[k, s]
            if parent[k] >= 0:
                ranked[s] += _pair(net, link[k], tree[parent[k]], fresh[parent[k]], s)
        fresh[k] = -1
        while fresh[k] < 0:
            least = 0
            for s in range(1, width):
                if ranked[s] < ranked[least]:
                    least = s
            if not ranked[least] < np.inf:
                break
            if fits(net, d, least, load):
                fresh[k] = least
            else:
                ranked[least] = np.inf
        if fresh[k] < 0:
            for j in range(k):
                add_usage(net, tree[j], fresh[j], -1, load)
            for j in range(count):
                add_usage(net, tree[j], options[tree[j]], 1, load)
            return False
    return True
