"""The memory-mapping game as `games.base.Game` describes one."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from games.memory_mapping import prior, rules, solution, validator
from games.memory_mapping.moves import Arrays, bucket, make_arrays, make_rows
from games.memory_mapping.plan import add_plan
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping
from games.memory_mapping.state import NUM_ACTIONS, State, Trace
from hlo_frontend.program import CopyWindow


class MemoryMapping:
    """Satisfies `games.base.Game`; what each part does is written there."""

    name = "memory_mapping"
    unit = "s"
    init = staticmethod(rules.init)
    legal_actions = staticmethod(rules.legal_actions)
    step = staticmethod(rules.step)
    observe = staticmethod(prior.observe)
    prior_logits = staticmethod(prior.prior_logits)
    prior_value = staticmethod(prior.prior_value)
    objective = staticmethod(solution.objective)
    lower_bound = staticmethod(solution.lower_bound)
    validate = staticmethod(validator.validate)

    def arrays(self, problem: MemoryMappingProblem) -> Arrays:
        """The line of moves, padded to the length of its bucket."""
        moves, units = make_rows(problem)
        add_plan(moves, units)
        return make_arrays(moves, units, bucket(len(moves["unit"])))

    def num_actions(self, arrays: Arrays) -> int:
        """The same for every problem."""
        del arrays
        return NUM_ACTIONS

    def solution(self, problem: MemoryMappingProblem, actions: npt.ArrayLike) -> Mapping:
        """The mapping that the actions make, one for each move."""
        arrays = self.arrays(problem)
        played = np.zeros(arrays.length, dtype=np.int32)
        played[: int(arrays.num_moves)] = np.asarray(actions)[: int(arrays.num_moves)]
        trace = jax.device_get(_replay(arrays, jnp.asarray(played)))
        return _written_down(problem, arrays, trace)


@jax.jit
def _replay(arrays: Arrays, actions: jax.Array) -> Trace:
    def move(state: State, action: jax.Array) -> tuple[State, Trace]:
        state, _, _, trace = rules.play_move(arrays, state, action)
        return state, trace

    return jax.lax.scan(move, rules.init(arrays), actions)[1]


@dataclass
class _Stay:
    """A stay as it is being written down, in steps of the problem."""

    buffer: int
    offset: int
    start: int
    end: int
    copy_in: CopyWindow | None
    copy_out_start: int | None = None
    copy_out: CopyWindow | None = None

    def saved(self, done: int) -> None:
        """Its write-back is done; until then it has its room."""
        start = done if self.copy_out_start is None else self.copy_out_start
        self.copy_out = CopyWindow(start, done)
        self.end = max(self.end, done)

    def interval(self) -> FastInterval:
        return FastInterval(
            self.buffer, self.start, self.end, self.offset, self.copy_in, self.copy_out
        )


def _written_down(problem: MemoryMappingProblem, arrays: Arrays, trace: Trace) -> Mapping:
    steps = [int(s) for s in np.asarray(arrays.units.step)[: int(arrays.num_units)]] + [
        problem.num_steps
    ]
    moves = jax.device_get(jax.vmap(arrays.row)(jnp.arange(arrays.length)))
    stays: dict[int, _Stay] = {}  # by slot
    finished: list[_Stay] = []
    for move in range(int(arrays.num_moves)):
        unit = int(moves.unit[move])
        for done in np.flatnonzero(trace.done_now[move]):
            stays[int(done)].saved(steps[unit])
        slot = int(trace.slot[move])
        if slot >= 0:
            if trace.new[move]:
                if slot in stays:
                    finished.append(stays[slot])
                start, ready = steps[trace.start[move]], steps[trace.ready[move]]
                stays[slot] = _Stay(
                    buffer=int(moves.buffer[move]),
                    offset=int(trace.offset[move]),
                    start=start,
                    end=start,
                    copy_in=CopyWindow(start, ready) if trace.copied_in[move] else None,
                )
            held_to = int(trace.held_to[move])
            after = steps[held_to] if held_to else steps[unit] + 1
            stays[slot].end = max(stays[slot].end, after)
            if trace.copy_out[move]:
                stays[slot].copy_out_start = steps[unit + 1]
        for done in np.flatnonzero(trace.done[move]):
            stays[int(done)].saved(steps[unit + 1])
    finished += stays.values()
    finished.sort(key=lambda stay: (stay.start, stay.buffer))
    return Mapping(tuple(stay.interval() for stay in finished))


GAME = MemoryMapping()
