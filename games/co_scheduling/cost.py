"""Seconds of the operations of one layer on one device of a tensor-parallel group.

GEMM: an output tile is one multiprocessor's work, tiles run in waves, and a wave takes as long if
it is not full; long inner products may be split (split-K), for which partial sums are added up in
memory. Attention and network: a latency and a rate each, or measured tables (`profiles.py`).

`paper_table` has the formulas of NanoFlow (arXiv 2408.12757), section 3 and table 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from games.co_scheduling.device import Device, Floats
from games.co_scheduling.model import BYTES, Model
from hlo_frontend.errors import InputError

MAX_SPLIT = 5  # parts of an inner product
Ints = npt.NDArray[np.int64]


class Work(IntEnum):
    """Kinds of work; each has a row of `seconds_by_tokens`."""

    KQV = 0
    DECODE = 1  # attention of tokens that each read a whole cache
    PREFILL = 2  # attention inside prompts
    GATHER = 3  # all-gather of what attention made
    O_GATHERED = 4  # output projection, all rows, a share of the columns
    O_PARTIAL = 5  # output projection, a share of the rows: partial sums
    GATHER_O = 6  # all-gather after the former
    REDUCE = 7  # all-reduce, after the latter and after the down projection
    UP_GATE = 8
    DOWN = 9


@dataclass(frozen=True)
class Batch:
    """What one iteration of continuous batching computes.

    Attributes:
        decode_tokens: one of each request that is being answered.
        decode_context: tokens that each of them attends to, on average.
        prefill_tokens: of prompts.
        prefill_context: tokens that each of them attends to, on average; NanoFlow counts the whole
            prompt.
    """

    decode_tokens: int
    decode_context: float
    prefill_tokens: int
    prefill_context: float = 512.0

    def __post_init__(self) -> None:
        if min(self.decode_tokens, self.prefill_tokens) < 0 or not self.tokens:
            raise InputError(
                f"batch of {self.decode_tokens} decode and {self.prefill_tokens} prefill tokens:"
                " expected at least one token, and no negative number"
            )
        if not (self.decode_context > 0 and self.prefill_context > 0):
            raise InputError("the context of a batch: expected a positive number of tokens")

    @property
    def tokens(self) -> int:
        """Rows of the GEMMs."""
        return self.decode_tokens + self.prefill_tokens


def check_fits(model: Model, device: Device, tp: int, batch: Batch) -> None:
    """Raises InputError unless the degree divides the heads and weights and cache fit."""
    if tp < 1 or model.heads % tp or model.ffn % tp or model.hidden % tp:
        raise InputError(
            f"tensor-parallel degree {tp}: expected one that divides the {model.heads} heads,"
            f" the width {model.hidden} and the feed-forward width {model.ffn} of {model.name}"
        )
    if max(model.kv_heads, tp) % min(model.kv_heads, tp):
        raise InputError(
            f"tensor-parallel degree {tp}: expected one that divides the {model.kv_heads}"
            f" key-value heads of {model.name}, or a multiple of them"
        )
    copies = max(1, tp // model.kv_heads)  # of each key-value head
    cached = batch.decode_tokens * batch.decode_context + batch.prefill_tokens
    needed = BYTES * model.parameters + cached * model.kv_bytes * model.layers * copies
    room = device.hbm_bytes * tp
    if needed > room:
        raise InputError(
            f"batch of {cached:,.0f} cached tokens: weights and cache need {needed / 1e9:,.1f} GB,"
            f" {tp} x {device.name} have {room / 1e9:,.1f}; expected a smaller batch or context,"
            " or a larger degree"
        )


def gemm_seconds(
    device: Device, rows: npt.ArrayLike, columns: int, inner: int, groups: int = 1
) -> Floats:
    """f64 like `rows`: time of [rows, inner] x [inner, columns], `groups` of them side by side."""
    m = np.asarray(rows, dtype=np.float64)
    traffic = BYTES * groups * (m * inner + inner * columns + m * columns)
    flops = 2.0 * groups * m * columns * inner
    if device.sms == 0:
        compute = flops / (device.flops * device.gemm_efficiency)
        best = np.asarray(compute + device.gemm_launch_s)
    else:
        best = np.full(m.shape, np.inf)
        rate = device.flops / device.sms * device.gemm_efficiency
        for tile_rows, tile_columns in device.gemm_tiles:
            tiles = groups * np.ceil(m / tile_rows) * np.ceil(columns / tile_columns)
            for split in range(1, MAX_SPLIT + 1):
                waves = np.ceil(tiles * split / device.sms)
                seconds = waves * (2.0 * tile_rows * tile_columns * inner / split) / rate
                if split > 1:
                    partial = 8.0 * split * groups * m * columns
                    seconds = seconds + partial / device.gemm_split_bytes_per_s
                best = np.minimum(best, seconds + device.gemm_launch_s)
    return np.maximum(best, traffic / device.hbm_bytes_per_s + device.gemm_launch_s)


def decode_seconds(device: Device, model: Model, tp: int, tokens: Ints, context: float) -> Floats:
    """f64 like `tokens`: decode attention; it reads the cache of `context` tokens for each."""
    heads = model.heads // tp
    cache = max(1, model.kv_heads // tp) * 2 * model.head_dim * BYTES * context
    a_token = device.decode_head_s * heads + cache / (
        device.hbm_bytes_per_s * device.decode_bandwidth
    )
    return np.asarray(device.decode_launch_s + tokens * a_token, dtype=np.float64)


def prefill_seconds(device: Device, model: Model, tp: int, tokens: Ints, context: float) -> Floats:
    """f64 like `tokens`: prefill attention, bound by compute."""
    flops = 4.0 * tokens * context * model.heads // tp * model.head_dim
    return np.asarray(flops / (device.flops * device.prefill_efficiency), dtype=np.float64)


def gather_seconds(device: Device, tp: int, size: Floats) -> Floats:
    """f64 like `size`, the bytes that every device has in the end: a ring all-gather."""
    rate = device.link_bytes_per_s * device.gather_efficiency
    return device.gather_latency_s + (tp - 1) / tp * size / rate


def scatter_seconds(device: Device, tp: int, size: Floats) -> Floats:
    """f64 like `size`, the bytes that every device starts with: a ring reduce-scatter."""
    rate = device.link_bytes_per_s * device.scatter_efficiency
    return device.scatter_latency_s + (tp - 1) / tp * size / rate


def seconds_by_tokens(model: Model, device: Device, tp: int, batch: Batch) -> Floats:
    """f64[len(Work), tokens + 1]: time of each kind of work on that many tokens; 0 for none.

    Raises:
        InputError: see `check_fits`.
    """
    check_fits(model, device, tp, batch)
    tokens = np.arange(batch.tokens + 1)
    share = model.heads * model.head_dim // tp
    kqv = (model.heads // tp + 2 * max(1, model.kv_heads // tp)) * model.head_dim
    # Tokens of an expert, where they spread evenly.
    routed = np.ceil(tokens * model.experts_per_token / model.experts)
    attended = gathered = BYTES * tokens.astype(np.float64)
    attended, gathered = attended * model.heads * model.head_dim, gathered * model.hidden
    ffn = model.ffn // tp
    table = np.zeros((len(Work), len(tokens)))
    table[Work.KQV] = gemm_seconds(device, tokens, kqv, model.hidden)
    table[Work.DECODE] = decode_seconds(device, model, tp, tokens, batch.decode_context)
    table[Work.PREFILL] = prefill_seconds(device, model, tp, tokens, batch.prefill_context)
    table[Work.O_GATHERED] = gemm_seconds(device, tokens, model.hidden // tp, share * tp)
    table[Work.O_PARTIAL] = gemm_seconds(device, tokens, model.hidden, share)
    table[Work.UP_GATE] = gemm_seconds(device, routed, 2 * ffn, model.hidden, model.experts)
    table[Work.DOWN] = gemm_seconds(device, routed, model.hidden, ffn, model.experts)
    if tp > 1:
        table[Work.GATHER] = gather_seconds(device, tp, attended)
        table[Work.GATHER_O] = gather_seconds(device, tp, gathered)
        scattered = scatter_seconds(device, tp, gathered)
        table[Work.REDUCE] = table[Work.GATHER_O] + scattered
    table[:, 0] = 0.0
    return table


@dataclass(frozen=True)
class PaperRow:
    """A row of NanoFlow's table 2, an iteration on all devices: GFLOP, GB, ms if bound by each.

    `t_net` is 0 for what does not go over the network.
    """

    name: str
    gflop: float
    memory_gb: float
    t_compute: float
    t_memory: float
    t_network: float


def paper_table(model: Model, device: Device, tp: int, batch: Batch) -> Sequence[PaperRow]:
    """NanoFlow's table 2: what each operation of an iteration computes and moves.

    A GEMM moves its weights, its input and its output. Attention reads the cache, reads the
    queries, writes its result and the new keys and values; a prompt's keys are read by half of it
    on average. The network moves 4 (N - 1) B D S L bytes for N devices, B tokens of D elements of
    S bytes and L layers: two gathers, of the size of two all-reduces, a layer.
    """
    tokens, layers, hidden = batch.tokens, model.layers, model.hidden
    attended = model.heads * model.head_dim
    rows = []

    def add(name: str, flops: float, memory: float, network: float = 0.0) -> None:
        rows.append(
            PaperRow(
                name,
                flops * layers / 1e9,
                memory * layers / 1e9,
                flops * layers / (tp * device.flops) * 1e3,
                memory * layers / (tp * device.hbm_bytes_per_s) * 1e3,
                network * layers / (tp * device.link_bytes_per_s) * 1e3,
            )
        )

    routed = tokens * model.experts_per_token
    for name, rows_in, columns, inner, copies in (
        ("KQV", tokens, model.kqv_width, hidden, 1),
        ("O", tokens, hidden, attended, 1),
        ("UG", routed, 2 * model.ffn, hidden, model.experts),
        ("D", routed, hidden, model.ffn, model.experts),
    ):
        moved = BYTES * (copies * inner * columns + rows_in * (inner + columns))
        add(name, 2.0 * rows_in * columns * inner, moved)
    reads = batch.decode_tokens * batch.decode_context
    written = BYTES * 2 * attended + model.kv_bytes
    add("DecAttn", 4.0 * reads * attended, reads * model.kv_bytes + batch.decode_tokens * written)
    prompt = batch.prefill_tokens
    half = model.kv_bytes / 2
    add("PfAttn", 4.0 * prompt * batch.prefill_context * attended, prompt * (written + half))
    sent = 4.0 * (tp - 1) * tokens * hidden * BYTES
    add("Net", sent / (2 * BYTES), sent, sent)
    return rows


def optimal_tokens_per_second(model: Model, device: Device) -> float:
    """Tokens a second of one device at its peak rate: Compute / (2 P), P the active parameters."""
    spared = model.experts - model.experts_per_token
    active = model.parameters - spared * 3 * model.hidden * model.ffn * model.layers
    return device.flops / (2.0 * active)
