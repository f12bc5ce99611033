"""Search with the real TPU compiler as the judge: what it makes of a plan is what counts.

The compiler's estimated cycles are not our cost model's: it sees how an instruction is tiled. So
the judge learns, from every compilation, what each access is worth to the compiler (`Costs`), and
local search plans anew with that.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from baselines.memory_mapping.local_search import local_search
from compiler_rl.tpu import Compiled, Compiler, RefusedError, plan, ranks
from games.memory_mapping.problem import Bools, Floats, MemoryMappingProblem
from games.memory_mapping.solution import Mapping as MemoryMapping
from games.memory_mapping.xla_options import Decisions, UseKey, use_key
from hlo_frontend import Program

# Policies of the compiler itself.
KNOBS: tuple[dict[str, str], ...] = (
    {"xla_msa_max_retries": "10", "xla_msa_max_repacks": "20"},
    {"xla_msa_preferred_overlap_to_async_copy_ratio": "1.2"},
    {"xla_msa_preferred_overlap_to_async_copy_ratio": "4"},
    {"xla_msa_max_outstanding_prefetches": "80", "xla_msa_max_outstanding_evictions": "80"},
    {"xla_tpu_msa_use_minimalloc": "true"},
)
OWN = "the compiler's default without cross-program and sliced prefetches"
LEARNED = "a plan with costs learned from the compilations"
PATIENCE = 4  # learned plans in a row that were no better
PLAN_MOVES = 200_000  # of local search for a learned plan
SWEEPS = 8  # over all observations, when costs are learned
SENSITIVE = 0.02  # of a step's time: what its accesses must be worth for it to be memory-bound


@dataclass
class Judgement:
    """What a search with the compiler as the judge found.

    Attributes:
        default: the compiler's own choice, where the search starts.
        best: the best compilation; its options are the result.
        compiles: compilations made (kept ones do not count).
        curve: (compilations so far, seconds) at each improvement.
        found_by: what made the best one.
        scores: the best seconds of each kind of candidate.
        refused: candidates that the compiler did not take.
    """

    default: Compiled
    best: Compiled
    compiles: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    found_by: str = "the compiler's default"
    scores: dict[str, float] = field(default_factory=dict)
    refused: int = 0


def judge(
    compiler: Compiler,
    problem: MemoryMappingProblem,
    mappings: Mapping[str, MemoryMapping],
    *,
    compiles: int,
    seed: int = 0,
    report: Callable[[Judgement], None] | None = None,
) -> Judgement:
    """Searches mappings with the real compiler as the judge; never worse than its default.

    The candidates: the given mappings; the compiler's own decisions; mappings planned with learned
    costs; the compiler's global policies; then the best of these with parts of another, with copies
    earlier or later, with single buffers in or out. Ctrl-C returns the best so far.

    Args:
        compiler: of the program.
        problem: of the program that it compiles without assignment.
        mappings: made with the cost model, by name.
        compiles: budget.
        seed: of the variations.
        report: called after each candidate.
    """
    search = _Search(compiler, problem, compiles, seed, report)
    with contextlib.suppress(KeyboardInterrupt):
        search.run(mappings)
    return search.result


class _Search:
    """The state of one search."""

    def __init__(
        self,
        compiler: Compiler,
        problem: MemoryMappingProblem,
        compiles: int,
        seed: int,
        report: Callable[[Judgement], None] | None,
    ) -> None:
        self.compiler = compiler
        self.problem = problem
        self.budget = compiles
        self.seed = seed
        self.report = report
        self.before = compiler.compiles
        default = compiler.compile({})
        self.result = Judgement(default, default, curve=[(0, default.seconds)])
        self.costs = Costs(problem, compiler.unassigned, compiler.chip.clock_hz)
        self.costs.observe(default.program, default.decisions)
        self.own = self.best = _retimed(default, compiler.unassigned)
        self.knobs: dict[str, str] = {}
        self.tried = 0

    def run(self, mappings: Mapping[str, MemoryMapping]) -> None:
        """All candidates, until the budget is spent."""
        plans = {
            name: plan(self.compiler, self.problem, mapping) for name, mapping in mappings.items()
        }
        for name, decisions in plans.items():
            self._attempt(decisions, {}, name)
        self._attempt(self.own, {}, OWN)
        start = min(mappings.values(), key=lambda mapping: len(mapping.intervals), default=None)
        failures = 0
        while failures < PATIENCE and not self._over():
            failures = 0 if self._replan(start) else failures + 1
        for more in KNOBS:
            self._attempt(None, more, _policy(more))
        rng = random.Random(self.seed)
        buffers = _Buffers(self.compiler.unassigned)
        last = len(self.compiler.unassigned.steps) - 1
        while not self._over():
            kind = rng.choice(("mix", "single", "single", "time", "policy", "replan"))
            if kind == "mix":
                other = rng.choice([self.own, *plans.values()])
                share = rng.choice((0.5, 0.25, 0.1))
                chosen = {b for b in buffers.all if rng.random() < share}
                mixed = buffers.mixed(self.best, other, chosen)
                self._attempt(mixed, self.knobs, "a mix with another plan")
            elif kind == "single":
                toggled = buffers.toggled(self.best, rng.choice(buffers.all))
                self._attempt(toggled, self.knobs, "a single value moved")
            elif kind == "time":
                shifted = _shifted(self.best, last, rng)
                self._attempt(shifted, self.knobs, "copies moved in time")
            elif kind == "policy":
                more = {**self.knobs, **rng.choice(KNOBS)}
                self._attempt(self.best, more, _policy(more))
            else:
                self._replan(start)

    def _over(self) -> bool:
        # Kept compilations cost nothing, so the number of candidates needs a limit of its own.
        return self.result.compiles >= self.budget or self.tried >= 4 * self.budget

    def _replan(self, start: MemoryMapping | None) -> bool:
        """Plans with what was learned so far; whether that is the best now."""
        found = local_search(
            self.costs.problem(),
            time_limit=math.inf,
            seed=self.seed + self.tried,
            start=start,
            moves=PLAN_MOVES,
        )
        decisions = plan(self.compiler, self.problem, found.solution)
        return self._attempt(decisions, self.knobs, LEARNED)

    def _attempt(self, decisions: Decisions | None, more: dict[str, str], name: str) -> bool:
        """Compiles; whether that is the best now. None leaves the decisions to the compiler."""
        if self._over():
            return False
        self.tried += 1
        result = self.result
        try:
            if decisions is None:
                compiled = self.compiler.compile(more)
            else:
                compiled = self.compiler.realise(decisions, more)
        except RefusedError:
            result.refused += 1
            return False
        finally:
            result.compiles = self.compiler.compiles - self.before
        self.costs.observe(compiled.program, compiled.decisions)
        result.scores[name] = min(compiled.seconds, result.scores.get(name, math.inf))
        better = compiled.seconds < result.best.seconds
        if better:
            result.best, result.found_by = compiled, name
            if decisions is None:
                self.own = decisions = _retimed(compiled, self.compiler.unassigned)
            self.best, self.knobs = decisions, more
            result.curve.append((result.compiles, compiled.seconds))
        if self.report is not None:
            self.report(result)
        return better


class Costs:
    """What the compiler's estimates say each access is worth, learned from its compilations.

    The model of a step: its estimated time with everything in slow memory, less the worth of each
    access that is in fast memory. An access is first worth its share of the step's slow traffic.
    Each compilation corrects that: the accesses of a step that are in fast memory there are
    together worth what the step became shorter (multiplicative updates, all observations in turn).
    """

    def __init__(self, problem: MemoryMappingProblem, program: Program, clock_hz: float) -> None:
        """`program` is what the problem was made from, with the compiler's estimates."""
        self._problem = problem
        self._clock = clock_hz
        steps = [program.steps[step] for step in problem.program_step]
        self._names = [step.name for step in steps]
        slow = problem.fixed_slow + np.bincount(
            problem.access_step, weights=problem.access_slow, minlength=problem.num_steps
        )
        modelled = np.maximum(problem.compute, slow)
        times = self._times(program)
        self._time: Floats = np.array(
            [times.get(name, own) for name, own in zip(self._names, modelled, strict=True)]
        )
        scale = self._time / np.where(slow > 0, slow, 1.0)
        self._worth: Floats = problem.access_slow * scale[problem.access_step]
        self._seen: list[tuple[Floats, Bools]] = []
        self._positions: list[list[str]] = [[] for _ in range(problem.num_accesses)]
        self._uses: list[list[UseKey]] = [[] for _ in range(problem.num_accesses)]
        self._name_accesses(program)

    def _name_accesses(self, program: Program) -> None:
        """The definitions and uses that each access stands for."""
        problem = self._problem
        step_of = {int(step): index for index, step in enumerate(problem.program_step)}
        for buffer, whole in enumerate(problem.program_buffer):
            low, high = problem.first_access[buffer : buffer + 2]
            access_of = {int(problem.access_step[key]): key for key in range(low, high)}
            for index in program.buffers[whole].values:
                value = program.values[index]
                at = access_of.get(step_of.get(value.def_step, -1))
                if at is not None and value.def_bytes > 0:
                    self._positions[at].append(value.position)
                for use in value.uses:
                    at = access_of.get(step_of.get(use.step, -1))
                    if at is not None:
                        self._uses[at].append(use_key(program, use))

    def _times(self, program: Program) -> dict[str, float]:
        """Estimated seconds of all executions of each instruction."""
        return {
            step.name: step.estimated_cycles * step.executions / self._clock
            for step in program.steps
            if step.estimated_cycles is not None
        }

    def observe(self, program: Program, decisions: Decisions) -> None:
        """Learns from a compilation of the program with these decisions."""
        times = self._times(program)
        saved = np.array(
            [
                before - times[name] if name in times else math.nan
                for name, before in zip(self._names, self._time, strict=True)
            ]
        )
        self._seen.append((saved, self.in_fast(decisions)))

    def in_fast(self, decisions: Decisions) -> Bools:
        """bool[A]: the accesses that fast memory serves."""
        return np.array(
            [
                bool(positions or uses)
                and all(decisions.produced.get(position, False) for position in positions)
                and all(decisions.uses.get(use, False) for use in uses)
                for positions, uses in zip(self._positions, self._uses, strict=True)
            ],
            dtype=np.bool_,
        )

    def problem(self) -> MemoryMappingProblem:
        """The problem with the learned costs.

        A step whose accesses are worth next to nothing is bound by arithmetic, and copies run
        beside it as in the cost model; any other is bound by memory in all of its time.
        """
        problem = self._problem
        step = problem.access_step
        worth = self._worth.copy()
        for _ in range(SWEEPS):
            for saved, fast in self._seen:
                together = np.bincount(step[fast], weights=worth[fast], minlength=len(saved))
                known = ~np.isnan(saved) & (together > 0)
                factor = np.where(known, np.maximum(saved, 0.0) / np.where(known, together, 1), 1.0)
                worth[fast] *= factor[step[fast]]
        total = np.bincount(step, weights=worth, minlength=problem.num_steps)
        worth *= np.minimum(1.0, self._time / np.where(total > 0, total, 1.0))[step]
        total = np.minimum(total, self._time)
        bound = total > SENSITIVE * self._time
        return replace(
            problem,
            compute=np.where(bound, 0.0, self._time),
            fixed_slow=np.where(
                bound, self._time - total, np.minimum(problem.fixed_slow, self._time)
            ),
            access_slow=np.where(bound[step], worth, 0.0),
            access_fast=np.zeros_like(problem.access_fast),
        )


def _policy(options: Mapping[str, str]) -> str:
    named = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"a policy of the compiler ({named})"


def _retimed(compiled: Compiled, program: Program) -> Decisions:
    """The decisions of a compilation, their times those of `program`."""
    decisions = compiled.decisions
    theirs, ours = ranks(compiled.program), ranks(program)
    last = {rank: step for step, rank in enumerate(ours)}
    copies = {key: last.get(theirs[max(time, 0)], 0) for key, time in decisions.copies.items()}
    return replace(decisions, copies=copies)


def _shifted(decisions: Decisions, last: int, rng: random.Random) -> Decisions:
    """Some copies start earlier or later, not after the `last` step."""
    reach = rng.choice((2, 8, 32))
    copies = {
        key: min(max(0, time + rng.randint(-reach, reach)), last) if rng.random() < 0.3 else time
        for key, time in decisions.copies.items()
    }
    return replace(decisions, copies=copies)


class _Buffers:
    """Which alias class each decision is about, so that a class moves as a whole."""

    def __init__(self, program: Program) -> None:
        self._produced = {value.position: value.buffer for value in program.values}
        self._uses = {
            use_key(program, use): value.buffer for value in program.values for use in value.uses
        }
        weight: dict[int, int] = {}
        for value in program.values:
            traffic = value.def_bytes + sum(use.num_bytes for use in value.uses)
            weight[value.buffer] = weight.get(value.buffer, 0) + traffic
        total = sum(weight.values())
        # The classes that matter: what carries all but a thousandth of the traffic.
        self.all = sorted(
            buffer for buffer in weight if weight[buffer] * 1000 * len(weight) > total
        )

    def mixed(self, one: Decisions, other: Decisions, chosen: set[int]) -> Decisions:
        """`one`, with the decisions of `other` about the chosen classes."""

        def mix(mine: Mapping[Any, Any], theirs: Mapping[Any, Any], of: Mapping[Any, int]) -> Any:
            merged = {key: mine[key] for key in mine if of.get(key) not in chosen}
            return merged | {key: theirs[key] for key in theirs if of.get(key) in chosen}

        return Decisions(
            mix(one.produced, other.produced, self._produced),
            mix(one.uses, other.uses, self._uses),
            mix(one.copies, other.copies, self._uses),
            mix(one.carried, other.carried, self._produced),
        )

    def toggled(self, decisions: Decisions, buffer: int) -> Decisions:
        """The class is wholly in slow memory, or if it is, where the compiler can, in fast."""
        uses = [key for key, of in self._uses.items() if of == buffer and key in decisions.uses]
        made = [
            key for key, of in self._produced.items() if of == buffer and key in decisions.produced
        ]
        held = [key for key in decisions.carried if self._produced.get(key) == buffer]
        fast = not any(decisions.uses[key] for key in uses)
        copies = {key: time for key, time in decisions.copies.items() if key not in uses}
        return Decisions(
            {**decisions.produced, **dict.fromkeys(made, fast)},
            {**decisions.uses, **dict.fromkeys(uses, fast)},
            copies,
            {**decisions.carried, **dict.fromkeys(held, fast)},
        )
