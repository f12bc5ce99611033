"""The stays as a CSV of MiniMalloc."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from mapping_makers import CHIP, ProgramBuilder, random_mapping, random_problem
from outputs_support import deep_program, greedy_mapping

from games.memory_mapping.minimalloc_csv import to_csv, write
from games.memory_mapping.problem import from_program
from games.memory_mapping.solution import FastInterval, Mapping
from hlo_frontend.errors import InputError
from hlo_frontend.program import CopyWindow


def test_content(tmp_path: Path) -> None:
    make = ProgramBuilder()
    for k in range(4):
        make.step(f"op.{k}", flops=0 if k == 1 else 10)
    make.value(make.buffer(initial=True), 30, 0, [0, 3], name="w")
    make.value(make.buffer(), 16, 2, [3], name="x{0,1}")
    program = make.build()
    problem = from_program(program, CHIP)
    mapping = Mapping(
        (
            FastInterval(1, 1, 3, 0),
            FastInterval(0, 0, 1, 16, CopyWindow(0, 0)),
            FastInterval(0, 2, 3, 16, CopyWindow(2, 2)),
        )
    )
    expected = "id,lower,upper,size,offset\nw@0,0,1,32,16\nx{0;1}@2,2,4,16,0\nw@3,3,4,32,16\n"
    assert to_csv(program, problem, mapping) == expected
    write(tmp_path / "stays.csv", program, problem, mapping)
    assert (tmp_path / "stays.csv").read_text() == expected
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "no" / "stays.csv", program, problem, mapping)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_valid_allocation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    if seed:
        program, problem = random_problem(rng)
        mapping = random_mapping(rng, problem)
    else:
        program = deep_program(300)
        problem = from_program(program, CHIP)
        mapping = greedy_mapping(problem)
    rows = list(csv.DictReader(io.StringIO(to_csv(program, problem, mapping))))
    assert len(rows) == len(mapping.intervals)
    assert len({row["id"] for row in rows}) == len(rows)
    used = np.zeros((len(program.steps), problem.capacity // CHIP.alignment), dtype=int)
    for row in rows:
        low, size = int(row["offset"]), int(row["size"])
        assert low + size <= problem.capacity
        cells = slice(low // CHIP.alignment, (low + size) // CHIP.alignment)
        used[int(row["lower"]) : int(row["upper"]), cells] += 1
    assert used.max(initial=0) <= 1
