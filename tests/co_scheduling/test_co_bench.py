"""The benchmark's tables and sentences on made-up cells, and the choice of plans."""

from __future__ import annotations

import numpy as np
import pytest
from co_instances import problem_of

from baselines.co_scheduling.plans import adapted, plans
from experiments import bench_co_scheduling as bench
from experiments.co_scheduling_fits import summary
from experiments.common import Results
from experiments.plan_library import choose, training_problems
from games.co_scheduling.problem import DYNAMIC, MODES, NO_INTERFERENCE
from games.co_scheduling.solution import evaluate
from hlo_frontend.errors import InputError


def _cell(instance: str, method: str, limit: float, value: float, mode: int = DYNAMIC):
    config = {
        "part": "solve",
        "instance": instance,
        "mode": MODES[mode],
        "method": method,
        "time_limit": limit,
        "seed": 0,
    }
    result = {
        "objective": value * 1e-3,
        "valid": True,
        "bound": 1e-3,
        "wall_s": limit,
        "decode": 10,
        "prefill": 20,
    }
    return config, result


def test_sentences_count_what_is_better(tmp_path):
    results = Results(tmp_path / "x.json", bench.NAME)
    cells = [
        _cell("a#0", "annealing", 1.0, 2.0),
        _cell("a#0", bench.FIXED, 1.0, 1.6),
        _cell("a#0", "racing", 1.0, 1.5),
        _cell("a#1", "annealing", 1.0, 2.0),
        _cell("a#1", bench.FIXED, 1.0, 1.2),
        _cell("a#1", "racing", 1.0, 1.5),
        _cell("a#1", "replan", bench.REPLAN, 1.65),
    ]
    cells += [_cell(bench.PAGE, "racing", 1.0, 2.5, mode) for mode in range(len(MODES))]
    for config, result in cells:
        results.measure(config, lambda result=result: result)
    text = "\n".join(bench.verdicts(results))
    assert "better than the better annealing on 1 of 2 batches of the traces and worse on 1" in text
    assert "loses 10.00% on average" in text
    assert f"{(1.5 / 1.6 * 1.5 / 1.2) ** 0.5:.4f}" in text
    assert "| racing, 1 s | 2.500 | 2.500 | 2.500 | 1,280 |" in bench.short_table(results)
    assert "| a#1 | 10 + 20 |" in bench.trace_table(results)


def test_the_race_is_held_against_cp_sat(tmp_path):
    results = Results(tmp_path / "x.json", bench.NAME)
    for instance, every, own, race, bound in (("a", 2.2, 1.9, 2.0, 1.8), ("b", 1.0, 1.0, 1.0, 0.9)):
        for method, value in (("cp_sat", every), ("cp_sat of the race's", own)):
            config, result = _cell(instance, method, 15.0, value, NO_INTERFERENCE)
            result |= {"structures": 7, "open": 0, "race": race * 1e-3, "proved_periodic": True}
            result["periodic_bound"] = bound * 1e-3
            results.measure(config, lambda result=result: result)
    text = "\n".join(bench.verdicts(results))
    assert "2 batches: the race of 1 s is at most 5.26% above" in text
    assert "least in 2 cases" in text
    assert "faster by more than 11.11%" in text
    assert (
        "Over 7 structures, all of them settled in 2 cases, CP-SAT's best is 5.00% slower" in text
    )


def test_data_folder_is_needed(tmp_path):
    with pytest.raises(InputError, match="no folder llm_traces"):
        bench.main([str(tmp_path), "--out", str(tmp_path / "x.json")])


def test_errors_are_summed_up():
    found = summary(np.array([0.1, -0.3]), 7)
    assert found["mean_error"] == pytest.approx(0.2)
    assert found["max_error"] == pytest.approx(0.3)
    assert (found["held_out"], found["fitted_on"]) == (2, 7)


def test_plans_are_chosen_that_complement_each_other():
    values = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [3.0, 1.0, 1.2]])
    assert choose(values, 2) == [2, 0]
    assert len(training_problems(DYNAMIC, 4, 0)) == 4


@pytest.mark.parametrize("mode", range(len(MODES)))
def test_shipped_plans_fit_other_batches(mode):
    assert 1 <= len(plans(mode)) <= 12
    for decode, prefill in ((700, 300), (0, 900), (1500, 0)):
        problem = problem_of(mode, decode=decode, prefill=prefill)
        found = adapted(problem)
        assert found
        values = [evaluate(problem, p.structure, p.phase, p.level) for p in found]
        assert values == sorted(values)
        assert all(p.structure.decode.sum() == decode for p in found)
