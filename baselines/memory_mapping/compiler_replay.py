"""The mapping that the compiler made, from its own HLO, in the simulator."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from baselines.memory_mapping import local_search_kernel as kernel
from baselines.memory_mapping.local_search import stays_of, wishes_of
from baselines.memory_mapping.placement import place
from games.base import Result
from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping, objective, occupancy
from hlo_frontend.program import CopyWindow, Program


def replay(problem: MemoryMappingProblem, program: Program) -> Result[Mapping] | str:
    """The compiler's own assignment as a mapping, or why it is none of this problem.

    What, when and how copies run is the compiler's. The offsets are ours, because an HLO dump has
    none; where two copies of one buffer overlap in time they are one stay; and a copy window that
    the rules of `solution.py` do not allow is moved to the nearest that they do. Stays that no
    such change makes legal are left out, and counted in `detail["left_out"]`.

    Args:
        problem: made from `program`.
        program: read from a dump with an assignment.
    """
    started = time.perf_counter()
    if program.assignment is None:
        return "the dump has no memory-space assignment"
    index = {int(buffer): row for row, buffer in enumerate(problem.program_buffer)}

    def position(step: int) -> int:
        return int(np.searchsorted(problem.program_step, step))

    def window(copy: CopyWindow | None) -> CopyWindow | None:
        return None if copy is None else CopyWindow(position(copy.start), position(copy.done))

    stays = [
        FastInterval(
            index[stay.buffer],
            position(stay.start),
            position(stay.end),
            -1,
            window(stay.copy_in),
            window(stay.copy_out),
        )
        for stay in sorted(program.assignment, key=lambda stay: (stay.buffer, stay.start))
        if stay.buffer in index
    ]
    wishes = wishes_of(problem, _joined(stays))
    state = kernel.make_state(problem, strict=False)
    state.access[: kernel.NUM_WISHES] = wishes
    kernel.load_wishes(kernel.make_static(problem), state, np.arange(problem.num_buffers))
    wanted = int((wishes[kernel.IN_FAST] > 0).sum())
    got = int((state.access[kernel.IN_FAST] > 0).sum())
    legal = stays_of(problem, state)
    peak = int((occupancy(problem, legal) - problem.limit).max(initial=0))
    if peak > 0:
        return f"needs {peak:,} bytes more than there are"
    mapping = place(problem, legal)
    if mapping is None:
        return "no offsets found for its stays"
    return Result(
        method="compiler",
        solution=mapping,
        objective=objective(problem, mapping),
        wall_s=time.perf_counter() - started,
        detail={"accesses": wanted, "left_out": wanted - got},
    )


def _joined(stays: list[FastInterval]) -> list[FastInterval]:
    """Stays of one buffer that overlap become one, from the first start to the last end."""
    joined: list[FastInterval] = []
    for stay in stays:
        last = joined[-1] if joined else None
        if last is not None and last.buffer == stay.buffer and stay.start < last.end:
            joined[-1] = replace(
                last, end=max(last.end, stay.end), copy_out=last.copy_out or stay.copy_out
            )
        else:
            joined.append(stay)
    return joined
