"""Files that are written whole or not at all, and where what is computed once is kept."""

from __future__ import annotations

import os
from pathlib import Path

from hlo_frontend.errors import InputError


def cache_folder(name: str) -> Path:
    """The user's folder of that name for what is computed once; it may be removed at any time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "compiler-rl" / name


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
