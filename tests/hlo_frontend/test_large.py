"""Time and memory for a program of 19,000 instructions, none of which has the cost of another."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

INSTRUCTIONS = 19_000
SECONDS = 30.0  # of one core
MEMORY = 1.5 * 2**30

CODE = """
import json, sys
from hlo_frontend import load
program = load(sys.argv[1])
print(json.dumps([len(program.steps), len(program.values), program.scheduled]))
"""


def large_program(count: int, scheduled: bool) -> str:
    """A chain of fusions of three instructions each, every one of a shape of its own."""
    computations, entry = [], []
    blocks = count // 5
    for i in range(blocks):
        shape = f"f32[{i + 1},128]{{1,0:T(8,128)}}"
        computations.append(
            f"%fused.{i} (q0.{i}: f32[128], q1.{i}: {shape}) -> f32[128] {{\n"
            f"  %q0.{i} = f32[128]{{0:T(128)}} parameter(0)\n"
            f"  %q1.{i} = {shape} parameter(1)\n"
            f"  %zero.{i} = f32[]{{:T(128)}} constant(0)\n"
            f"  %sum.{i} = f32[128]{{0:T(128)}} reduce(%q1.{i}, %zero.{i}), dimensions={{0}},"
            " to_apply=%plus\n"
            f"  ROOT %both.{i} = f32[128]{{0:T(128)}} add(%q0.{i}, %sum.{i})\n}}\n"
        )
        before = f"%step.{i - 1}" if i else "%x"
        root = "ROOT " if i == blocks - 1 else ""
        entry.append(f"  %wide.{i} = {shape} broadcast({before}), dimensions={{1}}")
        entry.append(
            f"  {root}%step.{i} = f32[128]{{0:T(128)}} fusion({before}, %wide.{i}), kind=kLoop,"
            f" calls=%fused.{i}"
        )
    header = "HloModule large, " + (
        "is_scheduled=true"
        if scheduled
        else "entry_computation_layout={(f32[128]{0:T(128)})->f32[128]{0:T(128)}}"
    )
    plus = (
        "%plus (a: f32[], b: f32[]) -> f32[] {\n  %a = f32[]{:T(128)} parameter(0)\n"
        "  %b = f32[]{:T(128)} parameter(1)\n  ROOT %ab = f32[]{:T(128)} add(%a, %b)\n}\n"
    )
    first = "ENTRY %main (x: f32[128]) -> f32[128] {\n  %x = f32[128]{0:T(128)} parameter(0)"
    return "\n".join([header, "", plus, *computations, first, *entry, "}", ""])


@pytest.mark.slow
@pytest.mark.parametrize("scheduled", [True, False])
def test_large_program(tmp_path: Path, scheduled: bool) -> None:
    path = tmp_path / "large.txt"
    text = large_program(INSTRUCTIONS, scheduled)
    assert text.count(" = ") >= INSTRUCTIONS
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory = after.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    steps, values, was_scheduled = json.loads(result.stdout)
    assert steps == values == 2 * (INSTRUCTIONS // 5) + 1
    assert was_scheduled == scheduled
    assert seconds < SECONDS
    assert memory < MEMORY
    print(f"{seconds:.1f} s of one core, {memory / 2**20:.0f} MiB")
