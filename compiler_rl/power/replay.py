"""A controller on recorded telemetry: what it would have decided; the record does not change."""

from __future__ import annotations

import math

from compiler_rl.power.audit import AuditLog
from compiler_rl.power.controller import Controller, Decision, Telemetry
from compiler_rl.power.telemetry_file import Recording
from games.power_control.rules import STEP

MOST_SILENT = 360  # control steps decided without telemetry at a stretch: an hour


def replay(
    controller: Controller, recording: Recording, log: AuditLog | None = None
) -> list[Decision]:
    """One decision every control step of the recording's clock.

    In a gap decisions go on without readings, for an hour at most. After a clock that went
    backwards, time goes on from there.
    """
    decisions: list[Decision] = []

    def decide(now: float, watts: float, brake: bool) -> None:
        decision = controller.decide(Telemetry(now, watts, brake))
        decisions.append(decision)
        if log is not None:
            log.write({"event": "decision", **decision.__dict__})

    due: float | None = None
    before = -math.inf
    rows = zip(
        recording.time_s.tolist(), recording.watts.tolist(), recording.brake.tolist(), strict=True
    )
    for time_s, watts, brake in rows:
        if not math.isfinite(time_s):
            continue
        if due is None or time_s < before - STEP:
            due = time_s + STEP
        before = time_s
        silent = 0
        while time_s - due >= STEP and silent < MOST_SILENT:
            decide(due, math.nan, brake)
            due += STEP
            silent += 1
        if time_s - due >= STEP:
            due = time_s
        if time_s >= due:
            decide(time_s, watts, brake)
            due += STEP
        else:
            controller.observe(Telemetry(time_s, watts, brake))
    return decisions
