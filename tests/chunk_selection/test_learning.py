"""The learned value and the configuration agent: hypotheses, training, files."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from selection_instances import random_problem

from baselines.chunk_selection.configuration import GRID, OBSERVED, configure, observe, weights
from experiments import evidence_training
from experiments.evidence_examples import Example
from experiments.evidence_levels import calibrated
from experiments.evidence_training import layout_of, totals, train
from experiments.train_chunk_configuration import constant, fit, held_out
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
        chosen = configure(problem, 0.5)
        assert chosen == configure(problem, 0.5)
        assert chosen.moves in GRID["moves"]
        assert chosen.evaluations in GRID["evaluations"]
        assert chosen.exploration in GRID["exploration"]
        assert chosen.cost_weight in GRID["cost_weight"]
        assert np.isfinite(observe(problem, 0.5)).all()
        assert observe(replace(problem, budget=1), 0.5).shape == (OBSERVED,)
    assert {name: w.shape for name, w in weights().items()} == {
        name: (OBSERVED, len(values)) for name, values in GRID.items()
    }


def test_agent_learns_what_pays():
    """The second value pays where a number is positive, else the first."""
    states = np.random.default_rng(0).normal(size=(200, OBSERVED))
    earned = np.stack([np.zeros(200), states[:, 3]], axis=1)
    chosen = np.argmax(states @ fit(states, earned), axis=1)
    assert (chosen == (states[:, 3] > 0)).mean() > 0.95


def test_held_out_questions_judge_policies():
    draw = np.random.default_rng(0)
    states = np.concatenate([np.ones((400, 1)), draw.normal(size=(400, OBSERVED - 1))], axis=1)
    part = np.arange(400) % 2
    learnable = np.stack([np.full(400, 0.1), states[:, 3]], axis=1)
    found = held_out(states, learnable, part)
    best = float(learnable.max(axis=1).mean())
    assert found.constant < found.policy - 5 * found.error
    assert found.policy < found.oracle == best
    chance = np.stack([np.full(400, 0.5), draw.normal(size=400)], axis=1)
    found = held_out(states, chance, part)
    assert found.policy - found.constant < 2 * found.error
    assert (np.argmax(states @ constant(learnable), axis=1) == 0).all()
