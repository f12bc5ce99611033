"""A pipeline as a Gantt picture: three layers amid the timetable on compute, memory and network."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from games.co_scheduling.device import LEVELS
from games.co_scheduling.problem import (
    COMPUTE,
    MODES,
    NO_INTERFERENCE,
    RESOURCE,
    SLOTS,
    STATIC,
    CoSchedulingProblem,
)
from games.co_scheduling.schedule_file import RESOURCES, nano_names
from games.co_scheduling.solution import Pipeline, objective, tokens_per_second
from games.files import replace_file
from hlo_frontend.errors import InputError

COLORS = ("#4c78a8", "#e8963e", "#59a89c", "#b279a2")
LAYERS = 3  # rounds that are shown
_LEGIBLE = 0.012  # of the width: a bar from which on it has its name in it


def draw(problem: CoSchedulingProblem, pipeline: Pipeline, path: Path, *, method: str) -> None:
    """Writes the picture; a bar is as high as its share of the device, where it has a fixed one.

    Args:
        problem, pipeline: what is shown.
        path: ends in `.png` or `.svg`.
        method: who found the pipeline.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"{path}: a picture is a .png or .svg file; give such a path")
    names = nano_names(problem, pipeline)
    first = max(0, problem.layers // 2 - LAYERS // 2)
    last = min(problem.layers, first + LAYERS)
    begin = min(pipeline.start[slot, first] for slot in names)
    end = max(pipeline.start[slot, last - 1] for slot in names)
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for slot, name in names.items():
        row = int(RESOURCE[slot % SLOTS])
        shared = problem.mode == STATIC or (problem.mode != NO_INTERFERENCE and row != COMPUTE)
        height = 0.3 + 0.6 * pipeline.level[slot] / LEVELS if shared else 0.9
        for layer in range(problem.layers):
            x0 = max(pipeline.start[slot, layer], begin)
            x1 = min(pipeline.end[slot, layer], end)
            if x1 <= x0:
                continue
            axes.barh(
                row,
                (x1 - x0) * 1e3,
                left=(x0 - begin) * 1e3,
                height=height,
                color=COLORS[slot // SLOTS],
                alpha=0.55 if layer % 2 else 1.0,
                edgecolor="white",
                linewidth=0.5,
            )
            if x1 - x0 > _LEGIBLE * (end - begin):
                label = name if not shared else f"{name}\n.{pipeline.level[slot]}"
                axes.text(
                    (x0 + x1 - 2 * begin) / 2 * 1e3, row, label.replace(".10", "1"),
                    ha="center", va="center", fontsize=6.5,
                )  # fmt: skip
    axes.set_yticks(range(3), RESOURCES)
    axes.invert_yaxis()
    axes.set_xlim(0, (end - begin) * 1e3)
    axes.set_xlabel("ms")
    seconds = objective(problem, pipeline)
    axes.set_title(
        f"{problem.name}; {MODES[problem.mode]}\n{method}: {seconds * 1e3:.3f} ms a layer,"
        f" {tokens_per_second(problem, seconds):,.0f} tokens/s a device",
        fontsize=9,
    )
    nanos = sorted({slot // SLOTS for slot in names})
    sizes = (pipeline.structure.decode + pipeline.structure.prefill).sum(axis=1)
    axes.legend(
        handles=[
            Patch(color=COLORS[nano], label=f"nano-batch {nano}: {int(sizes[nano])} tokens")
            for nano in nanos
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=len(nanos),
        frameon=False,
        fontsize=8,
    )
    # Fixed ids and no date: the same pipeline makes the same file.
    with mpl.rc_context({"svg.hashsalt": "compiler-rl", "svg.fonttype": "none"}):
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=metadata)
    replace_file(path, buffer.getvalue())
