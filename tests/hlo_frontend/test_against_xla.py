"""Order, live ranges and alias classes against what XLA itself writes when it dumps a compilation.

`*-live-range.txt` has XLA's flattened order and a range for every value, `*-buffer-assignment.txt`
where in memory each value is. The programs are compiled in a process of their own, because XLA
reads its flags once.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hlo_frontend import Program, load

PROGRAMS = '''
    import jax
    import jax.numpy as jnp
    from jax import lax


    def mlp(ws, x):
        for w in ws:
            x = jax.nn.relu(x @ w)
        return x


    def train(ws, x):
        loss, grads = jax.value_and_grad(lambda ws: jnp.square(mlp(ws, x)).sum())(ws)
        return [w - 0.1 * g for w, g in zip(ws, grads)], loss


    def loops(w, x):
        """A scan with outputs, a loop inside a loop, a conditional and a sort."""

        def body(c, wi):
            h = jnp.tanh(c @ wi)
            h = lax.fori_loop(0, 3, lambda i, a: a * 2 + h * i, h)
            return h, h.sum(0)

        c, ys = lax.scan(body, x, w)
        done = lambda s: s[0] < 7
        y = lax.while_loop(done, lambda s: (s[0] + 1, s[1] * 2 + s[2], s[2]), (0, c, x))[1]
        z = lax.cond(y[0, 0] > 0, lambda a: a @ a, lambda a: a - 1, y)
        return jnp.sort(z, axis=0), ys


    def cache(k, x, i):
        """An update in place of a donated argument, read afterwards."""
        k = lax.dynamic_update_slice(k, x[None], (i, 0, 0))
        return k, jnp.einsum("tab,ab->t", k, x)


    def swap(x, y):
        return lax.fori_loop(0, 5, lambda i, s: (s[1] + 1, s[0]), (x, y))


    def scattered(x, rows, u):
        return x.at[rows].add(u), x.sum()


    m = jnp.ones((64, 64))
    CASES = {
        "mlp": (mlp, ([m] * 4, m), ()),
        "train": (train, ([m] * 3, m), (0,)),
        "loops": (loops, (jnp.ones((4, 64, 64)), m), (1,)),
        "cache": (cache, (jnp.ones((16, 64, 64)), m, jnp.int32(3)), (0,)),
        "swap": (swap, (m, m + 1), ()),
        "scattered": (scattered, (m, jnp.arange(8), m[:8]), ()),
    }
    for fn, args, donated in CASES.values():
        jax.jit(fn, donate_argnums=donated).lower(*args).compile()
'''
NAMES = ["mlp", "train", "loops", "cache", "swap", "scattered"]


@pytest.fixture(scope="session")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_as_proto",
    }
    code = textwrap.dedent(PROGRAMS)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)
    return folder


def dumped(folder: Path, name: str, ending: str) -> Path:
    (path,) = folder.glob(f"module_*.jit_{name}.*after_optimizations{ending}")
    return path


def xla_live_ranges(text: str) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """XLA's flattened order, and the range of every value by position."""
    order = re.findall(r"^    \d+:(\S+)$", text, re.MULTILINE)
    ranges = {
        match[1].removesuffix("{}"): (int(match[2]), int(match[3]))
        for match in re.finditer(r"^    (\S+\{[\d,]*\}):(\d+)-(\d+)$", text, re.MULTILINE)
    }
    return order, ranges


def check_live_ranges(program: Program, text: str) -> int:
    """Compares with XLA's; returns how many values were compared."""
    order, ranges = xla_live_ranges(text)
    assert [step.name for step in program.steps] == order
    last = len(order) - 1
    checked = 0
    for buffer in program.buffers:
        expected_start, expected_end = [], []
        for index in buffer.values:
            value = program.values[index]
            if program.steps[value.def_step].opcode == "constant":
                continue  # XLA keeps constants apart, for the whole program
            start, end = ranges[value.position]
            if value.parameter >= 0 and end > last:
                # XLA keeps the caller's arguments to the end, we to their last use.
                end = max((use.step for use in value.uses), default=0)
            expected_start.append(start)
            expected_end.append(min(end, last))
            checked += 1
        if not expected_start:
            continue
        assert buffer.live_start == min(expected_start), program.values[buffer.values[0]]
        if all(program.values[i].parameter < 0 for i in buffer.values):
            assert buffer.live_end == max(expected_end), program.values[buffer.values[0]]
        else:
            assert buffer.live_end >= max(expected_end)
    return checked


@pytest.mark.parametrize("name", NAMES)
def test_order_and_live_ranges(dumps: Path, name: str) -> None:
    program = load(dumped(dumps, name, ".txt"))
    text = dumped(dumps, name, "-live-range.txt").read_text()
    checked = check_live_ranges(program, text)
    constants = sum(program.steps[v.def_step].opcode == "constant" for v in program.values)
    assert checked == len(program.values) - constants > 0


def xla_places(text: str) -> dict[str, tuple[str, int, int]]:
    """Position -> (allocation, offset, size) of a buffer-assignment dump."""
    places = {}
    allocation = ""
    for line in text.splitlines():
        if line.startswith("allocation"):
            allocation = line.split(":")[0]
        match = re.match(r" value: <\d+ (\S+)(?: \(phi\))? @\d+> \(size=(\d+),offset=(\d+)\)", line)
        if match:
            places[match[1].removesuffix("{}")] = (allocation, int(match[3]), int(match[2]))
    return places


@pytest.mark.parametrize("name", NAMES)
def test_values_of_one_buffer_share_their_place(dumps: Path, name: str) -> None:
    program = load(dumped(dumps, name, ".txt"))
    places = xla_places(dumped(dumps, name, "-buffer-assignment.txt").read_text())
    for buffer in program.buffers:
        members = [program.values[i] for i in buffer.values]
        assert len({places[value.position][:2] for value in members}) == 1
        assert all(places[value.position][2] == value.size for value in members)


@pytest.mark.parametrize("name", NAMES)
def test_every_join_of_control_flow_shares_bytes_with_what_arrives(dumps: Path, name: str) -> None:
    """The other way round: what XLA marks as a phi is in a buffer with other values."""
    program = load(dumped(dumps, name, ".txt"))
    text = dumped(dumps, name, "-buffer-assignment.txt").read_text()
    phis = {m[1].removesuffix("{}") for m in re.finditer(r"<\d+ (\S+) \(phi\) @", text)}
    ours = {value.position: value for value in program.values}
    arrays = phis & ours.keys()
    assert all(len(program.buffers[ours[phi].buffer].values) > 1 for phi in arrays)
    assert bool(arrays) == (name in ("loops", "swap"))


def test_donated_cache_is_updated_in_place(dumps: Path) -> None:
    program = load(dumped(dumps, "cache", ".txt"))
    cache = next(v for v in program.values if v.parameter == 0)
    buffer = program.buffers[cache.buffer]
    assert buffer.initial and buffer.live_out
    updated = program.values[buffer.values[-1]]
    assert updated.updates == (buffer.values[-2],)
    # One of 16 pages is written.
    assert updated.def_bytes == updated.size // 16


@pytest.mark.parametrize("name", NAMES)
def test_text_and_proto_are_the_same_program(dumps: Path, name: str) -> None:
    text, proto = (load(dumped(dumps, name, ending)) for ending in (".txt", ".hlo.pb"))
    assert dataclasses.replace(text, source=proto.source) == proto


def test_folder_is_its_largest_optimized_module(dumps: Path) -> None:
    program = load(dumps)
    assert program.scheduled
    assert dataclasses.replace(program, source="") == dataclasses.replace(
        load(dumped(dumps, "loops", ".txt")), source=""
    )


@pytest.mark.tpu
def test_live_ranges_of_the_tpu_compiler(tmp_path: Path) -> None:
    """The same for libtpu; its dump is after memory-space assignment, which is switched off."""
    code = textwrap.dedent(
        """
        import jax, jax.numpy as jnp
        from hlo_frontend.tpu import ASSIGNMENT_OFF, compile_for_tpu

        def f(w, x):
            return jax.lax.scan(lambda c, wi: (jnp.tanh(c @ wi), None), x, w)[0]

        w = jax.ShapeDtypeStruct((4, 512, 512), jnp.bfloat16)
        x = jax.ShapeDtypeStruct((64, 512), jnp.bfloat16)
        compile_for_tpu(f, (w, x), "v5e", ASSIGNMENT_OFF)
        """
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_dump_to={tmp_path}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)
    program = load(tmp_path)
    assert program.assignment is None
    assert [(loop.trip_count, loop.trip_known) for loop in program.loops] == [(4, True)]
    assert check_live_ranges(program, dumped(tmp_path, "f", "-live-range.txt").read_text()) > 10
