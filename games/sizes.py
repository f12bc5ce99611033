"""Sizes in words."""

from __future__ import annotations

import re

from hlo_frontend.errors import InputError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B?|B)?", re.IGNORECASE)
_SCALE = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse_size(text: str, option: str) -> int:
    """Bytes of `16MiB`, `16M`, `1048576`, ...; the units are powers of two.

    Raises:
        InputError: not such a text, or nothing at all.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * _SCALE[(match[2] or "")[:1].upper()])
    if size <= 0:
        raise InputError(f"{option} {text}: expected a size such as 16MiB or 1048576")
    return size
