"""The program's HLO text with a mapping written into it, as comments only.

Comments keep the text what it was: XLA's parser reads the same program out of it. Memory spaces in
layouts would not do: XLA checks that an instruction and its users agree on them, and wants real
copies in between. What tells a compiler is the mapping file.
"""

from __future__ import annotations

import re

from games.memory_mapping.explain import class_name
from games.memory_mapping.mapping_file import in_program_steps
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping, interval_loop
from hlo_frontend.errors import InputError
from hlo_frontend.program import Program

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^(\s+)(?:ROOT )?%?([\w.\-]+) = ")


def annotated_hlo(
    program: Program, hlo_text: str, problem: MemoryMappingProblem, mapping: Mapping
) -> str:
    """`hlo_text` with comments that say what the mapping does where.

    A line of its own stands where a copy starts and where it has to be done. Behind an instruction
    stands which of its results are produced at which offset in fast memory, and which operands it
    reads there. An instruction of a computation that is called from several places has the comments
    of all its calls.

    Args:
        program: what `problem` was made from.
        hlo_text: what `hlo_frontend.read_text` returns for the source of `program`.
        problem: made from `program`.
        mapping: a legal mapping of `problem`.

    Raises:
        InputError: the text is not that of the program.
    """
    marks = _Marks(program)
    for interval in sorted(mapping.intervals, key=lambda interval: interval.start):
        stay = in_program_steps(problem, interval)
        _mark_accesses(program, stay, marks)
        _mark_copies(program, stay, interval_loop(problem, interval), marks)
    lines = []
    computation = ""
    for line in hlo_text.splitlines():
        if head := _COMPUTATION.match(line):
            computation = head[1]
        match = _INSTRUCTION.match(line)
        indent, name = match.groups() if match else ("", "")
        key = (computation, name)
        lines += [f"{indent}/* {text} */" for text in marks.before.pop(key, [])]
        behind = marks.results.pop(key, [])
        operands = sorted(marks.operands.pop(key, []), key=lambda text: (len(text), text))
        if operands:
            behind.append(f"from fast memory: operand {', '.join(operands)}")
        lines.append(f"{line} /* {'; '.join(behind)} */" if behind else line)
        lines += [f"{indent}/* {text} */" for text in marks.after.pop(key, [])]
    missing = {**marks.before, **marks.results, **marks.operands, **marks.after}
    if missing:
        computation, name = next(iter(missing))
        raise InputError(
            f"{program.source}: the HLO text has no instruction {name} in {computation}; give the"
            " text that hlo_frontend.read_text returns for this program"
        )
    return "\n".join(lines) + "\n"


_Texts = dict[tuple[str, str], list[str]]


class _Marks:
    """Comments by (computation, instruction): on lines before and after it, and behind it."""

    def __init__(self, program: Program) -> None:
        self.keys = [(step.computation, step.name) for step in program.steps]
        self.before: _Texts = {}
        self.results: _Texts = {}
        self.operands: _Texts = {}
        self.after: _Texts = {}

    def add(self, where: _Texts, step: int, text: str) -> None:
        """A comment at a step, once."""
        texts = where.setdefault(self.keys[step], [])
        if text not in texts:
            texts.append(text)


def _mark_accesses(program: Program, stay: FastInterval, marks: _Marks) -> None:
    """Behind each instruction: what it leaves and what it finds in this stay."""
    buffer = program.buffers[stay.buffer]
    for index in buffer.values:
        value = program.values[index]
        there_before = buffer.initial and index == buffer.values[0]
        if stay.ready <= value.def_step < stay.end and not there_before:
            result = value.position.removeprefix(value.name)
            text = f"to fast memory: result{result} at {stay.offset:,}, {value.size:,} bytes"
            marks.add(marks.results, value.def_step, text)
        for use in value.uses:
            if stay.ready <= use.step < stay.end:
                leaf = f"{{{','.join(map(str, use.index))}}}" if use.index else ""
                marks.add(marks.operands, use.step, f"{use.operand}{leaf}")


def _mark_copies(program: Program, stay: FastInterval, loop: int, marks: _Marks) -> None:
    """Lines of their own where the copies of this stay start and have to be done."""
    name = class_name(program, stay.buffer)
    size = program.buffers[stay.buffer].size
    for window, what, starts in (
        (stay.copy_in, "in", f"starts: {size:,} bytes to {stay.offset:,}"),
        (stay.copy_out, "out", f"starts: {size:,} bytes from {stay.offset:,}"),
    ):
        if window is None:
            continue
        for position, happens in ((window.start, starts), (window.done, "is done")):
            step, after = _place(program, position, loop)
            marks.add(
                marks.after if after else marks.before, step, f"copy {what} of {name} {happens}"
            )


def _place(program: Program, position: int, loop: int) -> tuple[int, bool]:
    """The step beside which `position` stands for a stay of this loop's level: (step, after it).

    A loop's body comes right before its `while` on the line of steps. For what is outside of the
    loop the place before the body is before the `while`, and the place behind it after that.
    """
    around = set()
    while loop >= 0:
        around.add(loop)
        loop = program.loops[loop].parent
    entered = [
        each.end
        for index, each in enumerate(program.loops)
        if each.start == position and index not in around
    ]
    if entered:
        return max(entered), False
    for index, each in enumerate(program.loops):
        if each.end == position:
            return (position - 1, True) if index in around else (position, True)
    if position == len(program.steps):
        return position - 1, True
    return position, False
