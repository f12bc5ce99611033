"""A log of decisions that survives the death of the process: one JSON object a line, synced."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from hlo_frontend.errors import InputError


class AuditLog:
    """Appends records; each is on the disk before `write` returns.

    A line cut short by a crash of the machine is left as it is, and the next record starts a line
    of its own.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file to append to it.

        Raises:
            InputError: it cannot be opened.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record in one write, and syncs it; numbers that are none become null."""
        sound = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        os.write(self._file, (json.dumps(sound, allow_nan=False) + "\n").encode())
        os.fsync(self._file)

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole records of a log.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue  # cut short by a crash
    return records
