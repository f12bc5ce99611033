"""Alias classes: which values must share their bytes.

The rules are those of XLA's `HloAliasAnalysis` (joins of control flow, the module's input-output
aliases) and of `HloDataflowAnalysis::GetInPlaceInputOutputPairs`. A pair is united only where the
two sides are never alive at once. A module that went through XLA's copy insertion guarantees
that; in one that did not, the missing unions stand for the copies that XLA will insert.

The operands and results that a TPU dump lists under `aliasing_operands` in a backend config are
not among the rules: they say where XLA's buffer assignment happened to reuse a dead operand's
bytes, and they differ between compilations of one program.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from hlo_frontend.dataflow import Dataflow
from hlo_frontend.flatten import Flat
from hlo_frontend.module import Instruction, Module, ShapeIndex
from hlo_frontend.unionfind import UnionFind

Pair = tuple[int, ShapeIndex, ShapeIndex]  # (operand number, operand index, output index)

_COLLECTIVE_PERMUTE_IN_PLACE = 4  # operands: input, output, and their offsets


def in_place_pairs(module: Module, instruction: Instruction) -> tuple[Pair, ...]:
    """Operands that an instruction overwrites with its result."""
    pairs = [
        (operand, operand_index, output) for output, operand, operand_index in instruction.aliases
    ]
    operands = instruction.operands
    match instruction.opcode:
        case "dynamic-update-slice":
            pairs.append((0, (), ()))
        case "scatter":
            arrays = len(operands) // 2
            pairs += [(k, (), (k,) if arrays > 1 else ()) for k in range(arrays)]
        case "all-reduce-start":
            many = len(operands) > 1
            pairs += [(k, (), (k,) if many else ()) for k in range(len(operands))]
        case "collective-permute" if len(operands) == _COLLECTIVE_PERMUTE_IN_PLACE:
            pairs.append((1, (), ()))
        case "collective-permute-start" if len(operands) == _COLLECTIVE_PERMUTE_IN_PLACE:
            pairs.append((1, (), (1,)))
        case "ragged-all-to-all":
            pairs.append((1, (), ()))
        case "fusion":
            pairs += _fusion_pairs(module, instruction)
    return tuple(dict.fromkeys(pairs))


def alias_classes(
    module: Module, flat: Flat, flow: Dataflow, forced: tuple[tuple[int, int], ...] = ()
) -> list[int]:
    """Per value the representative of its alias class.

    `forced` pairs are united whether they are alive at once or not.
    """
    classes = _Classes(flow)
    for a, b in forced:
        classes.join(a, b)
    for a, b in flow.joins:
        classes.join_if_disjoint(a, b)
    pairs: dict[int, tuple[Pair, ...]] = {}
    for index, step in enumerate(flat.steps):
        instruction = step.instruction
        if instruction.id not in pairs:
            pairs[instruction.id] = in_place_pairs(module, instruction)
        for operand, operand_index, output_index in pairs[instruction.id]:
            source = step.operands[operand]
            sources = flat.steps[source].instruction.shape.leaf_range(operand_index)
            outputs = instruction.shape.leaf_range(output_index)
            for a, b in zip(sources, outputs, strict=False):
                classes.join_if_disjoint(flow.leaves[source][a], flow.leaves[index][b])
    _join_input_output(module, flat, flow, classes)
    return [classes.sets.find(value) for value in range(len(flow.values))]


def _join_input_output(module: Module, flat: Flat, flow: Dataflow, classes: _Classes) -> None:
    parameters = {
        step.instruction.parameter_number: index
        for index, step in enumerate(flat.steps)
        if step.frame == 0 and step.instruction.opcode == "parameter"
    }
    root = flat.frames[0].root
    for output_index, number, parameter_index in module.aliases:
        parameter = parameters[number]
        inputs = flat.steps[parameter].instruction.shape.leaf_range(parameter_index)
        outputs = flat.steps[root].instruction.shape.leaf_range(output_index)
        for a, b in zip(inputs, outputs, strict=False):
            classes.join_if_disjoint(flow.leaves[parameter][a], flow.leaves[root][b])


def _fusion_pairs(module: Module, fusion: Instruction) -> list[Pair]:
    """In-place pairs of an output's source inside the fusion whose operand is a parameter of it."""
    fused = module.computations[fusion.called[0]]
    scope = fused.by_id()
    pairs: list[Pair] = []
    for output, _ in fusion.shape.leaves:
        source, source_index = _through_tuples(scope, scope[fused.root], output)
        for operand, operand_index, output_index in in_place_pairs(module, source):
            if output_index != source_index:
                continue
            origin, origin_index = _through_tuples(
                scope, scope[source.operands[operand]], operand_index
            )
            if origin.opcode == "parameter":
                pairs.append((origin.parameter_number, origin_index, output))
    return pairs


def _through_tuples(
    scope: dict[int, Instruction], instruction: Instruction, index: ShapeIndex
) -> tuple[Instruction, ShapeIndex]:
    """The instruction, and the index in its result, that a position in tuples stands for."""
    while True:
        if instruction.opcode == "tuple" and index:
            instruction, index = scope[instruction.operands[index[0]]], index[1:]
        elif instruction.opcode == "get-tuple-element":
            instruction, index = scope[instruction.operands[0]], (instruction.tuple_index, *index)
        else:
            return instruction, index


class _Classes:
    """Alias classes with the live ranges of their values, sorted and without overlap."""

    def __init__(self, flow: Dataflow) -> None:
        self.sets = UnionFind(len(flow.values))
        self._ranges = [[(value.start, value.end)] for value in flow.values]

    def join(self, a: int, b: int) -> None:
        """Unites two classes; ranges that overlap become one."""
        self._join(*self._by_size(a, b))
        merged: list[tuple[int, int]] = []
        for start, end in self._ranges[self.sets.find(a)]:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._ranges[self.sets.find(a)] = merged

    def join_if_disjoint(self, a: int, b: int) -> None:
        """Unites two classes unless values of both are alive at once.

        A value may be defined by the step that reads the other one last.
        """
        large, small = self._by_size(a, b)
        if not any(_overlaps(self._ranges[large], lifetime) for lifetime in self._ranges[small]):
            self._join(large, small)

    def _by_size(self, a: int, b: int) -> tuple[int, int]:
        a, b = self.sets.find(a), self.sets.find(b)
        return (a, b) if len(self._ranges[a]) >= len(self._ranges[b]) else (b, a)

    def _join(self, large: int, small: int) -> None:
        if large == small:
            return
        self.sets.join(large, small)
        for lifetime in self._ranges[small]:
            insort(self._ranges[large], lifetime)
        self._ranges[small] = []


def _overlaps(ranges: list[tuple[int, int]], lifetime: tuple[int, int]) -> bool:
    """Whether `lifetime` has more than an end point in common with one of the sorted `ranges`."""
    start, end = lifetime
    after = bisect_left(ranges, lifetime)
    return any(
        other_start < end and start < other_end
        for other_start, other_end in ranges[max(0, after - 1) : after + 1]
    )
