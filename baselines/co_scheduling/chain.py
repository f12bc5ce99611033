"""One annealing chain between two looks at the clock, over the native kernel."""

from __future__ import annotations

import numpy as np

from baselines.co_scheduling import kernel
from games.co_scheduling.cost import Ints
from games.co_scheduling.device import Floats
from games.co_scheduling.problem import CoSchedulingProblem, Structure, cut
from games.co_scheduling.solution import Pipeline, evaluate, lower_bound, make_pipeline
from games.co_scheduling.structures import count_chunks


class Chain:
    """A state, the best state it has been in, and its random numbers.

    Attributes:
        best: seconds a layer of the best state; inf if none was executable.
        moves: made so far.
    """

    def __init__(
        self,
        problem: CoSchedulingProblem,
        structure: Structure,
        phase: Floats,
        level: Ints,
        seed: int,
    ) -> None:
        self.problem = problem
        self._static = kernel.Static(
            problem.seconds,
            np.array([problem.decode_tokens, problem.prefill_tokens, problem.chunk]),
            problem.speed,
            problem.mode,
            problem.layers,
            problem.network,
        )
        self._state = kernel.State(
            count_chunks(problem, structure),
            structure.gathered.astype(np.int64),
            phase.copy(),
            level.copy(),
        )
        self._best = _copy(self._state)
        value = evaluate(problem, structure, phase, level) * problem.layers
        self._value = self._best_value = value
        self._random = np.array([seed], dtype=np.uint64)
        self._scale = lower_bound(problem) * problem.layers
        self.moves = 0

    @property
    def best(self) -> float:
        """Seconds a layer of the best state."""
        return self._best_value / self.problem.layers

    def run(self, moves: int, temperature: float, scope: int) -> None:
        """Makes moves at a temperature that is relative to the lower bound."""
        self._value, self._best_value = kernel.anneal(
            self._static,
            self._state,
            self._best,
            self._value,
            self._best_value,
            moves,
            temperature * self._scale,
            scope,
            self._random,
        )
        self.moves += moves

    def restart(self) -> None:
        """Goes on from the best state, if there is one."""
        if not np.isfinite(self._best_value):
            return
        self._state = _copy(self._best)
        self._value = self._best_value

    def pipeline(self) -> Pipeline | None:
        """The best state with its timetable; None if there is none."""
        chunks, path, phase, level = self._best
        structure = cut(self.problem, chunks[0], chunks[1], path.astype(np.bool_))
        return make_pipeline(self.problem, structure, phase, level)


def _copy(state: kernel.State) -> kernel.State:
    chunks, path, phase, level = state
    return kernel.State(chunks.copy(), path.copy(), phase.copy(), level.copy())
