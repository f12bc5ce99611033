"""The controller outside of the simulator: telemetry in, frequency caps out, every step logged."""

from compiler_rl.power.controller import Controller, Decision, Telemetry

__all__ = ["Controller", "Decision", "Telemetry"]
