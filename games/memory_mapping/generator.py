"""Training problems from bundled programs, and the programs that are never trained on.

A training problem is a program on a chip with other bandwidths, another peak and another size of
fast memory. The split is by program: what is tested is another text, not another seed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from games.memory_mapping.chips import get_chip
from games.memory_mapping.problem import MemoryMappingProblem, from_program
from hlo_frontend import Program, load
from hlo_frontend.examples import example_path

TRAINING = (
    "alexnet",
    "alexnet-batch8",
    "alexnet-batch128",
    "mlp",
    "mlp-layers8-width2048",
    "decode",
    "decode-layers2",
    "transformer_train-layers1-width512",
    "transformer_train-layers2-width256",
    "transformer_train-layers3-width384",
)
TEST = ("strassen49", "resnet50", "scan_transformer")
CHIP = "v5e"
LARGEST_SHARE = 0.8  # of all bytes that are alive at once: more is no problem
SPREAD = 2.0  # factor, both ways, on bandwidths and the peak


def training_problem(seed: int) -> MemoryMappingProblem:
    """A program of TRAINING, a chip and a size of fast memory, all drawn."""
    random = np.random.default_rng(seed)
    program = _program(TRAINING[int(random.integers(len(TRAINING)))])
    chip = get_chip(CHIP)
    slow, fast, peak = SPREAD ** random.uniform(-1, 1, 3)
    chip = replace(
        chip,
        slow_bandwidth=chip.slow_bandwidth * slow,
        fast_bandwidth=chip.fast_bandwidth * fast,
        peak_flops=chip.peak_flops * peak,
    )
    return from_program(program, chip, _size(program, float(random.uniform())))


def test_problems(count: int) -> list[tuple[str, MemoryMappingProblem]]:
    """(name, problem) of `count` problems of programs that are never trained on."""
    chosen = []
    for number in range(count):
        name = TEST[number % len(TEST)]
        program = _program(name)
        # Spread evenly over the sizes, whatever their number.
        size = _size(program, (number // len(TEST) + 0.5) * len(TEST) / max(count, len(TEST)) % 1.0)
        problem = from_program(program, get_chip(CHIP), size)
        chosen.append((f"{name}, {size / 2**20:.1f} MiB", problem))
    return chosen


@cache
def _program(name: str) -> Program:
    return load(example_path(f"{name}.{CHIP}.nomsa"))


def _size(program: Program, share: float) -> int:
    """Bytes between the smallest value and most of what is alive at once, on a logarithmic line."""
    sizes = [buffer.size for buffer in program.buffers if buffer.fixed_space is None]
    smallest = max(min(size for size in sizes if size > 0), 2**20)
    alive = np.zeros(len(program.steps) + 1, dtype=np.int64)
    for buffer in program.buffers:
        alive[buffer.live_start] += buffer.size
        alive[min(buffer.live_end + 1, len(program.steps))] -= buffer.size
    largest = LARGEST_SHARE * min(int(np.cumsum(alive).max()), get_chip(CHIP).fast_bytes)
    return int(smallest * (max(largest, 2.0 * smallest) / smallest) ** share)
