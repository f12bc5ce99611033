"""The loop of `compiler-rl power run`: read, decide, act, log; whatever fails is a log line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict

from compiler_rl.power.actuator import Actuator
from compiler_rl.power.audit import AuditLog
from compiler_rl.power.controller import Controller, Decision, Telemetry
from compiler_rl.power.exporter import ScrapeError
from games.power_control.rules import READINGS_PER_STEP, STEP


def run(
    controller: Controller,
    read: Callable[[], float],
    actuator: Actuator,
    log: AuditLog,
    *,
    steps: int | None = None,
    pace: float = 1.0,
    report: Callable[[Decision, list[str]], None] | None = None,
) -> list[Decision]:
    """Controls a row until `steps` decisions are made, or Ctrl-C.

    Each decision is logged before it is acted on. The caps stay as they are at the end.

    Args:
        controller: follows the row.
        read: watts of the row now; may raise ScrapeError, then there is no reading.
        actuator: puts decisions into force.
        log: gets every decision, and what was done.
        steps: no end if None.
        pace: seconds of the row's time in a second: above 1 only against a recorded or simulated
            source.
        report: called after each decision.
    """
    decisions: list[Decision] = []
    interval = STEP / READINGS_PER_STEP / pace
    begin = due = time.monotonic()
    try:
        while steps is None or len(decisions) < steps:
            for left in range(READINGS_PER_STEP - 1, -1, -1):
                # A source that hung is not made up for by decisions in a row.
                now = time.monotonic()
                due = max(due + interval, now)
                time.sleep(due - now)
                fault = ""
                try:
                    watts = read()
                except ScrapeError as error:
                    watts, fault = math.nan, str(error)
                telemetry = Telemetry((time.monotonic() - begin) * pace, watts)
                if left:
                    controller.observe(telemetry)
                if fault:
                    log.write({"event": "fault", "time_s": telemetry.time_s, "what": fault})
            decision = controller.decide(telemetry)
            log.write({"event": "decision", "unix_s": time.time(), **asdict(decision)})
            done = actuator.apply(decision)
            for line in done:
                log.write({"event": "act", "time_s": decision.time_s, "what": line})
            decisions.append(decision)
            if report is not None:
                report(decision, done)
    except KeyboardInterrupt:
        log.write({"event": "end", "time_s": (time.monotonic() - begin) * pace, "what": "Ctrl-C"})
    return decisions
