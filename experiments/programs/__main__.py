"""Compile the model programs ahead of time: scheduled TPU HLO, assignment on and off.

    python -m experiments.programs --out DIR [--chip v5e] [NAME[:size=2048,...] ...]

writes `NAME.CHIP.txt.gz` and `NAME.CHIP.nomsa.txt.gz` for each program (all by default). Sizes are
the builder's keyword arguments; they become part of the file name, as in `mlp-layers2.v5e.txt.gz`.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from pathlib import Path

from experiments.programs import PROGRAMS
from hlo_frontend.errors import InputError
from hlo_frontend.tpu import ASSIGNMENT_OFF, compile_for_tpu, scheduled_text, write_dump


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.programs")
    parser.add_argument("names", nargs="*", metavar="NAME[:KEY=INT,...]", help="default: all")
    parser.add_argument("--out", type=Path, required=True, help="folder for the dumps")
    parser.add_argument("--chip", default="v5e", help="default: v5e")
    options = parser.parse_args()
    try:
        for spec in options.names or PROGRAMS:
            compile_program(spec, options.chip, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compile_program(spec: str, chip: str, out: Path) -> None:
    """Compile the program `spec` (`NAME` or `NAME:KEY=INT,...`) both ways into folder `out`."""
    name, sizes = parse_spec(spec)
    fn, args = PROGRAMS[name](**sizes)
    stem = "-".join([name, *(f"{key}{value}" for key, value in sizes.items())])
    out.mkdir(parents=True, exist_ok=True)
    for suffix, compiler_options in (("", {}), (".nomsa", ASSIGNMENT_OFF)):
        path = out / f"{stem}.{chip}{suffix}.txt.gz"
        begin = time.perf_counter()
        write_dump(scheduled_text(compile_for_tpu(fn, args, chip, compiler_options)), path)
        seconds = time.perf_counter() - begin
        print(f"{path}: {path.stat().st_size / 1024:.0f} KiB, {seconds:.1f} s", flush=True)


def parse_spec(spec: str) -> tuple[str, dict[str, int]]:
    """`mlp:layers=2,width=512` -> `("mlp", {"layers": 2, "width": 512})`."""
    name, _, tail = spec.partition(":")
    if name not in PROGRAMS:
        raise InputError(f"program {name!r}: unknown, expected one of {', '.join(PROGRAMS)}")
    known = inspect.signature(PROGRAMS[name]).parameters
    sizes: dict[str, int] = {}
    for item in filter(None, tail.split(",")):
        key, _, number = item.partition("=")
        if key not in known or not number.isdecimal():
            raise InputError(
                f"program {spec!r}: {item!r} is not KEY=INT with KEY one of {', '.join(known)}"
            )
        sizes[key] = int(number)
    return name, sizes


if __name__ == "__main__":
    sys.exit(main())
