"""What XLA makes of a plan: collectives and memory of the compiled program.

Compiles for host devices (8 of them in a process of its own, as `--verify cpu` does) or ahead of
time for a TPU topology (`--verify tpu`, with the `tpu` extra); nothing is run.

Two traps are seen to. On CPUs the partitioner's bfloat16 all-reduces are promoted to float32
(`to_apply=..._promoted`): their bytes count half in `wire_bytes`, in full in `wire_bytes_as_is`. In
TPU programs collectives may be in loops: they count as often as the loop runs.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh as DeviceMesh
from jax.sharding import NamedSharding, PartitionSpec

from games.tensor_parallel.mesh import Mesh, parse_mesh
from games.tensor_parallel.models import build
from games.tensor_parallel.plan import Rules, match_rules
from hlo_frontend.errors import InputError

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_LINE = re.compile(
    r"= (?P<shape>\(.*?\)|\S+) (?P<kind>" + "|".join(_KINDS) + r")(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_WHILE = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+).*body=%?([\w.\-]+)")
_CALL = re.compile(r"(?:calls|to_apply|branch_computations)=\{?%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count":\s*\{"n":\s*"(\d+)"')
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
TIMEOUT = 900.0  # seconds for all compilations of a verification


@dataclass(frozen=True)
class Compiled:
    """A compiled plan.

    Attributes:
        collectives: how many of each kind run.
        wire_bytes: of one device, without the CPU's promotion to float32.
        wire_bytes_as_is: with it.
        seconds: alpha and beta of the mesh applied to each collective.
        memory: bytes of one device: arguments, results and temporaries.
    """

    collectives: dict[str, int]
    wire_bytes: float
    wire_bytes_as_is: float
    seconds: float
    memory: int


def read_collectives(text: str, mesh: Mesh) -> tuple[dict[str, int], float, float, float]:
    """(count of each kind, wire bytes, the same as they are, seconds) of an HLO module's text."""
    computations: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None:
            current = head[1]
            computations[current] = []
            if line.startswith("ENTRY"):
                entry = current
        elif current:
            computations[current].append(line)
    counts: dict[str, int] = {}
    sums = [0.0, 0.0, 0.0]

    def visit(name: str, times: int) -> None:
        for line in computations.get(name, []):
            loop = _WHILE.search(line)
            if loop is not None:
                visit(loop[2], times * _trips(line, computations.get(loop[1], [])))
                continue
            found = _LINE.search(line)
            if found is None:
                call = _CALL.search(line)
                if call is not None and "all-reduce" not in line:
                    visit(call[1], times)
                continue
            kind = found["kind"]
            group = _group_size(line, mesh.devices)
            wire = _wire(kind, _sizes(found["shape"]), group, started=found["start"] is not None)
            if group == 1 or wire == 0:
                continue
            promoted = 0.5 if re.search(r"to_apply=\S*_promoted", line) else 1.0
            counts[kind] = counts.get(kind, 0) + times
            sums[0] += times * wire * promoted
            sums[1] += times * wire
            axes = _axes(line, mesh)
            alpha = max(mesh.alpha[axis] for axis in axes)
            beta = max(mesh.beta[axis] for axis in axes)
            sums[2] += times * (alpha + beta * wire * promoted)

    visit(entry, 1)
    return counts, sums[0], sums[1], sums[2]


def _trips(line: str, condition: Sequence[str]) -> int:
    known = _TRIPS.search(line)
    if known is not None:
        return int(known[1])
    constants = [int(c) for text in condition for c in re.findall(r"constant\((\d+)\)", text)]
    return max(constants, default=1)


def _sizes(shape: str) -> list[int]:
    """Bytes of each array of a shape or tuple."""
    sizes = []
    for kind, dims in _SHAPE.findall(shape):
        bits = re.search(r"\d+", kind)
        width = 1 if kind == "pred" or bits is None else max(int(bits[0]) // 8, 1)
        sizes.append(math.prod(int(d) for d in dims.split(",") if d) * width)
    return sizes


def _group_size(line: str, devices: int) -> int:
    named = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line)
    if named is not None:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        return math.prod(sizes[axis] for axis in re.findall(r"'(\w+)'", named[2]))
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    if tiled is not None:
        return int(tiled[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed is not None else devices


def _axes(line: str, mesh: Mesh) -> list[int]:
    """The axes that a collective runs along; all that have devices where its groups do not tell."""
    several = [axis for axis, size in enumerate(mesh.shape) if size > 1] or [len(mesh.shape) - 1]
    named = re.search(r"replica_groups=mesh\[[^\]]*\][^{]*\{([^}]*)\}", line)
    if named is not None:
        found = [mesh.names.index(n) for n in re.findall(r"'(\w+)'", named[1]) if n in mesh.names]
        return found or several
    if _group_size(line, mesh.devices) == mesh.devices:
        return several
    listed = re.search(r"replica_groups=\{\{(\d+),(\d+)", line)
    if listed is not None:
        # Devices are numbered along the last axis first.
        return [len(mesh.shape) - 1 if int(listed[2]) - int(listed[1]) == 1 else 0]
    tiled = re.search(r"replica_groups=\[\d+,\d+\]<=\[[\d,]+\](T\()?", line)
    if tiled is not None:
        return [0 if tiled[1] else len(mesh.shape) - 1]
    return several


def _wire(kind: str, sizes: list[int], group: int, *, started: bool) -> float:
    """Bytes that one device sends, for a ring."""
    if not sizes:
        return 0.0
    share = (group - 1) / group
    if kind == "collective-permute":
        return float(sizes[0])
    if started and kind in ("all-gather", "reduce-scatter", "all-to-all"):
        sizes = sizes[len(sizes) // 2 :]  # operands come first
    total = float(sum(sizes))
    if kind == "all-reduce":
        return 2 * share * total
    if kind == "reduce-scatter":
        return (group - 1) * total
    return share * total


def compile_plan(
    function: Callable[..., Any],
    params: Any,
    inputs: Sequence[Any],
    rules: Rules,
    mesh: Mesh,
    devices: Sequence[Any],
    *,
    gradients: bool = False,
) -> Compiled:
    """Compiles `function(params, *inputs)` with the parameters split by the rules.

    Args:
        function, params, inputs: as for `games.tensor_parallel.frontend.model_graph`.
        rules: of the parameters.
        mesh: as many devices as are given, or fewer.
        devices: of JAX, real or of a topology.
        gradients: the function returns a loss and a pytree like `params`, split alike.

    Raises:
        InputError: not enough devices.
    """
    if len(devices) < mesh.devices:
        raise InputError(
            f"mesh of {mesh.devices} devices: only {len(devices)} to compile for; set"
            f" XLA_FLAGS=--xla_force_host_platform_device_count={mesh.devices}"
        )
    grid = DeviceMesh(np.array(devices[: mesh.devices]).reshape(mesh.shape), mesh.names)
    split = jax.tree.map(
        lambda spec: NamedSharding(grid, spec),
        match_rules(rules, params),
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )
    batch = tuple(
        NamedSharding(
            grid,
            PartitionSpec(mesh.names[0])  # type: ignore[no-untyped-call]
            if leaf.shape and mesh.shape[0] > 1 and leaf.shape[0] % mesh.shape[0] == 0
            else PartitionSpec(),  # type: ignore[no-untyped-call]
        )
        for leaf in inputs
    )
    given = (split, *batch)
    if gradients:
        jitted = jax.jit(function, in_shardings=given, out_shardings=(None, split))
    else:
        jitted = jax.jit(function, in_shardings=given)
    done = jitted.lower(params, *inputs).compile()
    counts, wire, as_is, seconds = read_collectives(done.as_text() or "", mesh)
    memory = done.memory_analysis()
    total = 0
    if memory is not None:
        total = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
    return Compiled(counts, wire, as_is, seconds, int(total))


def verify(
    request: Mapping[str, Any], plans: Mapping[str, Rules], target: str = "cpu"
) -> dict[str, Compiled | str]:
    """Compiles a built-in model under several plans, in a process of its own.

    Args:
        request: `model`, `train`, `layers`, `batch`, `length`, `mesh`, `chip`, and `links` where
            they are not the chip's.
        plans: rules by name.
        target: `cpu`, or `tpu` for a v5e topology ahead of time.

    Returns:
        What each plan compiles to, or one line that says why it does not.

    Raises:
        InputError: the compiler could not be started.
    """
    count = math.prod(int(size) for size in request["mesh"].split("x"))
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    given = json.dumps({"request": dict(request), "plans": dict(plans), "target": target})
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=given,
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT,
            check=False,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise InputError(f"--verify {target}: the compiler gave no answer ({error})") from error
    if "error" in found:
        raise InputError(f"--verify {target}: {found['error']}")
    return {
        name: result if isinstance(result, str) else Compiled(**result)
        for name, result in found.items()
    }


def _devices(target: str, count: int) -> Sequence[Any]:
    if target == "cpu":
        return jax.devices()
    try:
        from jax.experimental import topologies  # noqa: PLC0415 (only for TPUs)

        shapes = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=f"v5e:{shapes[count]}"
        )
    except Exception as error:  # libtpu absent, locked, or another number of devices
        text = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"no TPU topology of {count} devices ({text}); try --verify cpu") from None
    return described.devices


def main() -> None:
    """Runs in the process of `verify`: a request on standard input, an answer on the last line."""
    given = json.loads(sys.stdin.read())
    request, target = given["request"], given["target"]
    mesh = parse_mesh(request["mesh"], request["chip"], links=request.get("links"))
    model = build(
        request["model"],
        train=request["train"],
        batch=request["batch"],
        length=request["length"],
        layers=request["layers"],
    )
    answer: dict[str, Any] = {}
    try:
        devices = _devices(target, mesh.devices)
        for name, rules in given["plans"].items():
            plan = [(pattern, tuple(map(tuple, spec))) for pattern, spec in rules]
            try:
                found = compile_plan(
                    model.function,
                    model.params,
                    model.inputs,
                    plan,
                    mesh,
                    devices,
                    gradients=model.train,
                )
                answer[name] = asdict(found)
            except Exception as error:  # whatever the compiler raises
                answer[name] = str(error).split("\n", maxsplit=1)[0]
    except InputError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
