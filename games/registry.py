"""The games by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from games.base import Game

GAMES = {
    "chunk_selection": "games.chunk_selection",
    "co_scheduling": "games.co_scheduling",
    "memory_mapping": "games.memory_mapping",
    "offset_allocation": "games.offset_allocation",
    "power_control": "games.power_control",
    "tensor_parallel": "games.tensor_parallel",
}


def get_game(name: str) -> Game:
    """The game of that name.

    Raises:
        KeyError: there is no such game.
    """
    game: Game = import_module(GAMES[name]).GAME
    return game


def game_of(problem: Any) -> Game:
    """The game that a problem belongs to: the one whose package defines the problem's class.

    Raises:
        TypeError: not a problem of a registered game.
    """
    for name, package in GAMES.items():
        if type(problem).__module__.startswith(package + "."):
            return get_game(name)
    raise TypeError(f"{type(problem).__name__} is no problem of {', '.join(GAMES)}")
