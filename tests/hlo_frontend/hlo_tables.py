"""Loads small HLO texts and shows programs as plain tables: tests then read as specifications."""

from __future__ import annotations

import textwrap

from hlo_frontend import Program, load


def program(body: str, header: str = "is_scheduled=true") -> Program:
    """The program of HLO text without its first line."""
    return load(f"HloModule m, {header}\n\n{textwrap.dedent(body)}".encode())


def step_names(result: Program) -> str:
    return " ".join(step.name for step in result.steps)


def values(result: Program) -> str:
    return " ".join(value.position for value in result.values)


def buffers(result: Program) -> list[tuple[tuple[str, ...], int, int]]:
    """Per buffer (positions of its values, live_start, live_end)."""
    return [
        (tuple(result.values[v].position for v in b.values), b.live_start, b.live_end)
        for b in result.buffers
    ]


def uses(result: Program, position: str) -> list[tuple[str, int, int]]:
    """Reads of a value: (step, operand, bytes)."""
    (value,) = (v for v in result.values if v.position == position)
    return [(result.steps[u.step].name, u.operand, u.num_bytes) for u in value.uses]


def updates(result: Program, position: str) -> list[str]:
    (value,) = (v for v in result.values if v.position == position)
    return [result.values[u].position for u in value.updates]
