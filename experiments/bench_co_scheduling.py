"""Operator co-scheduling: heuristics, annealing, races and CP-SAT at equal time, one thread each.

The instance `page` is LLaMA-2 70B on 8 A100, 1280 decode tokens at context 1024 and 768 prefill
tokens, with NanoFlow's measured attention and network. The others are batches of the same model
drawn from request traces; no method was tuned on them. A schedule counts only if the game's
validator finds it valid. Also: the cost model against points that its fits did not see, and the
speed of the simulator.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean

import numpy as np

from baselines.co_scheduling import HEURISTICS, hlo_orders
from baselines.co_scheduling.chain import Chain
from baselines.co_scheduling.cp_sat import cp_sat
from baselines.co_scheduling.kernel import EVERYTHING
from baselines.co_scheduling.local_search import (
    FIRST_LEVELS,
    annealing,
    local_search,
    order_search,
    replan,
)
from baselines.co_scheduling.lp import lp_bound
from compiler_rl.solve import solve
from experiments.co_scheduling_fits import VALIDATIONS, validate_paper_table
from experiments.common import RESULTS, Cell, Results, markdown_table, parser, run
from games.base import Result
from games.co_scheduling import hlo_order, validator
from games.co_scheduling.cost import Batch
from games.co_scheduling.device import get_device
from games.co_scheduling.model import get_model
from games.co_scheduling.problem import (
    DYNAMIC,
    MODES,
    NO_INTERFERENCE,
    CoSchedulingProblem,
    make_problem,
)
from games.co_scheduling.solution import Pipeline, tokens_per_second
from games.co_scheduling.structures import nanoflow, nanoflow_reduced, spread_phases, two_halves
from games.co_scheduling.workload import cache_tokens, draw, read_trace
from hlo_frontend import read_text
from hlo_frontend.errors import InputError

NAME = "co_scheduling"
MODEL, DEVICE, TP = "llama-2-70b", "a100", 8
PAGE = "page"
FIXED = "annealing of NanoFlow's cut"
PAGE_BATCH = Batch(1280, 1024, 768)
ANNEALINGS = ("annealing", FIXED)
TRACES = (
    "azure2023_conv.csv",
    "azure2023_code.csv",
    "nanoflow_sharegpt.csv",
    "nanoflow_lmsys.csv",
    "mooncake_conversation.jsonl",
)
DRAWN = 4  # batches of each trace
SHORT = 1.0  # seconds
REPLAN = 0.06
PLAN_SECONDS = 5.0  # of the plan that is planned anew from
PROGRAMS = ("v5e_mlp_inf", "v5e_alexnet_inf", "v5e_resnet50_inf", "v5e_strassen49")
HLO_SECONDS = 5.0
TIMED_MOVES = 60_000
# Measured once, by a simulator of the same game, on this kind of machine.
PLAIN_C, PLAIN_C_LAYERS = "90,000 to 140,000", 10
KEPT = ("moves", "periodic_bound", "proved_periodic", "structures", "open", "race")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is not in the results file yet, and prints the report."""
    options = parser(__doc__, RESULTS / "co_scheduling.json", time_limit=15.0)
    options.add_argument(
        "data",
        type=Path,
        help="folder with serving_profiles/{nanoflow_profiles,vidur} and llm_traces",
    )
    options.add_argument("--cp-sat-limit", type=float, default=60.0, help="default: %(default)s")
    chosen = options.parse_args(arguments)
    if not (chosen.data / "llm_traces").is_dir():
        raise InputError(f"{chosen.data}: no folder llm_traces there")
    results = Results(chosen.out, NAME)
    _load_kernels()
    profiles = chosen.data / "serving_profiles"
    for name, validation in VALIDATIONS.items():
        results.measure({"part": "fit", "what": name}, partial(validation, profiles))
    results.measure({"part": "paper"}, validate_paper_table)
    for layers in (10, 80):
        results.measure({"part": "speed", "layers": layers}, partial(_speed, chosen.data, layers))

    def measure(
        instance: str, mode: int, method: str, limit: float, seed: int, solver: Solver
    ) -> None:
        config = {
            "part": "solve",
            "instance": instance,
            "mode": MODES[mode],
            "method": method,
            "time_limit": limit,
            "seed": seed,
        }
        problem = _problem(chosen.data, instance, mode)
        results.measure(config, lambda: _measure(problem, solver, limit, seed))

    fixed = partial(_fixed, nanoflow_reduced, order_search)
    batches = [f"{trace}#{k}" for trace in TRACES for k in range(DRAWN)]
    for mode in range(len(MODES)):
        for method, heuristic in HEURISTICS.items():
            measure(PAGE, mode, method, SHORT, 0, heuristic)
        for seed in range(chosen.seeds):
            for limit in (SHORT, chosen.time_limit):
                measure(PAGE, mode, "annealing", limit, seed, annealing)
                measure(PAGE, mode, FIXED, limit, seed, fixed)
                measure(PAGE, mode, "racing", limit, seed, local_search)
    for seed in range(chosen.seeds):
        portfolio = partial(solve, workers=1)
        measure(PAGE, DYNAMIC, "portfolio", chosen.time_limit, seed, portfolio)
    for instance in batches:
        for limit in (SHORT, chosen.time_limit):
            measure(instance, DYNAMIC, "annealing", limit, 0, annealing)
            measure(instance, DYNAMIC, FIXED, limit, 0, fixed)
            measure(instance, DYNAMIC, "racing", limit, 0, local_search)
        for method in ("sequential", "list", "two_stage", "library"):
            measure(instance, DYNAMIC, method, SHORT, 0, HEURISTICS[method])
        measure(instance, DYNAMIC, "replan", REPLAN, 0, partial(_replan, chosen.data))
    for instance in (PAGE, *batches):
        structures = {"halves": two_halves, "nanoflow": nanoflow}
        for name, structure in structures.items() if instance == PAGE else [("halves", two_halves)]:
            order = partial(_fixed, structure, order_search)
            measure(instance, NO_INTERFERENCE, f"{name}: order", SHORT, 0, order)
            exact = partial(_fixed, structure, _exact)
            limit = chosen.time_limit / 2
            measure(instance, NO_INTERFERENCE, f"{name}: cp_sat", limit, 0, exact)
        measure(instance, NO_INTERFERENCE, "cp_sat", chosen.time_limit, 0, cp_sat)
        measure(instance, NO_INTERFERENCE, "cp_sat of the race's", chosen.time_limit, 0, _proved)
    measure(PAGE, 1, "racing + cp_sat", chosen.cp_sat_limit, 0, _polished)
    for program in PROGRAMS:
        path = chosen.data / "tpu_hlo" / f"{program}.txt.gz"
        if path.exists():
            config = {"part": "hlo", "program": program, "time_limit": HLO_SECONDS}
            results.measure(config, partial(_measure_hlo, path))
    results.write_report(report(results))


Solver = Callable[..., Result[Pipeline]]


@cache
def _problem(data: Path, instance: str, mode: int) -> CoSchedulingProblem:
    """An instance by name, `page` or `TRACE#NUMBER`, in that mode."""
    model, device = get_model(MODEL), get_device(DEVICE)
    profiles = data / "serving_profiles" / "nanoflow_profiles"
    if instance == PAGE:
        return make_problem(model, device, TP, PAGE_BATCH, mode, profiles)
    return make_problem(model, device, TP, _batches(data)[instance], mode, profiles)


@cache
def _batches(data: Path) -> dict[str, Batch]:
    room = cache_tokens(get_model(MODEL), get_device(DEVICE), TP)
    found: dict[str, Batch] = {}
    for trace in TRACES:
        batches = draw(read_trace(data / "llm_traces" / trace), room, DRAWN, seed=0)
        found |= {f"{trace}#{k}": batch for k, batch in enumerate(batches)}
    return found


def _load_kernels() -> None:
    """Loads the native kernels, or compiles them, which would else count for the first cell."""
    model, device = get_model("llama-3-8b"), get_device(DEVICE)
    for mode in range(len(MODES)):
        problem = make_problem(model, device, 2, Batch(256, 100, 128), mode)
        for heuristic in HEURISTICS.values():
            heuristic(problem)
        local_search(problem, time_limit=0.0, moves=100)


def _measure(problem: CoSchedulingProblem, solver: Solver, time_limit: float, seed: int) -> Cell:
    result = solver(problem, time_limit=time_limit, seed=seed)
    faults = validator.validate(problem, result.solution)
    detail = result.detail
    return {
        "objective": result.objective,
        "valid": not faults,
        "bound": lp_bound(problem),
        "structure_bound": lp_bound(problem, result.solution.structure),
        "tokens_per_second": tokens_per_second(problem, result.objective),
        "wall_s": result.wall_s,
        "decode": problem.decode_tokens,
        "prefill": problem.prefill_tokens,
        **{key: detail[key] for key in KEPT if key in detail},
    }


def _measure_hlo(path: Path) -> Cell:
    """Orders of a compiled program's asynchronous copies, under its own peak of memory."""
    device = get_device("tpu-v5e")
    program = hlo_order.order_program(read_text(path), path.name, device)
    found = hlo_orders.all_orders(program, time_limit=HLO_SECONDS)
    return {
        "instructions": sum(len(problem.names) for problem in program.problems),
        "pairs": program.pairs,
        "bound": found[0].bound,
        "valid": not any(
            hlo_order.validate_order(problem, order)
            for each in found
            for problem, order in zip(each.problems, each.orders, strict=True)
        ),
        **{each.method: each.seconds for each in found},
    }


def _fixed(
    structure: Callable[[CoSchedulingProblem], object],
    solver: Solver,
    problem: CoSchedulingProblem,
    *,
    time_limit: float,
    seed: int,
) -> Result[Pipeline]:
    return solver(problem, structure(problem), time_limit=time_limit, seed=seed)


def _exact(
    problem: CoSchedulingProblem, structure: object, *, time_limit: float, seed: int
) -> Result[Pipeline]:
    """CP-SAT from a short annealing of the same structure."""
    start = order_search(problem, structure, time_limit=0.1, seed=seed)  # type: ignore[arg-type]
    return cp_sat(problem, time_limit=time_limit - 0.1, seed=seed, start=start.solution)


def _proved(problem: CoSchedulingProblem, *, time_limit: float, seed: int) -> Result[Pipeline]:
    """A short race, and CP-SAT on the structure that it found for the rest of the time."""
    race = local_search(problem, time_limit=SHORT, seed=seed)
    found = cp_sat(problem, time_limit=time_limit - SHORT, seed=seed, start=race.solution)
    return replace(found, detail={**found.detail, "race": race.objective})


def _polished(problem: CoSchedulingProblem, *, time_limit: float, seed: int) -> Result[Pipeline]:
    """Races for a quarter of the time, and CP-SAT on the structure that they found."""
    start = local_search(problem, time_limit=time_limit / 4, seed=seed)
    found = cp_sat(problem, time_limit=time_limit * 3 / 4, seed=seed, start=start.solution)
    return replace(found, wall_s=found.wall_s + start.wall_s)


def _replan(
    data: Path, problem: CoSchedulingProblem, *, time_limit: float, seed: int
) -> Result[Pipeline]:
    return replan(problem, _plan(data), time_limit=time_limit, seed=seed)


@cache
def _plan(data: Path) -> Pipeline:
    """The plan of the page's batch."""
    problem = _problem(data, PAGE, DYNAMIC)
    return local_search(problem, time_limit=PLAN_SECONDS, seed=0).solution


def _speed(data: Path, layers: int) -> Cell:
    """Moves of annealing a second, each judged by an exact simulation of that many layers."""
    problem = replace(_problem(data, PAGE, DYNAMIC), layers=layers)
    structure = nanoflow(problem)
    chain = Chain(problem, structure, spread_phases(problem, structure), FIRST_LEVELS, 0)
    chain.run(TIMED_MOVES // 10, 0.01, EVERYTHING)
    begun = time.perf_counter()
    cpu = time.process_time()
    chain.run(TIMED_MOVES, 0.001, EVERYTHING)
    return {
        "per_second": TIMED_MOVES / (time.perf_counter() - begun),
        "per_cpu_second": TIMED_MOVES / (time.process_time() - cpu),
    }


def _solved(results: Results, **wanted: object) -> list[Cell]:
    """Cells of part `solve` whose configuration agrees."""
    return [
        cell
        for cell in results.cells
        if cell["config"]["part"] == "solve"
        and all(cell["config"][key] == value for key, value in wanted.items())
    ]


def table(results: Results) -> str:
    """The page's instance: a row a method and time limit, the modes side by side, ms a layer."""
    rows: dict[tuple[str, float], dict[str, list[float]]] = {}
    bounds: dict[str, float] = {}
    for cell in _solved(results, instance=PAGE):
        config, result = cell["config"], cell["result"]
        if ":" in config["method"] or "of the race" in config["method"] or not result["valid"]:
            continue
        row = rows.setdefault((config["method"], config["time_limit"]), {})
        row.setdefault(config["mode"], []).append(result["objective"] * 1e3)
        bounds[config["mode"]] = result["bound"] * 1e3
    lines = []
    for (method, limit), by_mode in rows.items():
        name = method if method in HEURISTICS else f"{method}, {limit:g} s"
        cells = [_range(by_mode.get(mode, [])) for mode in MODES]
        dynamic = by_mode.get(MODES[DYNAMIC])
        rate = "-" if not dynamic else f"{_rate(mean(dynamic)):,.0f}"
        lines.append([name, *cells, rate])
    lines.append(["bound", *(f"{bounds[mode]:.3f}" for mode in MODES), "-"])
    header = ["method", "no interference", "static", "dynamic", "tokens/s a device, dynamic"]
    return markdown_table(header, lines)


def _range(values: list[float]) -> str:
    if not values:
        return "-"
    if max(values) - min(values) < 5e-4:
        return f"{mean(values):.3f}"
    return f"{mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def _rate(milliseconds: float) -> float:
    layers = get_model(MODEL).layers
    return PAGE_BATCH.tokens / (layers * TP * milliseconds / 1e3)


def short_table(results: Results) -> str:
    """Some rows of `table`, and the verdicts: what the README shows."""
    header, line, *rows = table(results).splitlines()
    wanted = ("sequential", "list", "annealing", "racing,", "bound")
    kept = [row for row in rows if row.removeprefix("| ").startswith(wanted)]
    # Of annealing only the longer runs.
    kept = [row for row in kept if f", {SHORT:g} s |" not in row or row.startswith("| racing")]
    sentences = [text for text in verdicts(results) if "Moves" not in text]
    return "\n".join([header, line, *kept, "", " ".join(sentences)])


def trace_table(results: Results) -> str:
    """A row for each batch of the traces: dynamic, ms a layer."""
    rows = []
    limits = sorted(
        {c["config"]["time_limit"] for c in _solved(results, method="racing", mode=MODES[DYNAMIC])}
    )
    columns = [(method, SHORT) for method in ("sequential", "list", "two_stage", "library")]
    columns += [("replan", REPLAN)]
    columns += [(method, limit) for limit in limits for method in (*ANNEALINGS, "racing")]
    instances = list(
        dict.fromkeys(cell["config"]["instance"] for cell in _solved(results, mode=MODES[DYNAMIC]))
    )
    for instance in instances:
        if instance == PAGE:
            continue
        cells = _solved(results, instance=instance, mode=MODES[DYNAMIC])
        found = {
            (cell["config"]["method"], cell["config"]["time_limit"]): cell["result"]
            for cell in cells
        }
        any_ = cells[0]["result"]
        rows.append(
            [
                instance.replace("_conversation.jsonl", "").replace(".csv", ""),
                f"{any_['decode']} + {any_['prefill']}",
                *(f"{found[key]['objective'] * 1e3:.3f}" if key in found else "-"
                  for key in columns),
                f"{any_['bound'] * 1e3:.3f}",
            ]
        )  # fmt: skip
    names = [
        method if method in HEURISTICS else f"{method}, {limit:g} s" for method, limit in columns
    ]
    return markdown_table(["batch", "decode + prefill", *names, "bound"], rows)


def hlo_table(results: Results) -> str:
    """A row for each compiled program, microseconds."""
    rows = [
        [
            cell["config"]["program"],
            str(cell["result"]["instructions"]),
            str(cell["result"]["pairs"]),
            *(
                f"{cell['result'][key] * 1e6:,.1f}"
                for key in ("compiler", "greedy", "annealing", "bound")
            ),
        ]
        for cell in results.cells
        if cell["config"]["part"] == "hlo" and cell["result"]["valid"]
    ]
    header = ["program", "instructions", "pairs", "compiler", "greedy", "annealing", "bound"]
    return markdown_table(header, rows)


def fit_table(results: Results) -> str:
    """Errors of the cost model on held-out points."""
    rows = [
        [
            cell["config"]["what"],
            str(cell["result"]["fitted_on"]),
            str(cell["result"]["held_out"]),
            f"{cell['result']['mean_error']:.1%}",
            f"{cell['result']['max_error']:.1%}",
        ]
        for cell in results.cells
        if cell["config"]["part"] == "fit"
    ]
    header = ["measurements", "fitted on", "held out", "mean error", "largest error"]
    return markdown_table(header, rows)


def verdicts(results: Results) -> list[str]:
    """What the tables say, in sentences with the figures."""
    lines = []
    by_key = {
        tuple(cell["config"][k] for k in ("instance", "mode", "method", "time_limit", "seed")): (
            cell["result"]
        )
        for cell in _solved(results)
    }
    for limit in sorted({key[3] for key in by_key if key[2] == "racing"}):
        pairs = [
            (
                result["objective"],
                min(by_key[(*key[:2], name, *key[3:])]["objective"] for name in ANNEALINGS),
            )
            for key, result in by_key.items()
            if key[2] == "racing" and key[0] != PAGE and key[3] == limit
            and all((*key[:2], name, *key[3:]) in by_key for name in ANNEALINGS)
        ]  # fmt: skip
        if pairs:
            better = sum(mine < theirs * (1 - 1e-6) for mine, theirs in pairs)
            worse = sum(mine > theirs * (1 + 1e-6) for mine, theirs in pairs)
            ratio = np.exp(mean(np.log(mine / theirs) for mine, theirs in pairs))
            lines.append(
                f"At {limit:g} s, racing is better than the better annealing on {better} of"
                f" {len(pairs)} batches of the traces and worse on {worse}; geometric mean of the"
                f" ratio {ratio:.4f}."
            )
    gaps = []
    for key, result in by_key.items():
        if key[2].endswith(": order"):
            name = key[2].removesuffix(": order")
            for other, exact in by_key.items():
                if other[:2] == key[:2] and other[2] == f"{name}: cp_sat":
                    gaps.append(
                        (result["objective"] / exact["objective"] - 1, exact["proved_periodic"])
                    )
    if gaps:
        proved = [gap for gap, is_proved in gaps if is_proved]
        lines.append(
            f"No interference, fixed structures: annealing of {SHORT:g} s is at most"
            f" {max(gap for gap, _ in gaps):.2%} above CP-SAT's best in {len(gaps)} cases; where"
            f" CP-SAT proved the period ({len(proved)} cases), at most"
            f" {max(proved, default=0.0):.2%}."
        )
    lines += _against_cp_sat(by_key)
    losses = [
        result["objective"] / by_key[(*key[:2], "racing", limit, 0)]["objective"] - 1
        for limit in [max((k[3] for k in by_key if k[2] == "racing"), default=0.0)]
        for key, result in by_key.items()
        if key[2] == "replan" and (*key[:2], "racing", limit, 0) in by_key
    ]
    if losses:
        walls = [result["wall_s"] for key, result in by_key.items() if key[2] == "replan"]
        lines.append(
            f"Planning anew for a new batch takes {max(walls) * 1e3:.0f} ms at most and loses"
            f" {mean(losses):.2%} on average, {max(losses):.2%} at most, against the long race."
        )
    for cell in results.cells:
        if cell["config"]["part"] == "paper":
            lines.append(
                f"NanoFlow's table 2: the formulas are within {cell['result']['max_error']:.1%} of"
                " every entry."
            )
        if cell["config"]["part"] == "speed":
            layers, speed = cell["config"]["layers"], cell["result"]["per_cpu_second"]
            beside = f" ({PLAIN_C} by a simulator in plain C)" if layers == PLAIN_C_LAYERS else ""
            lines.append(f"Moves judged a CPU-second, {layers} layers each: {speed:,.0f}{beside}.")
    return lines


def _against_cp_sat(by_key: dict[tuple[object, ...], Cell]) -> list[str]:
    """The race without interference against CP-SAT over all structures, and over its own."""
    own = {key[0]: found for key, found in by_key.items() if key[2] == "cp_sat of the race's"}
    every = {key[0]: found for key, found in by_key.items() if key[2] == "cp_sat"}
    if not own or own.keys() != every.keys():
        return []
    proved = [found for found in own.values() if found["proved_periodic"]]
    above = max(
        found["race"] / min(found["objective"], every[instance]["objective"]) - 1
        for instance, found in own.items()
    )
    ratios = [every[instance]["objective"] / found["race"] for instance, found in own.items()]
    gaps = [found["race"] / found["periodic_bound"] - 1 for found in proved]
    closed = sum(found["open"] == 0 for found in every.values())
    return [
        f"No interference, {len(own)} batches: the race of {SHORT:g} s is at most {above:.2%} above"
        " the best that CP-SAT finds. For the structure that the race found, CP-SAT proves its"
        f" period least in {len(proved)} cases, and that no periodic schedule is faster by more"
        f" than {max(gaps, default=0.0):.2%}. Over {max(f['structures'] for f in every.values())}"
        f" structures, all of them settled in {closed} cases, CP-SAT's best is"
        f" {mean(ratios) - 1:.2%} slower than the race's on average."
    ]


def report(results: Results) -> str:
    """All tables."""
    return "\n\n".join(
        [
            "# Operator co-scheduling",
            "LLaMA-2 70B on 8 A100, ms a layer (makespan of 80 layers / 80).",
            table(results),
            "## Batches of request traces",
            trace_table(results),
            "\n".join(f"- {line}" for line in verdicts(results)),
            "## Compiled programs for TPU v5e, reordered",
            hlo_table(results),
            "## Cost model on held-out points",
            fit_table(results),
        ]
    )


if __name__ == "__main__":
    sys.exit(run(main))
