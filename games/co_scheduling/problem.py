"""The co-scheduling problem: one layer's operations in nano-batches on three serial resources.

A batch is cut into at most `MAX_NANO` nano-batches, each of which goes through the layer on its
own: projections, attention, all-reduces. The compute units, the memory and the network each run one
nano-operation at a time, the three side by side (NanoFlow, arXiv 2408.12757). A nano-batch may be
cut once more, into `PARTS` parts, up to the output projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from games.co_scheduling.cost import Batch, Ints, Work, seconds_by_tokens
from games.co_scheduling.device import LEVELS, Device, Floats
from games.co_scheduling.model import Model
from games.co_scheduling.profiles import measured_seconds
from hlo_frontend.errors import InputError

MAX_NANO = 4
PARTS = 2
CHUNK = 128  # tokens that are not torn apart: a tile of the GEMMs
MAX_CHUNKS = 32

# Slots of the nano-operations of one nano-batch; the first eight are two each, one for a part.
KQV, DECODE, PREFILL, GATHER = 0, 2, 4, 6
OUT, NET_O, UP_GATE, DOWN, NET_D = 8, 9, 10, 11, 12
SLOTS = 13
ALL_SLOTS = MAX_NANO * SLOTS
COMPUTE, MEMORY, NETWORK = range(3)
RESOURCE = np.array([0, 0, 1, 1, 1, 1, 2, 2, 0, 2, 0, 0, 2])  # of each slot
# Row of `CoSchedulingProblem.speed` for each slot.
GEMM_SPEED, DECODE_SPEED, PREFILL_SPEED, NET_SPEED = range(4)
SPEED = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0, 3, 0, 0, 3])
NO_INTERFERENCE, STATIC, DYNAMIC = range(3)
MODES = ("none", "static", "dynamic")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CoSchedulingProblem:
    """What there is to schedule.

    Attributes:
        name: of model, device, degree and batch, for people.
        seconds: f64[len(Work), tokens + 1] time of each kind of work on that many tokens, alone.
        decode_tokens, prefill_tokens: of the batch; together `tokens`.
        layers: equal layers, one after the other.
        mode: NO_INTERFERENCE: operations side by side do not slow each other down; STATIC: each has
            a share of the device from start to end, and shares never add up to more than the whole;
            DYNAMIC: memory and network have such shares, a GEMM has what they leave.
        speed: f64[4, LEVELS + 1] speed of a GEMM, decode attention, prefill attention and the
            network with k tenths of the device.
        network: whether there is one (a degree above 1).
        devices: of the group, the tensor-parallel degree.
        chunk: tokens of a chunk; the last chunk of each sort may have less.
    """

    name: str
    seconds: Floats
    decode_tokens: int
    prefill_tokens: int
    layers: int
    mode: int
    speed: Floats
    network: bool
    devices: int
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        if self.seconds.shape != (len(Work), self.tokens + 1):
            raise InputError(
                f"seconds has shape {self.seconds.shape}, expected ({len(Work)}, {self.tokens + 1})"
            )
        if self.layers < 1 or self.mode not in range(len(MODES)):
            raise InputError("expected at least one layer and a mode of 0, 1 or 2")
        if (np.diff(self.speed, axis=1) < 0).any() or self.speed.shape != (4, LEVELS + 1):
            raise InputError("a speed falls where the share of the device grows")

    @property
    def tokens(self) -> int:
        """Of the batch."""
        return self.decode_tokens + self.prefill_tokens

    @property
    def chunks(self) -> tuple[int, int]:
        """Chunks of decode and of prefill tokens."""
        return -(-self.decode_tokens // self.chunk), -(-self.prefill_tokens // self.chunk)


@dataclass(frozen=True, eq=False)
class Structure:
    """How the batch is cut; row b is nano-batch b, column p its part p. Empty ones are not there.

    Attributes:
        decode, prefill: i64[MAX_NANO, PARTS] tokens.
        gathered: bool[MAX_NANO] the nano-batch gathers what attention made, multiplies by a share
            of the output projection's columns and gathers again; the others multiply by a share of
            its rows and all-reduce.
    """

    decode: Ints
    prefill: Ints
    gathered: Bools

    def work(self, problem: CoSchedulingProblem) -> Floats:
        """f64[ALL_SLOTS]: seconds of each nano-operation alone; 0 for what is not there."""
        work = np.zeros((MAX_NANO, SLOTS))
        tokens = self.decode + self.prefill
        seconds = problem.seconds
        for part in range(PARTS):
            work[:, KQV + part] = seconds[Work.KQV, tokens[:, part]]
            work[:, DECODE + part] = seconds[Work.DECODE, self.decode[:, part]]
            work[:, PREFILL + part] = seconds[Work.PREFILL, self.prefill[:, part]]
            gather = seconds[Work.GATHER, tokens[:, part]]
            work[:, GATHER + part] = np.where(self.gathered, gather, 0.0)
        whole = tokens.sum(axis=1)
        for slot, with_gather, without in (
            (OUT, Work.O_GATHERED, Work.O_PARTIAL),
            (NET_O, Work.GATHER_O, Work.REDUCE),
            (UP_GATE, Work.UP_GATE, Work.UP_GATE),
            (DOWN, Work.DOWN, Work.DOWN),
            (NET_D, Work.REDUCE, Work.REDUCE),
        ):
            work[:, slot] = np.where(
                self.gathered, seconds[with_gather, whole], seconds[without, whole]
            )
        return work.ravel()

    def tokens(self) -> Ints:
        """i64[ALL_SLOTS]: tokens of each slot, whether it is there or not."""
        tokens = np.zeros((MAX_NANO, SLOTS), dtype=np.int64)
        both = self.decode + self.prefill
        for part in range(PARTS):
            tokens[:, [KQV + part, GATHER + part]] = both[:, [part]]
            tokens[:, DECODE + part] = self.decode[:, part]
            tokens[:, PREFILL + part] = self.prefill[:, part]
        tokens[:, OUT:] = both.sum(axis=1, keepdims=True)
        return tokens.ravel()


def cut(problem: CoSchedulingProblem, decode: Ints, prefill: Ints, gathered: Bools) -> Structure:
    """The structure with that many chunks, i64[MAX_NANO, PARTS], in each part.

    The last part that has chunks of a sort has its last chunk, which may not be full.
    """

    def tokens(chunks: Ints, total: int) -> Ints:
        upto = np.minimum(np.cumsum(chunks) * problem.chunk, total)
        return np.diff(upto, prepend=0).reshape(chunks.shape)

    return Structure(
        tokens(decode, problem.decode_tokens),
        tokens(prefill, problem.prefill_tokens),
        np.asarray(gathered, dtype=np.bool_) & problem.network,
    )


def make_problem(
    model: Model,
    device: Device,
    tp: int,
    batch: Batch,
    mode: int = DYNAMIC,
    profiles: Path | None = None,
) -> CoSchedulingProblem:
    """The problem of a model on `tp` devices.

    Args:
        model, device, tp, batch: what runs where.
        mode: see `CoSchedulingProblem`.
        profiles: folder of measured tables to use instead of fitted formulas.

    Raises:
        InputError: a degree, batch or table that does not fit the rest.
    """
    if profiles is None:
        seconds = seconds_by_tokens(model, device, tp, batch)
    else:
        seconds = measured_seconds(model, device, tp, batch, profiles)
    share = np.arange(LEVELS + 1) / LEVELS
    # Prefill attention is bound by compute, so that it loses what the others take, like a GEMM.
    speed = np.stack([share, device.memory_curve, share, device.network_curve])
    chunk = CHUNK
    while sum(-(-n // chunk) for n in (batch.decode_tokens, batch.prefill_tokens)) > MAX_CHUNKS:
        chunk += CHUNK
    return CoSchedulingProblem(
        name=f"{model.name} on {tp} x {device.name}, {batch.decode_tokens} decode tokens at"
        f" context {batch.decode_context:g} and {batch.prefill_tokens} prefill tokens",
        seconds=seconds,
        decode_tokens=batch.decode_tokens,
        prefill_tokens=batch.prefill_tokens,
        layers=model.layers,
        mode=mode,
        speed=speed,
        network=tp > 1,
        devices=tp,
        chunk=chunk,
    )
