"""The HLO variant: reorder a scheduled computation so that what is asynchronous hides behind work.

Pairs of `...-start` and `...-done` are operations beside the one stream of everything else: a
start only queues its work, one after another for each kind of operation, as in XLA's
latency-hiding scheduler (xla/service/latency_hiding_scheduler.cc); a done waits for it. A legal
order keeps data and control dependences, parameters first, the order of instructions with side
effects, and the peak of memory that is in use, in each memory space. The bodies of loops have
orders of their own, each within its own peak; an asynchronous operation stays in its computation.

Not modelled: work that slows down beside copies and collectives because they share the memory, and
the offsets of a memory space, which a compiler has to assign anew for a new order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from games.co_scheduling.cost import Ints
from games.co_scheduling.device import Device, Floats
from hlo_frontend import xla_parser
from hlo_frontend.cost import CostModel
from hlo_frontend.errors import InputError
from hlo_frontend.flatten import trip_count
from hlo_frontend.module import Computation, Instruction, decode

PLAIN, START, DONE = range(3)
_START, _DONE = "-start", "-done"
# These make no buffer of their own: what they give is their operand's.
_VIEWS = ("get-tuple-element", "bitcast", "tuple", "opt-barrier")
_EFFECTS = ("custom-call", "infeed", "outfeed", "send", "recv", "rng-get-and-update-state")
_COPIES = ("copy-start", "slice-start")
_NAME = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = ")


@dataclass(frozen=True, eq=False)
class OrderProblem:
    """A computation of a module; instruction k is the k-th of the compiler's own order.

    Attributes:
        name: of the computation.
        names: N names of instructions.
        kind: i64[N] PLAIN, START or DONE.
        seconds: f64[N] time of an instruction alone; of a START that of its operation.
        queue: i64[N] of a START: which operations it queues behind; -1 for the others.
        start_of: i64[N] of a DONE: its START; -1 for the others.
        before: i64[E, 2] (earlier, later) pairs that any order keeps.
        size: i64[N, 2] bytes that the instruction makes, in slow memory and elsewhere.
        uses: i64[U, 2] (instruction, whose bytes it uses).
        lasting: bool[N] the bytes stay in use to the end.
        limit: i64[2] bytes that may be in use, in slow memory and elsewhere.
        loops: (instruction, how often its body runs, number of the body's problem) of each `while`.
    """

    name: str
    names: tuple[str, ...]
    kind: Ints
    seconds: Floats
    queue: Ints
    start_of: Ints
    before: Ints
    size: Ints
    uses: Ints
    lasting: npt.NDArray[np.bool_]
    limit: Ints
    loops: tuple[tuple[int, int, int], ...] = ()

    @property
    def pairs(self) -> int:
        """Number of asynchronous operations."""
        return int((self.kind == DONE).sum())

    @property
    def own(self) -> Ints:
        """i64[N]: the compiler's own order."""
        return np.arange(len(self.names))


@dataclass(frozen=True, eq=False)
class OrderProgram:
    """A module: the bodies of its loops, inner ones first, and the entry computation at the end.

    Attributes:
        name: of the module.
        problems: of the computations.
    """

    name: str
    problems: tuple[OrderProblem, ...]

    @property
    def entry(self) -> OrderProblem:
        """The entry computation, in which loops take as long as in the compiler's order."""
        return self.problems[-1]

    @property
    def pairs(self) -> int:
        """Number of asynchronous operations, as they are in the text."""
        return sum(problem.pairs for problem in self.problems)

    def timed(self, number: int, body_seconds: Sequence[float]) -> OrderProblem:
        """A problem whose loops take what their bodies do, given the seconds of those before it."""
        problem = self.problems[number]
        seconds = problem.seconds.copy()
        for instruction, runs, body in problem.loops:
            seconds[instruction] = runs * body_seconds[body]
        return replace(problem, seconds=seconds)


def order_program(text: str, where: str, device: Device, limit: int | None = None) -> OrderProgram:
    """The problems of a module's HLO text.

    Args:
        text: scheduled HLO.
        where: the text comes from, for messages.
        device: rates of work, memory and network.
        limit: bytes of slow memory that may be in use in the entry computation, loops aside; as
            many as in the compiler's order if None.

    Raises:
        InputError: no scheduled module, no asynchronous pairs, or a limit that is too small.
    """
    module = decode(xla_parser.text_to_proto(text, where), where)
    if not module.scheduled:
        raise InputError(f"{where}: the module has no schedule; dump it after optimizations")
    model = CostModel(module, xla_parser.cost_analysis)
    problems: list[OrderProblem] = []
    numbers: dict[int, int] = {}  # of the problems, by computation

    def read(computation: Computation) -> int:
        if computation.id not in numbers:
            loops = []
            for k, instruction in enumerate(computation.instructions):
                if instruction.opcode == "while":
                    runs, _ = trip_count(module, computation, instruction)
                    loops.append((k, runs, read(module.computations[instruction.called[0]])))
            problem = _problem(computation, model, device, tuple(loops))
            for place, runs, body in loops:
                inner = problems[body]
                problem.seconds[place] = runs * seconds_of(inner, inner.own)
            numbers[computation.id] = len(problems)
            problems.append(problem)
        return numbers[computation.id]

    read(module.computations[module.entry])
    program = OrderProgram(module.name, tuple(problems))
    if not program.pairs:
        raise InputError(
            f"{where}: no pairs of start and done in the entry computation or a loop, nothing to"
            " hide; give a program with asynchronous collectives or copies"
        )
    if limit is not None:
        least = int(peak(program.entry, program.entry.own)[0])
        if limit < least:
            raise InputError(
                f"{where}: the compiler's own order needs {least:,} bytes, the limit is {limit:,};"
                " expected at least as much"
            )
        program.entry.limit[0] = limit
    return program


def _problem(
    computation: Computation,
    model: CostModel,
    device: Device,
    loops: tuple[tuple[int, int, int], ...],
) -> OrderProblem:
    instructions = computation.instructions
    count = len(instructions)
    at = {instruction.id: k for k, instruction in enumerate(instructions)}
    kind = np.zeros(count, dtype=np.int64)
    seconds = np.zeros(count)
    queue, start_of = np.full((2, count), -1)
    size = np.zeros((count, 2), dtype=np.int64)
    queues: dict[str, int] = {}
    before: set[tuple[int, int]] = set()
    sources: list[set[int]] = []  # whose bytes each instruction's result is
    uses: list[tuple[int, int]] = []
    effect = parameter = -1
    for k, instruction in enumerate(instructions):
        operands = [at[operand] for operand in instruction.operands]
        before |= {(earlier, k) for earlier in operands}
        before |= {(at[other], k) for other in instruction.control}
        opcode = instruction.opcode
        if opcode == "parameter":
            parameter = k
        elif parameter >= 0:
            before.add((parameter, k))
        if opcode in _EFFECTS:
            if effect >= 0:
                before.add((effect, k))
            effect = k
        used = set().union(*(sources[operand] for operand in operands)) if operands else set()
        if opcode.endswith(_DONE) and operands:
            kind[k], start_of[k] = DONE, operands[0]
            sources.append(used)
        elif opcode in _VIEWS:
            sources.append(used)
        else:
            size[k] = _made(instruction, [instructions[operand] for operand in operands])
            # A start goes on using its operands until it is done.
            sources.append({k} | (used if opcode.endswith(_START) else set()))
        uses += [(k, source) for source in used]
        if opcode.endswith(_START):
            kind[k] = START
            queue[k] = queues.setdefault(opcode, len(queues))
            seconds[k] = _asynchronous(instruction, device)
        elif kind[k] == PLAIN:
            cost = model.cost(instruction, [instructions[operand] for operand in operands])
            moved = sum(map(sum, cost.reads)) + sum(cost.writes) + cost.other_bytes
            seconds[k] = max(cost.flops / device.flops, moved / device.hbm_bytes_per_s)
    # The parameters come first, in their order, and what the program returns stays.
    first = [k for k, each in enumerate(instructions) if each.opcode == "parameter"]
    before |= set(pairwise(first))
    lasting = np.zeros(count, dtype=np.bool_)
    lasting[first] = True
    lasting[sorted(sources[at[computation.root]])] = True
    for started in np.flatnonzero(kind == START):
        # Without its done, a start is not one of a pair.
        if started not in start_of:
            kind[started], queue[started] = PLAIN, -1
    problem = OrderProblem(
        name=computation.name,
        names=tuple(instruction.name for instruction in instructions),
        kind=kind,
        seconds=seconds,
        queue=queue,
        start_of=np.where(kind == DONE, start_of, -1),
        before=np.array(sorted(before), dtype=np.int64).reshape(-1, 2),
        size=size,
        uses=np.array(sorted(set(uses)), dtype=np.int64).reshape(-1, 2),
        lasting=lasting,
        limit=np.zeros(2, dtype=np.int64),
        loops=loops,
    )
    problem.limit[:] = peak(problem, problem.own)
    return problem


def _made(instruction: Instruction, operands: list[Instruction]) -> tuple[int, int]:
    """Bytes of the result in slow memory and elsewhere; a start's own copy of operands is none."""
    made = [0, 0]
    leaves = [leaf for _, leaf in instruction.shape.leaves]
    if instruction.opcode.endswith(_START) and len(leaves) > 1:
        given = [leaf for operand in operands for _, leaf in operand.shape.leaves]
        for leaf in given:
            if leaf in leaves:
                leaves.remove(leaf)
    for leaf in leaves:
        made[0 if leaf.memory_space == 0 else 1] += leaf.padded_bytes
    return made[0], made[1]


def _asynchronous(start: Instruction, device: Device) -> float:
    """Seconds of a pair: of its largest array over the link, or through memory for a copy."""
    moved = max((leaf.padded_bytes for _, leaf in start.shape.leaves), default=0)
    if start.opcode in _COPIES:
        return 2.0 * moved / device.hbm_bytes_per_s
    rate = device.link_bytes_per_s * device.gather_efficiency
    return device.gather_latency_s + moved / rate


def seconds_of(problem: OrderProblem, order: Ints) -> float:
    """Seconds of an order: every START queues its operation, every DONE waits for it."""
    return float(run_order(order, problem.kind, problem.seconds, problem.queue, problem.start_of))


@njit(cache=True, nogil=True)
def run_order(order: Ints, kind: Ints, seconds: Floats, queue: Ints, start_of: Ints) -> float:
    """`seconds_of`, native."""
    now = 0.0
    free = np.zeros(max(queue.max() + 1, 1))
    done = np.zeros(len(order))
    for k in order:
        if kind[k] == START:
            free[queue[k]] = max(free[queue[k]], now) + seconds[k]
            done[k] = free[queue[k]]
        elif kind[k] == DONE:
            now = max(now, done[start_of[k]])
        else:
            now += seconds[k]
    return now


def peak(problem: OrderProblem, order: Ints) -> Ints:
    """i64[2]: most bytes in use at a time, in slow memory and elsewhere."""
    users = np.argsort(problem.uses[:, 0], kind="stable")
    first = np.searchsorted(problem.uses[users, 0], np.arange(len(order) + 1))
    return np.asarray(run_peak(order, problem.size, first, problem.uses[users, 1], problem.lasting))


@njit(cache=True, nogil=True)
def run_peak(
    order: Ints, size: Ints, first: Ints, used: Ints, lasting: npt.NDArray[np.bool_]
) -> Ints:
    """`peak`, native; the uses of instruction k are `used[first[k] : first[k + 1]]`."""
    left = np.zeros(len(order), np.int64)
    for source in used:
        left[source] += 1
    now = np.zeros(2, np.int64)
    most = np.zeros(2, np.int64)
    for k in order:
        for space in range(2):
            now[space] += size[k, space]
            most[space] = max(most[space], now[space])
        if left[k] == 0 and not lasting[k]:
            for space in range(2):
                now[space] -= size[k, space]
        for x in range(first[k], first[k + 1]):
            source = used[x]
            left[source] -= 1
            if left[source] == 0 and not lasting[source]:
                for space in range(2):
                    now[space] -= size[source, space]
    return most


def least_seconds(problem: OrderProblem) -> float:
    """Seconds that no order beats: all plain work, each queue's work, and the longest chain."""
    plain = problem.seconds[problem.kind == PLAIN].sum()
    bound = float(plain)
    for queue in range(int(problem.queue.max()) + 1):
        bound = max(bound, float(problem.seconds[problem.queue == queue].sum()))
    ready = np.zeros(len(problem.names))
    for earlier, later in problem.before[np.argsort(problem.before[:, 0], kind="stable")]:
        # The compiler's order is one that keeps all of them.
        own = problem.seconds[earlier]
        # A start takes no time of its own; only its done waits for it.
        wait = own if problem.kind[earlier] != START or problem.start_of[later] == earlier else 0.0
        ready[later] = max(ready[later], ready[earlier] + wait)
    return max(bound, float((ready + np.where(problem.kind == PLAIN, problem.seconds, 0.0)).max()))


def validate_order(problem: OrderProblem, order: Ints) -> list[str]:
    """Every broken rule as one line; nothing of the simulation above is used."""
    count = len(problem.names)
    if sorted(order.tolist()) != list(range(count)):
        return [f"the order is no permutation of the {count} instructions"]
    place = {int(k): at for at, k in enumerate(order)}
    faults = [
        f"{problem.names[later]} comes before {problem.names[earlier]}"
        for earlier, later in problem.before.tolist()
        if place[later] < place[earlier]
    ]
    last = {k: place[k] for k in range(count)}
    for user, source in problem.uses.tolist():
        last[source] = max(last[source], place[user])
    for space in range(2):
        change = np.zeros(count + 1, dtype=np.int64)
        for k in range(count):
            change[place[k]] += problem.size[k, space]
            if not problem.lasting[k]:
                change[last[k] + 1] -= problem.size[k, space]
        most = int(np.cumsum(change).max())
        if most > problem.limit[space]:
            faults.append(
                f"{most:,} bytes are in use at once, allowed are {problem.limit[space]:,}"
            )
    return faults


def reordered_text(text: str, problem: OrderProblem, order: Ints, where: str) -> str:
    """The HLO text with the problem's computation in that order.

    Raises:
        InputError: XLA's parser does not accept the result, or the text is not the problem's.
    """
    head = rf"^(?:ENTRY )?%?{re.escape(problem.name)} .*\{{\s*$"
    match = re.search(head, text, re.MULTILINE)
    if match is None:
        raise InputError(f"{where}: the HLO text has no computation {problem.name}")
    begin = match.end() + 1
    end = text.index("\n}", begin) + 1
    lines = text[begin:end].splitlines(keepends=True)
    by_name = {found[1]: line for line in lines if (found := _NAME.match(line))}
    if len(by_name) != len(lines) or set(by_name) != set(problem.names):
        raise InputError(f"{where}: the HLO text is not that of the problem; read it again")
    body = "".join(by_name[problem.names[k]] for k in order)
    changed = text[:begin] + body + text[end:]
    xla_parser.text_to_proto(changed, where)
    return changed
