"""What scores of sets say about the hypotheses, and a search that goes by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_instances import random_problem

from baselines.chunk_selection.belief import Belief
from baselines.chunk_selection.tree_search import set_search
from games.chunk_selection.problem import ChunkSelectionProblem
from games.chunk_selection.solution import covered
from games.chunk_selection.value import NOBODY


def sure_problem(seed: int, size: int) -> ChunkSelectionProblem:
    """Each of the hypotheses is all of the evidence if it holds."""
    problem = random_problem(seed, size=size)
    return replace(problem, complete=problem.probability, recall=problem.probability)


@given(st.integers(0, 50), st.floats(0.01, 1000.0), st.floats(-50.0, 50.0))
@settings(max_examples=25, deadline=None)
def test_belief_finds_the_evidence_whatever_the_scale_of_the_scores(seed, scale, offset):
    problem = sure_problem(seed, size=12)
    random = np.random.default_rng(seed)
    there = problem.members != NOBODY
    truth = int(random.integers(len(problem.members)))
    evidence = set(problem.members[truth][there[truth]].tolist())
    belief, plain = Belief(problem), Belief(problem)
    for _ in range(40):
        order = random.permutation(12)[: random.integers(1, 8)].tolist()
        share = covered(problem, order)[sorted(evidence)]
        worth = share.mean() + problem.all_weight * share.min()
        belief.add(order, scale * worth + offset)
        plain.add(order, worth)
    np.testing.assert_allclose(belief.weights(), plain.weights(), rtol=1e-4, atol=1e-9)
    likeliest = int(np.argmax(belief.weights()))
    assert set(problem.members[likeliest][there[likeliest]].tolist()) == evidence
    assert belief.weights().sum() == pytest.approx(1.0)
    hot, cold = belief.weights(4.0), belief.weights(0.25)
    assert hot.max() <= belief.weights().max() <= cold.max()


def test_a_judge_that_contradicts_the_value_is_followed():
    """The value's favourite brings nothing; a hypothesis that it finds unlikely is right."""
    problem = sure_problem(3, size=30)
    problem = replace(problem, budget=3, tokens=np.ones(30, dtype=np.int64), overlap=np.eye(30))
    last = problem.members[min(len(problem.members), 200) - 1]
    evidence = set(last[last != NOBODY].tolist())

    def score(orders):
        return [len(evidence & set(o)) / len(evidence) for o in orders]

    found = set_search(problem, score=score, evaluations=60).solution
    assert evidence <= set(found.order)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e300, 0.0])
def test_any_finite_score_will_do(scale):
    problem = random_problem(5, size=20)

    def score(orders):
        return [scale * len(order) for order in orders]

    found = set_search(problem, score=score, evaluations=40)
    assert "fault" not in found.detail
    assert found.solution.order
