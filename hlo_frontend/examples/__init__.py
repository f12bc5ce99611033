"""Bundled examples: scheduled TPU HLO of the models in `experiments.programs`, gzipped.

Each program is here twice: `NAME.v5e` as the TPU compiler assigned it, and `NAME.v5e.nomsa` with
its memory-space assignment off. `PROVENANCE.md` beside them says how they were made.
"""

from __future__ import annotations

from pathlib import Path

from hlo_frontend.errors import InputError

_FOLDER = Path(__file__).parent
_SUFFIX = ".txt.gz"

EXAMPLES: tuple[str, ...] = tuple(
    sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))
)
"""Names that `example_path` takes."""


def example_path(name: str) -> Path:
    """Path of the bundled example `name`, one of `EXAMPLES`."""
    if name not in EXAMPLES:
        raise InputError(f"example {name!r}: unknown, expected one of {', '.join(EXAMPLES)}")
    return _FOLDER / f"{name}{_SUFFIX}"
