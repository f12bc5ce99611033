"""Compiler and scheduling decisions made by search that learns."""

from compiler_rl.solve import solve
from games.base import Result

__all__ = ["Result", "solve"]
