"""Recorded telemetry of a row, CSV or Parquet: `t_s,watts`, and `brake` where it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars

from games.power_control.rules import STEP
from hlo_frontend.errors import InputError

TIME, WATTS, BRAKE = "t_s", "watts", "brake"
PARQUET = ".parquet"


@dataclass(frozen=True, eq=False)
class Recording:
    """Telemetry as it was recorded.

    Attributes:
        time_s: f64[n] as in the file, not sorted: a clock may have gone backwards.
        watts: f64[n] of the row, nan where there is none.
        brake: bool[n] the brake holds.
        notes: what is strange about the file, one line each.
    """

    time_s: npt.NDArray[np.float64]
    watts: npt.NDArray[np.float64]
    brake: npt.NDArray[np.bool_]
    notes: tuple[str, ...]


def read_telemetry(path: Path) -> Recording:
    """Reads a recording; what is strange in it is noted, and left to the shield.

    Raises:
        InputError: the file cannot be read, has no column `t_s` or `watts`, or no row.
    """
    try:
        if path.suffix == PARQUET:
            frame = polars.read_parquet(path)
        else:
            # By all rows, lest a column of whole numbers be refused for a word far down.
            frame = polars.read_csv(path, infer_schema_length=None)
    except (OSError, polars.exceptions.PolarsError) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: cannot be read as a table ({first})") from error
    for name in (TIME, WATTS):
        if name not in frame.columns:
            raise InputError(f"{path}: no column {name}; expected {TIME},{WATTS} and maybe {BRAKE}")
    columns = {
        name: frame[name].cast(polars.Float64, strict=False).fill_null(np.nan).to_numpy()
        for name in (TIME, WATTS, BRAKE)
        if name in frame.columns
    }
    time_s, watts = columns[TIME], columns[WATTS]
    if not len(time_s) or not np.isfinite(time_s).any():
        raise InputError(f"{path}: no row with a time in {TIME}; expected seconds")
    notes = []
    unknown = [name for name in frame.columns if name not in columns]
    if unknown:
        notes.append(f"columns not used: {', '.join(unknown)}")
    steps = np.diff(time_s[np.isfinite(time_s)])
    for count, what in (
        (int((~np.isfinite(time_s)).sum()), "rows without a time"),
        (int((~np.isfinite(watts)).sum()), "rows without watts"),
        (int((watts <= 0).sum()), "rows of 0 W or less"),
        (int((steps < 0).sum()), "times that go backwards"),
        (int((steps > STEP).sum()), f"gaps of more than {STEP:g} s"),
    ):
        if count:
            notes.append(f"{count} {what}")
    brake = np.nan_to_num(columns.get(BRAKE, np.zeros(len(time_s)))) > 0
    return Recording(time_s, watts, brake, tuple(notes))
