"""A mapping as options of the real TPU compiler: `xla_tpu_msa_tensor_overrides`.

libtpu's memory-space assignment takes a text proto of overrides (the messages `MsaTensorOverrides`
in xla/service/memory_space_assignment/memory_space_assignment.proto). Each names a value (a
position matcher) or one use of it (an operand filter), and says *keep in default memory* or
*prefetch*, with the logical time after which the copy starts: the index of an instruction in the
flattened schedule of the program without assignment, which is the index of the step in
`Program.steps`. What is said about neither is the compiler's to decide, and it takes fast memory
where it can; so a mapping is written as all that is *not* in fast memory, and when copies start.

What the compiler does with an override was found by compiling with libtpu 0.0.52 and reading the
result, and each rule below follows from one observation:

- *Keep* of a position keeps the value out of fast memory for all its life. It beats *prefetch*.
- *Keep* of a use also keeps out of fast memory what the instruction itself produces, if that
  matches the filter's tuple index and size: the filter therefore names the tuple index of the use
  (other than those of an instruction with several results) or a size between the two.
- A value produced in fast memory with a kept use is copied out right after its definition.
- A prefetch that cannot start when the override says fails the compilation.
- In a loop body the same holds, for copies of one iteration: nothing from outside is there before
  the body's parameter. What the loop carries stays in fast memory from one iteration to the next
  unless the `while`'s own use of it is kept; to keep what the body makes of it without that aborts
  libtpu. What only is read in the loop is in slow memory, unless a prefetch of the value itself
  starts before the loop; a keep of such a value does not reach its uses in the loop.
- Malformed text and names that match nothing are ignored without a word: whoever compiles with
  the options has to read the result back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from hlo_frontend.program import CopyWindow, Program, Use, Value

FIXED_OPTIONS: Mapping[str, str] = {
    # A cross-program prefetch ignores overrides, and slices of one have no single start time.
    "xla_msa_max_cross_program_prefetches": "0",
    "xla_tpu_sliced_prefetch_max_slices": "0",
}
OVERRIDES = "xla_tpu_msa_tensor_overrides"

_SCALAR = re.compile(r"\w+\[(1(,1)*)?\]")


class Stay(Protocol):
    """A stay in fast memory in indices of a `Program`: its `AssignedInterval`, for example."""

    @property
    def buffer(self) -> int:
        """Index in `Program.buffers`."""

    @property
    def start(self) -> int:
        """First step."""

    @property
    def end(self) -> int:
        """The step after the last."""

    @property
    def copy_in(self) -> CopyWindow | None:
        """The copy that brings the buffer in, None if it is produced in fast memory."""

    @property
    def copy_out(self) -> CopyWindow | None:
        """The copy that writes it back, if any."""


UseKey = tuple[str, int, tuple[int, ...]]
"""Instruction, operand number and tuple index: what names a use in every schedule of a program."""


@dataclass(frozen=True)
class Decisions:
    """A mapping as the compiler sees it: by names, so that two compilations can be compared.

    Attributes:
        produced: position (`Value.position`) of each value that the program produces, other than
            single elements -> it is produced in fast memory.
        uses: each use of such a value, or of one that is there before -> it reads from there.
        copies: first use that a copy into fast memory serves -> the step after which it starts;
            one before the loop that the use is in, if the copy is made once for all iterations.
        carried: position of each result of a loop -> it is in fast memory all through the loop,
            from one iteration to the next.
    """

    produced: Mapping[str, bool]
    uses: Mapping[UseKey, bool]
    copies: Mapping[UseKey, int]
    carried: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class CompilerOptions:
    """What `xla_options` returns.

    Attributes:
        options: for `jax.jit(f).lower(...).compile(compiler_options=options)`.
        limits: one line for each part of the mapping that the options cannot express.
    """

    options: dict[str, str]
    limits: tuple[str, ...]


def xla_options(program: Program, stays: Sequence[Stay]) -> CompilerOptions:
    """Options with which the TPU compiler takes over a mapping of `program`.

    Args:
        program: read from the program's HLO compiled with the assignment off, so that its steps
            are the compiler's logical times.
        stays: the mapping, in indices of `program`.
    """
    encoded = encode(program, decide(program, stays))
    written_back = [
        f"{program.values[program.buffers[stay.buffer].values[0]].position}: copied out when the"
        f" compiler chooses, not in steps [{stay.copy_out.start}, {stay.copy_out.done})"
        for stay in stays
        if stay.copy_out is not None
    ]
    offsets = ["all values: offsets in fast memory are the compiler's choice"] if stays else []
    return CompilerOptions(encoded.options, (*encoded.limits, *written_back, *offsets))


def decide(program: Program, stays: Iterable[Stay]) -> Decisions:
    """Which values and uses of `program` fast memory serves under `stays`."""
    by_buffer: dict[int, list[Stay]] = {}
    for stay in sorted(stays, key=lambda s: s.start):
        by_buffer.setdefault(stay.buffer, []).append(stay)
    produced: dict[str, bool] = {}
    uses: dict[UseKey, bool] = {}
    carried: dict[str, bool] = {}
    loop_of = {loop.end: loop for loop in program.loops}
    for value in _movable(program):
        of_buffer = by_buffer.get(value.buffer, [])
        if value.def_bytes > 0:
            produced[value.position] = _served(of_buffer, value.def_step)
        for use in value.uses:
            uses[use_key(program, use)] = _served(of_buffer, use.step)
        if program.steps[value.def_step].opcode == "while":
            loop = loop_of[value.def_step]
            carried[value.position] = any(
                _ready(stay) <= loop.start and loop.end <= stay.end for stay in of_buffer
            )
    copies: dict[UseKey, int] = {}
    for stay in chain.from_iterable(by_buffer.values()):
        first = _first_use(program, stay)
        if stay.copy_in is not None and first is not None:
            copies[use_key(program, first[1])] = _copy_time(program, stay, stay.copy_in, *first)
    return Decisions(produced, uses, copies, carried)


def encode(
    program: Program, decisions: Decisions, untimed: Collection[UseKey] = ()
) -> CompilerOptions:
    """The options for `decisions` about `program` (see `xla_options`).

    Args:
        program: as for `xla_options`.
        decisions: about every movable value of `program`.
        untimed: first uses of copies about which nothing is said. A prefetch that the compiler
            cannot place fails the compilation; whoever compiles gives its use here and retries.
    """
    encoder = _Encoder(program, decisions, untimed)
    for value in _movable(program):
        encoder.value(value)
    text = " ".join(f"overrides {{ {rule} }}" for rule in encoder.rules)
    options = {**FIXED_OPTIONS, **({OVERRIDES: text} if text else {})}
    return CompilerOptions(options, tuple(encoder.limits))


def use_key(program: Program, use: Use) -> UseKey:
    """The name of a use."""
    return (program.steps[use.step].name, use.operand, use.index)


class _Encoder:
    """Collects the rules and limits of one program, value by value."""

    def __init__(self, program: Program, decisions: Decisions, untimed: Collection[UseKey]) -> None:
        self.program = program
        self.decisions = decisions
        self.untimed = frozenset(untimed)
        self.rules: list[str] = []
        self.limits: list[str] = []
        self.results: dict[int, list[Value]] = {}
        for value in program.values:
            self.results.setdefault(value.def_step, []).append(value)

    def value(self, value: Value) -> None:
        keys = [use_key(self.program, use) for use in value.uses]
        fast = self.decisions.produced.get(value.position, False)
        if not self.decisions.carried.get(value.position, True):
            kept = _operand((value.name, 0, value.index), _tuple_index(value.index))
            self.rules.append(f"{kept} keep_in_default_memory {{}}")
        if not self._ever_fast(value):
            self.rules.append(f"{_position(value)} keep_in_default_memory {{}}")
            for use, key in zip(value.uses, keys, strict=True):
                if self._computation(use.step) != self._computation(value.def_step):
                    self._keep(value, use, key)
            return
        # Valid in slow memory: from the start, or updated there in place, or by a kept use.
        in_slow = value.def_bytes == 0 or (bool(value.updates) and not fast)
        for use, key in zip(value.uses, keys, strict=True):
            if not self.decisions.uses[key]:
                in_slow |= self._keep(value, use, key)
                fast = False
            elif key in self.decisions.copies:
                self._copy_in(value, use, key, in_slow=in_slow, fast=fast)
                fast = True

    def _keep(self, value: Value, use: Use, key: UseKey) -> bool:
        """Keeps one use in slow memory; False where no rule does."""
        results = self.results.get(use.step, [])
        if any(self._updates(result, value) for result in results):
            # The two share their bytes: a keep of the result, where it has one, is for both.
            return True
        hurt = [result for result in results if self._ever_fast(result)]
        index = _tuple_index(use.index)
        if not hurt:
            spare = index if use.index else ""
        elif all(result.index != use.index for result in hurt):
            spare = index
        elif all(result.size < value.size for result in hurt):
            spare = f" size_gte: {max(result.size for result in hurt) + 1}"
        elif all(result.size > value.size for result in hurt):
            spare = f" size_lte: {min(result.size for result in hurt) - 1}"
        else:
            self.limits.append(
                f"{value.position}: its use by {key[0]} cannot be kept in slow memory, because"
                f" the result of {key[0]} is of the same size and in fast memory"
            )
            return False
        self.rules.append(f"{_operand(key, spare)} keep_in_default_memory {{}}")
        return True

    def _copy_in(self, value: Value, use: Use, key: UseKey, *, in_slow: bool, fast: bool) -> None:
        time = self.decisions.copies[key]
        home = self._computation(value.def_step)
        outside = self._computation(time) != self._computation(use.step)
        if fast:
            why = "no rule copies it out and in again without a use in slow memory between"
        elif not in_slow:
            why = "no rule produces it in slow memory and copies it in for its first use"
        elif outside and self._computation(time) != home:
            why = "no rule copies it in between the loops around its use"
        else:
            why = None
        if why is not None:
            self.limits.append(f"{value.position}: {why}, by {key[0]}; left to the compiler")
        elif key not in self.untimed:
            # Of the uses inside a loop the compiler knows only the loop's own.
            target = (
                _position(value)
                if outside
                else _operand(key, _tuple_index(key[2]) if key[2] else "")
            )
            self.rules.append(f"{target} prefetch {{ logical_time: {time} strict_timing: true }}")

    def _ever_fast(self, value: Value) -> bool:
        return self.decisions.produced.get(value.position, False) or any(
            self.decisions.uses.get(use_key(self.program, use), False) for use in value.uses
        )

    def _computation(self, step: int) -> str:
        return self.program.steps[step].computation

    def _updates(self, result: Value, value: Value) -> bool:
        return any(self.program.values[old] is value for old in result.updates)


def _movable(program: Program) -> list[Value]:
    """Values that the compiler may place: it leaves single elements where they are."""
    return [
        value
        for value in program.values
        if program.buffers[value.buffer].fixed_space is None and not _SCALAR.match(value.shape)
    ]


def _served(stays: Sequence[Stay], step: int) -> bool:
    return any(_ready(stay) <= step < stay.end for stay in stays)


def _ready(stay: Stay) -> int:
    return stay.start if stay.copy_in is None else stay.copy_in.done


def _first_use(program: Program, stay: Stay) -> tuple[Value, Use] | None:
    uses = (
        (program.values[index], use)
        for index in program.buffers[stay.buffer].values
        for use in program.values[index].uses
        if _ready(stay) <= use.step < stay.end
    )
    return min(uses, key=lambda u: (u[1].step, u[1].operand, u[1].index), default=None)


def _copy_time(program: Program, stay: Stay, copy_in: CopyWindow, value: Value, use: Use) -> int:
    """The logical time of a copy-in for `use` of `value`: it is after the step of that index."""
    resident = None
    number = program.steps[use.step].loop
    while number >= 0:
        loop = program.loops[number]
        if loop.start <= stay.start and stay.end <= loop.end and copy_in.start >= loop.start:
            break
        resident, number = loop, loop.parent
    if resident is not None:
        return max(min(copy_in.start, resident.start) - 1, value.def_step)
    computation = program.steps[use.step].computation
    # What comes from outside is in the computation from its parameter on.
    arrivals = (
        step
        for step in range(use.step)
        if program.steps[step].computation == computation
        and program.steps[step].opcode == "parameter"
    )
    inside = program.steps[value.def_step].computation == computation
    return max(copy_in.start - 1, value.def_step if inside else max(arrivals, default=0))


def _position(value: Value) -> str:
    where = _tuple_index(value.index) if value.index else ""
    return f'hlo_position_matcher {{ instruction_name_regex: "{_regex(value.name)}"{where} }}'


def _tuple_index(index: tuple[int, ...]) -> str:
    return f" tuple_index {{{''.join(f' index: {i}' for i in index)} }}"


def _operand(key: UseKey, more: str) -> str:
    name, operand, _ = key
    return (
        f'hlo_operand_filter {{ instruction_name_regex: "{_regex(name)}"'
        f" operand_number: {operand}{more} }}"
    )


def _regex(name: str) -> str:
    """RE2 for exactly this name, without backslashes, which a text proto would read as its own."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"[{match[0]}]", name)
