"""Sharding rules for built-in models: ours, Redco's and Megatron's, by the real compiler.

The first two layers of each model, 8 sequences of 512 tokens in bfloat16, on 8 host devices, or on
a TPU's topology ahead of time (`--target tpu`: the training steps, with the extra `tpu`); `search`
is for the whole model, without compilations. Wire bytes are of one device, of the partitioned
program, and in brackets as the CPU compiles it, which promotes bfloat16 to float32.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from math import inf

from compiler_rl.compiled import Compiled, verify
from compiler_rl.sharding import judged, predict, shard
from experiments.common import MIB, RESULTS, Cell, Results, markdown_table, parser, run
from games.tensor_parallel.mesh import parse_mesh
from games.tensor_parallel.models import build

NAME = "sharding"
# Model, mesh, training.
POINTS = (
    ("llama-7b", "1x8", False),
    ("gpt-j-6b", "1x8", False),
    ("opt-6.7b", "1x8", False),
    ("t5-large", "1x8", False),
    ("t5-11b", "1x8", False),
    ("mixtral-8x7b", "1x8", False),
    ("llama-7b", "2x4", True),
    ("opt-6.7b", "2x4", True),
)
LAYERS = 2
CHIP = "v5p"  # room enough for training


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "sharding.json", time_limit=20.0)
    options.add_argument("--compiles", type=int, default=8, help="plans; default: %(default)s")
    options.add_argument("--target", choices=("cpu", "tpu"), default="cpu", help="compiler")
    options.set_defaults(seeds=1)
    chosen = options.parse_args(arguments)
    results = Results(chosen.out, NAME)
    for model, mesh, train in POINTS:
        if chosen.target == "tpu" and not train:
            continue
        for seed in range(chosen.seeds):
            config = {
                "model": model,
                "mesh": mesh,
                "train": train,
                "time_limit": chosen.time_limit,
                "compiles": chosen.compiles,
                "target": chosen.target,
                "seed": seed,
            }
            results.measure(config, partial(_measure, config))
    results.write_report(report(results))


def _measure(config: Cell) -> Cell:
    mesh = parse_mesh(config["mesh"], CHIP)
    whole = build(config["model"], train=config["train"])
    limits = {"time_limit": config["time_limit"], "seed": config["seed"]}
    begun = time.perf_counter()
    shard(whole.function, whole.params, whole.inputs, mesh, name=config["model"], **limits)
    search_s = time.perf_counter() - begun
    short = build(config["model"], train=config["train"], layers=LAYERS)
    found = shard(short.function, short.params, short.inputs, mesh, name=config["model"], **limits)
    request = {
        "model": config["model"],
        "train": config["train"],
        "layers": LAYERS,
        "batch": 8,
        "length": 512,
        "mesh": config["mesh"],
        "chip": CHIP,
    }
    found, plans, compiled = judged(
        found, config["compiles"], lambda rules: verify(request, rules, config["target"])
    )
    predicted = predict(short, mesh, {name: plan.rules for name, plan in plans.items()})
    first = found.reranked or "best"
    result: Cell = {
        "search_s": search_s,
        "proved": found.result.proved_optimal,
        "exhaustive_s": found.methods.get("exhaustive", {}).get("objective"),
        "predicted_s": found.best.seconds,
        "peak_flops": mesh.peak_flops,
        "first": first,
    }
    for name, key in ((first, "ours"), ("redco", "redco"), ("megatron", "megatron")):
        made = compiled[name]
        if isinstance(made, Compiled):
            result[key] = vars(made)
        if predicted[name].seconds < inf:
            result[f"{key}_predicted"] = predicted[name].wire_bytes
    return result


def table(results: Results) -> str:
    """One row a model and mesh."""
    rows = []
    for cell in results.cells:
        config, found = cell["config"], cell["result"]
        ours = found["ours"]
        row = [
            f"{config['model']}{', training' if config['train'] else ''}",
            config["mesh"],
            config["target"],
            f"{found['search_s']:.1f}",
            f"{found['ours_predicted'] / MIB:,.0f}",
        ]
        for key in ("ours", "megatron", "redco"):
            made = found.get(key)
            row.append(
                "-"
                if made is None
                else f"{made['wire_bytes'] / MIB:,.0f} ({made['wire_bytes_as_is'] / MIB:,.0f})"
            )
        redco = found.get("redco")
        for flops in (0.0, 1 / found["peak_flops"]):
            row.append(
                "-" if redco is None else f"{_seconds(redco, flops) / _seconds(ours, flops):.3f}"
            )
        memory = ("ours", "redco")
        row.append(
            " / ".join(f"{found[k]['memory'] / MIB:,.0f}" if k in found else "-" for k in memory)
        )
        rows.append(row)
    header = ["model", "mesh", "compiler", "search, s", "predicted", "ours", "Megatron", "Redco"]
    ratios = ["Redco / ours, α-β time", "with arithmetic"]
    return markdown_table([*header, *ratios, "memory, ours / Redco"], rows)


def _seconds(made: Cell, per_flop: float) -> float:
    """Of collectives, and of arithmetic."""
    return float(made["seconds"] + made["flops"] * per_flop)


def report(results: Results) -> str:
    """The table and what its figures are."""
    notes = (
        "MiB on the wire of one device for two layers, forward unless it says training, in brackets"
        " as the CPU compiles it, with float32 for bfloat16; memory in MiB. `ours` is the first of"
        " the plans that were compiled, of which Redco's and Megatron's are two: the one with the"
        " least time of collectives (α-β) and arithmetic (at the peak rate)."
    )
    return "\n\n".join(["# Sharding rules", table(results), notes])


if __name__ == "__main__":
    sys.exit(run(main))
