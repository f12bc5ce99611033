"""Compiler and scheduling decisions made by search that learns."""

from compiler_rl.solve import solve
from compiler_rl.warm import warm_up
from games.base import Result

__all__ = ["Result", "solve", "warm_up"]
