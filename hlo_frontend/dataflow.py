"""Which value every position of the flattened schedule holds.

A position is one leaf of one step's result. Tuples, bitcasts, calls and the like forward values
that others define. Like XLA's `HloDataflowAnalysis` in SSA form, a place where control flow joins
defines a value of its own (a phi) if different values can arrive there: the loop-carried leaves of
a `while` that its body changes, its result, and the result of a `conditional`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hlo_frontend.flatten import Flat, FlatStep, Role
from hlo_frontend.shapes import Shape
from hlo_frontend.unionfind import UnionFind

# Results that are the first operand, seen differently.
_PASS = frozenset(
    {"bitcast", "opt-barrier", "domain", "add-dependency", "async-update", "all-reduce-done"}
)
# Results that are one element of the first operand's tuple.
_ELEMENT = {
    "copy-done": 0,
    "async-done": 1,
    "all-gather-done": 1,
    "collective-permute-done": 1,
}
# Starts of asynchronous operations: the first element of the result is the operands.
_OPERANDS_FIRST = frozenset({"all-gather-start", "collective-permute-start", "async-start"})
# They look into the tuple only, so XLA counts no use of the arrays in it.
_TRANSPARENT = frozenset({"tuple", "get-tuple-element", "domain", "parameter"})

ZERO_COST = frozenset(
    _PASS
    | _TRANSPARENT
    | _ELEMENT.keys()
    | {"constant", "while", "call", "conditional", "after-all", "async-start"}
    | {"partition-id", "replica-id", "send-done", "recv-done"}
)
"""Opcodes of steps that move no data and compute nothing; what they call has steps of its own."""


@dataclass(slots=True)
class FlatValue:
    """A value, by the step and the leaf of its result that define it.

    `start` and `end` (inclusive) are its live range in steps; `phi` marks a join of control flow.
    """

    step: int
    leaf: int
    shape: Shape
    start: int
    end: int
    phi: bool


@dataclass(slots=True)
class Dataflow:
    """Values, and per step the value that each leaf of its result holds.

    `joins` are pairs of values that a loop or a conditional hands on in the same bytes.
    """

    values: list[FlatValue] = field(default_factory=list)
    leaves: list[list[int]] = field(default_factory=list)
    joins: list[tuple[int, int]] = field(default_factory=list)


def analyze(flat: Flat) -> Dataflow:
    """Values and live ranges of a flattened schedule."""
    return _Analysis(flat).run()


class _Analysis:
    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        self.values: list[FlatValue] = []
        self.leaves: list[list[int]] = []
        self.same = UnionFind()  # a loop leaf that the body leaves alone is the initial value
        self.carried: dict[int, list[int]] = {}  # frame of a condition or body -> its parameter
        self.joins: list[tuple[int, int]] = []
        self.touches: list[tuple[int, int]] = []  # (value, step that needs it)

    def run(self) -> Dataflow:
        for index, step in enumerate(self.flat.steps):
            result = self._result(index, step)
            for leaf, (_, shape) in enumerate(step.instruction.shape.leaves):
                if result[leaf] < 0:
                    result[leaf] = self._define(index, leaf, shape)
            self.leaves.append(result)
            self._touch_operands(index, step)
        # A computation's result lives until its caller takes over, and the loop's state until the
        # body starts; the program's result lives to the end.
        for number, frame in enumerate(self.flat.frames):
            held = self.leaves[frame.root]
            if frame.role is Role.CONDITION:
                held = held + self.carried[number]
            end = min(frame.end, len(self.flat.steps) - 1)
            self.touches += [(value, end) for value in held]
        return self._compact()

    def _define(self, step: int, leaf: int, shape: Shape, *, phi: bool = False) -> int:
        self.values.append(FlatValue(step, leaf, shape, step, step, phi))
        return self.same.add()

    def _touch_operands(self, index: int, step: FlatStep) -> None:
        opcode = step.instruction.opcode
        if opcode in _TRANSPARENT:
            return
        # XLA ends the life of a loop's initial values where the loop starts.
        at = self.flat.frames[step.frames[0]].start if opcode == "while" else index
        self.touches += [(value, at) for operand in step.operands for value in self.leaves[operand]]

    def _result(self, index: int, step: FlatStep) -> list[int]:
        """Values of the result's leaves; -1 where the step defines a new one."""
        instruction = step.instruction
        opcode = instruction.opcode
        size = len(instruction.shape.leaves)
        operands = [self.leaves[operand] for operand in step.operands]
        result: list[int] = []
        if opcode == "parameter":
            result = self._parameter(index, step)
        elif opcode == "tuple":
            result = [value for operand in operands for value in operand]
        elif opcode == "get-tuple-element":
            result = self._element(step, instruction.tuple_index)
        elif opcode in _PASS:
            result = list(operands[0])
        elif opcode in _ELEMENT:
            result = self._element(step, _ELEMENT[opcode])
        elif opcode == "recv-done":
            result = [*self._element(step, 0), -1]
        elif opcode == "copy-start":
            result = [-1, *operands[0], -1]
        elif opcode == "send":
            result = [*operands[0], -1, -1]
        elif opcode in _OPERANDS_FIRST:
            result = [value for operand in operands for value in operand]
            if step.frames:
                result += self.leaves[self.flat.frames[step.frames[0]].root]
            result += [-1] * (size - len(result))
        elif opcode == "call":
            result = list(self.leaves[self.flat.frames[step.frames[0]].root])
        elif opcode == "while":
            result = self._while(index, step)
        elif opcode == "conditional":
            result = self._conditional(index, step)
        return result if len(result) == size else [-1] * size

    def _element(self, step: FlatStep, position: int) -> list[int]:
        """Values of one element of the first operand's tuple."""
        operand = step.operands[0]
        leaves = self.leaves[operand]
        shape = self.flat.steps[operand].instruction.shape
        return [leaves[leaf] for leaf in shape.leaf_range((position,))]

    def _parameter(self, index: int, step: FlatStep) -> list[int]:
        frame = self.flat.frames[step.frame]
        if frame.role is Role.ENTRY:
            return [-1] * len(step.instruction.shape.leaves)
        if frame.role in (Role.CALL, Role.BRANCH):
            return list(self.leaves[frame.arguments[step.instruction.parameter_number]])
        self.carried[step.frame] = [
            self._define(index, leaf, shape, phi=True)
            for leaf, (_, shape) in enumerate(step.instruction.shape.leaves)
        ]
        return list(self.carried[step.frame])

    def _while(self, index: int, step: FlatStep) -> list[int]:
        initial = self.leaves[step.operands[0]]
        tested, carried = (self.carried[frame] for frame in step.frames)
        final = self.leaves[self.flat.frames[step.frames[1]].root]
        result = []
        for leaf, (_, shape) in enumerate(step.instruction.shape.leaves):
            if self.same.find(final[leaf]) == self.same.find(carried[leaf]):
                self.same.join(initial[leaf], tested[leaf])
                self.same.join(initial[leaf], carried[leaf])
                result.append(initial[leaf])
                continue
            after = self._define(index, leaf, shape, phi=True)
            chain = (initial[leaf], tested[leaf], carried[leaf], final[leaf], after)
            self.joins += pairwise(chain)
            result.append(after)
        return result

    def _conditional(self, index: int, step: FlatStep) -> list[int]:
        branches = [self.leaves[self.flat.frames[frame].root] for frame in step.frames]
        result = []
        for leaf, (_, shape) in enumerate(step.instruction.shape.leaves):
            values = {self.same.find(branch[leaf]) for branch in branches}
            if len(values) == 1:
                result.append(values.pop())
                continue
            after = self._define(index, leaf, shape, phi=True)
            self.joins += [(value, after) for value in sorted(values)]
            result.append(after)
        return result

    def _compact(self) -> Dataflow:
        """Renumbers what is left after the loop leaves that turned out to be other values."""
        number: dict[int, int] = {}
        flow = Dataflow()
        for value, record in enumerate(self.values):
            if self.same.find(value) == value:
                number[value] = len(flow.values)
                flow.values.append(record)
        new = [number[self.same.find(value)] for value in range(len(self.values))]
        flow.leaves = [[new[value] for value in leaves] for leaves in self.leaves]
        flow.joins = [(new[a], new[b]) for a, b in self.joins]
        for record in flow.values:
            record.start = self._start(record)
            record.end = max(record.start, self._constant_end(record))
        for touched, step in self.touches:
            record = flow.values[new[touched]]
            record.end = max(record.end, step)
        return flow

    def _start(self, value: FlatValue) -> int:
        step = self.flat.steps[value.step]
        frame = self.flat.frames[step.frame]
        if step.instruction.opcode == "constant":
            return 0
        # A parameter holds data from the start of its computation, wherever it is scheduled.
        return frame.start if step.instruction.opcode == "parameter" else value.step

    def _constant_end(self, value: FlatValue) -> int:
        """A constant in a loop body is read again in the next iteration."""
        step = self.flat.steps[value.step]
        end, loop = 0, step.loop
        if step.instruction.opcode == "constant":
            while loop >= 0:
                end, loop = self.flat.loops[loop].end - 1, self.flat.loops[loop].parent
        return end
