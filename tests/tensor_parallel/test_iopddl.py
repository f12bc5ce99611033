"""IOPDDL problems: reader, evaluator, reduction, and every solver against brute force."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import optimum, random_problem

from baselines.tensor_parallel import EXACT, HEURISTICS, IMPROVE, cp_sat
from compiler_rl.solve import solve
from games.tensor_parallel import GAME
from games.tensor_parallel.dual import Dual, ascend, known_dual
from games.tensor_parallel.iopddl_file import read_problem
from games.tensor_parallel.problem import ShardingProblem
from games.tensor_parallel.reduction import reduce
from games.tensor_parallel.solution import Strategies, objective, peak_usage, read, write
from games.tensor_parallel.validator import evaluate, validate
from hlo_frontend.errors import InputError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "iopddl"
EXAMPLE = {
    "problem": {
        "name": "two chains",
        "nodes": {
            "intervals": [[0, 4], [2, 6], [3, 9]],
            "costs": [[5, 1], [2, 2, 7], [4]],
            "usages": [[3, 9], [4, 1, 0], [5]],
        },
        "edges": {
            "nodes": [[0, 1], [2, 1]],
            "costs": [[0, 3, 10**18, 8, 0, 1], [6, 0, 2]],
        },
        "usage_limit": 11,
    }
}


def shared(letter: str) -> ShardingProblem:
    path = SHARED / f"asplos-2025-iopddl-{letter}.json.gz"
    if not path.exists():
        pytest.skip("the IOPDDL instances are not here (../shared/data)")
    return read_problem(path)


def written(folder: Path, data: object, name: str = "problem.json") -> Path:
    path = folder / name
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("name", ["problem.json", "problem.json.gz"])
def test_reads_the_contests_format(tmp_path, name):
    problem = read_problem(written(tmp_path, EXAMPLE, name))
    assert problem.name == "two chains"
    assert problem.num_strategies.tolist() == [2, 3, 1]
    assert problem.edge_nodes.tolist() == [[0, 1], [2, 1]]
    assert problem.edge_cost.tolist() == [0, 3, 10**18, 8, 0, 1, 6, 0, 2]
    # 5 + 2 + 4, the pairs 3 and 0. Only (1, 1, 0) costs less, and it uses 15 at time 3.
    assert evaluate(problem, Strategies(np.array([0, 1, 0]))) == (14, [])
    assert optimum(problem) == 14
    best = solve(problem, time_limit=2.0)
    assert best.objective == 14
    assert best.proved_optimal


@settings(max_examples=40, deadline=None)
@given(
    pieces=st.integers(1, 60),
    rows=st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=5), max_size=8),
    indent=st.sampled_from([None, 1]),
)
def test_the_scanner_reads_what_json_does_wherever_the_pieces_end(
    tmp_path_factory, pieces, rows, indent
):
    from games.tensor_parallel import iopddl_file  # noqa: PLC0415

    text = json.dumps(rows, indent=indent).encode() + b"  "
    path = tmp_path_factory.mktemp("rows") / "rows"
    path.write_bytes(text)
    before = iopddl_file.PIECE
    iopddl_file.PIECE = pieces
    try:
        with path.open("rb") as file:
            values, ends = iopddl_file._Stream(path, file).rows()
    finally:
        iopddl_file.PIECE = before
    assert [values[b:e].tolist() for b, e in itertools.pairwise(ends.tolist())] == rows


def changed(path: list, value: object) -> dict:
    data = json.loads(json.dumps(EXAMPLE))
    inner = data["problem"]
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["nodes", "costs", 0, 0], -5, "node 0: cost -5 is negative"),
        (["nodes", "usages", 1, 2], -1, "node 1: usage -1 is negative"),
        (["edges", "costs", 1, 0], -3, "edge 1: cost -3 is negative"),
        (["edges", "costs", 1, 0], float("inf"), "edges.costs: row 1: found 'Infinity"),
        (["edges", "costs", 1, 0], 10**30, "edges.costs: row 1: a number does not fit 64 bits"),
        (["edges", "costs", 1], [1, 2], "edge 1 has 2 costs, expected 3"),
        (["edges", "nodes", 1], [1, 1], "edge 1 joins a node to itself"),
        (["edges", "nodes", 1], [1, 7], "edge 1 names a node"),
        (["edges", "nodes", 1], [1], "edges.nodes: row 1 has 1 numbers, expected 2"),
        (["nodes", "costs", 1], [2, 2], "node 1 has 2 costs and 3 usages"),
        (["nodes", "intervals", 0], [5, 4], "node 0 has an interval"),
        (["nodes", "usages"], None, "no nodes.usages"),
        (["usage_limit"], 1.5, "usage_limit: 1.5 is no whole number"),
        (["usage_limit"], 5, "at time 3 the least usage is 8, above the limit 5 by 3"),
        (["nodes", "costs", 2, 0], 10**18, "every strategy of node 2 is excluded"),
    ],
)
def test_bad_problems_are_refused_in_one_line(tmp_path, path, value, message):
    with pytest.raises(InputError) as refused:
        reduce(read_problem(written(tmp_path, changed(path, value))))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", [1, 10, 60, 200])
@pytest.mark.parametrize("packed", [False, True])
def test_truncated_files_are_refused(tmp_path, kept, packed):
    text = json.dumps(EXAMPLE).encode()
    text = gzip.compress(text) if packed else text
    path = tmp_path / "cut.json"
    path.write_bytes(text[: min(kept, len(text) - 20)])
    with pytest.raises(InputError) as refused:
        read_problem(path)
    assert "\n" not in str(refused.value)


def test_no_file_and_no_problem(tmp_path):
    for data in ("[]", "{}", '{"problem": 3}', "", "nonsense"):
        path = tmp_path / "bad.json"
        path.write_text(data)
        with pytest.raises(InputError):
            read_problem(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_problem(tmp_path / "absent.json")


def test_solution_files(tmp_path):
    path = tmp_path / "solution"
    write(path, Strategies(np.array([0, 2, 1])))
    assert path.read_text() == "[0, 2, 1]\n"
    assert read(path).choice.tolist() == [0, 2, 1]
    path.write_text("[0, 1.5]")
    with pytest.raises(InputError, match="whole numbers"):
        read(path)


def test_evaluator_finds_each_fault(tmp_path):
    problem = read_problem(written(tmp_path, EXAMPLE))
    assert validate(problem, Strategies(np.array([0, 1]))) == ["2 strategies for 3 nodes"]
    assert "not among" in validate(problem, Strategies(np.array([0, 3, 0])))[0]
    assert "do not go together" in validate(problem, Strategies(np.array([0, 2, 0])))[0]
    # 9 + 1 + 5 at time 3.
    cost, faults = evaluate(problem, Strategies(np.array([1, 1, 0])))
    assert faults == ["time 3: usage 15 is above the limit 11"]
    assert cost == objective(problem, Strategies(np.array([1, 1, 0])))
    assert peak_usage(problem, Strategies(np.array([1, 1, 0]))) == (15, 3)


def saved_and_loaded(problem: ShardingProblem, folder: Path) -> ShardingProblem:
    problem.save(folder / "problem.npz")
    return ShardingProblem.load(folder / "problem.npz")


def test_saves_losslessly(tmp_path):
    for seed in range(4):
        problem = random_problem(seed)
        again = saved_and_loaded(problem, tmp_path)
        assert again.usage_limit == problem.usage_limit
        assert (again.edge_cost == problem.edge_cost).all()
        assert (again.interval == problem.interval).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.3]))
def test_the_reduction_keeps_the_optimum(seed, infinite):
    problem = random_problem(seed, nodes=6, options=3, infinite=infinite)
    wanted = optimum(problem)
    try:
        graph = reduce(problem)
    except InputError:
        assert wanted is None
        return
    best = None
    for options in itertools.product(*(range(k) for k in np.diff(graph.start))):
        at = np.array(options, dtype=np.int64)
        if np.isfinite(graph.total(at)) and (graph.load(at) <= graph.room).all():
            cost, faults = evaluate(problem, Strategies(graph.expand(at)))
            assert not faults
            assert cost == graph.total(at)
            best = cost if best is None else min(best, cost)
    assert best == wanted
    dual = Dual.of(graph)
    ascend(graph, dual, sweeps=50)
    if wanted is not None:
        assert dual.bound <= wanted + 1e-6
        assert dual.total >= wanted


def test_solvers_agree_with_brute_force():
    proved = 0
    for seed in range(10):
        problem = random_problem(seed, nodes=6, options=4, infinite=0.03)
        wanted = optimum(problem)
        if wanted is None:
            continue
        for solver in (EXACT.solve, cp_sat):
            result = solver(problem, time_limit=20.0)
            assert result.objective == wanted
            assert result.proved_optimal
            proved += 1
        for heuristic in HEURISTICS.values():
            result = heuristic(problem, time_limit=5.0)
            if result.objective < np.inf:
                assert result.objective >= wanted
                assert validate(problem, result.solution) == []
            assert (result.bound or 0.0) <= wanted + 1e-6
        found = IMPROVE(problem, time_limit=5.0, moves=2000)
        assert found.objective >= wanted
        assert validate(problem, found.solution) == []
        assert IMPROVE(problem, time_limit=5.0, moves=2000).objective == found.objective
    assert proved > 10


def test_local_search_stops_when_told():
    problem = shared("G")
    stop = threading.Event()
    stop.set()
    known_dual(problem, 5.0)
    assert IMPROVE(problem, time_limit=60.0, stop=stop).wall_s < 5.0


@pytest.mark.parametrize(("letter", "best"), [("B", 532_843), ("G", 217_039)])
def test_equals_the_best_team_of_the_contest(letter, best):
    result = solve(shared(letter), time_limit=20.0, workers=1)
    assert result.objective == best
    assert result.proved_optimal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("letter", "most"), [("K", 2_274_276_676), ("U", 2_569_342_178), ("M", 2 * 49_928_460_991)]
)
def test_large_instances_are_feasible_and_cheap(letter, most):
    problem = shared(letter)
    result = solve(problem, time_limit=60.0, workers=2)
    assert evaluate(problem, result.solution) == (result.objective, [])
    assert result.objective <= most


@jax.jit
def random_play(arrays, key):
    """(actions, sum of rewards, whether every move had a legal action, done at the end)."""

    def move(state, key):
        legal = GAME.legal_actions(arrays, state)
        action = jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf))
        state, reward, done = GAME.step(arrays, state, action)
        return state, (action, reward, legal.any(), done)

    keys = jax.random.split(key, arrays.length)
    _, (actions, rewards, legal, done) = jax.lax.scan(move, GAME.init(arrays), keys)
    return actions, rewards.sum(), legal.all(), done[-1]


def test_random_play_is_legal_and_rewards_are_the_saving():
    played = 0
    problems = [random_problem(seed, 14, 4, 0.02) for seed in range(6)]
    for seed, problem in enumerate(problems):
        try:
            dual = known_dual(problem, 5.0)
        except InputError:
            continue
        if dual.options is None:
            continue
        arrays = GAME.arrays(problem)
        played += int(arrays.num_moves)
        plan = evaluate(problem, Strategies(reduce(problem).expand(dual.options)))[0]
        for game in range(3):
            actions, total, legal, done = random_play(arrays, jax.random.key(100 * seed + game))
            assert legal
            assert done
            found = GAME.solution(problem, np.asarray(actions))
            assert GAME.validate(problem, found) == []
            saving = (plan - GAME.objective(problem, found)) / max(plan, 1.0)
            assert float(total) == pytest.approx(saving, abs=1e-4)
        features = GAME.observe(arrays, GAME.init(arrays))
        assert all(bool(jnp.isfinite(value).all()) for value in features.values())
    assert played > 10


def test_a_real_instance_is_played():
    problem = shared("G")
    arrays = GAME.arrays(problem)
    assert int(arrays.num_moves) > 100
    actions, total, _, _ = random_play(arrays, jax.random.key(0))
    found = GAME.solution(problem, np.asarray(actions))
    assert validate(problem, found) == []
    plan = known_dual(problem, 5.0).total
    assert float(total) == pytest.approx((plan - objective(problem, found)) / plan, rel=1e-3)


def test_a_budget_in_simulations_is_deterministic():
    problem = random_problem(5, 14, 4, 0.02)
    first = solve(problem, simulations=2, seed=3)
    assert solve(problem, simulations=2, seed=3).objective == first.objective
