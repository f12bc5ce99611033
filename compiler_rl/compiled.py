"""What XLA makes of a plan: collectives and memory of the compiled program.

Compiles for host devices (8 of them in a process of its own, as `--verify cpu` does) or ahead of
time for a TPU topology (`--verify tpu`, with the `tpu` extra); nothing is run.

Two traps are seen to. XLA's CPU compiler has no arithmetic in bfloat16 and turns the collectives
into float32 ones, twice as large: `wire_bytes` and `seconds` are of the program as the partitioner
leaves it, with its own types; `wire_bytes_as_is` has what the CPU made of it. In TPU programs
collectives may be in loops: they count as often as the loop runs.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh as DeviceMesh
from jax.sharding import NamedSharding, PartitionSpec

from games.tensor_parallel.mesh import Mesh, parse_mesh
from games.tensor_parallel.models import build
from games.tensor_parallel.plan import Rules, match_rules
from games.tensor_parallel.problem import Ints
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
_NAMED = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\[[\d,]+\](?:T\([\d,]+\))?)\))? \{([^}]*)\}"
)
_DUMP: dict[str, str | bool] = {
    "xla_dump_hlo_as_text": True,
    "xla_dump_hlo_pass_re": "spmd-partitioning",
}
TIMEOUT = 900.0  # seconds for all compilations of a verification


@dataclass(frozen=True)
class Compiled:
    """A compiled plan.

    Attributes:
        collectives: how many of each kind run.
        wire_bytes: of one device, as partitioned, before the CPU's promotion to float32.
        wire_bytes_as_is: of the compiled program.
        seconds: alpha of the mesh for each collective, beta for the bytes as partitioned.
        flops: arithmetic of one device.
        memory: bytes of one device: arguments, results and temporaries.
    """

    collectives: dict[str, int]
    wire_bytes: float
    wire_bytes_as_is: float
    seconds: float
    flops: float
    memory: int


@dataclass(frozen=True)
class Collectives:
    """What a program sends.

    Attributes:
        counts: of each kind, as often as they run.
        wire_bytes: of one device.
        starting, sending: seconds, alpha and beta of the mesh applied to each.
    """

    counts: dict[str, int]
    wire_bytes: float
    starting: float
    sending: float


def read_collectives(text: str, mesh: Mesh) -> Collectives:
    """The collectives of an HLO module's text."""
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
            group = _group(line, mesh.devices)
            started = found["start"] is not None
            wire = _wire(kind, _sizes(found["shape"]), len(group), started=started)
            if len(group) == 1 or wire == 0:
                continue
            counts[kind] = counts.get(kind, 0) + times
            axes = _axes(group, mesh)
            sums[0] += times * wire
            sums[1] += times * max(mesh.alpha[axis] for axis in axes)
            sums[2] += times * wire * max(mesh.beta[axis] for axis in axes)

    visit(entry, 1)
    return Collectives(counts, *sums)


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


def _group(line: str, devices: int) -> list[int]:
    """The first group of a collective, or the first pair that moves; all if it does not tell."""
    every = np.arange(devices)
    named = _NAMED.search(line)
    if named is not None:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        along = re.findall(r"'(\w+)'", named[3])
        if ":" in named[3] or math.prod(sizes.values()) != devices:
            return every.tolist()  # parts of an axis
        order = every if named[2] is None else _iota(named[2])
        grid = order.reshape(tuple(sizes.values()))
        return grid[tuple(slice(None) if axis in along else 0 for axis in sizes)].ravel().tolist()
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line)
    if tiled is not None:
        return _iota(tiled[3])[: int(tiled[2])].tolist()
    hops = re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", line)
    if hops is not None:
        pairs = re.findall(r"(\d+),(\d+)", hops[1])
        return next(([int(a), int(b)] for a, b in pairs if a != b), [0])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return [int(d) for d in listed[1].split(",")] if listed is not None else every.tolist()


def _iota(text: str) -> Ints:
    """Devices in the order of XLA's `[2,4]T(1,0)`: counted up, reshaped and transposed."""
    sizes, turned = (re.findall(r"\d+", part) for part in (*text.split("T"), "")[:2])
    grid = np.arange(math.prod(map(int, sizes))).reshape([int(size) for size in sizes])
    return (grid.transpose([int(d) for d in turned]) if turned else grid).ravel()


def _axes(group: Sequence[int], mesh: Mesh) -> list[int]:
    """The axes that a group runs along."""
    places = np.unravel_index(np.array(group), mesh.shape)
    return [axis for axis, place in enumerate(places) if len(set(place.tolist())) > 1]


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
    lowered = jitted.lower(params, *inputs)
    if devices[0].platform == "tpu":
        done = lowered.compile()
        text = partitioned = done.as_text() or ""
    else:
        with tempfile.TemporaryDirectory() as folder:
            done = lowered.compile({"xla_dump_to": folder, **_DUMP})
            text = done.as_text() or ""
            dumped = sorted(Path(folder).glob("*.after_spmd-partitioning.*"))
            # On a mesh of one device there is nothing to partition.
            partitioned = dumped[-1].read_text() if dumped else text
    made, meant = read_collectives(text, mesh), read_collectives(partitioned, mesh)
    memory = done.memory_analysis()
    total = 0
    if memory is not None:
        total = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            + memory.temp_size_in_bytes
            - memory.alias_size_in_bytes
        )
    return Compiled(
        collectives=made.counts,
        wire_bytes=meant.wire_bytes,
        wire_bytes_as_is=made.wire_bytes,
        # Collectives are put together after they are partitioned: each that is left starts once.
        seconds=made.starting + meant.sending,
        flops=float((done.cost_analysis() or {}).get("flops", 0.0)),
        memory=int(total),
    )


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
