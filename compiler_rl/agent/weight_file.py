"""Weight files: msgpack with a checksum and a header, no pickle; and those that are shipped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from hlo_frontend.errors import InputError

MAGIC = b"CRLW1\n"
SHIPPED = Path(__file__).parent / "shipped"  # see the data card there
DEFAULT, NONE = "default", "none"


def find(agent: str, game: str) -> Path | None:
    """The weight file of an agent for a game, verified.

    Args:
        agent: `default`, the shipped one if there is one; `none`; or the path of a weight file.
        game: name.

    Raises:
        InputError: the file cannot be read, is none, is damaged, or is one of another game.
    """
    if agent == NONE:
        return None
    path = SHIPPED / f"{game}.crlw" if agent == DEFAULT else Path(agent)
    if agent == DEFAULT and not path.exists():
        return None
    read(path, game)
    return path


def write(
    path: Path,
    game: str,
    shape: Sequence[int],
    config: dict[str, Any],
    leaves: Sequence[npt.NDArray[Any]],
) -> None:
    """Writes weights, whole or not at all."""
    header = {
        "game": game,
        "shape": shape,
        "config": config,
        "leaves": [[str(leaf.dtype), list(leaf.shape)] for leaf in leaves],
    }
    body = msgpack.packb([json.dumps(header), [leaf.tobytes() for leaf in leaves]])
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)
    partial.replace(path)


def read(path: Path, game: str) -> tuple[dict[str, Any], list[npt.NDArray[Any]]]:
    """(header, arrays) of a weight file for the game.

    Raises:
        InputError: as `find`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.startswith(MAGIC):
        raise InputError(f"{path}: no weight file of this version; train again")
    digest, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path}: the checksum is wrong, so it is truncated or damaged")
    text, blobs = msgpack.unpackb(body)
    header = json.loads(text)
    if header["game"] != game:
        raise InputError(f"{path}: weights for the game {header['game']}, not for {game}")
    leaves = [
        np.frombuffer(blob, dtype=dtype).reshape(shape)
        for blob, (dtype, shape) in zip(blobs, header["leaves"], strict=True)
    ]
    return header, leaves
