"""The simulator's constants, read from `constants.toml`, where each has its source."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("constants.toml")


@cache
def table() -> dict[str, dict[str, dict[str, Any]]]:
    """Section -> name -> value, unit and source."""
    return tomllib.loads(PATH.read_text())


def constant(section: str, name: str) -> Any:
    """The value of one constant."""
    return table()[section][name]["value"]
