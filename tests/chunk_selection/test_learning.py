"""The learned value and the configuration agent: hypotheses, training, files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from selection_instances import random_problem

from baselines.chunk_selection.configuration import (
    COST_WEIGHTS,
    EVALUATIONS,
    EXPLORATION,
    MOVES,
    OBSERVED,
    SEES,
    SPENT,
    agent,
    configure,
    observe,
)
from baselines.chunk_selection.configuration import (
    from_json as agent_from_json,
)
from baselines.chunk_selection.configuration import (
    to_json as agent_to_json,
)
from baselines.chunk_selection.heuristics import value_greedy
from experiments import evidence_training
from experiments.evidence_examples import Example
from experiments.evidence_levels import calibrated
from experiments.evidence_training import layout_of, totals, train
from experiments.train_chunk_configuration import Played, compare, constant, fit
from games.chunk_selection.chunk import Chunk
from games.chunk_selection.features import make_features
from games.chunk_selection.value import (
    MOST,
    RETRIEVER,
    default_model,
    enumerate_sets,
    from_json,
    load_model,
    set_scores,
    to_json,
)
from hlo_frontend.errors import InputError


def test_all_sets_of_few_candidates_are_hypotheses():
    found = {tuple(sorted(m for m in row if m >= 0)) for row in enumerate_sets(np.zeros(6))}
    expected = {c for k in range(MOST + 1) for c in itertools.combinations(range(6), k)}
    assert found == expected
    many = enumerate_sets(np.arange(30.0))
    assert any(sorted(row) == [26, 27, 28, 29] for row in many.tolist())
    assert len({tuple(sorted(row)) for row in many.tolist()}) == len(many)


def test_scores_of_sets_by_hand():
    members = np.array([[-1] * 4, [0, -1, -1, -1], [2, 0, -1, -1], [0, 1, 2, -1]], dtype=np.int32)
    unary = np.array([1.0, 10.0, 100.0])
    pair = np.array([[0, 0.1, 0.2], [0.1, 0, 0.4], [0.2, 0.4, 0]])
    size = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    expected = [0.01, 1.02, 101.23, 111.74]
    np.testing.assert_allclose(set_scores(members, unary, pair, size), expected)


@pytest.mark.parametrize("count", [1, 3, 12, 25])
def test_training_scores_the_sets_that_the_value_looks_at(count):
    draw = np.random.default_rng(count)
    unary = -np.sort(-draw.normal(size=count))
    pair = draw.normal(size=(count, count))
    pair = (pair + pair.T) / 2
    size = draw.normal(size=MOST + 1)
    layout = layout_of(count)
    trained = totals(layout, unary[None], pair[layout.first, layout.second][None], size[None])[0]
    members = enumerate_sets(unary)
    np.testing.assert_allclose(trained, set_scores(members, unary, pair, size), atol=1e-4)
    for start, evidence in zip(layout.start, range(min(count, MOST) + 1), strict=False):
        assert members[start].tolist() == [*range(evidence), *[-1] * (MOST - evidence)]


def test_probabilities_are_probabilities():
    problem = random_problem(3, size=12)
    found = default_model().hypotheses(problem.features)
    assert (found.probability > 0).all()
    assert 0 < found.probability.sum() <= 1 + 1e-9
    assert (np.diff(found.probability) <= 1e-12).all()
    assert found.members[:, 0].min() >= 0


def test_a_value_that_knows_nothing_follows_the_retriever():
    """Chances of single candidates are as their ranks: (1 + rank) to the power -RETRIEVER."""
    size = 12
    problem = random_problem(3, size=size)
    known = default_model()
    candidate, pair = (
        {name: value if name == "scale" else np.zeros_like(value) for name, value in part.items()}
        for part in (known.candidate, known.pair)
    )
    nothing = replace(known, candidate=candidate, pair=pair)
    scores = np.arange(float(size))  # the last candidate is the retriever's first
    found = nothing.hypotheses(replace(problem.features, score=scores))
    chance = {
        tuple(m for m in row if m >= 0): p
        for row, p in zip(found.members.tolist(), found.probability, strict=True)
    }
    for candidate in range(size - 1):
        ratio = chance[candidate,] / chance[size - 1,]
        assert ratio == pytest.approx((size - candidate) ** -RETRIEVER)


@pytest.mark.slow
def test_training_learns_where_the_evidence_is(monkeypatch):
    """The chunk with the query's rare word is the evidence: held-out questions find it."""
    monkeypatch.setattr(evidence_training, "WARM_STEPS", 40)
    monkeypatch.setattr(evidence_training, "STEPS", 40)
    draw = np.random.default_rng(0)
    examples = []
    for _ in range(60):
        names = [f"Zor{chr(97 + i)}ka" for i in draw.permutation(20)[:6]]
        texts = [f"The town of {name} has a market and a bridge." for name in names]
        gold = int(draw.integers(6))
        chunks = [Chunk(str(i), text, 10) for i, text in enumerate(texts)]
        features = make_features(f"What does {names[gold]} have?", chunks)
        examples.append(Example(features, (gold,)))
    model = train(examples[:40], models=1, seed=0)
    right = 0
    for example in examples[40:]:
        best = model.hypotheses(example.features).members[0]
        right += tuple(m for m in best if m >= 0) == example.evidence
    assert right >= 18
    again = train(examples[:40], models=1, seed=0)
    assert to_json(again) == to_json(model)


def test_the_value_learns_where_part_of_the_evidence_is_missing():
    draw = np.random.default_rng(0)
    examples = []
    for number in range(120):
        names = [f"Zor{chr(97 + i)}ka" for i in draw.permutation(20)[:6]]
        gold = int(draw.integers(6))
        chunks = [Chunk(name, f"The town of {name} has a market.", 10) for name in names]
        half = number % 2 == 0
        # Who asks for more has no more than half of the answer among the candidates.
        query = f"What {'more ' if half else ''}does {names[gold]} have?"
        features = make_features(query, chunks)
        examples.append(Example(features, (gold,), recall=0.5 if half else 1.0))
    model = train(examples[:80], models=1, seed=0)
    share = {0.5: [], 1.0: []}
    for example in examples[80:]:
        found = model.hypotheses(example.features)
        assert (found.complete <= found.probability + 1e-12).all()
        assert (found.complete <= found.recall + 1e-12).all()
        assert (found.recall <= found.probability + 1e-12).all()
        share[example.recall].append(found.complete.sum() / found.probability.sum())
    assert np.mean(share[0.5]) < 0.4
    assert np.mean(share[1.0]) > 0.6
    # Half of the evidence is there where not all of it is.
    assert model.part[1] == pytest.approx(0.5)


def test_calibration_moves_the_levels_and_not_the_order_within_a_size():
    """Half of the questions have no evidence among their candidates, a quarter only half of it."""
    draw = np.random.default_rng(1)
    model, examples = default_model(), []
    for number in range(60):
        names = [f"Zor{chr(97 + i)}ka" for i in draw.permutation(20)[:6]]
        gold = int(draw.integers(6))
        chunks = [Chunk(name, f"The town of {name} has a market.", 10) for name in names]
        features = make_features(f"What does {names[gold]} have?", chunks)
        kind = number % 4
        evidence = (gold,) if kind >= 2 else ()
        recall = (0.0, 0.0, 0.5, 1.0)[kind]
        examples.append(Example(features, evidence, recall=recall))
    told = calibrated(model, examples[:40], questions=40)
    some, full = [], []
    for example in examples[40:]:
        before, after = model.hypotheses(example.features), told.hypotheses(example.features)
        singles = [found.members[found.members[:, 1] < 0] for found in (before, after)]
        np.testing.assert_array_equal(*singles)
        some.append(after.probability.sum())
        full.append(after.complete.sum() / after.probability.sum())
    assert np.mean(some) == pytest.approx(0.5, abs=0.05)
    assert np.mean(full) == pytest.approx(0.5, abs=0.08)
    # Few questions are trusted less.
    few = calibrated(model, examples[:4], questions=4)
    changes = [np.abs(each.complete - model.complete).max() for each in (few, told)]
    assert changes[0] < changes[1]
    # Without any evidence there is nothing to learn about how much it is.
    none = [example for example in examples if not example.evidence]
    np.testing.assert_array_equal(calibrated(model, none, 30).complete, model.complete)


def test_a_model_survives_its_file(tmp_path):
    problem = random_problem(3, size=12)
    path = tmp_path / "model.json"
    data = to_json(default_model())
    path.write_text(json.dumps(data))
    found = load_model(path).hypotheses(problem.features)
    np.testing.assert_allclose(
        found.probability, default_model().hypotheses(problem.features).probability
    )
    for broken, words in (
        ({**data, "schema": "x"}, "expected compiler-rl"),
        ({}, "not an evidence model"),
        ({**data, "size": [[[0.0]]]}, "other features"),
        ({**data, "complete": [[[0.0]]]}, "other features"),
    ):
        with pytest.raises(InputError, match=words):
            from_json(broken, "model.json")
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_model(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path / "missing.json")


def test_agent_chooses_from_its_grid():
    for seed in range(5):
        problem = random_problem(seed, size=10)
        found = value_greedy(problem)
        chosen = configure(problem, found)
        assert chosen == configure(problem, found)
        assert chosen.moves in MOVES
        assert chosen.evaluations in EVALUATIONS
        assert chosen.exploration in EXPLORATION
        assert chosen.cost_weight in COST_WEIGHTS
        seen = observe(problem, found)
        assert seen.shape == (OBSERVED,)
        assert np.isfinite(seen).all()
        assert {name: gains(seen[SEES[name]]).shape for name, gains in agent().items()} == {
            name: counts.shape for name, counts in SPENT.items()
        }
        assert configure(problem, found, evaluations=33).evaluations == 33


def test_agent_tells_questions_apart():
    """No setting of a reranker's search and no price of tokens is the same for all."""
    problems = [random_problem(seed, size=4 + 3 * seed) for seed in range(12)]
    chosen = [configure(p, value_greedy(p), evaluation_price=0.1) for p in problems]
    for setting in ("evaluations", "exploration", "cost_weight"):
        assert len({getattr(each, setting) for each in chosen}) > 1


def test_an_agent_survives_its_file():
    problem = random_problem(3, size=10)
    seen = observe(problem, value_greedy(problem))
    again = agent_from_json(agent_to_json(agent()))
    for name, gains in agent().items():
        np.testing.assert_allclose(again[name](seen[SEES[name]]), gains(seen[SEES[name]]))


def test_agent_learns_what_pays():
    """The second choice pays where a number is positive, else the first."""
    states = np.random.default_rng(0).normal(size=(200, 5))
    earned = np.stack([np.zeros(200), states[:, 3]], axis=1)
    chosen = np.argmax(fit(states, earned, np.ones(200))(states), axis=1)
    assert (chosen == (states[:, 3] > 0)).mean() > 0.95


def test_a_constant_is_what_pays_most_by_weight():
    states = np.random.default_rng(0).normal(size=(4, 5))
    earned = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [9.0, 0.0]])
    for weight, best in (([1.0, 1.0, 1.0, 0.1], 1), ([1.0, 1.0, 1.0, 1.0], 0)):
        gains = constant(states, earned, np.array(weight))(states)
        assert (np.argmax(gains, axis=1) == best).all()
        np.testing.assert_allclose(gains, gains[:1].repeat(4, axis=0))


def test_held_out_questions_judge_agents():
    draw = np.random.default_rng(0)
    count = 400
    states = draw.normal(size=(count, OBSERVED))
    choices = SPENT["cost_weight"].size
    learnable = np.zeros((count, choices))
    learnable[:, 0], learnable[:, 1] = 0.1, states[:, 3]
    chance = np.zeros((count, choices))
    chance[:, 0], chance[:, 1] = 0.5, draw.normal(size=count)
    data = Played(
        states=states,
        brought={"cost_weight": learnable},
        spent={"cost_weight": np.zeros((count, choices))},
        fold=np.arange(count) % 2,
        question=np.arange(count),
        family=np.array(["a", "b"])[np.arange(count) // 200],
        weight=np.ones(count),
    )
    (row,) = compare(data, "cost_weight", data.fold)
    assert row["constant"] < row["agent"] - 5 * row["error"]
    assert row["agent"] <= row["best"] == pytest.approx(learnable.max(axis=1).mean())
    assert row["agent"] - row["constant"] == pytest.approx(row["difference"])
    (row,) = compare(replace(data, brought={"cost_weight": chance}), "cost_weight", data.family)
    assert row["difference"] < 2 * row["error"]
