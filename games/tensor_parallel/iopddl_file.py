"""The contest's problem files: `.json` and `.json.gz`, read as a stream, and written.

    {"problem": {"name", "nodes": {"intervals": [[begin, end], ...], "costs": [[...], ...],
     "usages": [[...], ...]}, "edges": {"nodes": [[a, b], ...], "costs": [[...], ...]},
     "usage_limit"}}

The largest files of the contest are hundreds of MB of numbers, which a general JSON reader turns
into as many objects. Here a native scanner turns lists of lists of whole numbers into arrays, one
piece of the file at a time, so that memory holds little more than the problem itself.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from numba import njit

from games.files import replace_file
from games.tensor_parallel.problem import Ints, ShardingProblem
from hlo_frontend.errors import InputError

PIECE = 1 << 22  # bytes read at a time
_SPACE = b" \t\r\n"
_ROOM = 922337203685477579  # one more digit still fits an i64

# What the scanner expects next, and how it ends.
_FIRST_ROW, _ROW, _AFTER_ROW, _FIRST_NUMBER, _NUMBER, _IN_NUMBER, _AFTER_NUMBER, _DONE = range(8)
_UNEXPECTED, _TOO_LARGE = 8, 9


@njit(cache=True, nogil=True)
def _scan(
    text: npt.NDArray[np.uint8], begin: int, state: Ints, values: Ints, ends: Ints
) -> tuple[int, int]:
    """Reads on from `begin`; (position after what was read, what is expected next).

    `state` holds what is expected, the number being read, whether it is negative, and the numbers
    of values and rows so far; the row ends and values go to the arrays.
    """
    expect, number, negative, count, rows = state[0], state[1], state[2], state[3], state[4]
    at = begin
    while at < text.size and expect < _DONE:
        byte = text[at]
        if expect == _IN_NUMBER:
            if 48 <= byte <= 57:
                if number >= _ROOM:
                    expect = _TOO_LARGE
                    break
                number = number * 10 + (byte - 48)
                at += 1
                continue
            values[count] = -number if negative else number
            count += 1
            expect = _AFTER_NUMBER
        if byte in (32, 9, 10, 13):
            pass
        elif expect in (_FIRST_NUMBER, _NUMBER):
            if 48 <= byte <= 57:
                number, negative, expect = np.int64(byte - 48), 0, _IN_NUMBER
            elif byte == 45 and at + 1 < text.size and 48 <= text[at + 1] <= 57:
                at += 1
                number, negative, expect = np.int64(text[at] - 48), 1, _IN_NUMBER
            elif byte == 45 and at + 1 == text.size:
                break  # the digits are in the next piece
            elif byte == 93 and expect == _FIRST_NUMBER:
                ends[rows] = count
                rows += 1
                expect = _AFTER_ROW
            else:
                expect = _UNEXPECTED
                break
        elif expect == _AFTER_NUMBER:
            if byte == 44:
                expect = _NUMBER
            elif byte == 93:
                ends[rows] = count
                rows += 1
                expect = _AFTER_ROW
            else:
                expect = _UNEXPECTED
                break
        elif byte == 91 and expect != _AFTER_ROW:
            expect = _FIRST_NUMBER
        elif byte == 44 and expect == _AFTER_ROW:
            expect = _ROW
        elif byte == 93 and expect != _ROW:
            expect = _DONE
        else:
            expect = _UNEXPECTED
            break
        at += 1
    state[0], state[1], state[2], state[3], state[4] = expect, number, negative, count, rows
    return at, expect


class _Stream:
    """The text of a file, a piece at a time."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self.file = file
        self.piece = b""
        self.at = 0
        self.where = "the top level"

    def fail(self, why: str) -> InputError:
        return InputError(f"{self.path}: {self.where}: {why}")

    def refill(self) -> None:
        """Goes on to the next bytes, with what is left of the old ones in front."""
        try:
            more = self.file.read(PIECE)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.fail(f"the gzip file is damaged ({error}); fetch it again") from error
        if not more:
            raise self.fail("the file ends in the middle; it was cut short, fetch it again")
        self.piece = self.piece[self.at :] + more
        self.at = 0

    def peek(self) -> int:
        """The next byte that is no space."""
        while True:
            while self.at < len(self.piece):
                if self.piece[self.at] not in _SPACE:
                    return self.piece[self.at]
                self.at += 1
            self.refill()

    def take(self, expected: bytes) -> None:
        byte = self.peek()
        if byte != expected[0]:
            raise self.fail(f"found {bytes([byte])!r}, expected {expected!r}; is this IOPDDL JSON?")
        self.at += 1

    def scalar(self) -> object:
        """A string, a number, true, false or null."""
        quoted = self.peek() == ord('"')
        text = bytearray()
        while True:
            if self.at == len(self.piece):
                self.refill()
            byte = self.piece[self.at]
            if not quoted and byte in b",]} \t\r\n":
                break
            text.append(byte)
            self.at += 1
            if quoted and byte == ord('"') and len(text) > 1:
                slashes = len(text) - 1 - len(text[:-1].rstrip(b"\\"))
                if slashes % 2 == 0:
                    break
        try:
            value: object = json.loads(text)
        except ValueError:
            raise self.fail(f"found {bytes(text[:40])!r}, expected a value") from None
        return value

    def key(self, first: bool) -> str | None:
        """The next key of an object that was entered, None at its end."""
        if self.peek() == ord("}"):
            self.at += 1
            return None
        if not first:
            self.take(b",")
        if self.peek() != ord('"'):
            raise self.fail("expected a quoted key")
        name = str(self.scalar())
        self.take(b":")
        return name

    def skip(self) -> None:
        """A value of any kind that nobody asked for."""
        byte = self.peek()
        if byte not in b"[{":
            self.scalar()
            return
        close = b"]" if byte == ord("[") else b"}"
        self.at += 1
        first = True
        while self.peek() != close[0]:
            if not first:
                self.take(b",")
            first = False
            if close == b"}":
                self.scalar()
                self.take(b":")
            self.skip()
        self.at += 1

    def rows(self) -> tuple[Ints, Ints]:
        """A list of lists of whole numbers: (i64[...] all numbers, i64[R + 1] where rows start)."""
        self.take(b"[")
        state = np.array([_FIRST_ROW, 0, 0, 0, 0], dtype=np.int64)
        values, ends = np.empty(0, np.int64), np.zeros(1, np.int64)
        while True:
            text = np.frombuffer(self.piece, dtype=np.uint8)
            values = _with_room(values, int(state[3]) + (len(text) - self.at) // 2 + 2)
            ends = _with_room(ends, int(state[4]) + (len(text) - self.at) // 2 + 3)
            self.at, expect = _scan(text, self.at, state, values, ends[1:])
            if expect == _DONE:
                count, rows = int(state[3]), int(state[4])
                return values[:count].copy(), ends[: rows + 1].copy()
            if expect == _TOO_LARGE:
                raise self.fail(f"row {state[4]}: a number does not fit 64 bits")
            if expect == _UNEXPECTED:
                found = self.piece[self.at : self.at + 12].decode("utf-8", "replace")
                raise self.fail(
                    f"row {state[4]}: found {found!r}, expected whole numbers in brackets"
                    " (10**18 for what is not allowed)"
                )
            self.refill()


def _with_room(array: Ints, room: int) -> Ints:
    if len(array) >= room:
        return array
    larger = np.zeros(max(room, len(array) * 3 // 2), dtype=np.int64)
    larger[: len(array)] = array
    return larger


def read_problem(path: Path) -> ShardingProblem:
    """Reads a problem of the contest.

    Raises:
        InputError: the file cannot be read, is cut short, or is no such problem.
    """
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not packed:
                return _read(_Stream(path, plain))
            with gzip.open(plain) as unpacked:
                return _read(_Stream(path, unpacked))  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_problem(path: Path, problem: ShardingProblem) -> None:
    """Writes a problem in the contest's format, compressed if the path ends in `.gz`.

    Raises:
        InputError: the file cannot be written.
    """

    def rows(values: Ints, starts: Ints) -> list[list[int]]:
        return [part.tolist() for part in np.split(values, starts[1:-1])] if len(starts) > 1 else []

    nodes = {
        "intervals": problem.interval.tolist(),
        "costs": rows(problem.node_cost, problem.node_start),
        "usages": rows(problem.node_usage, problem.node_start),
    }
    edges = {
        "nodes": problem.edge_nodes.tolist(),
        "costs": rows(problem.edge_cost, problem.edge_start),
    }
    content: dict[str, object] = {"name": problem.name, "nodes": nodes, "edges": edges}
    if problem.usage_limit is not None:
        content["usage_limit"] = problem.usage_limit
    data = json.dumps({"problem": content}, separators=(",", ":")).encode()
    # No date: the same problem makes the same file.
    replace_file(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _read(stream: _Stream) -> ShardingProblem:
    found: dict[str, tuple[Ints, Ints]] = {}
    name: object = ""
    limit: object = None
    seen = False
    stream.take(b"{")
    first = True
    while (key := stream.key(first)) is not None:
        first = False
        if key != "problem":
            stream.skip()
            continue
        seen = True
        stream.take(b"{")
        inner = True
        while (part := stream.key(inner)) is not None:
            inner = False
            stream.where = part
            if part == "name":
                name = stream.scalar()
            elif part == "usage_limit":
                limit = stream.scalar()
                if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
                    raise stream.fail(f"{limit!r} is no whole number")
            elif part in ("nodes", "edges"):
                stream.take(b"{")
                start = True
                while (table := stream.key(start)) is not None:
                    start = False
                    stream.where = f"{part}.{table}"
                    if stream.where in _TABLES:
                        found[stream.where] = stream.rows()
                    else:
                        stream.skip()
                stream.where = part
            else:
                stream.skip()
        stream.where = "the top level"
    if not seen:
        raise stream.fail("no key 'problem', expected an IOPDDL problem")
    missing = [table for table in _TABLES if table not in found]
    if missing:
        raise InputError(f"{stream.path}: problem has no {missing[0]}")
    return _assemble(stream.path, str(name), limit, found)


_TABLES = ("nodes.intervals", "nodes.costs", "nodes.usages", "edges.nodes", "edges.costs")


def _assemble(
    path: Path, name: str, limit: object, found: dict[str, tuple[Ints, Ints]]
) -> ShardingProblem:
    for table in ("nodes.intervals", "edges.nodes"):
        widths = np.diff(found[table][1])
        if (widths != 2).any():
            row = int((widths != 2).argmax())
            raise InputError(f"{path}: {table}: row {row} has {widths[row]} numbers, expected 2")
    costs, starts = found["nodes.costs"]
    usages, usage_starts = found["nodes.usages"]
    intervals = found["nodes.intervals"][0].reshape(-1, 2)
    if not len(starts) == len(usage_starts) == len(intervals) + 1:
        raise InputError(
            f"{path}: nodes: {len(intervals)} intervals, {len(starts) - 1} rows of costs and"
            f" {len(usage_starts) - 1} of usages, expected as many of each"
        )
    differ = np.diff(starts) != np.diff(usage_starts)
    if differ.any():
        node = int(differ.argmax())
        raise InputError(
            f"{path}: node {node} has {np.diff(starts)[node]} costs and"
            f" {np.diff(usage_starts)[node]} usages, expected as many"
        )
    pairs = found["edges.nodes"][0].reshape(-1, 2)
    edge_costs, edge_starts = found["edges.costs"]
    if len(pairs) != len(edge_starts) - 1:
        raise InputError(
            f"{path}: edges: {len(pairs)} pairs of nodes and {len(edge_starts) - 1} rows of costs,"
            " expected as many"
        )
    try:
        return ShardingProblem(
            name=name or path.name,
            node_start=starts,
            node_cost=costs,
            node_usage=usages,
            interval=intervals,
            edge_nodes=pairs,
            edge_start=edge_starts,
            edge_cost=edge_costs,
            usage_limit=limit if isinstance(limit, int) else None,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
