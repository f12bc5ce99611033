"""One straight line of steps out of a module: called computations inlined where they are called.

The order is that of XLA's `HloLiveRange`: a called computation comes right before the instruction
that calls it, the condition of a `while` before its body, the branches of a `conditional` one
after the other (each counted as executed: an upper bound). Fusions, and computations applied to
single elements (`reduce`, `sort`, ...), are part of their instruction and are not inlined. What an
`async-start` runs on another thread than the device's main one is not inlined and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from hlo_frontend.module import Computation, Instruction, Module

DEFAULT_TRIP_COUNT = 5
"""XLA's default for a loop whose trip count it does not know (`while_execution_count`)."""


class Role(Enum):
    """What calls a computation."""

    ENTRY = auto()
    CALL = auto()
    CONDITION = auto()
    BODY = auto()
    BRANCH = auto()


@dataclass(slots=True)
class FlatStep:
    """An instruction in the flattened schedule; `operands` are steps, `frames` what it calls."""

    instruction: Instruction
    computation: str
    frame: int
    loop: int
    executions: int
    operands: tuple[int, ...]
    frames: tuple[int, ...] = ()


@dataclass(slots=True)
class Frame:
    """One inlined computation: steps [start, end). `arguments[k]` is the step of parameter k."""

    role: Role
    arguments: tuple[int, ...]
    loop: int
    start: int
    end: int = 0
    root: int = -1


@dataclass(slots=True)
class FlatLoop:
    """A `while`: condition and body are steps [start, end). See `program.Loop`."""

    name: str
    start: int
    end: int
    trip_count: int
    trip_known: bool
    parent: int


@dataclass(slots=True)
class Flat:
    """The flattened schedule; frame 0 is the entry computation."""

    steps: list[FlatStep]
    frames: list[Frame]
    loops: list[FlatLoop]


def flatten(module: Module) -> Flat:
    """Inlines everything that the entry computation calls."""
    flat = Flat([], [], [])
    _inline(module, flat, module.entry, Role.ENTRY, (), loop=-1, executions=1)
    return flat


def inlined_computations(instruction: Instruction) -> tuple[tuple[Role, int], ...]:
    """(role, computation id) of what `flatten` inlines for an instruction, in that order."""
    called = instruction.called
    match instruction.opcode:
        case "while":
            body, condition = called
            return ((Role.CONDITION, condition), (Role.BODY, body))
        case "conditional":
            return tuple((Role.BRANCH, computation) for computation in called)
        case "call":
            return ((Role.CALL, called[0]),)
        case "async-start" if instruction.on_main_thread:
            return ((Role.CALL, called[0]),)
    return ()


def _inline(
    module: Module,
    flat: Flat,
    computation_id: int,
    role: Role,
    arguments: tuple[int, ...],
    *,
    loop: int,
    executions: int,
) -> int:
    """Appends the steps of a computation; returns its frame."""
    computation = module.computations[computation_id]
    number = len(flat.frames)
    frame = Frame(role, arguments, loop, len(flat.steps))
    flat.frames.append(frame)
    step_of: dict[int, int] = {}
    for instruction in computation.instructions:
        operands = tuple(step_of[operand] for operand in instruction.operands)
        callees = inlined_computations(instruction)
        inner_loop, inner_executions = loop, executions
        if instruction.opcode == "while":
            trips, known = trip_count(module, computation, instruction)
            inner_loop, inner_executions = len(flat.loops), executions * trips
            flat.loops.append(FlatLoop(instruction.name, len(flat.steps), 0, trips, known, loop))
        frames = tuple(
            _inline(
                module,
                flat,
                callee,
                callee_role,
                operands[branch + 1 : branch + 2] if callee_role is Role.BRANCH else operands,
                loop=inner_loop,
                executions=inner_executions,
            )
            for branch, (callee_role, callee) in enumerate(callees)
        )
        if instruction.opcode == "while":
            flat.loops[inner_loop].end = len(flat.steps)
        step_of[instruction.id] = len(flat.steps)
        flat.steps.append(
            FlatStep(instruction, computation.name, number, loop, executions, operands, frames)
        )
    frame.end = len(flat.steps)
    frame.root = step_of[computation.root]
    return number


def trip_count(module: Module, caller: Computation, loop: Instruction) -> tuple[int, bool]:
    """(trip count, whether it is known) of a `while`."""
    known = loop.config.get("known_trip_count")
    if isinstance(known, dict) and str(known.get("n", "")).isdigit():
        return int(known["n"]), True
    derived = _derived_trip_count(module, caller, loop)
    return (DEFAULT_TRIP_COUNT, False) if derived is None else (derived, True)


def _derived_trip_count(module: Module, caller: Computation, loop: Instruction) -> int | None:
    """Trip count of `for (i = a; i < b; i += c)` with constants a, b and c; None if it is not."""
    body, condition = (module.computations[computation] for computation in loop.called)
    in_caller, in_body, in_condition = caller.by_id(), body.by_id(), condition.by_id()

    def carried(instruction: Instruction, scope: dict[int, Instruction]) -> int | None:
        """Which element of the loop's state an instruction reads."""
        instruction = _copied(instruction, scope)
        if instruction.opcode != "get-tuple-element":
            return None
        source = scope[instruction.operands[0]]
        return instruction.tuple_index if source.opcode == "parameter" else None

    test = in_condition[condition.root]
    init, update = in_caller[loop.operands[0]], in_body[body.root]
    if test.opcode != "compare" or test.proto.comparison_direction != "LT":
        return None
    counter = carried(in_condition[test.operands[0]], in_condition)
    limit = _copied(in_condition[test.operands[1]], in_condition).constant
    if counter is None or limit is None or init.opcode != "tuple" or update.opcode != "tuple":
        return None
    first = _copied(in_caller[init.operands[counter]], in_caller).constant
    addition = in_body[update.operands[counter]]
    if first is None or addition.opcode != "add":
        return None
    terms = [in_body[operand] for operand in addition.operands]
    strides = [
        _copied(term, in_body).constant for term in terms if carried(term, in_body) != counter
    ]
    if len(strides) != 1 or strides[0] is None or strides[0] <= 0:
        return None
    return max(0, -((first - limit) // strides[0]))


def _copied(instruction: Instruction, scope: dict[int, Instruction]) -> Instruction:
    """What an instruction is a copy of; itself if it is none."""
    while instruction.opcode == "copy":
        instruction = scope[instruction.operands[0]]
    return instruction
