"""Problems by what a file of experiments says about them."""

from __future__ import annotations

from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import MODES, CoSchedulingProblem, make_problem
from hlo_frontend.errors import InputError


def read_instance(
    model: str,
    *,
    hardware: str = "a100",
    tp: int = 8,
    decode: int = 1280,
    context: float = 1024.0,
    prefill: int = 768,
    mode: str = "dynamic",
) -> CoSchedulingProblem:
    """A layer of a model on a device with a batch, as `compiler-rl coschedule` takes them."""
    if mode not in MODES:
        raise InputError(f"mode {mode}: expected one of {', '.join(MODES)}")
    batch = Batch(decode, float(context), prefill)
    return make_problem(get_model(model), get_device(hardware), tp, batch, MODES.index(mode))
