"""Memory mapping: which buffers of a program live in fast memory, when, and copied how."""

from games.memory_mapping.game import GAME

__all__ = ["GAME"]
