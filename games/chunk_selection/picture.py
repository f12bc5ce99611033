"""A selection as a picture: what it is expected to hold against the tokens that it takes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from games.chunk_selection.chunk import printable
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import Selection, worth
from games.files import replace_file
from hlo_frontend.errors import InputError

PLOTS = (".svg", ".png")
_LINE, _ALL, _OTHER, _INK = "#4c78a8", "#e8963e", "#8a8f98", "#22262e"
_LONGEST = 24  # letters of an id


def draw(
    problem: ChunkSelectionProblem,
    selection: Selection,
    path: Path,
    *,
    others: Mapping[str, Selection],
) -> None:
    """Writes the picture: both curves chunk by chunk in the order of the context, others as dots.

    Args:
        path: ends in `.svg` or `.png`.
        others: selections of other methods by name.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    if path.suffix not in PLOTS:
        raise InputError(f"{path}: a picture is an .svg or .png file; give such a path")
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    tokens, recall, everything = [0], [0.0], [0.0]
    for count in range(1, len(selection.order) + 1):
        part = selection.order[:count]
        value = worth(problem, part)
        tokens.append(int(problem.tokens[list(part)].sum()))
        recall.append(value.recall)
        everything.append(value.all_found)
        name = printable(problem.chunks[part[-1]].id)
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        axes.annotate(
            short.replace("$", r"\$"),
            (tokens[-1], recall[-1]),
            xytext=(3, -9),
            textcoords="offset points",
            fontsize=7,
            color=_INK,
        )
    axes.step(tokens, recall, where="post", color=_LINE, marker="o", label="expected recall")
    axes.step(tokens, everything, where="post", color=_ALL, marker="o", label="probability of all")
    for name, other in others.items():
        value = worth(problem, other.order)
        axes.plot(other.tokens(problem), value.recall, "x", color=_OTHER)
        axes.annotate(
            name,
            (other.tokens(problem), value.recall),
            xytext=(-3, 3),
            textcoords="offset points",
            fontsize=6,
            color=_OTHER,
            ha="right",
        )
    axes.axvline(problem.budget, color=_INK, lw=0.8, ls="--")
    axes.set(xlabel="tokens (dashed: the budget)", ylabel="expected", ylim=(0, 1.02))
    axes.set_xlim(0, problem.budget * 1.04)
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    # No date: the same selection makes the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(content, format=path.suffix[1:], dpi=130, metadata=metadata)
    replace_file(path, content.getvalue())
