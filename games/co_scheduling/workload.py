"""Batch compositions from request traces, by a simple model of continuous batching.

Formats: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens (Azure's LLM inference
traces; NanoFlow's extracts of ShareGPT and LMSYS-Chat, whose time stamps are XXX), and JSON lines
with timestamp (ms), input_length, output_length (Mooncake).

The model: every iteration computes one token of each request that is being answered, and fills up
to `batch_tokens` with tokens of prompts, in the order of arrival. A request enters when its prompt
and its whole answer fit into the cache. Requests without time stamps are all there at once.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from games.co_scheduling.cost import Batch, Ints
from games.co_scheduling.device import Device, Floats
from games.co_scheduling.model import BYTES, Model
from hlo_frontend.errors import InputError

BATCH_TOKENS = 2048
ITERATION_S = 0.2  # about what 80 layers of a 70B model take
_CSV = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_JSON = ("timestamp", "input_length", "output_length")
_NO_TIME = "XXX"


@dataclass(frozen=True, eq=False)
class Requests:
    """A trace of N requests in order of arrival.

    Attributes:
        arrival: f64[N] seconds since the first.
        prompt, answer: i64[N] tokens.
    """

    arrival: Floats
    prompt: Ints
    answer: Ints


def read_trace(path: Path) -> Requests:
    """The requests of a trace file.

    Raises:
        InputError: no such file, none of the formats, no requests, or not in order of time.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"trace {path}: cannot be read ({error})") from error
    rows = _json_rows(path, text) if text.lstrip().startswith("{") else _csv_rows(path, text)
    arrival: list[float] = []
    prompt: list[int] = []
    answer: list[int] = []
    for line, (time, before, after) in rows:
        if arrival and time < arrival[-1]:
            raise InputError(
                f"trace {path}, line {line}: earlier than the request before; sort it by time"
            )
        if before < 0 or after < 0 or before + after == 0:
            raise InputError(f"trace {path}, line {line}: expected a positive number of tokens")
        arrival.append(time)
        prompt.append(max(before, 1))
        answer.append(max(after, 1))
    if not arrival:
        raise InputError(f"trace {path}: no requests in it; expected one on each line")
    return Requests(np.array(arrival) - arrival[0], np.array(prompt), np.array(answer))


_Rows = Iterator[tuple[int, tuple[float, int, int]]]


def _csv_rows(path: Path, text: str) -> _Rows:
    reader = csv.DictReader(text.splitlines())
    if text.strip() and not set(_CSV) <= set(reader.fieldnames or ()):
        raise InputError(f"trace {path}: expected the columns {','.join(_CSV)}, or JSON lines")
    for row in reader:
        try:
            stamp = row[_CSV[0]]
            time = 0.0 if stamp == _NO_TIME else _seconds(stamp)
            yield reader.line_num, (time, int(row[_CSV[1]]), int(row[_CSV[2]]))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"trace {path}, line {reader.line_num}: expected a time and two whole numbers"
                f" ({error})"
            ) from error


def _seconds(stamp: str) -> float:
    # Azure's stamps have seven digits of a second; Python reads six.
    whole, _, fraction = stamp.partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


def _json_rows(path: Path, text: str) -> _Rows:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row: Any = json.loads(content)
            time, prompt, answer = (row[key] for key in _JSON)
            yield line, (float(time) / 1e3, int(prompt), int(answer))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"trace {path}, line {line}: expected an object with {', '.join(_JSON)} ({error})"
            ) from error


def cache_tokens(model: Model, device: Device, tp: int) -> int:
    """Tokens whose keys and values fit beside the weights."""
    room = device.hbm_bytes * tp - BYTES * model.parameters
    copies = max(1, tp // model.kv_heads)
    return max(int(room / (model.kv_bytes * model.layers * copies)), 0)


def iterations(
    requests: Requests,
    cache: int,
    batch_tokens: int = BATCH_TOKENS,
    iteration_s: float = ITERATION_S,
) -> Iterator[Batch]:
    """The composition of one iteration after another, until the trace is worked off.

    Args:
        requests: the trace.
        cache: tokens that the cache holds.
        batch_tokens: of an iteration, decode and prefill together.
        iteration_s: seconds that each takes, for the arrivals.

    Raises:
        InputError: a request does not fit into the cache alone.
    """
    worst = int((requests.prompt + requests.answer).max())
    if worst > cache or batch_tokens < 1:
        raise InputError(
            f"a request of {worst:,} tokens, a cache of {cache:,} and batches of {batch_tokens}:"
            " expected that the cache holds each request and a batch at least one token"
        )
    waiting = deque(range(len(requests.arrival)))
    prompts: deque[list[int]] = deque()  # [request, tokens of its prompt that are done]
    answering: dict[int, int] = {}  # request -> tokens of its answer that are there
    reserved, now = 0, 0.0
    while waiting or prompts or answering:
        while waiting and requests.arrival[waiting[0]] <= now:
            first = waiting[0]
            needed = int(requests.prompt[first] + requests.answer[first])
            if reserved + needed > cache or len(answering) + len(prompts) >= batch_tokens:
                break
            reserved += needed
            prompts.append([waiting.popleft(), 0])
        if not prompts and not answering:
            now = float(requests.arrival[waiting[0]])
            continue
        decoding = list(answering)
        context = sum(int(requests.prompt[r]) + answering[r] for r in decoding)
        left = batch_tokens - len(decoding)
        prefill = attended = 0
        while prompts and left > 0:
            request, done = prompts[0]
            length = int(requests.prompt[request])
            chunk = min(left, length - done)
            prefill += chunk
            attended += chunk * length
            left -= chunk
            prompts[0][1] += chunk
            if done + chunk == length:
                prompts.popleft()
                answering[request] = 0
        yield Batch(
            len(decoding),
            context / len(decoding) if decoding else 1.0,
            prefill,
            attended / prefill if prefill else 1.0,
        )
        now += iteration_s
        for request in decoding:
            answering[request] += 1
            if answering[request] >= requests.answer[request]:
                del answering[request]
                reserved -= int(requests.prompt[request] + requests.answer[request])


def composition(requests: Requests, cache: int, number: int) -> Batch:
    """The batch of iteration `number`.

    Raises:
        InputError: the trace does not fill so many iterations.
    """
    last = -1
    for last, batch in enumerate(iterations(requests, cache)):
        if last == number:
            return batch
    raise InputError(
        f"iteration {number}: the trace fills {last + 1}; expected a number from 0 to {last}"
    )


def draw(
    requests: Requests, cache: int, count: int, seed: int, *, warm_up: int = 200, within: int = 1500
) -> list[Batch]:
    """Compositions of iterations drawn at random after the first `warm_up`, before `within`.

    Raises:
        InputError: the trace does not fill so many iterations.
    """
    batches = []
    for number, batch in enumerate(iterations(requests, cache)):
        if number >= within:
            break
        if number >= warm_up:
            batches.append(batch)
    if len(batches) < count:
        raise InputError(
            f"the trace fills {len(batches)} iterations after the first {warm_up},"
            f" expected at least {count}"
        )
    chosen = np.random.default_rng(seed).choice(len(batches), count, replace=False)
    return [batches[index] for index in chosen]
