"""Message passing on the graph core: a lower bound on its cost, and what it says of each option.

Sequential tree-reweighted message passing (TRW-S; Kolmogorov, "Convergent tree-reweighted message
passing for energy minimization", PAMI 2006) on costs that include prices of usage: every time t
has a price >= 0 a unit, and whatever the prices are, the bound of the priced problem less what the
room costs at these prices is a bound on the problem (Lagrangian relaxation of the usage limit).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from games.tensor_parallel.graph import Net
from games.tensor_parallel.problem import Floats, Ints


@njit(cache=True, nogil=True)
def priced_costs(net: Net, prices: Floats, out: Floats) -> None:
    """f64[S] out: cost of each option, with what its usage costs at f64[T] prices."""
    upto = np.zeros(prices.size + 1)
    for t in range(prices.size):
        upto[t + 1] = upto[t] + prices[t]
    out[:] = net.cost
    for d in range(net.start.size - 1):
        options = net.start[d + 1] - net.start[d]
        for c in range(net.use_start[d], net.use_start[d + 1]):
            price = upto[net.use_end[c]] - upto[net.use_begin[c]]
            if price > 0:
                for s in range(options):
                    out[net.start[d] + s] += price * net.amount[net.use_first[c] + s]


@njit(cache=True, nogil=True)
def _belief(net: Net, cost: Floats, messages: Floats, d: int, out: Floats) -> int:
    """Cost of the options of d with all messages to it; the number of its options."""
    options = net.start[d + 1] - net.start[d]
    for s in range(options):
        out[s] = cost[net.start[d] + s]
    for x in range(net.first[d], net.first[d + 1]):
        e = net.edges[x]
        at = net.into[e]
        if net.edge[e, 1] == d:
            at = net.into[e + 1] - options
        for s in range(options):
            out[s] += messages[at + s]
    return options


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"})
def sweep(net: Net, cost: Floats, messages: Floats) -> float:
    """One pass forward and one back over all decisions; the bound on the priced cost.

    Args:
        net: the graph.
        cost: f64[S] priced.
        messages: f64[...] as `Net.into` says, changed in place; zeros to begin with.
    """
    decisions = net.start.size - 1
    widest = 0
    share = np.empty(decisions)
    for d in range(decisions):
        widest = max(widest, net.start[d + 1] - net.start[d])
        earlier = 0
        for x in range(net.first[d], net.first[d + 1]):
            if net.edge[net.edges[x], 1] == d:
                earlier += 1
        later = net.first[d + 1] - net.first[d] - earlier
        share[d] = 1.0 / max(earlier, later, 1)
    belief = np.empty(widest)
    row = np.empty(widest)
    bound = 0.0
    for d in range(decisions):
        options = _belief(net, cost, messages, d, belief)
        for x in range(net.first[d], net.first[d + 1]):
            e = net.edges[x]
            if net.edge[e, 0] != d:
                continue
            other = net.edge[e, 1]
            width = net.start[other + 1] - net.start[other]
            back = net.into[e]
            to = net.into[e + 1] - width
            for j in range(width):
                row[j] = np.inf
            for s in range(options):
                base = share[d] * belief[s] - messages[back + s]
                at = net.edge_start[e] + s * width
                for j in range(width):
                    value = base + net.edge_cost[at + j]
                    row[j] = value if value < row[j] else row[j]
            least = row[0]
            for j in range(1, width):
                least = row[j] if row[j] < least else least
            for j in range(width):
                messages[to + j] = row[j] - least
    for d in range(decisions - 1, -1, -1):
        options = _belief(net, cost, messages, d, belief)
        least = belief[0]
        for s in range(1, options):
            least = min(least, belief[s])
        bound += least
        for s in range(options):
            belief[s] = share[d] * (belief[s] - least)
        for x in range(net.first[d], net.first[d + 1]):
            e = net.edges[x]
            if net.edge[e, 1] != d:
                continue
            other = net.edge[e, 0]
            width = net.start[other + 1] - net.start[other]
            to = net.into[e]
            back = net.into[e + 1] - options
            for s in range(options):
                row[s] = belief[s] - messages[back + s]
            least = np.inf
            for j in range(width):
                at = net.edge_start[e] + j * options
                value = np.inf
                for s in range(options):
                    entry = row[s] + net.edge_cost[at + s]
                    value = entry if entry < value else value
                messages[to + j] = value
                least = value if value < least else least
            for j in range(width):
                messages[to + j] -= least
            bound += least
    return bound


@njit(cache=True, nogil=True)
def add_usage(net: Net, d: int, option: int, sign: int, load: Ints) -> None:
    """Adds (or takes off) what an option of d uses."""
    for c in range(net.use_start[d], net.use_start[d + 1]):
        used = sign * net.amount[net.use_first[c] + option]
        if used != 0:
            for t in range(net.use_begin[c], net.use_end[c]):
                load[t] += used


@njit(cache=True, nogil=True)
def fits(net: Net, d: int, option: int, load: Ints) -> bool:
    """Adds the option's usage to the load if there is room for it; whether there is."""
    begin, end = net.use_start[d], net.use_start[d + 1]
    for c in range(begin, end):
        used = net.amount[net.use_first[c] + option]
        if used == 0:
            continue
        over = False
        for t in range(net.use_begin[c], net.use_end[c]):
            load[t] += used
            over |= load[t] > net.room[t]
        if over:
            for k in range(begin, c + 1):
                used = net.amount[net.use_first[k] + option]
                for t in range(net.use_begin[k], net.use_end[k]):
                    load[t] -= used
            return False
    return True


@njit(cache=True, nogil=True)
def decode(
    net: Net,
    cost: Floats,
    messages: Floats,
    order: Ints,
    limited: bool,
    options: Ints,
    load: Ints,
) -> int:
    """Decides one after the other: the least of own cost, decided neighbours and messages.

    Args:
        net: the graph.
        cost: f64[S] priced.
        messages: f64[...] after a sweep.
        order: i64[D] of the decisions.
        limited: only options that the room at all times allows, given those before; where there
            is none, the least is taken nevertheless.
        options: i64[D], filled.
        load: i64[T], filled.

    Returns:
        How many decisions had no option that is allowed.
    """
    decisions = net.start.size - 1
    widest = 0
    for d in range(decisions):
        widest = max(widest, net.start[d + 1] - net.start[d])
        options[d] = -1
    load[:] = 0
    belief = np.empty(widest)
    broken = 0
    for d in order:
        count = net.start[d + 1] - net.start[d]
        for s in range(count):
            belief[s] = cost[net.start[d] + s]
        for x in range(net.first[d], net.first[d + 1]):
            e = net.edges[x]
            forward = net.edge[e, 0] == d
            other = net.edge[e, 1] if forward else net.edge[e, 0]
            taken = options[other]
            width = net.start[other + 1] - net.start[other]
            if taken < 0:
                at = net.into[e] if forward else net.into[e + 1] - count
                for s in range(count):
                    belief[s] += messages[at + s]
            elif forward:
                for s in range(count):
                    belief[s] += net.edge_cost[net.edge_start[e] + s * width + taken]
            else:
                for s in range(count):
                    belief[s] += net.edge_cost[net.edge_start[e] + taken * count + s]
        first = -1
        chosen = -1
        while chosen < 0:
            best = -1
            for s in range(count):
                if belief[s] < np.inf and (best < 0 or belief[s] < belief[best]):
                    best = s
            if best < 0:
                break
            if first < 0:
                first = best
            if not limited or fits(net, d, best, load):
                chosen = best
            else:
                belief[best] = np.inf
        if chosen < 0:
            broken += 1
            chosen = max(first, 0)
            if limited:
                add_usage(net, d, chosen, 1, load)
        options[d] = chosen
    if not limited:
        _load_of(net, options, load)
    return broken


@njit(cache=True, nogil=True)
def _load_of(net: Net, options: Ints, load: Ints) -> None:
    change = np.zeros(load.size + 1, np.int64)
    for d in range(options.size):
        for c in range(net.use_start[d], net.use_start[d + 1]):
            used = net.amount[net.use_first[c] + options[d]]
            change[net.use_begin[c]] += used
            change[net.use_end[c]] -= used
    level = 0
    for t in range(load.size):
        level += change[t]
        load[t] = level
