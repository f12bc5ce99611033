"""Offset allocation: where buffers with fixed lifetimes go in one memory (MiniMalloc)."""
