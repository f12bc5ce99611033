"""A mapping as a picture: PNG, SVG, or one interactive HTML page, by the suffix of the path.

The horizontal axis is modelled time, stalls included, a loop body with the time of all its
iterations; the vertical one the offset in fast memory. Above stands what is in use, below the work
that waits in either queue of copies. The HTML page holds its data and script: it works offline.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator

from games.files import replace_file
from games.memory_mapping.explain import class_name
from games.memory_mapping.picture_html import PAGE
from games.memory_mapping.problem import Bools, Floats, Ints, MemoryMappingProblem
from games.memory_mapping.simulator import Timeline, copy_queue, share_idle, simulate, traffic
from games.memory_mapping.solution import FastInterval, Mapping, occupancy
from hlo_frontend.errors import InputError
from hlo_frontend.program import CopyWindow, Program

COLORS = {"parameter": "#4c78a8", "temporary": "#59a89c", "result": "#e8963e"}
_GRAY, _INK = "#8a8f98", "#22262e"
# A hatch and its ground apart: SVG gives both the opacity of the ground.
_STALL_GROUND: dict[str, Any] = {"fc": "#d62728", "alpha": 0.2, "lw": 0.0}
_STALL_HATCH: dict[str, Any] = {"fc": "none", "ec": "#d62728", "hatch": "////", "lw": 0.0}
_RESERVED_STYLE: dict[str, Any] = {"fc": "#eeeeee", "ec": "#c4c7cc", "hatch": "xxx", "lw": 0.0}
_MEMORY, _ARITHMETIC, _QUEUE = "#5b6470", "#dfe2e6", "#958cc0"
_HATCH_IN, _HATCH_OUT = "////", "\\\\\\\\"
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes"))
# From so many stays on, an SVG holds them as one bitmap.
_MANY = 3000


def draw(
    problem: MemoryMappingProblem,
    program: Program,
    mapping: Mapping,
    path: Path,
    *,
    method: str,
    title: str | None = None,
) -> None:
    """Writes the picture of a legal mapping.

    Args:
        problem: made from `program`.
        program: gives the names.
        mapping: a legal mapping of `problem`.
        path: ends in `.png`, `.svg` or `.html`.
        method: who found the mapping.
        title: heading; the program's name if None.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".png", ".svg", ".html"):
        raise InputError(f"{path}: a picture is a .png, .svg or .html file; give such a path")
    scene = _scene(problem, program, mapping, title or program.name, method)
    if path.suffix == ".html":
        # No text of the program can end the script that holds it.
        data = json.dumps(_page_data(scene, program), allow_nan=False).replace("<", "\\u003c")
        replace_file(path, PAGE.replace("__DATA__", data).encode())
        return
    # Fixed ids and no date: the same mapping makes the same file.
    with mpl.rc_context(
        {"svg.hashsalt": "compiler-rl", "svg.fonttype": "none", "hatch.linewidth": 0.6}
    ):
        buffer = io.BytesIO()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        _figure(scene).savefig(buffer, format=path.suffix[1:], dpi=150, metadata=metadata)
    replace_file(path, buffer.getvalue())


@dataclass(frozen=True)
class _Box:
    """One stay: seconds x0 <= ready <= x1, bytes y0 < y1, and its copies as seconds."""

    stay: FastInterval
    name: str
    kind: str
    x0: float
    ready: float
    x1: float
    y0: int
    y1: int
    copy_out: tuple[float, float] | None


@dataclass(frozen=True)
class _Scene:
    """All that is drawn; seconds from the start of the program, and bytes.

    `arrive[t]` is the time before step t and its stall, `begin[t]` the time after the stall; the
    last entries, t = T, are the end of the program before and after the last stall.
    """

    title: str
    method: str
    problem: MemoryMappingProblem
    timeline: Timeline
    boxes: tuple[_Box, ...]
    arrive: Floats
    begin: Floats
    used: Ints
    used_in_stall: Ints
    queues: tuple[Floats, Floats, Floats]
    loops: tuple[tuple[float, float, str], ...]

    @property
    def reserved(self) -> bool:
        """Whether some instruction leaves less than the whole fast memory to the values."""
        return bool((self.problem.limit < self.problem.capacity).any())

    @property
    def memory_bound(self) -> Bools:
        """bool[T]: the step takes longer than its arithmetic."""
        return self.timeline.elapsed > self.problem.compute

    def bound_runs(self) -> list[tuple[float, float, bool]]:
        """(from, to, whether memory bounds the steps) of steps without a stall in between."""
        memory_bound = self.memory_bound
        change = (memory_bound[1:] != memory_bound[:-1]) | (self.timeline.stall[1:-1] > 0)
        first = np.concatenate([[0], 1 + np.flatnonzero(change)])
        last = np.append(first[1:], len(memory_bound))
        return [
            (float(self.begin[low]), float(self.arrive[high]), bool(memory_bound[low]))
            for low, high in zip(first, last, strict=True)
        ]

    @property
    def facts(self) -> tuple[str, ...]:
        """What the picture says in words."""
        problem, total = self.problem, self.timeline.total
        stall = float(self.timeline.stall.sum())
        peak = int(self.used.max(initial=0))
        return (
            f"{self.method}: {_seconds(total)}",
            f"{problem.all_slow / total:.2f}× as fast as all in slow memory"
            f" ({_seconds(problem.all_slow)})",
            f"stalls {_seconds(stall)} ({100 * stall / total:.1f} %)",
            f"{len(self.boxes)} stays, at most {_bytes(peak)} of {_bytes(problem.capacity)}",
        )


def _scene(
    problem: MemoryMappingProblem, program: Program, mapping: Mapping, title: str, method: str
) -> _Scene:
    timeline = simulate(problem, mapping)
    ends = np.cumsum(timeline.elapsed + timeline.stall[:-1])
    arrive = np.concatenate([[0.0], ends])
    begin = arrive + timeline.stall
    boxes = []
    for stay in sorted(mapping.intervals, key=lambda stay: (stay.start, stay.offset)):
        out = stay.copy_out
        x1 = arrive[stay.end] if out is None else max(arrive[stay.end], begin[out.done])
        x0 = (arrive if _fills_in_stall(stay) else begin)[stay.start]
        boxes.append(
            _Box(
                stay=stay,
                name=class_name(program, int(problem.program_buffer[stay.buffer])),
                kind=_kind(problem, stay.buffer),
                x0=float(x0),
                ready=float(x0 if stay.copy_in is None else begin[stay.ready]),
                x1=float(x1),
                y0=int(stay.offset),
                y1=int(stay.offset + problem.size[stay.buffer]),
                copy_out=None
                if out is None
                else (float(arrive[out.start]), float(begin[out.done])),
            )
        )
    loops = tuple(
        (float(arrive[start]), float(arrive[end]), f"×{executions:.0f}")
        for start, end, executions in zip(
            problem.loop_start, problem.loop_end, problem.loop_executions, strict=True
        )
        if start < end
    )
    return _Scene(
        title=title,
        method=method,
        problem=problem,
        timeline=timeline,
        boxes=tuple(boxes),
        arrive=arrive,
        begin=begin,
        used=occupancy(problem, mapping.intervals),
        used_in_stall=_used_in_stall(problem, mapping),
        queues=_queues(problem, mapping, timeline, arrive, begin),
        loops=loops,
    )


def _used_in_stall(problem: MemoryMappingProblem, mapping: Mapping) -> Ints:
    """i64[T + 1]: bytes in use while the program waits before each step."""
    change = np.zeros(problem.num_steps + 3, dtype=np.int64)
    for stay in mapping.intervals:
        empties = stay.copy_out is not None and stay.copy_out.done == stay.end
        change[stay.start + (not _fills_in_stall(stay))] += problem.size[stay.buffer]
        change[stay.end + empties] -= problem.size[stay.buffer]
    # Where one stall empties a place and fills it anew, the place counts once.
    return np.minimum(np.cumsum(change)[: problem.num_steps + 1], problem.capacity)


def _fills_in_stall(stay: FastInterval) -> bool:
    """Whether the program waits before the stay's first step for its whole copy-in."""
    return stay.copy_in is not None and stay.ready == stay.start


def _kind(problem: MemoryMappingProblem, buffer: int) -> str:
    if problem.initial[buffer]:
        return "parameter"
    return "result" if problem.live_out[buffer] else "temporary"


def _queues(
    problem: MemoryMappingProblem,
    mapping: Mapping,
    timeline: Timeline,
    arrive: Floats,
    begin: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Seconds of work in the queues, as polylines over time: (times, slow->fast, fast->slow).

    Four points a step: before and after the copies that enter, after the stall, after the step.
    """
    slow, _ = traffic(problem, mapping)
    idle = timeline.elapsed - slow
    left = np.zeros((2, problem.num_steps + 1))
    for step in range(problem.num_steps):
        work_in, work_out = timeline.backlog_in[step], timeline.backlog_out[step]
        done_in, done_out = share_idle(idle[step], work_in, work_out)
        left[:, step + 1] = work_in - done_in, work_out - done_out
    lines = []
    for before, backlog, outwards in (
        (left[0], timeline.backlog_in, False),
        (left[1], timeline.backlog_out, True),
    ):
        start, _, seconds = copy_queue(problem, mapping, outwards=outwards)
        entered = before + np.bincount(start, weights=seconds, minlength=problem.num_steps + 1)
        after = np.append(before[1:], 0.0)
        lines.append(np.stack([before, entered, np.append(backlog, 0.0), after], axis=1).ravel())
    times = np.stack([arrive, arrive, begin, np.append(arrive[1:], begin[-1])], axis=1).ravel()
    return times, lines[0], lines[1]


def _figure(scene: _Scene) -> Figure:
    problem, timeline = scene.problem, scene.timeline
    scale, unit = _scale(timeline.total, _TIMES)
    byte_scale, byte_unit = _scale(problem.capacity, _SIZES)
    capacity = problem.capacity / byte_scale
    figure = Figure(figsize=(16, 9))
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        5,
        1,
        sharex=True,
        height_ratios=[1.2, 5.6, 0.14, 0.8, 0.8],
        gridspec_kw={"left": 0.05, "right": 0.985, "top": 0.885, "bottom": 0.06, "hspace": 0.09},
    )
    used, memory, bound, *copies = panels
    figure.text(0.05, 0.965, scene.title, fontsize=17, weight="bold", color=_INK)
    figure.text(0.05, 0.93, "   ·   ".join(scene.facts), fontsize=11, color=_INK)

    times = np.stack([scene.arrive[:-1], scene.begin[:-1]], axis=1).ravel()
    times = np.repeat(np.append(times, scene.begin[-1:]), 2)[1:-1] / scale
    held = np.stack([scene.used_in_stall[:-1], scene.used], axis=1).repeat(2) / byte_scale
    used.fill_between(times, held, color=_GRAY, alpha=0.35, lw=0)
    used.plot(times, held, color=_INK, lw=0.9 if problem.num_steps < 1000 else 0.3)
    used.axhline(capacity, color=_INK, lw=1.0, ls=(0, (5, 3)))
    used.set_ylim(0, 1.12 * capacity)
    used.set_ylabel(f"in use\n({byte_unit})")

    _draw_boxes(memory, scene, scale, byte_scale)
    if scene.reserved:
        limit = np.repeat(problem.limit, 4) / byte_scale
        memory.fill_between(times, limit, capacity, **_RESERVED_STYLE, zorder=1)
    memory.set_ylim(0, capacity)
    memory.set_ylabel(f"offset in fast memory ({byte_unit})")

    for memory_bound, color in ((False, _ARITHMETIC), (True, _MEMORY)):
        spans = [
            (low / scale, (high - low) / scale)
            for low, high, of_memory in scene.bound_runs()
            if of_memory == memory_bound
        ]
        bound.broken_barh(spans, (0, 1), fc=color, lw=0)
    bound.set_ylim(0, 1)
    bound.set_yticks([])
    bound.set_ylabel("bound", rotation=0, ha="center", va="center")

    queue_times, *queues = scene.queues
    longest = max(float(queue.max()) for queue in queues)
    copy_scale, copy_unit = _scale(longest or timeline.total, _TIMES)
    for axes, queue, name in zip(copies, queues, ("copies\nin", "copies\nout"), strict=True):
        axes.fill_between(queue_times / scale, queue / copy_scale, color=_QUEUE, lw=0)
        axes.set_ylabel(f"{name} ({copy_unit})")
        axes.set_ylim(0, 1.15 * longest / copy_scale or 1.0)
        axes.yaxis.set_major_locator(MaxNLocator(3) if longest else FixedLocator([0]))
    copies[-1].set_xlabel(f"modelled time ({unit})")
    copies[-1].set_xlim(0, timeline.total / scale)

    stalls = [
        (low / scale, (high - low) / scale)
        for low, high in zip(scene.arrive, scene.begin, strict=True)
        if high > low
    ]
    for axes in panels:
        across = axes.get_xaxis_transform()
        for style in (_STALL_GROUND, _STALL_HATCH):
            axes.broken_barh(stalls, (0, 1), transform=across, **style, zorder=3)
        for low, high, _ in scene.loops:
            axes.vlines(
                [low / scale, high / scale], 0, 1, transform=across, color=_INK, lw=0.8, ls=":"
            )
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=9, labelbottom=axes is copies[-1])
        axes.yaxis.set_label_coords(-0.028, 0.5)
    for low, high, text in scene.loops:
        used.annotate(
            f"loop {text}",
            ((low + high) / 2 / scale, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9,
            color=_INK,
        )
    _legend(figure, scene)
    return figure


def _draw_boxes(axes: Axes, scene: _Scene, scale: float, byte_scale: float) -> None:
    many = len(scene.boxes) >= _MANY

    def add(spans: list[tuple[float, float, _Box]], **style: Any) -> None:
        corners = [
            [(x0, box.y0), (x1, box.y0), (x1, box.y1), (x0, box.y1)] for x0, x1, box in spans
        ]
        polygons = np.array(corners).reshape(-1, 4, 2) / (scale, byte_scale)
        axes.add_collection(PolyCollection(list(polygons), rasterized=many, **style))

    edge = 0.15 if many else 0.5
    for kind, color in COLORS.items():
        boxes = [box for box in scene.boxes if box.kind == kind]
        add([(b.ready, b.x1, b) for b in boxes], fc=color, ec="white", lw=edge, zorder=2)
        arriving = [(b.x0, b.ready, b) for b in boxes if b.ready > b.x0]
        add(arriving, fc=_pale(color), ec=color, hatch=_HATCH_IN, lw=edge, zorder=2)
        leaving = [(*b.copy_out, b) for b in boxes if b.copy_out is not None]
        add(leaving, fc="none", ec="#ffffffb0", hatch=_HATCH_OUT, lw=0, zorder=2)
    # A name where it is readable: the axes are about 200 capitals wide and 45 lines high.
    total, capacity = scene.timeline.total, scene.problem.capacity
    for box in scene.boxes:
        width = 200 * (box.x1 - box.x0) / total
        if (box.y1 - box.y0) * 40 < capacity or width < min(len(box.name), 8) + 1:
            continue
        name = box.name if len(box.name) < width else f"{box.name[: int(width) - 1]}…"
        center = ((box.x0 + box.x1) / 2 / scale, (box.y0 + box.y1) / 2 / byte_scale)
        text = axes.text(*center, name, ha="center", va="center", fontsize=8, color=_INK, zorder=5)
        text.set_path_effects([withStroke(linewidth=2, foreground="#ffffffcc")])


def _legend(figure: Figure, scene: _Scene) -> None:
    handles = [
        Patch(fc=color, ec="white", label=kind)
        for kind, color in COLORS.items()
        if any(box.kind == kind for box in scene.boxes)
    ]
    handles += [
        Patch(fc="#e6e6e6", ec=_GRAY, hatch=_HATCH_IN, label="being copied in"),
        Patch(fc=_GRAY, ec="white", hatch=_HATCH_OUT, label="being copied out"),
        Patch(**{**_STALL_HATCH, "fc": "#f7d4d4"}, label="stall"),
        Patch(fc=_MEMORY, label="bound by memory"),
        Patch(fc=_ARITHMETIC, label="bound by arithmetic"),
    ]
    if scene.reserved:
        handles.append(Patch(**_RESERVED_STYLE, label="reserved by an instruction"))
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.99, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handlelength=1.6,
        columnspacing=1.2,
    )


def _page_data(scene: _Scene, program: Program) -> dict[str, Any]:
    """What the script of the page draws: seconds and bytes, and texts made here."""
    problem, timeline = scene.problem, scene.timeline
    steps = [program.steps[index] for index in problem.program_step]

    def window(copy: CopyWindow | None) -> str | None:
        if copy is None:
            return None
        return f"before {before(copy.start)}, done before {before(copy.done)}"

    def before(step: int) -> str:
        return f"{steps[step].name} (step {step})" if step < len(steps) else "the program's end"

    return {
        "title": scene.title,
        "facts": scene.facts,
        "total": timeline.total,
        "capacity": problem.capacity,
        "colors": COLORS,
        "reserved": scene.reserved,
        "arrive": _nine_digits(scene.arrive),
        "begin": _nine_digits(scene.begin),
        "used": scene.used.tolist(),
        "used_in_stall": scene.used_in_stall.tolist(),
        "limit": problem.limit.tolist(),
        "memory_bound": scene.memory_bound.tolist(),
        "steps": [step.name for step in steps],
        "queues": [_nine_digits(line) for line in scene.queues],
        "loops": scene.loops,
        "boxes": [
            {
                "name": box.name,
                "kind": box.kind,
                "x": [box.x0, box.ready, box.x1],
                "y": [box.y0, box.y1],
                "out": box.copy_out,
                "lines": [
                    f"{box.kind}, {_bytes(box.y1 - box.y0)} at offset {box.y0:,}",
                    f"from {before(box.stay.start)} to {before(box.stay.end - 1)}",
                    *(
                        f"{what} starts {text}"
                        for what, text in (
                            ("copy in", window(box.stay.copy_in)),
                            ("copy out", window(box.stay.copy_out)),
                        )
                        if text is not None
                    ),
                ],
            }
            for box in scene.boxes
        ],
    }


def _nine_digits(values: Floats) -> list[float]:
    """Enough for a picture, and half as long in JSON."""
    return [float(f"{value:.9g}") for value in values]


def _scale(largest: float, units: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    """The largest of the units that `largest` holds at least one of."""
    return next((unit for unit in units if largest >= unit[0]), units[-1])


def _seconds(seconds: float) -> str:
    scale, unit = _scale(seconds, _TIMES)
    return f"{seconds / scale:.4g} {unit}"


def _bytes(count: int) -> str:
    scale, unit = _scale(count, _SIZES)
    return f"{count / scale:.4g} {unit}"


def _pale(color: str) -> tuple[float, float, float]:
    red, green, blue = to_rgb(color)
    return (0.35 * red + 0.65, 0.35 * green + 0.65, 0.35 * blue + 0.65)
