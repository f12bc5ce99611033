"""Chunk selection: which retrieved chunks go into a context of limited size, in which order."""

from games.chunk_selection.game import GAME

__all__ = ["GAME"]
