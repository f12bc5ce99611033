"""Requests and when they arrive: rate files, traces, Poisson and bursty generators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars

from games.power_control.constants import constant
from hlo_frontend.errors import InputError

Floats = npt.NDArray[np.float64]
DAY = 86400
RISE = 1800  # seconds in which the load comes up
TABLE = 4096  # requests of a class, gone through again and again


def request_table(rng: np.random.Generator, size: int = TABLE) -> npt.NDArray[np.float32]:
    """f32[2, size, 2]: seconds of prompt and of tokens of LP and HP requests at full speed."""
    table = np.empty((2, size, 2), np.float32)
    for row, own in enumerate(("summarise", "search")):
        is_chat = rng.random(size) < constant("requests", "chat_share")
        bounds = np.where(is_chat[:, None], constant("requests", "chat"), constant("requests", own))
        tokens_in = rng.uniform(bounds[:, 0], bounds[:, 1])
        tokens_out = rng.uniform(bounds[:, 2], bounds[:, 3])
        table[row] = seconds_of(tokens_in, tokens_out)
    return table


def seconds_of(tokens_in: Floats, tokens_out: Floats) -> npt.NDArray[np.float32]:
    """f32[n, 2]: seconds of prompt and tokens of requests, alone on their servers."""
    known, ms = constant("requests", "prompt_tokens"), constant("requests", "prompt_ms")
    # Beyond the largest prompt that was measured, in proportion.
    prompt = np.interp(tokens_in, known, ms) * np.maximum(tokens_in / known[-1], 1.0) / 1e3
    return np.stack([prompt, tokens_out * constant("requests", "token_ms") / 1e3], 1).astype(
        np.float32
    )


def busy_profile(rates: Sequence[float] | Floats, window: float, seconds: int) -> Floats:
    """f64[seconds] share of the instances kept busy: rates, their p99 at `busy_at_p99`."""
    given = np.asarray(rates, dtype=np.float64)
    centres = (np.arange(len(given)) + 0.5) * window
    profile = np.interp(np.arange(seconds) + 0.5, centres, given)
    return profile / np.quantile(given, 0.99) * constant("arrivals", "busy_at_p99")


def arrivals(
    rng: np.random.Generator,
    busy: Floats,
    instances: int,
    service: Floats,
    cv: float,
) -> npt.NDArray[np.uint8]:
    """u8[seconds, 2] requests of each class that arrive in each second.

    The row starts empty, so the load comes up over the first half hour, lest the fill-up be a rise
    of power that no real row has. Arrivals are Poisson, the rate scaled by one gamma factor of
    mean 1 and coefficient of variation `cv` for each `burst_s`, the same for both classes.

    Args:
        rng: source of chance.
        busy: f64[seconds] share of the instances kept busy.
        instances: of a class.
        service: f64[2] mean seconds of a class's request.
        cv: 0 for Poisson arrivals.
    """
    length = round(constant("arrivals", "burst_s"))
    blocks = -(-len(busy) // length)
    factor = np.ones(blocks) if cv == 0 else rng.gamma(cv**-2, cv**2, blocks)
    rising = np.minimum((np.arange(len(busy)) + 1) / RISE, 1.0)
    rate = busy * rising * np.repeat(factor, length)[: len(busy)]
    return np.minimum(rng.poisson(rate[:, None] * instances / service), 255).astype(np.uint8)


def read_rates(path: Path) -> tuple[Floats, float]:
    """(f64[n] requests a second, seconds of a window) of a ServeGen-style rate file.

    Raises:
        InputError: the file cannot be read, or is no table of `t_s` and `rate_rps` at even steps.
    """
    columns = _columns(path, ("t_s", "rate_rps"))
    time, rate = columns["t_s"], columns["rate_rps"]
    if len(time) < 2 or np.ptp(np.diff(time)) > 1e-6 or time[1] <= time[0]:
        raise InputError(f"{path}: expected two rows or more, t_s at even steps")
    if rate.min() < 0 or rate.max() <= 0:
        raise InputError(f"{path}: expected rate_rps of 0 or more, not all 0")
    return rate, float(time[1] - time[0])


def read_trace(path: Path) -> tuple[Floats, Floats]:
    """(f64[n] s since the first request, f64[n, 2] tokens in, out) of an Azure-style trace.

    Raises:
        InputError: the file cannot be read, or is no table of TIMESTAMP, ContextTokens and
            GeneratedTokens in order of time.
    """
    names = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    columns = _columns(path, names)
    seconds = columns["TIMESTAMP"] - columns["TIMESTAMP"][0]
    if (np.diff(seconds) < 0).any():
        raise InputError(f"{path}: TIMESTAMP goes backwards; sort the requests by it")
    tokens = np.stack([columns[names[1]], columns[names[2]]], 1)
    if (tokens < 0).any() or seconds[-1] <= 0:
        raise InputError(f"{path}: expected tokens of 0 or more, and time that passes")
    return seconds, tokens


def _columns(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    try:
        frame = polars.read_csv(path, infer_schema_length=None)
    except (OSError, polars.exceptions.PolarsError) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise InputError(f"{path}: cannot be read as CSV ({first})") from error
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise InputError(f"{path}: no column {absent[0]}; expected {', '.join(names)}")
    found: dict[str, Floats] = {}
    for name in names:
        column = frame[name]
        if column.dtype == polars.String:
            with suppress(polars.exceptions.PolarsError):  # words, which no cast makes numbers of
                column = column.str.to_datetime(strict=False, time_unit="us").dt.epoch("us") / 1e6
        numbers = column.cast(polars.Float64, strict=False).fill_null(np.nan).to_numpy()
        if not len(numbers) or not np.isfinite(numbers).all():
            raise InputError(f"{path}: column {name} has values that are no numbers, or none")
        found[name] = numbers
    return found
