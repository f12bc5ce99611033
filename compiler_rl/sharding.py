"""`shard`: a plan for the parameters of any JAX model on a mesh, with what it is compared to.

    from compiler_rl.sharding import shard
    found = shard(apply, params, (tokens,), parse_mesh("1x8", chip="v5e"))
    found.rules, match_rules(found.rules, params)

Only shapes are needed: `params` and inputs may be `jax.ShapeDtypeStruct`s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from baselines.tensor_parallel import (
    EXACT,
    annealing,
    coordinate_descent,
    exhaustive,
    highs,
    local_search,
    trws,
)
from baselines.tensor_parallel.redco import difference, megatron, redco, shapes_of
from compiler_rl.compiled import Compiled
from compiler_rl.solve import solve
from games.base import Result
from games.tensor_parallel.frontend import PICOSECONDS, ModelGraph, model_graph
from games.tensor_parallel.mesh import Mesh
from games.tensor_parallel.models import Model
from games.tensor_parallel.plan import (
    Rules,
    Spec,
    logical_axes,
    rules_of,
    shown,
    spec_for,
    specs_of,
    with_specs,
)
from games.tensor_parallel.problem import FORBIDDEN, ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective, peak_usage
from games.tensor_parallel.validator import validate
from hlo_frontend.errors import InputError

LARGEST_MESH = 4096  # devices along the model axis, in the search for what would fit
# For the price of one alternative, which is optimal where the sweeps prove it.
PRICE_SECONDS = 5.0
PRICE_SWEEPS = 300
PRICE_MOVES = 500
BATCH = 3  # plans that are compiled before the next are chosen


@dataclass(frozen=True)
class Plan:
    """A plan for the parameters, by our model of the cost.

    Attributes:
        specs: of each parameter, by path.
        seconds: modelled; inf if it does not fit the memory.
        wire_bytes: that a device sends.
        memory: bytes that a device needs at the worst time.
    """

    specs: dict[str, Spec]
    seconds: float
    wire_bytes: float
    memory: int

    @property
    def rules(self) -> Rules:
        """Ordered rules that say the same."""
        return rules_of(self.specs)


@dataclass(frozen=True)
class Alternative:
    """What else a rule could say, and what the whole then costs at least.

    Attributes:
        path: a parameter of the rule.
        spec: instead of the plan's.
        plan: the best one with it, None if there is none within memory.
    """

    path: str
    spec: Spec
    plan: Plan | None

    @property
    def seconds(self) -> float:
        """Modelled; inf if nothing fits."""
        return math.inf if self.plan is None else self.plan.seconds


@dataclass(frozen=True)
class Sharding:
    """What `shard` found.

    Attributes:
        graph, problem: the model as it was read.
        result: of the portfolio.
        best: the plan.
        hand: plans written by hand, by name: `replicated`, `redco`, `megatron`.
        methods: objective in seconds, wall seconds, bound and proof of each method.
        alternatives: for each rule.
        differs: paths on which Redco's plan says something else.
        reranked: the plan that the real compiler put first, if that is not the model's.
    """

    graph: ModelGraph
    problem: ShardingProblem
    result: Result[Strategies]
    best: Plan
    hand: dict[str, Plan]
    methods: dict[str, dict[str, Any]]
    alternatives: list[Alternative]
    differs: list[str]
    reranked: str | None = None

    @property
    def rules(self) -> Rules:
        """Ordered rules: a regular expression on the path, and the spec."""
        return self.best.rules


def shard(
    function: Callable[..., Any],
    params: Any,
    inputs: Sequence[Any],
    mesh: Mesh,
    *,
    time_limit: float = 20.0,
    seed: int = 0,
    name: str = "model",
    report: Callable[[Result[Any]], None] | None = None,
) -> Sharding:
    """Finds how to split the parameters of `function(params, *inputs)` over a mesh.

    Args:
        function: any JAX function; it is traced, never run.
        params: pytree of arrays or shapes.
        inputs: the other arguments, likewise, the batch first.
        mesh: of devices.
        time_limit: seconds of the search; the comparisons take a little more.
        seed: of the search.
        name: of the model, in messages.
        report: called with the result of each method as it ends.

    Raises:
        InputError: the model cannot be traced, nothing divides by the mesh, or it cannot fit.
    """
    if mesh.devices > 1 and not any(
        size % part == 0
        for shape in shapes_of(params).values()
        for size in shape
        for part in mesh.shape
        if part > 1
    ):
        raise InputError(
            f"{name}: no dimension of a parameter divides by {' or '.join(map(str, mesh.shape))};"
            " give another mesh"
        )
    graph = model_graph(function, params, inputs, mesh)
    problem = graph.problem(name)
    try:
        reduce(problem)
    except InputError as error:
        raise _too_large(function, params, inputs, mesh, problem, name) from error
    result = solve(problem, time_limit=time_limit, seed=seed, workers=1, report=report)
    if not result.proved_optimal and not result.detail["interrupted"]:
        proof = EXACT.solve(problem, time_limit=time_limit, seed=seed)
        if report is not None:
            report(proof)
        bound = max(proof.bound or 0.0, result.bound or 0.0)
        better = proof if proof.objective < result.objective else result
        result = replace(better, bound=bound, detail=result.detail)
    best = _plan(graph, problem, result.solution)
    specs: dict[str, dict[str, Spec]] = {
        "replicated": {path: ((),) * len(shape) for path, shape in shapes_of(params).items()},
        "redco": redco(params, mesh.shape[-1], mesh.names[-1]),
        "megatron": megatron(params, mesh.shape[-1], mesh.names[-1]),
    }
    hand = {key: price(graph, problem, plan) for key, plan in specs.items()}
    return Sharding(
        graph=graph,
        problem=problem,
        result=result,
        best=best,
        hand=hand,
        methods=_methods(problem, result, hand, seed),
        alternatives=_alternatives(graph, problem, best),
        differs=difference(best.specs, specs["redco"]),
    )


def _plan(graph: ModelGraph, problem: ShardingProblem, solution: Strategies) -> Plan:
    return Plan(
        specs=specs_of(graph, solution.choice),
        seconds=objective(problem, solution) / PICOSECONDS,
        wire_bytes=objective(graph.wires, solution),
        memory=peak_usage(problem, solution)[0],
    )


def price(graph: ModelGraph, problem: ShardingProblem, specs: Mapping[str, Spec]) -> Plan:
    """A given plan, with the best that the rest of the model can do under it."""
    try:
        solution = _cheapest(with_specs(graph, problem, specs))
    except InputError:
        solution = None
    if solution is None:
        return Plan(dict(specs), math.inf, math.inf, 0)
    return replace(_plan(graph, problem, solution), specs=dict(specs))


def predict(model: Model, mesh: Mesh, rules: Mapping[str, Rules]) -> dict[str, Plan]:
    """What the model of the cost says of plans for a built-in model, such as a shorter one."""
    graph = model_graph(model.function, model.params, model.inputs, mesh)
    problem = graph.problem(model.name)
    found = {}
    for name, given in rules.items():
        specs = {}
        for path, shape in shapes_of(model.params).items():
            spec = spec_for(given, path)
            specs[path] = (*spec, *((),) * (len(shape) - len(spec)))
        found[name] = price(graph, problem, specs)
    return found


def _cheapest(problem: ShardingProblem) -> Strategies | None:
    """An optimal, or else a good, solution of a small problem, None if none is found."""
    found = trws(problem, time_limit=PRICE_SECONDS, sweeps=PRICE_SWEEPS)
    if not found.proved_optimal:
        found = local_search(
            problem, time_limit=PRICE_SECONDS, start=found.solution, moves=PRICE_MOVES
        )
    return found.solution if found.objective < math.inf else None


def _methods(
    problem: ShardingProblem, result: Result[Strategies], hand: Mapping[str, Plan], seed: int
) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, seconds: float, wall: float, bound: float | None, proved: bool) -> None:
        found = seconds < math.inf
        rows[name] = {
            "objective": seconds if found else None,
            "wall_s": wall,
            "bound": bound,
            "proved": proved,
            **({} if found else {"note": "does not fit"}),
        }

    for name, plan in hand.items():
        add(name, plan.seconds, 0.0, None, False)
    for name, row in result.detail["methods"].items():
        bound = None if row["bound"] is None else row["bound"] / PICOSECONDS
        proved = bound is not None and row["objective"] / PICOSECONDS <= bound * (1 + 1e-6)
        add(name, row["objective"] / PICOSECONDS, row["wall_s"], bound, proved)
    for solver in (coordinate_descent, annealing, highs, exhaustive):
        try:
            found = solver(problem, time_limit=1.0, seed=seed)
        except InputError:
            continue  # too many to try them all
        bound = None if found.bound is None else found.bound / PICOSECONDS
        seconds = found.objective / PICOSECONDS
        add(found.method, seconds, found.wall_s, bound, found.proved_optimal)
    return rows


def _alternatives(graph: ModelGraph, problem: ShardingProblem, best: Plan) -> list[Alternative]:
    """For each group of matrices every other spec, with the best that the rest can then do."""
    found = []
    seen: set[int] = set()
    for path, group in graph.params.items():
        node = graph.nodes[graph.members[group][0]]
        if group in seen or len(node.sizes) < 2:
            continue
        seen.add(group)
        begin, end = problem.node_start[group], problem.node_start[group + 1]
        for option in range(end - begin):
            cost = problem.node_cost.copy()
            cost[begin:end] = FORBIDDEN
            cost[begin + option] = problem.node_cost[begin + option]
            fixed = replace(problem, node_cost=cost)
            choice = np.zeros(len(graph.members), dtype=np.int64)
            choice[group] = option
            spec = specs_of(graph, choice)[path]
            if spec == best.specs[path]:
                continue
            try:
                solution = _cheapest(fixed)
            except InputError:
                solution = None
            plan = None if solution is None else _plan(graph, problem, solution)
            found.append(Alternative(path, spec, plan))
    return sorted(found, key=lambda alternative: alternative.seconds)


def _too_large(
    function: Callable[..., Any],
    params: Any,
    inputs: Sequence[Any],
    mesh: Mesh,
    problem: ShardingProblem,
    name: str,
) -> InputError:
    """By how much the model does not fit, and the smallest mesh on which it could."""
    least = problem.least_usage()[0]
    short = least - mesh.memory
    size = mesh.shape[-1]
    advice = f"no mesh of up to {LARGEST_MESH} devices along {mesh.names[-1]} would do"
    while size < LARGEST_MESH:
        size *= 2
        larger = replace(mesh, shape=(*mesh.shape[:-1], size))
        if model_graph(function, params, inputs, larger).problem(name).least_usage()[0] <= (
            mesh.memory
        ):
            advice = f"the smallest mesh that could is {'x'.join(map(str, larger.shape))}"
            break
    amount = f"by {short / 2**30:.2f} GiB" if short > 0 else "with what goes together"
    return InputError(
        f"{name}: does not fit: a device needs {least / 2**30:.2f} GiB however it is split,"
        f" above its {mesh.memory / 2**30:.2f} GiB {amount}; {advice}"
    )


def candidates(found: Sharding, count: int) -> dict[str, Plan]:
    """What is worth a compilation: the best, those written by hand, the best alternatives."""
    plans = {"best": found.best}
    plans |= {name: plan for name, plan in found.hand.items() if name != "replicated"}
    for alternative in found.alternatives:
        if len(plans) >= count or alternative.plan is None:
            break
        if alternative.plan.rules not in [plan.rules for plan in plans.values()]:
            plans[f"{shown(alternative.spec)} for {alternative.path}"] = alternative.plan
    return plans


def neighbours(found: Sharding, plan: Plan) -> dict[tuple[int, Spec], Plan]:
    """The plans that differ from `plan` in one group of matrices, the modelled best first.

    Keys are the group and its spec.
    """
    graph = found.graph
    changed: dict[tuple[int, Spec], Plan] = {}
    for group in sorted(set(graph.params.values())):
        members = [path for path, own in graph.params.items() if own == group]
        if len(graph.nodes[graph.members[group][0]].sizes) < 2:
            continue
        for option in range(len(graph.strategies(group))):
            choice = np.zeros(len(graph.members), dtype=np.int64)
            choice[group] = option
            spec = specs_of(graph, choice)[members[0]]
            if spec == plan.specs[members[0]]:
                continue
            other = price(graph, found.problem, plan.specs | dict.fromkeys(members, spec))
            if other.seconds < math.inf:
                changed[group, spec] = other
    return dict(sorted(changed.items(), key=lambda item: item[1].seconds))


def judged(
    found: Sharding, compiles: int, judge: Callable[[dict[str, Rules]], dict[str, Compiled | str]]
) -> tuple[Sharding, dict[str, Plan], dict[str, Compiled | str]]:
    """Local search over plans with the real compiler as the judge.

    First the plans that the model likes best and those written by hand are compiled. Then, a few at
    a time, changes of single groups of matrices of the plan in the lead, one for each group: those
    that make it better are put together; those that do not are not tried again.

    Args:
        found: what `shard` found.
        compiles: plans that may be compiled.
        judge: compiles plans.

    Returns:
        `found` with the plan that won, the plans, and what the compiler made of each.
    """
    plans: dict[str, Plan] = {}
    compiled: dict[str, Compiled | str] = {}
    names: dict[str, str] = {}  # of what is compiled, by its rules

    def tell(given: Mapping[str, Plan]) -> None:
        plans.update(given)
        own = {name: names.setdefault(str(plan.rules), name) for name, plan in given.items()}
        compiled.update(judge({name: given[name].rules for name in given if own[name] == name}))
        compiled.update({name: compiled[own[name]] for name in given})

    def leader() -> str:
        return ranked(found, plans, compiled).reranked or "best"

    tell(candidates(found, max(compiles // 3, 3)))
    tried: set[tuple[int, Spec]] = set()
    around: dict[tuple[int, Spec], Plan] = {}
    lead = ""
    while compiles > len(names):
        if leader() != lead:
            lead = leader()
            around = neighbours(found, plans[lead])
        batch: dict[str, Plan] = {}
        groups: dict[str, tuple[int, Spec]] = {}
        for (group, spec), plan in around.items():
            if len(batch) == min(BATCH, compiles - len(names)):
                break
            again = (group, spec) in tried or group in [key[0] for key in groups.values()]
            if again or str(plan.rules) in names:
                continue
            name = _named(found.graph, lead, group, spec, plans)
            batch[name], groups[name] = plan, (group, spec)
        if not batch:
            break
        tell(batch)
        tried |= set(groups.values())
        bar = _score(found, compiled[lead])
        better = [name for name in batch if _score(found, compiled[name]) < bar]
        if len(better) > 1 and compiles > len(names):
            specs = dict(plans[lead].specs)
            for name in better:
                group, spec = groups[name]
                specs |= {path: spec for path, own in found.graph.params.items() if own == group}
            tell({" and ".join(better): price(found.graph, found.problem, specs)})
    return ranked(found, plans, compiled), plans, compiled


def _named(graph: ModelGraph, lead: str, group: int, spec: Spec, plans: Mapping[str, Plan]) -> str:
    """What a changed plan is called: what was changed, of which plan."""
    path = next(path for path, own in graph.params.items() if own == group)
    change = f"{shown(spec)} for {path}"
    return change if lead == "best" and change not in plans else f"{lead}, {change}"


def _score(found: Sharding, made: Compiled | str) -> float:
    """Seconds of collectives and arithmetic as compiled; inf for what does not compile."""
    if isinstance(made, str):
        return math.inf
    return made.seconds + made.flops / found.graph.mesh.peak_flops


def ranked(
    found: Sharding, plans: Mapping[str, Plan], compiled: Mapping[str, Compiled | str]
) -> Sharding:
    """The same with the plan first of which the real compiler makes the least.

    That is collectives by alpha and beta, and arithmetic at the peak rate. Plans that the model
    says do not fit the memory stay out; among equals our best one counts.
    """
    scores = {
        name: _score(found, made)
        for name, made in compiled.items()
        if plans[name].seconds < math.inf
    }
    first = min(scores, key=lambda name: (scores[name], name != "best"), default="best")
    if first == "best" or not scores[first] < scores.get("best", math.inf) * (1 - 1e-9):
        return found
    best = plans[first]
    return replace(
        found,
        best=best,
        reranked=first,
        differs=difference(best.specs, found.hand["redco"].specs),
    )


def report_of(
    found: Sharding,
    compiled: Mapping[str, Compiled | str] | None = None,
    predicted: Mapping[str, Plan] | None = None,
) -> dict[str, Any]:
    """The report as JSON.

    Args:
        found: what `shard` found.
        compiled: what the real compiler made of the plans.
        predicted: what the model of the cost says of the same programs.
    """
    best = found.best
    faults = validate(found.problem, found.result.solution)
    axes, logical_rules = logical_axes(found.graph, best.specs)
    return {
        "game": "tensor_parallel",
        "objective": best.seconds,
        "unit": "s",
        "winner": found.reranked or found.result.method,
        "baselines": found.methods,
        "lower_bound": (found.result.bound or 0.0) / PICOSECONDS,
        "proved_optimal": found.result.proved_optimal and found.reranked is None,
        "interrupted": found.result.detail["interrupted"],
        "validated": not faults,
        "mesh": dict(zip(found.graph.mesh.names, found.graph.mesh.shape, strict=True)),
        "predicted": {key: _figures(p) for key, p in {"best": best, **found.hand}.items()},
        "predicted_as_compiled": {key: _figures(p) for key, p in (predicted or {}).items()},
        "compiled": None
        if compiled is None
        else {k: c if isinstance(c, str) else vars(c) for k, c in compiled.items()},
        "rules": [[pattern, shown(spec)] for pattern, spec in found.rules],
        "logical_axes": {path: list(names) for path, names in axes.items()},
        "logical_axis_rules": logical_rules,
        "alternatives": [
            {
                "path": each.path,
                "spec": shown(each.spec),
                "seconds": each.seconds if each.seconds < math.inf else None,
            }
            for each in found.alternatives
        ],
        "difference_from_redco": [
            {
                "path": path,
                "ours": shown(best.specs[path]),
                "redco": shown(found.hand["redco"].specs[path]),
            }
            for path in found.differs
        ],
    }


def _figures(plan: Plan) -> dict[str, float] | str:
    if plan.seconds == math.inf:
        return "does not fit"
    return {"seconds": plan.seconds, "wire_bytes": plan.wire_bytes, "memory": plan.memory}
