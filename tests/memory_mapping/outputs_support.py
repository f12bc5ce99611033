"""What the tests of the outputs share: a tiny greedy solver and a large program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from games.memory_mapping.problem import MemoryMappingProblem
from games.memory_mapping.solution import FastInterval, Mapping
from games.memory_mapping.validator import validate
from hlo_frontend.program import Buffer, CopyWindow, Program, Step, Use, Value


def greedy_mapping(problem: MemoryMappingProblem, lookahead: int = 8) -> Mapping:
    """One stay from first to last access for each buffer that has room, largest traffic first.

    What its first access does not define is copied in during the `lookahead` steps before; what
    must be in slow memory at the end is copied out during as many steps after. Stays that rule 6
    forbids are left out.
    """
    traffic = np.bincount(
        problem.access_buffer, weights=problem.access_slow, minlength=problem.num_buffers
    )
    stays: list[FastInterval] = []
    for v in np.argsort(-traffic, kind="stable").tolist():
        begin, end = problem.first_access[v : v + 2]
        steps = problem.access_step[begin:end]
        writes = steps[problem.access_writes[begin:end]]
        first, last = int(steps[0]), int(steps[-1]) + 1
        copy_in = copy_out = None
        if not problem.access_defines[begin]:
            copy_in = CopyWindow(max(0, first - lookahead), first)
        if len(writes) and problem.live_out[v]:
            last = min(problem.num_steps, last + lookahead)
            copy_out = CopyWindow(int(writes[-1]) + 1, last)
        start = first if copy_in is None else copy_in.start
        stay = FastInterval(v, start, last, 0, copy_in, copy_out)
        offset = _first_fit(problem, stays, stay)
        if offset is not None:
            stay = replace(stay, offset=offset)
            if len(problem.loop_start) == 0 or not validate(problem, Mapping((stay,))):
                stays.append(stay)
    return Mapping(tuple(stays))


def _first_fit(
    problem: MemoryMappingProblem, stays: list[FastInterval], stay: FastInterval
) -> int | None:
    beside = sorted(
        (other.offset, int(problem.size[other.buffer]))
        for other in stays
        if other.start < stay.end and stay.start < other.end
    )
    size = int(problem.size[stay.buffer])
    top = 0
    for offset, taken in beside:
        if offset - top >= size:
            break
        top = max(top, offset + taken)
    return top if top + size <= int(problem.limit[stay.start : stay.end].min()) else None


def deep_program(layers: int, seed: int = 0) -> Program:
    """A network of `layers` steps: each reads a parameter and two results of steps before it.

    Buffers 2k and 2k + 1 are the parameter and the result of step k.
    """
    rng = np.random.default_rng(seed)
    size = rng.integers(8, 80, 2 * layers).tolist()
    flops = rng.integers(200, 2500, layers).tolist()
    reads: list[list[int]] = [[] for _ in range(layers)]
    for layer in range(layers - 1):
        for step in {layer + 1, min(layer + int(rng.integers(1, 30)), layers - 1)}:
            reads[layer].append(step)
    steps = [
        Step(f"fusion.{k}", "fusion", "main", -1, 1, float(flops[k]), 0.0, 0, None, 0)
        for k in range(layers)
    ]
    values, buffers = [], []
    for k in range(2 * layers):
        layer, result = divmod(k, 2)
        uses = sorted(reads[layer]) if result else [layer]
        values.append(
            Value(
                name=f"fusion.{layer}" if result else f"weights.{layer}",
                index=(),
                shape=f"s8[{size[k]}]{{0}}",
                size=size[k],
                buffer=k,
                def_step=layer if result else 0,
                def_bytes=size[k] if result else 0,
                uses=tuple(Use(step, 1, (), size[k]) for step in uses),
                memory_space=0,
                parameter=-1 if result else layer,
                updates=(),
            )
        )
        live_out = k == 2 * layers - 1
        buffers.append(
            Buffer(
                values=(k,),
                size=size[k],
                live_start=layer if result else 0,
                live_end=max([*uses, layer]),
                initial=not result,
                live_out=live_out,
                fixed_space=None,
            )
        )
    return Program(
        name="deep",
        source="deep.txt",
        fingerprint="deep",
        scheduled=True,
        steps=tuple(steps),
        values=tuple(values),
        buffers=tuple(buffers),
        loops=(),
        assignment=None,
    )
