"""Real model programs, as plain JAX functions over shapes: no weights, nothing to download.

Each builder returns `(fn, args)`, what `hlo_frontend.tpu.compile_for_tpu` takes. Its keyword
arguments are sizes. `python -m experiments.programs` compiles them to scheduled TPU HLO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from experiments.programs.convnets import alexnet, resnet50, resnet50_train
from experiments.programs.products import Built, mlp, strassen49
from experiments.programs.transformers import decode, scan_transformer, transformer_train

PROGRAMS: Mapping[str, Callable[..., Built]] = {
    "mlp": mlp,
    "alexnet": alexnet,
    "strassen49": strassen49,
    "decode": decode,
    "scan_transformer": scan_transformer,
    "resnet50": resnet50,
    "transformer_train": transformer_train,
    "resnet50_train": resnet50_train,
}

__all__ = [
    "PROGRAMS",
    "Built",
    "alexnet",
    "decode",
    "mlp",
    "resnet50",
    "resnet50_train",
    "scan_transformer",
    "strassen49",
    "transformer_train",
]
