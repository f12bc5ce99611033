"""Watts of a row from Prometheus metrics, NVIDIA's DCGM exporter above all."""

from __future__ import annotations

import math
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse

from prometheus_client.parser import text_string_to_metric_families

from games.power_control.constants import constant

METRIC = "DCGM_FI_DEV_POWER_USAGE"
MOST_BYTES = 64 * 2**20


class ScrapeError(Exception):
    """The exporter gave nothing that can be used; the message says what."""


def _page(answer: HTTPResponse, until: float) -> bytes:
    """The whole answer; `timeout` bounds each wait for a part of it, `until` all of them.

    Raises:
        OSError: it does not end.
    """
    parts, size = [], 0
    while part := answer.read1(MOST_BYTES):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES or time.monotonic() > until:
            raise OSError("its page does not end")
    return b"".join(parts)


def scrape(url: str, *, metric: str = METRIC, servers: int, timeout: float = 1.5) -> float:
    """Watts of the row.

    The metric of DCGM is in watts of one GPU; supply, processors and fans are added to it by the
    server's constants. Any other metric counts as watts of the row, summed over its series.

    Args:
        url: of the exporter's text page.
        metric: its name.
        servers: that the exporter, or the Prometheus in front of it, reports on.
        timeout: seconds.

    Raises:
        ScrapeError: no answer, or garbage.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            text = _page(answer, time.monotonic() + timeout).decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        raise ScrapeError(f"{url}: no answer ({error})") from error
    values = []
    try:
        for family in text_string_to_metric_families(text):
            values += [sample.value for sample in family.samples if sample.name == metric]
    except Exception as error:  # the parser raises what it stumbles over, of many kinds
        raise ScrapeError(f"{url}: not the text of an exporter ({error})") from error
    if not values:
        raise ScrapeError(f"{url}: no metric {metric}")
    total = math.fsum(values)
    if not math.isfinite(total):
        raise ScrapeError(f"{url}: {metric} has values that are no numbers")
    if metric != METRIC:
        return total
    return servers * float(constant("server", "fixed_w")) + total * float(
        constant("server", "per_gpu_watt")
    )
