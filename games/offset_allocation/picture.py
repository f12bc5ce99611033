"""A solution as a picture: offset over time, a rectangle for each buffer."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from games.offset_allocation.problem import OffsetProblem
from games.offset_allocation.solution import Offsets, objective
from hlo_frontend.errors import InputError

COLORS = ("#4c78a8", "#59a89c", "#e8963e", "#958cc0", "#8a8f98", "#c76f6f")
SUFFIXES = (".png", ".svg")
_INK = "#22262e"
_SIZES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes"))
_MANY = 3000  # from so many buffers on, an SVG holds them as one bitmap


def draw(
    problem: OffsetProblem,
    solution: Offsets,
    path: Path,
    *,
    method: str,
    title: str = "Offsets",
) -> None:
    """Writes the picture of a solution.

    Time is compressed: what matters is which lifetimes overlap, so every time at which one starts
    or ends is one step to the right.

    Args:
        problem: gives lifetimes and sizes.
        solution: gives the offsets.
        path: ends in `.png` or `.svg`.
        method: who found the solution.
        title: heading.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: expected a name ending in {', '.join(SUFFIXES)}")
    times = np.unique(np.concatenate([problem.lower, problem.upper]))
    left, right = np.searchsorted(times, problem.lower), np.searchsorted(times, problem.upper)
    peak = objective(problem, solution)
    highest = max(peak, float(problem.capacity))
    scale, unit = next(pair for pair in _SIZES if highest >= pair[0])
    bottom = solution.offset / scale
    top = (solution.offset + problem.size) / scale
    corners = np.stack(
        [np.stack([left, right, right, left]), np.stack([bottom, bottom, top, top])], axis=-1
    ).transpose(1, 0, 2)
    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.add_collection(
        PolyCollection(
            list(corners),
            facecolors=[COLORS[k % len(COLORS)] for k in range(len(corners))],
            edgecolors="white",
            linewidths=0.4,
            rasterized=len(corners) > _MANY,
        )
    )
    bound = problem.max_load[0] / scale
    for height, style, label in (
        (problem.capacity / scale, "-", "capacity"),
        (bound, ":", "largest load"),
    ):
        axes.axhline(height, color=_INK, linestyle=style, linewidth=1.2, label=label)
    axes.set_xlim(0, max(len(times) - 1, 1))
    axes.set_ylim(0, 1.04 * highest / scale)
    axes.set_xlabel("time (order of starts and ends)")
    axes.set_ylabel(f"offset, {unit}")
    axes.legend(loc="upper right", frameon=True, fontsize=8)
    axes.set_title(
        f"{title}: {len(problem.ids)} buffers, peak {int(peak):,} of {problem.capacity:,} bytes"
        f" ({method})",
        loc="left",
        fontsize=10,
    )
    # Fixed ids and no date: the same solution makes the same file.
    with mpl.rc_context({"svg.hashsalt": "offset_allocation"}):
        try:
            figure.savefig(path, dpi=140, metadata={"Date": None} if path.suffix == ".svg" else {})
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
