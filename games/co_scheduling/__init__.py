"""Operator co-scheduling: a layer in nano-batches, on compute, memory and network at once."""

from __future__ import annotations

from games.co_scheduling.game import GAME

__all__ = ["GAME"]
