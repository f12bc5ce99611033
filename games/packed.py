"""Any game's solution as one line of text, for files that keep many of them.

A solution is a frozen dataclass of numbers, arrays, tuples and other such dataclasses; the packed
text is its JSON, compressed and in base 64. Arrays keep type and shape. A game needs no code for
it: the class is what `Game.solution` is annotated to return.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import types
import typing
import zlib
from typing import Any

import numpy as np

from games.base import Game
from hlo_frontend.errors import InputError


def pack(solution: Any) -> str:
    """The solution as text; the same solution gives the same text."""
    data = json.dumps(_plain(solution), separators=(",", ":"))
    return base64.b64encode(zlib.compress(data.encode(), 9)).decode()


def unpack(game: Game, text: str, where: str) -> Any:
    """The solution that `pack` wrote; whether it is valid is for the game's validator to say.

    Args:
        game: whose solution it is.
        text: of `pack`.
        where: the file, for messages.

    Raises:
        InputError: not the text of a solution of the game.
    """
    try:
        data = json.loads(zlib.decompress(base64.b64decode(text, validate=True)))
        return _made(typing.get_type_hints(game.solution)["return"], data)
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where}: not a solution of {game.name} as this version packs them ({error})"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"type": str(value.dtype), "shape": value.shape, "values": value.ravel().tolist()}
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value):
        return {
            each.name: _plain(getattr(value, each.name))
            for each in dataclasses.fields(value)
            if each.init
        }
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def _made(kind: Any, data: Any) -> Any:
    """The value of an annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        return _made(next(each for each in arguments if each is not type(None)), data)
    if kind is np.ndarray or origin is np.ndarray:
        values = np.array(data["values"], dtype=np.dtype(data["type"]))
        return values.reshape(data["shape"])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _made(hints[name], each) for name, each in data.items()})
    if origin is tuple and arguments[-1] is not Ellipsis:
        return tuple(_made(each, part) for each, part in zip(arguments, data, strict=True))
    if origin in (tuple, list):
        return origin(_made(arguments[0], part) for part in data)
    if origin is dict:
        return {key: _made(arguments[1], each) for key, each in data.items()}
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        return kind(*(_made(hints[n], each) for n, each in zip(kind._fields, data, strict=True)))
    return data
