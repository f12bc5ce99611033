"""Offset allocation: where buffers with fixed lifetimes go in one memory (MiniMalloc)."""

from games.offset_allocation.game import GAME

__all__ = ["GAME"]
