"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from hlo_frontend.errors import InputError


def replace_file(path: Path, content: bytes) -> None:
    """Writes a whole file or leaves what was there.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
