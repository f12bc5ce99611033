"""Judges in a reranker's place, the searches that are compared, and what the agent learns from."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.chunk_selection.configuration import SEARCHES, SPENT
from baselines.chunk_selection.heuristics import value_greedy
from experiments import bench_chunk_reranker as bench
from experiments import chunk_judges as judges
from experiments.common import Results
from experiments.retrieval_pools import Pool
from experiments.retrieval_sets import Passage, Question, Span
from experiments.train_chunk_configuration import play
from games.chunk_selection.chunk import Chunk

TEXTS = [
    "Clara\nThe Clara is a river that flows past Torsby.",
    "Torsby\nTorsby is a town in the north of Sweden.",
    "Sweden\nThe capital of Sweden is Stockholm.",
    "Rivers\nRivers flow into lakes, or into the sea.",
    "Towns\nA town is larger than a village.",
    "Lakes\nThe largest lake of Sweden is called Vanern.",
    "Stockholm\nStockholm lies on many islands.",
    "Boats\nBoats carried timber down many rivers.",
]


@pytest.fixture(scope="module")
def pool() -> Pool:
    """The evidence is the first and the sixth text."""
    draw = np.random.default_rng(0)
    spans = [Span(str(i), 0, len(text)) for i, text in enumerate(TEXTS)]
    return Pool(
        question=Question("q", "In which country is the Clara's town?", (spans[0], spans[5])),
        passages=tuple(Passage(text, "", span) for text, span in zip(TEXTS, spans, strict=True)),
        chunks=tuple(
            Chunk(str(i), text, n_tokens=10, score=1.0 / (1 + i), embedding=draw.normal(size=4))
            for i, text in enumerate(TEXTS)
        ),
        query_embedding=draw.normal(size=4),
    )


def test_a_judge_knows_the_evidence_but_for_noise(pool, monkeypatch):
    problem = pool.problem(30)
    held = judges.evidence(pool, problem)
    lengths = np.array([len(TEXTS[0]), len(TEXTS[5])])
    recall = lengths[0] / lengths.sum()
    assert held([5, 0]) == 1.0
    assert held([0, 3]) == pytest.approx(recall / 1.5)
    assert held([3]) == 0.0
    score = judges.by_evidence(pool, problem, [7])
    assert score([(0, 5), (5, 0)])[0] == score([(5, 0)])[0]
    assert score([(0, 5)]) != judges.by_evidence(pool, problem, [8])([(0, 5)])
    monkeypatch.setattr(judges, "NOISE", 0.0)
    assert judges.by_evidence(pool, problem, [7])([(0, 5), (3,)]) == [1.0, 0.0]
    diluted = judges.by_dense_evidence(pool, problem, [7])([(0, 5), (0, 5, 3)])
    assert diluted == pytest.approx([0.81, 0.729])


def test_similarity_judges_the_mean_of_a_context(pool):
    problem = pool.problem(30)
    (score,) = judges.by_embedding(pool, problem, [0])([(2,)])
    own, asked = pool.chunks[2].embedding, pool.query_embedding
    assert score == pytest.approx(own @ asked / np.linalg.norm(own) / np.linalg.norm(asked))


@pytest.mark.parametrize("method", bench.METHODS)
@pytest.mark.parametrize("cap", [1, 6, 40])
def test_searches_keep_to_cap_and_budget(pool, method, cap):
    problem = pool.problem(30)
    judge = judges.by_evidence(pool, problem, [3])
    asked = []

    def counted(orders):
        asked.extend(orders)
        return judge(orders)

    order, score = bench.METHODS[method](problem, counted, cap, (1, 2, 3), 0)
    assert 0 < len(asked) <= cap
    assert problem.tokens[list(order)].sum() <= problem.budget
    assert judge([order]) == [score]
    assert score == max(judge(asked))
    if method != "CORAG":
        assert score >= judge([(1, 2, 3)])[0]
    assert bench.METHODS[method](problem, judge, cap, (1, 2, 3), 0) == (order, score)


def test_what_choices_bring(pool):
    """More evaluations find what the judge likes best, and are counted as they were made."""
    problem = pool.problem(30)
    found = play(pool, problem, value_greedy(problem), 0)
    assert {name: brought.shape for name, (brought, _) in found.items()} == {
        name: counts.shape for name, counts in SPENT.items()
    }
    brought, made = found["search"]
    assert made[0] == 0
    assert (made <= SPENT["search"]).all()
    most = SEARCHES.index((160, 2.0))
    assert brought[most] == 100.0
    assert made[most] <= 92  # sets of up to three of eight


def test_comparison_counts_all_sets(tmp_path):
    results = Results(tmp_path / "chunk_reranker.json", bench.NAME)
    for name, evidence in (("a", 40.0), ("b", 60.0)):
        row = {
            "evidence": dict.fromkeys(bench.METHODS, evidence),
            "less": {method: [3, 2, 1] for method in bench.METHODS if method != bench.OWN},
        }
        cell = {
            "start": evidence,
            "judges": {judge: {str(cap): row for cap in bench.CAPS} for judge in bench.JUDGES},
        }
        results.measure({"set": name}, lambda cell=cell: cell)
    row = bench.table(results).splitlines()[2]
    assert row.startswith("| evidence | 10 | 50.0 | 50.0 | 50.0 | 50.0 | 6 / 4 / 2 |")
    assert "50.0 before" in bench.report(results)
