"""A schedule for modules that come without one.

XLA's own schedulers are not to be had through jaxlib, so each computation gets the better of two
orders, by the peak of the memory that its own results take:

- XLA's own instruction order in the serialized module, a depth-first post-order;
- a greedy list schedule: of the instructions that are ready, the one that frees most bytes net of
  what it allocates (the rule of XLA's `ListMemoryScheduler`), the earlier one in a tie.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from hlo_frontend.dataflow import ZERO_COST
from hlo_frontend.flatten import inlined_computations
from hlo_frontend.module import Computation, Instruction, Module


def schedule(module: Module) -> Module:
    """The module with an order for every computation that is not scheduled as part of its caller.

    `Module.scheduled` stays False.
    """
    computations = dict(module.computations)
    pending, seen = [module.entry], {module.entry}
    while pending:
        identity = pending.pop()
        computation = computations[identity]
        computations[identity] = _ordered(computation)
        for instruction in computation.instructions:
            for _, callee in inlined_computations(instruction):
                if callee not in seen:
                    seen.add(callee)
                    pending.append(callee)
    return replace(module, computations=computations)


def _ordered(computation: Computation) -> Computation:
    given = computation.instructions
    greedy = _greedy(given)
    best = min((given, greedy), key=_peak)
    return replace(computation, instructions=tuple(best))


class _Lifetimes:
    """Bytes that instructions allocate, and which instructions keep them alive."""

    def __init__(self, instructions: Sequence[Instruction]) -> None:
        self.allocated: dict[int, int] = {}
        self.holds: dict[int, frozenset[int]] = {}  # allocations that an instruction needs
        self._seen_through: dict[int, frozenset[int]] = {}
        for instruction in instructions:
            identity = instruction.id
            needed: frozenset[int] = frozenset().union(
                *(self._seen_through[operand] for operand in instruction.operands)
            )
            self.holds[identity] = needed
            if instruction.opcode in ZERO_COST and instruction.opcode != "constant":
                self.allocated[identity] = 0
                self._seen_through[identity] = needed
            else:
                self.allocated[identity] = sum(
                    leaf.padded_bytes for _, leaf in instruction.shape.leaves
                )
                self._seen_through[identity] = frozenset({identity})


def _peak(order: Sequence[Instruction]) -> int:
    """Largest sum of the bytes alive at once; the root's never die."""
    lifetimes = _Lifetimes(order)
    last: dict[int, int] = {}
    for position, instruction in enumerate(order):
        for allocation in lifetimes.holds[instruction.id]:
            last[allocation] = position
    dying: dict[int, int] = {}
    for allocation, position in last.items():
        dying[position] = dying.get(position, 0) + lifetimes.allocated[allocation]
    peak = alive = 0
    for position, instruction in enumerate(order):
        alive += lifetimes.allocated[instruction.id]
        peak = max(peak, alive)
        alive -= dying.get(position, 0)
    return peak


def _greedy(given: Sequence[Instruction]) -> list[Instruction]:
    lifetimes = _Lifetimes(given)
    position = {instruction.id: i for i, instruction in enumerate(given)}
    waits: dict[int, int] = {}
    users: dict[int, list[int]] = {identity: [] for identity in position}
    readers: dict[int, set[int]] = {identity: set() for identity in position}
    for instruction in given:
        before = set(instruction.operands) | set(instruction.control)
        waits[instruction.id] = len(before)
        for predecessor in before:
            users[predecessor].append(instruction.id)
        for allocation in lifetimes.holds[instruction.id]:
            readers[allocation].add(instruction.id)

    def growth(identity: int) -> int:
        freed = sum(
            lifetimes.allocated[allocation]
            for allocation in lifetimes.holds[identity]
            if len(readers[allocation]) == 1
        )
        return lifetimes.allocated[identity] - freed

    ready = [(growth(i), position[i], i) for i, count in waits.items() if count == 0]
    heapq.heapify(ready)
    done: set[int] = set()
    order: list[Instruction] = []
    while ready:
        grown, _, identity = heapq.heappop(ready)
        if identity in done:
            continue
        current = growth(identity)
        if current != grown:  # what it frees has changed since it was queued
            heapq.heappush(ready, (current, position[identity], identity))
            continue
        done.add(identity)
        order.append(given[position[identity]])
        for allocation in lifetimes.holds[identity]:
            readers[allocation].discard(identity)
            if len(readers[allocation]) == 1:  # its last reader now frees it: queue it again
                (reader,) = readers[allocation]
                if waits[reader] == 0 and reader not in done:
                    heapq.heappush(ready, (growth(reader), position[reader], reader))
        for user in users[identity]:
            waits[user] -= 1
            if waits[user] == 0:
                heapq.heappush(ready, (growth(user), position[user], user))
    return order
