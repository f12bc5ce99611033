"""Chunks as a user hands them over: text, strings, mappings, or lines of a JSONL file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]
CountTokens = Callable[[str], int]

MOST_TOKENS = 2**53
LARGEST = 1e100  # of scores and embeddings: their squares are numbers still

_PIECE = re.compile(r"\w+|[^\w\s]")
_LETTERS_PER_PIECE = 6  # of a word; subword vocabularies split longer ones


@dataclass(frozen=True)
class Chunk:
    """A piece of text that may go into the context.

    Attributes:
        id: unique among the candidates.
        text: what the reader of the context sees.
        n_tokens: its cost; None is counted by the caller's tokenizer when a problem is made.
        score: the retriever's score, higher is better; None if there is none.
        embedding: f64[d], None if there is none.
        title: of its document; empty if unknown.
        metadata: the user's own, handed back untouched.
    """

    id: str
    text: str
    n_tokens: int | None = None
    score: float | None = None
    embedding: Floats | None = None
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def count_tokens(text: str) -> int:
    """Words and signs, long words as several: an estimate for whoever has no tokenizer at hand."""
    return sum(-(-len(piece) // _LETTERS_PER_PIECE) for piece in _PIECE.findall(text))


def make_chunks(
    given: Iterable[str | Chunk | Mapping[str, Any]],
    tokenizer: CountTokens | None = None,
    *,
    source: str = "chunks",
) -> tuple[Chunk, ...]:
    """Checked chunks with their token counts.

    Args:
        given: texts (their ids are their positions), chunks, or mappings with the fields of a line
            of JSONL (`id` and `text`, optionally `score, embedding, n_tokens, title, metadata`).
        tokenizer: number of tokens of a text, for chunks without `n_tokens`.
        source: names the chunks in errors.

    Raises:
        InputError: none at all, a doubled id, a score or an embedding that is not finite,
            embeddings of different lengths, a token count below 1.
    """
    count = tokenizer or count_tokens
    if isinstance(given, str | bytes | Mapping | Chunk) or not isinstance(given, Iterable):
        raise InputError(f"{source}: {type(given).__name__}, expected a list of chunks")
    chunks = [
        _chunk(each, f"{source}, chunk {place + 1}", place, count)
        for place, each in enumerate(given)
    ]
    if not chunks:
        raise InputError(f"{source}: no chunks; give at least one candidate")
    seen: set[str] = set()
    for chunk in chunks:
        if chunk.id in seen:
            raise InputError(f"{source}: the id {chunk.id!r} is there twice; make ids unique")
        seen.add(chunk.id)
    lengths = {len(c.embedding) for c in chunks if c.embedding is not None}
    if len(lengths) > 1:
        raise InputError(
            f"{source}: embeddings of lengths {', '.join(map(str, sorted(lengths)))};"
            " embed all chunks with one model"
        )
    return tuple(chunks)


def _chunk(
    given: str | Chunk | Mapping[str, Any], where: str, place: int, count: CountTokens
) -> Chunk:
    if isinstance(given, str):
        chunk = Chunk(str(place), given)
    elif isinstance(given, Chunk):
        chunk = given
    elif isinstance(given, Mapping):
        chunk = _from_mapping(given, where)
    else:
        raise InputError(
            f"{where}: {type(given).__name__}, expected a text, a Chunk, or a mapping with id and"
            " text"
        )
    if isinstance(chunk.id, bool) or not isinstance(chunk.id, str | int | np.integer):
        raise InputError(f"{where}: id {chunk.id!r}, expected a string")
    for name, text in (("text", chunk.text), ("title", chunk.title)):
        if not isinstance(text, str):
            raise InputError(f"{where}: {name} is {type(text).__name__}, expected a string")
    score = chunk.score
    if score is not None:
        if isinstance(score, bool) or not isinstance(score, float | int | np.number):
            raise InputError(f"{where} ({chunk.id}): score {score!r}, expected a number")
        if not abs(float(score)) <= LARGEST:
            raise InputError(f"{where} ({chunk.id}): score {score}, expected a finite number")
    embedding = chunk.embedding
    if embedding is not None:
        embedding = embedding_of(embedding, f"{where} ({chunk.id})")
    tokens = chunk.n_tokens
    if tokens is None:
        tokens = max(_counted(count, chunk.text, where), 1)
    if not is_count(tokens, 1):
        raise InputError(f"{where} ({chunk.id}): n_tokens {tokens!r}, expected a positive integer")
    return replace(
        chunk,
        id=str(chunk.id),
        n_tokens=int(tokens),
        score=None if score is None else float(score),
        embedding=embedding,
    )


def is_count(number: Any, least: int) -> bool:
    """Whether it is a whole number from `least` to MOST_TOKENS."""
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return whole and least <= number <= MOST_TOKENS


def _counted(count: CountTokens, text: str, where: str) -> int:
    try:
        tokens = count(text)
    except Exception as error:  # a user's function may raise anything
        said = " ".join(str(error).split())
        raise InputError(
            f"{where}: the tokenizer failed: {type(error).__name__} {said}".rstrip()
        ) from error
    if not is_count(tokens, 0):
        raise InputError(
            f"{where}: the tokenizer returned {tokens!r:.40}, expected a number of tokens;"
            " pass a function such as lambda text: len(tokenizer.encode(text))"
        )
    return int(tokens)


def embedding_of(given: Any, where: str) -> Floats:
    """f64[d] of a sequence of finite numbers.

    Raises:
        InputError: it is not one.
    """
    try:
        embedding = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: embedding is not a list of numbers") from None
    if embedding.ndim != 1 or not len(embedding) or not (np.abs(embedding) <= LARGEST).all():
        raise InputError(f"{where}: embedding is not a list of finite numbers")
    return embedding


def _from_mapping(data: Mapping[str, Any], where: str) -> Chunk:
    for key in ("id", "text"):
        if key not in data:
            raise InputError(f"{where}: no {key!r}; a chunk has at least id and text")
    metadata = data.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise InputError(f"{where} ({data['id']}): metadata is no object")
    return Chunk(
        id=data["id"],
        text=data["text"],
        n_tokens=data.get("n_tokens"),
        score=data.get("score"),
        embedding=data.get("embedding"),
        title=data.get("title") or "",
        metadata=metadata,
    )


def read_jsonl(path: Path, tokenizer: CountTokens | None = None) -> tuple[Chunk, ...]:
    """The chunks of a file of JSON lines, each with at least `id` and `text`.

    Raises:
        InputError: no such file, not UTF-8, a line that is not a JSON object, or bad chunks.
    """
    return make_chunks(read_lines(path), tokenizer, source=str(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; empty lines do not count.

    Raises:
        InputError: the file cannot be read, or a line is no JSON object.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from error
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object")
        rows.append(row)
    return rows


def write_jsonl(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as UTF-8 JSON lines."""
    return b"".join(f"{to_json_text(row)}\n".encode() for row in rows)


def to_json_text(data: Any, indent: int | None = None) -> str:
    """JSON with letters as they are; all are escaped where one of them has no UTF-8 (half of a
    surrogate pair).
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=indent)
    if text != printable(text):
        text = json.dumps(data, allow_nan=False, indent=indent)
    return text


def printable(text: str) -> str:
    """The text with a question mark for what has no UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
