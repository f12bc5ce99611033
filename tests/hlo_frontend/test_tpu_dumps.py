"""Real programs of the TPU compiler: the bundled dumps, and more where the developer has them.

The counts are taken from the text with regular expressions, independently of the frontend.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from hlo_frontend import Program, load
from hlo_frontend.reader import read_proto
from hlo_frontend.xla_parser import cost_analysis

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "hlo_frontend" / "examples"
SHARED = ROOT.parent / "shared" / "data" / "tpu_hlo"
DUMPS = sorted(BUNDLED.glob("*.txt.gz"))
PAIRED = [path for path in DUMPS if ".nomsa." not in path.name]
SHARED_NAMES = [
    *("v4_alexnet_inf", "v4lite_alexnet_inf", "v4lite_mlp_inf", "v4lite_strassen49"),
    *("v5e_alexnet_inf", "v5e_mlp_inf", "v5e_resnet50_inf", "v5e_strassen49", "v5e_transformer"),
    "v6e_alexnet_inf",
]


@cache
def program(path: Path) -> Program:
    return load(path)


def read(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def shared(name: str) -> Path:
    path = SHARED / f"{name}.txt.gz"
    if not path.exists():
        pytest.skip(f"no dump {name} in {SHARED.relative_to(ROOT.parent)} beside the repository")
    return path


def check_structure(result: Program) -> None:
    """What holds for every program."""
    steps, values, buffers = result.steps, result.values, result.buffers
    assert result.scheduled and len(result.fingerprint) == 64
    assert {s.loop for s in steps} <= set(range(-1, len(result.loops)))
    for loop in result.loops:
        assert 0 <= loop.start < loop.end <= len(steps)
        assert loop.parent < len(result.loops)
    for index, value in enumerate(values):
        buffer = buffers[value.buffer]
        assert index in buffer.values
        assert 0 < value.size <= buffer.size
        assert buffer.live_start <= value.def_step or buffer.initial
        assert value.def_bytes == 0 or buffer.live_start <= value.def_step <= buffer.live_end
        assert [use.step for use in value.uses] == sorted(use.step for use in value.uses)
        for use in value.uses:
            assert buffer.live_start <= use.step <= buffer.live_end
            assert use.num_bytes >= 0
        assert all(values[other].buffer == value.buffer for other in value.updates)
        if value.parameter >= 0:
            assert buffer.initial and buffer.live_start == 0 and value.def_bytes == 0
    assert sorted(i for b in buffers for i in b.values) == list(range(len(values)))
    for buffer in buffers:
        assert 0 <= buffer.live_start <= buffer.live_end < len(steps)
        assert not buffer.live_out or buffer.live_end == len(steps) - 1
        assert list(buffer.values) == sorted(buffer.values)
    assert not any(step.opcode in ("copy-start", "slice-start", "copy-done") for step in steps)
    for stay in result.assignment or ():
        assert 0 <= stay.start < stay.end <= len(steps)
        assert buffers[stay.buffer].fixed_space is None
        if stay.copy_in:
            assert stay.copy_in.start == stay.start <= stay.copy_in.done <= stay.end
        else:
            produced = {values[i].def_step for i in buffers[stay.buffer].values}
            assert stay.start in produced
        if stay.copy_out:
            assert stay.start < stay.copy_out.start <= stay.copy_out.done <= stay.end


def check_copies(result: Program, text: str) -> None:
    """As many copies in and out as the text has, and everything in fast memory is a stay."""
    fast = r"S\((?:1|3)\)"
    into = len(re.findall(rf" = \(\S+{fast}\}}, .* copy-start\(", text))
    out = len(re.findall(r" copy-start\(", text)) - into
    sliced = len(re.findall(r'custom_call_target="ConcatBitcast"', text))
    stays = result.assignment or ()
    assert sum(stay.copy_in is not None for stay in stays) == into + sliced
    assert sum(stay.copy_out is not None for stay in stays) == out
    assert (result.assignment is None) == (not re.search(fast, text))
    # An array in fast memory at its definition is read in a stay.
    for value in result.values:
        if value.memory_space in (1, 3):
            assert any(
                stay.buffer == value.buffer and stay.start <= value.def_step < stay.end
                for stay in stays
            ), value


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_bundled(path: Path) -> None:
    check_structure(program(path))
    check_copies(program(path), read(path))


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_shared(name: str) -> None:
    path = shared(name)
    check_structure(program(path))
    check_copies(program(path), read(path))


def test_mlp_has_three_prefetches() -> None:
    result = program(shared("v5e_mlp_inf"))
    stays = result.assignment
    assert stays is not None
    names = [result.values[result.buffers[stay.buffer].values[0]].name for stay in stays]
    assert names == ["w_1_.1", "w_3_.1", "w_2_.1", "convolution_maximum_fusion.1"]
    steps = [step.name for step in result.steps]
    used = [steps[stay.end - 1] for stay in stays]
    assert used == ["convolution_maximum_fusion.1", "fusion.3", "fusion.3", "fusion.3"]
    assert sum(step.estimated_cycles or 0 for step in result.steps) == 41889 + 26943
    assert [step.scoped_bytes for step in result.steps if step.opcode == "fusion"] == [
        3305472,
        888832,
    ]


@pytest.mark.parametrize("path", PAIRED, ids=lambda path: path.name)
def test_the_same_program_with_and_without_assignment(path: Path) -> None:
    """With the copies out, the two compilations of a program have the same values and work."""
    on, off = program(path), program(path.with_name(path.name.replace(".txt", ".nomsa.txt")))
    assert off.assignment is None and on.assignment is not None
    assert Counter(v.size for v in on.values) == Counter(v.size for v in off.values)
    assert Counter(b.size for b in on.buffers) == Counter(b.size for b in off.buffers)
    assert Counter(s.opcode for s in on.steps if s.flops) == Counter(
        s.opcode for s in off.steps if s.flops
    )
    assert sum(s.flops for s in on.steps) == pytest.approx(sum(s.flops for s in off.steps))


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.name)
def test_flops_are_those_of_the_whole_module(path: Path) -> None:
    """XLA's analysis of a module counts a loop once and a custom call as -1, in 32-bit floats."""
    result = program(path)
    whole = cost_analysis(read_proto(path)[0])
    assert whole is not None
    expected = whole["flops"] + read(path).split("\nENTRY")[1].count(" custom-call(")
    assert sum(s.flops for s in result.steps) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp.v5e.nomsa", "strassen49.v5e.nomsa"])
def test_bytes_are_those_of_the_whole_module(name: str) -> None:
    """In these two no array has padding."""
    path = BUNDLED / f"{name}.txt.gz"
    result = program(path)
    whole = cost_analysis(read_proto(path)[0])
    assert whole is not None
    written = sum(v.def_bytes for v in result.values)
    read_bytes = sum(use.num_bytes for v in result.values for use in v.uses)
    assert written == whole["bytes accessedout{}"]
    assert written + read_bytes == pytest.approx(whole["bytes accessed"], rel=1e-6)
    assert not any(step.other_bytes for step in result.steps)


def test_loop_of_layers() -> None:
    result = program(BUNDLED / "scan_transformer.v5e.txt.gz")
    (loop,) = result.loops
    assert (loop.trip_count, loop.trip_known) == (8, True)
    # The stacked weights are sliced one layer at a time.
    weights = [v for v in result.values if v.parameter >= 0 and v.size > 2**22]
    assert len(weights) == 3
    for value in weights:
        assert all(use.num_bytes * 8 == value.size for use in value.uses)


def test_decoding_updates_its_caches_in_place() -> None:
    result = program(BUNDLED / "decode.v5e.nomsa.txt.gz")
    updates = [value for value in result.values if value.updates]
    assert len(updates) == 8
    for value in updates:
        (cache,) = (result.values[i] for i in value.updates)
        assert cache.parameter >= 0 and cache.buffer == value.buffer
        assert value.def_bytes * 1024 == value.size  # one of 1024 positions
        assert result.buffers[value.buffer].live_out
