"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from games.tensor_parallel import picture
from games.tensor_parallel.frontend import ModelGraph, model_graph
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.mesh import parse_mesh
from games.tensor_parallel.models import build
from games.tensor_parallel.plan import specs_of
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.solution import Strategies
from hlo_frontend.errors import InputError


def read_instance(
    file: str | None = None,
    *,
    model: str | None = None,
    mesh: str = "1x8",
    chip: str = "v5e",
    train: bool = False,
    layers: int | None = None,
) -> ShardingProblem:
    """The problem of an IOPDDL file, or of a built-in model on a mesh.

    Raises:
        InputError: both or neither of `file` and `model`, or what either cannot be read from.
    """
    if (file is None) == (model is None):
        raise InputError("tensor_parallel: expected one of file, model")
    if file is not None:
        return read_problem(Path(file))
    return _graph(str(model), mesh, chip, train, layers).problem(str(model))


def draw_solution(
    instance: Mapping[str, Any],
    problem: ShardingProblem,
    solution: Strategies,
    path: Path,
    *,
    method: str,
) -> None:
    """The picture of a solution of `read_instance(**instance)`.

    A built-in model's parameters as the mesh cuts them; of a file, which says nothing about what
    its nodes are, the memory in use over time.
    """
    if instance.get("model") is None:
        picture.draw_usage(problem, solution, path, method=method)
        return
    chosen: dict[str, Any] = {"mesh": "1x8", "chip": "v5e", "train": False, "layers": None} | dict(
        instance
    )
    graph = _graph(*(chosen[key] for key in ("model", "mesh", "chip", "train", "layers")))
    shapes = {node.path: node.sizes for node in graph.nodes if node.kind == "param"}
    picture.draw(
        specs_of(graph, solution.choice),
        shapes,
        graph.mesh,
        path,
        f"{chosen['model']} on {chosen['mesh']} ({method})",
    )


def _graph(model: str, mesh: str, chip: str, train: bool, layers: int | None) -> ModelGraph:
    built = build(model, train=train, layers=layers)
    return model_graph(built.function, built.params, built.inputs, parse_mesh(mesh, chip))
