"""`python -m hlo_frontend SOURCE`: one page about a program, and what reading it cost."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter

from hlo_frontend import InputError, Program, load

_MIB = 2**20
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes on macOS, else KiB


def summary(program: Program) -> str:
    """A page of text: steps, values, buffers, loops, and what is in fast memory."""
    steps, values, buffers = program.steps, program.values, program.buffers
    opcodes = Counter(step.opcode for step in steps)
    common = ", ".join(f"{count} {opcode}" for opcode, count in opcodes.most_common(6))
    read = sum(steps[use.step].executions * use.num_bytes for v in values for use in v.uses)
    written = sum(steps[v.def_step].executions * v.def_bytes for v in values)
    largest = sorted(buffers, key=lambda buffer: -buffer.size)[:5]
    lines = [
        f"program      {program.name} from {program.source}",
        f"fingerprint  {program.fingerprint[:16]}",
        f"schedule     {'from the dump' if program.scheduled else 'made here'}",
        f"steps        {len(steps)} ({common})",
        f"values       {len(values)} in {len(buffers)} buffers, of which"
        f" {sum(b.initial for b in buffers)} initial, {sum(b.live_out for b in buffers)} results,"
        f" {sum(b.fixed_space is not None for b in buffers)} in a prescribed memory",
        f"size         {sum(b.size for b in buffers) / _MIB:.1f} MiB of buffers,"
        f" {_peak(program) / _MIB:.1f} MiB alive at once",
        f"work         {sum(s.flops * s.executions for s in steps) / 1e9:.3f} GFLOP,"
        f" {read / _MIB:.1f} MiB read, {written / _MIB:.1f} MiB written",
    ]
    cycles = [s.estimated_cycles * s.executions for s in steps if s.estimated_cycles is not None]
    if cycles:
        lines.append(f"cycles       {sum(cycles)} estimated by the compiler")
    for loop in program.loops:
        count = f"{loop.trip_count}" if loop.trip_known else f"{loop.trip_count} (assumed)"
        lines.append(f"loop         {loop.name}: steps {loop.start}-{loop.end - 1}, {count} times")
    if program.assignment is None:
        lines.append("assignment   none: nothing is in fast memory")
    else:
        stays = program.assignment
        lines.append(
            f"assignment   {len(stays)} stays in fast memory,"
            f" {sum(s.copy_in is not None for s in stays)} copied in,"
            f" {sum(s.copy_out is not None for s in stays)} copied out"
        )
    lines.append("largest      " + "; ".join(_describe(program, b.values[0]) for b in largest))
    return "\n".join(lines)


def _describe(program: Program, value: int) -> str:
    record = program.values[value]
    return f"{record.position} {record.shape} {record.size / _MIB:.2f} MiB"


def _peak(program: Program) -> int:
    """Largest sum of the sizes of buffers that are live at one step."""
    change = [0] * (len(program.steps) + 1)
    for buffer in program.buffers:
        change[buffer.live_start] += buffer.size
        change[buffer.live_end + 1] -= buffer.size
    peak = alive = 0
    for difference in change:
        alive += difference
        peak = max(peak, alive)
    return peak


def main(arguments: list[str]) -> int:
    """Prints the summary; returns the exit status."""
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print("usage: python -m hlo_frontend FILE_OR_FOLDER", file=sys.stderr)
        return 2
    start = time.perf_counter()
    try:
        program = load(arguments[0])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    print(summary(program))
    print(f"read in      {seconds:.2f} s, peak memory {memory / _MIB:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
