"""Trace readers and the model of continuous batching."""

from __future__ import annotations

import numpy as np
import pytest
from co_instances import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.workload import (
    Requests,
    cache_tokens,
    composition,
    draw,
    iterations,
    read_trace,
)
from hlo_frontend.errors import InputError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_formats(tmp_path):
    path = tmp_path / "trace"
    path.write_text(
        HEADER + "2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:05.0000000,30,2\n"
    )
    azure = read_trace(path)
    assert azure.arrival == pytest.approx([0.0, 1.02004])
    assert azure.prompt.tolist() == [48, 30]
    path.write_text(HEADER + "XXX,42,285\nXXX,19,82\n")
    assert read_trace(path).arrival.tolist() == [0.0, 0.0]
    line = '{"timestamp": %d, "input_length": 6758, "output_length": 500, "hash_ids": [0]}\n'
    path.write_text(line % 500 + line % 1500)
    mooncake = read_trace(path)
    assert mooncake.arrival.tolist() == [0.0, 1.0]
    assert mooncake.answer.tolist() == [500, 500]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no requests in it"),
        (HEADER, "no requests in it"),
        ("a,b\n1,2\n", "expected the columns"),
        (HEADER + "XXX,many,2\n", "line 2: expected a time and two whole numbers"),
        (HEADER + "yesterday,1,2\n", "line 2: expected a time"),
        (HEADER + "XXX,0,0\n", "expected a positive number of tokens"),
        (
            HEADER + "2023-11-16 18:17:05.0,1,2\n2023-11-16 18:17:03.0,1,2\n",
            "line 3: earlier than the request before; sort it by time",
        ),
        ('{"timestamp": 1}\n', "line 1: expected an object with timestamp"),
    ],
)
def test_bad_traces_are_one_line(tmp_path, text, expected):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_trace(path)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_requests_by_hand():
    requests = Requests(np.zeros(2), np.array([3, 4]), np.array([2, 1]))
    found = [
        (b.decode_tokens, b.prefill_tokens, b.decode_context)
        for b in iterations(requests, 100, batch_tokens=5)
    ]
    # Three tokens of the first prompt and two of the second; then its rest beside the first answer.
    assert found == [(0, 5, 1.0), (1, 2, 3.0), (2, 0, 4.0)]
    cache = 100
    assert composition(requests, cache, 0).prefill_tokens == 7
    with pytest.raises(InputError, match="the trace fills 3; expected a number from 0 to 2"):
        composition(requests, cache, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 64))
def test_every_token_is_computed_once_and_batches_are_kept(seed, batch_tokens):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 30))
    requests = Requests(np.sort(rng.random(n) * 5), rng.integers(1, 40, n), rng.integers(1, 12, n))
    batches = list(iterations(requests, 120, batch_tokens))
    assert sum(b.prefill_tokens for b in batches) == requests.prompt.sum()
    assert sum(b.decode_tokens for b in batches) == requests.answer.sum()
    assert all(b.tokens <= batch_tokens for b in batches)
    # The cache holds 120 tokens, and what is decoded attends to no more.
    assert all(b.decode_tokens * b.decode_context <= 120 for b in batches if b.decode_tokens)


def test_a_request_larger_than_the_cache_is_refused():
    with pytest.raises(InputError, match="expected that the cache holds each request"):
        list(iterations(Requests(np.zeros(1), np.array([30]), np.array([2])), 31))


@pytest.mark.parametrize(
    "name",
    ["azure2023_conv.csv", "azure2023_code.csv", "nanoflow_sharegpt.csv", "nanoflow_lmsys.csv",
     "mooncake_conversation.jsonl"],
)  # fmt: skip
def test_real_traces(name):
    requests = read_trace(shared("llm_traces", name))
    assert len(requests.arrival) > 1000
    cache = cache_tokens(get_model("llama-2-70b"), get_device("a100"), 8)
    assert 1_000_000 < cache < 2_000_000
    batches = draw(requests, cache, 3, seed=0, warm_up=20, within=100)
    assert all(0 < batch.tokens <= 2048 for batch in batches)
    again = draw(requests, cache, 3, seed=0, warm_up=20, within=100)
    assert batches == again
