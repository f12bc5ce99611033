"""Mappings in the real TPU compiler: recompile with them, and read back what it did.

A program is named `MODULE:FUNCTION`, a Python callable that returns `(fn, args)` for
`hlo_frontend.tpu.compile_for_tpu`. Compilations run in a process of their own, so that a fault of
the compiler ends that process and not the search, and are kept on disk.

The score of a compiled program, in seconds: the compiler's own `estimated_cycles` of all
instructions at the chip's clock, and the stalls of its copies as the simulator replays them. Both
are estimates: there is no TPU in the loop.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from baselines.memory_mapping import compiler_replay
from games.base import Result
from games.files import cache_folder, replace_file
from games.memory_mapping.chips import Chip
from games.memory_mapping.mapping_file import in_program_steps
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from games.memory_mapping.simulator import simulate
from games.memory_mapping.solution import Mapping as MemoryMapping
from games.memory_mapping.xla_options import Decisions, UseKey, decide, encode
from hlo_frontend import Program, load, read_text, tpu
from hlo_frontend.errors import InputError

DEFAULT_SCOPED = 16 << 20
"""Bytes of VMEM that libtpu leaves to instructions unless told otherwise."""
_SCOPED_LIMIT = "xla_tpu_scoped_vmem_limit_kib"
_REFUSED = re.compile(r"instruction '([^']+)' operand (\d+)")
_FREE = frozenset({"get-tuple-element", "bitcast", "tuple", "parameter", "constant"})


class RefusedError(Exception):
    """The compiler does not take these options; the message is its own."""


@dataclass(frozen=True)
class Compiled:
    """What one compilation gave.

    Attributes:
        program: read back from the compiled HLO.
        options: the compiler options.
        cycles: estimated cycles of all executions of all instructions.
        replay: the assignment in its HLO, replayed by the simulator on its own program; a reason
            where that cannot be done.
        seconds: the score.
    """

    program: Program
    options: Mapping[str, str]
    cycles: int
    replay: Result[MemoryMapping] | str
    seconds: float

    @property
    def decisions(self) -> Decisions:
        """Where its values are."""
        return decide(self.program, self.program.assignment or ())


class Compiler:
    """Compiles one JAX program for one chip, with a fast memory of the given size for values.

    Args:
        target: `MODULE:FUNCTION`.
        chip: of the chip table, and known to libtpu.
        fast_memory: bytes for values; the rest of the VMEM goes to instructions. As the compiler
            does without being told if None.
    """

    def __init__(self, target: str, chip: Chip, fast_memory: int | None) -> None:
        _builder(target)
        self.target = target
        self.chip = chip
        self.capacity = fast_memory or chip.fast_bytes - DEFAULT_SCOPED
        self.base: dict[str, str] = {}
        if fast_memory is not None:
            self.base[_SCOPED_LIMIT] = str((chip.fast_bytes - fast_memory) // 1024)
        self.compiles = 0
        self._pool: ProcessPoolExecutor | None = None
        self._version = tpu.libtpu_version()
        self._identity = ""
        self._text = ""
        self.unassigned = self._load(tpu.ASSIGNMENT_OFF)
        self._identity = self.unassigned.fingerprint

    def compile(self, options: Mapping[str, str]) -> Compiled:
        """The program under these options.

        Raises:
            RefusedError: the compiler does not take them.
        """
        program = self._load(options)
        problem = from_program(program, self.chip, self.chip.fast_bytes)
        replay: Result[MemoryMapping] | str = "nothing is in fast memory"
        stalls = 0.0
        if program.assignment is not None:
            replay = compiler_replay.replay(problem, program)
            if isinstance(replay, Result):
                stalls = float(simulate(problem, replay.solution).stall.sum())
        cycles = sum((step.estimated_cycles or 0) * step.executions for step in program.steps)
        seconds = cycles / self.chip.clock_hz + stalls
        return Compiled(program, dict(options), cycles, replay, seconds)

    def realise(self, decisions: Decisions, more: Mapping[str, str] | None = None) -> Compiled:
        """The program under these decisions; copies that the compiler cannot start in time are
        left to it.

        Raises:
            RefusedError: it does not take the rest either.
        """
        untimed: set[UseKey] = set()
        while True:
            encoded = encode(self.unassigned, decisions, untimed)
            try:
                return self.compile({**encoded.options, **(more or {})})
            except RefusedError as error:
                match = _REFUSED.search(str(error))
                named = {
                    key
                    for key in decisions.copies
                    if match and key[:2] == (match[1], int(match[2]))
                }
                if not named - untimed:
                    raise
                untimed |= named

    def close(self) -> None:
        """Ends the compiling process."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _load(self, options: Mapping[str, str]) -> Program:
        merged = {**self.base, **options}
        kept = self._kept(merged)
        if kept is not None and kept.exists():
            return load(kept)
        self.compiles += 1
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            text = self._pool.submit(_compile, self.target, self.chip.name, merged).result()
        except BrokenProcessPool as error:
            self._pool = None
            raise RefusedError("the compiler ended without a word") from error
        except RuntimeError as error:
            raise RefusedError(str(error)) from error
        if kept is None:
            self._text = text
        else:
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_file(kept, gzip.compress(text.encode(), mtime=0))
        return load(text.encode())

    def text(self) -> str:
        """HLO text of the program without assignment."""
        return read_text(self._text.encode())

    def _kept(self, options: Mapping[str, str]) -> Path | None:
        """Where the compilation is kept; that without assignment is not."""
        if not self._identity:
            return None
        key = json.dumps([self._identity, self.chip.name, self._version, sorted(options.items())])
        name = hashlib.sha256(key.encode()).hexdigest()
        return cache_folder("tpu") / f"{name}.txt.gz"


def _compile(target: str, chip: str, options: dict[str, str]) -> str:
    """Runs in the compiling process: scheduled HLO text."""
    fn, args = _builder(target)()
    return tpu.scheduled_text(tpu.compile_for_tpu(fn, args, chip, options))


def _builder(target: str) -> Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]:
    name, _, attribute = target.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        builder: Any = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--jax {target}: {error}; expected MODULE:FUNCTION, a function that returns (fn, args)"
        ) from error
    return builder


@dataclass(frozen=True)
class Verification:
    """A planned mapping beside what the compiler does by default and what it made of the plan.

    Attributes:
        default, realised: compilations without and with the plan.
        obeyed, decisions: definitions and uses that are where the plan wants them, and all.
        timed, copies: copies that start when the plan wants them, and all of the plan.
        differences: one line for each decision that was not followed.
        limits: one line for each part of the plan that the options cannot express.
    """

    default: Compiled
    realised: Compiled
    obeyed: int
    decisions: int
    timed: int
    copies: int
    differences: tuple[str, ...]
    limits: tuple[str, ...]


def plan(compiler: Compiler, problem: MemoryMappingProblem, mapping: MemoryMapping) -> Decisions:
    """A mapping of the program without assignment, as decisions."""
    stays = [in_program_steps(problem, interval) for interval in mapping.intervals]
    return decide(compiler.unassigned, stays)


def verify(compiler: Compiler, wanted: Decisions) -> Verification:
    """Recompiles with a plan and compares what came of it, decision by decision.

    Raises:
        RefusedError: the compiler does not take the plan.
    """
    default = compiler.compile({})
    realised = compiler.realise(wanted)
    got = realised.decisions
    place = {True: "fast", False: "slow", None: "no"}
    differences = [
        f"{name}: planned in {place[want]}, produced in {place[got.produced.get(name)]} memory"
        for name, want in wanted.produced.items()
        if got.produced.get(name) != want
    ]
    differences += [
        f"operand {key[1]} of {key[0]}: planned in {place[want]} memory, read from"
        f" {place[got.uses.get(key)]} memory"
        for key, want in wanted.uses.items()
        if got.uses.get(key) != want
    ]
    decisions = len(wanted.produced) + len(wanted.uses)
    before, after = ranks(compiler.unassigned), ranks(realised.program)
    timed = sum(
        key in got.copies and before[max(time, 0)] == after[max(got.copies[key], 0)]
        for key, time in wanted.copies.items()
    )
    return Verification(
        default=default,
        realised=realised,
        obeyed=decisions - len(differences),
        decisions=decisions,
        timed=timed,
        copies=len(wanted.copies),
        differences=tuple(differences),
        limits=encode(compiler.unassigned, wanted).limits,
    )


def ranks(program: Program) -> list[int]:
    """How many instructions that do work stand up to each step; free ones move about."""
    ranks, count = [], 0
    for step in program.steps:
        count += step.opcode not in _FREE
        ranks.append(count)
    return ranks
