"""Pictures: parameters of a layer as rectangles that the mesh cuts, and memory in use over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from games.tensor_parallel.mesh import Mesh
from games.tensor_parallel.plan import Spec, shown
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.solution import Strategies, objective
from hlo_frontend.errors import InputError

COLOURS = ("#4477aa", "#ee6677", "#bbbbbb")  # of the mesh axes, and of what is whole
MOST_CUTS = 32  # drawn of one dimension
COLUMNS = 4


def layer_of(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Parameters of two dimensions or more: one of each that differ by numbers in the path only."""
    found: dict[str, str] = {}
    for path, shape in shapes.items():
        if len(shape) > 1:
            found.setdefault("/".join("#" if p.isdecimal() else p for p in path.split("/")), path)
    return list(found.values())


def draw(
    specs: Mapping[str, Spec],
    shapes: Mapping[str, tuple[int, ...]],
    mesh: Mesh,
    path: Path,
    title: str,
) -> None:
    """Writes the picture (.svg or .png) of one layer and of what is outside of layers.

    Raises:
        InputError: the file cannot be written.
    """
    import matplotlib  # noqa: PLC0415 (slow to import, and only for pictures)

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    names = layer_of(shapes)
    rows = -(-len(names) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(3.2 * COLUMNS, 2.6 * rows), squeeze=False
    )
    colour = dict(zip(mesh.names, COLOURS, strict=False))
    for axis in axes.flat:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        shape, spec = shapes[name][-2:], specs[name][-2:]
        largest = max(shape)
        height, width = (max(size / largest, 0.15) for size in shape)
        split = [on for part in specs[name] for on in part]
        axis.add_patch(
            Rectangle(
                (0, 0),
                width,
                height,
                facecolor=colour.get(split[0]) if split else COLOURS[-1],
                alpha=0.35,
                edgecolor="black",
            )
        )
        for d, on in enumerate(spec):
            for mesh_axis in on:
                parts = min(mesh.shape[mesh.names.index(mesh_axis)], MOST_CUTS)
                for cut in range(1, parts):
                    at = cut / parts
                    line = (
                        ([0, width], [at * height] * 2)
                        if d == 0
                        else ([at * width] * 2, [0, height])
                    )
                    axis.plot(*line, color=colour[mesh_axis], linewidth=1)
        axis.set_xlim(-0.05, 1.05)
        axis.set_ylim(1.05, -0.05)
        text = name if len(name) < 40 else f"…{name[-38:]}"
        size = " × ".join(f"{size:,}" for size in shapes[name])
        axis.set_title(f"{text}\n{size}  {shown(specs[name])}", fontsize=7)
    figure.suptitle(title)
    figure.tight_layout()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot {path}: cannot be written ({error})") from error
    finally:
        pyplot.close(figure)


def draw_usage(problem: ShardingProblem, solution: Strategies, path: Path, *, method: str) -> None:
    """Writes the picture (.svg or .png) of the usage over time, with the limit.

    Raises:
        InputError: the file cannot be written.
    """
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    used = problem.node_usage[problem.node_start[:-1] + solution.choice]
    change = np.zeros(problem.num_times + 1, dtype=np.int64)
    np.add.at(change, problem.interval[:, 0], used)
    np.subtract.at(change, problem.interval[:, 1], used)
    figure, axis = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    axis.fill_between(
        np.arange(len(change)), np.cumsum(change), step="post", color=COLOURS[0], alpha=0.5
    )
    if problem.usage_limit is not None:
        axis.axhline(problem.usage_limit, color=COLOURS[1], label="limit")
        axis.legend(frameon=False)
    axis.set_xlabel("time")
    axis.set_ylabel("usage")
    axis.set_title(
        f"{problem.name} ({method}): cost {objective(problem, solution):,.0f},"
        f" {problem.num_nodes:,} nodes",
        fontsize=9,
    )
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot {path}: cannot be written ({error})") from error
    finally:
        pyplot.close(figure)
