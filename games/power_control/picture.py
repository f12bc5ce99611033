"""The chart of a row: power against its budget, caps as bands, brakes as ticks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from games.power_control.rules import ACTIONS, STEP
from hlo_frontend.errors import InputError

COLOURS = ("#ffffff", "#fff3c4", "#ffd98a", "#f4a259", "#c9d8f0", "#b58ad0", "#8aa4d6", "#9460a8")
DARKEST = "#666666"


def draw_scenario(
    applied: npt.NDArray[np.integer[Any]],
    braked: npt.NDArray[np.bool_],
    readings: npt.NDArray[np.floating[Any]],
    path: Path,
    title: str,
) -> None:
    """Writes the chart of a simulated scenario.

    Args:
        applied, braked: [T] action in force and brake at each control step.
        readings: [T, R] over the budget.
        path: of the file (.svg or .png).
        title: over the chart.

    Raises:
        InputError: the file cannot be written.
    """
    steps = np.arange(len(applied))
    begins = np.flatnonzero(np.diff(braked.astype(int)) == 1) + 1
    draw(
        np.arange(readings.size) * STEP / readings.shape[1] / 3600,
        readings.ravel().astype(np.float64),
        steps * STEP / 3600,
        applied,
        begins * STEP / 3600,
        path,
        title,
    )


def draw(
    hours: npt.NDArray[np.float64],
    power: npt.NDArray[np.float64],
    step_hours: npt.NDArray[np.float64],
    actions: npt.NDArray[np.integer[Any]],
    brakes: npt.NDArray[np.float64],
    path: Path,
    title: str,
) -> None:
    """Writes the chart (.svg or .png).

    Args:
        hours, power: f64[n] times, and readings over the budget.
        step_hours, actions: [T] begin of each control step, and the action in force.
        brakes: f64[k] times at which the brake was engaged.
        path: of the file.
        title: over the chart.

    Raises:
        InputError: the file cannot be written.
    """
    import matplotlib  # noqa: PLC0415 (slow to import, and only for pictures)

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    figure, axis = pyplot.subplots(figsize=(10, 4))
    colours = (*COLOURS, DARKEST)
    changes = np.flatnonzero(np.diff(actions)) + 1
    begins = np.concatenate([[0], changes])
    ends = np.append(step_hours[changes], step_hours[-1])
    for begin, end in zip(begins, ends, strict=True):
        action = int(actions[begin])
        if action:
            axis.axvspan(step_hours[begin], end, color=colours[action], lw=0)
    axis.plot(hours, power, color="black", linewidth=0.6)
    axis.axhline(1.0, color="#cc3311", linewidth=1)
    if len(brakes):
        axis.plot(brakes, np.full(len(brakes), 1.02), "|", color="#cc3311", markersize=14)
    used = sorted(set(actions.tolist()) - {0})
    handles = [
        Patch(color=colours[a], label=f"LP {ACTIONS[a][0]:.0f} / HP {ACTIONS[a][1]:.0f} MHz")
        for a in used
    ]
    handles.append(Patch(color="#cc3311", label=f"budget; {len(brakes)} brakes"))
    axis.legend(handles=handles, fontsize=7, loc="lower right")
    axis.set_xlabel("hours")
    axis.set_ylabel("power over budget")
    axis.set_title(title, fontsize=10)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot {path}: cannot be written ({error})") from error
    finally:
        pyplot.close(figure)
