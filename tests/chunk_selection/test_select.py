"""`select()` and `compiler-rl select` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.chunk_selection.configuration import COST_WEIGHTS
from compiler_rl.select import select
from games.chunk_selection.chunk import Chunk, count_tokens, make_chunks, read_jsonl
from hlo_frontend.errors import InputError

QUERY = "Which river flows through the city where Ada Lindqvist was born?"
TEXTS = [
    "Ada Lindqvist\nAda Lindqvist (1871-1940) was a painter born in Torsby.",
    "Torsby\nTorsby is a town in the north. The river Klar flows through Torsby.",
    "Painting\nPainting is an art with colours on canvas, known since antiquity.",
    "Klar (brand)\nKlar is a brand of soap that is sold in many shops of the land.",
    "River\nA river is a natural stream of water that flows towards a sea or a lake.",
    "Lindqvist\nLindqvist is a surname, borne among others by Olof Lindqvist, a banker.",
]


def test_texts_in_chunks_and_trace_out():
    chunks, trace = select(QUERY, TEXTS, 45)
    assert {chunk.text for chunk in chunks} >= {TEXTS[0], TEXTS[1]}
    assert trace.used == sum(count_tokens(chunk.text) for chunk in chunks) <= 45
    assert trace.unused == 45 - trace.used
    assert [reason.id for reason in trace.taken] == [chunk.id for chunk in chunks]
    assert not {r.id for r in trace.nearly_taken} & {r.id for r in trace.taken}
    assert all(reason.why for reason in (*trace.taken, *trace.nearly_taken))
    assert trace.bound <= trace.loss + 1e-9
    assert trace.loss == min(trace.methods.values())
    json.dumps(trace.to_json(), allow_nan=False)
    assert select(QUERY, TEXTS, 45).chunks == chunks


def test_own_scores_embeddings_tokens_and_metadata():
    draw = np.random.default_rng(0)
    given = [
        {
            "id": i,
            "text": text,
            "n_tokens": 20,
            "score": 1.0 - 0.1 * i,
            "embedding": draw.normal(size=8).tolist(),
            "metadata": {"source": f"file{i}"},
        }
        for i, text in enumerate(TEXTS)
    ]
    chunks, trace = select(QUERY, given, 40, query_embedding=draw.normal(size=8))
    assert len(chunks) == 2
    assert trace.used == 40
    assert all(chunk.metadata["source"] == f"file{chunk.id}" for chunk in chunks)


def test_the_users_tokenizer_counts():
    chunks, trace = select(QUERY, TEXTS, 150, tokenizer=len)
    assert trace.used == sum(len(chunk.text) for chunk in chunks) <= 150


def test_duplicates_are_taken_once():
    twice = [*TEXTS[:2], TEXTS[0], TEXTS[0]]
    chunks, trace = select(QUERY, twice, 10**4, cost_weight=0.5)
    assert sum(chunk.text == TEXTS[0] for chunk in chunks) == 1
    assert trace.unused > 0


def test_a_price_of_tokens_leaves_budget_unused():
    filled = select(QUERY, TEXTS, 120).trace
    priced = select(QUERY, TEXTS, 120, cost_weight=2.0).trace
    assert priced.used < filled.used


def test_the_agent_sets_the_price_of_tokens():
    by_agent = select(QUERY, TEXTS, 120, cost_weight=None)
    assert by_agent.trace.used <= select(QUERY, TEXTS, 120).trace.used
    price = by_agent.trace.cost_weight
    assert price in COST_WEIGHTS
    assert by_agent.chunks == select(QUERY, TEXTS, 120, cost_weight=price).chunks


def test_the_agents_price_leaves_something():
    two = ["The Clara flows past Torsby.", "Torsby lies in Sweden."]
    assert select("Which river flows past Torsby?", two, 12, cost_weight=None).chunks


def test_more_candidates_than_are_looked_at():
    many = [*TEXTS, *(f"Note {i}\nNothing that matters is in note number {i}." for i in range(90))]
    chunks, trace = select(QUERY, many, 60)
    assert {chunk.text for chunk in chunks} >= {TEXTS[0], TEXTS[1]}
    assert any("left out" in note for note in trace.notes)


def test_a_reranker_decides_order_and_set():
    def reranker(query, chunks):
        assert query == QUERY
        wanted = (TEXTS[4], TEXTS[2])
        return sum(a.text == b for a, b in zip(chunks, wanted, strict=False)) - 0.1 * len(chunks)

    chunks, trace = select(QUERY, TEXTS, 60, reranker=reranker)
    assert [chunk.text for chunk in chunks] == [TEXTS[4], TEXTS[2]]
    assert trace.evaluations <= 200


def test_a_dear_reranker_is_asked_less():
    """Down to never, which the trace says; what is given is not the agent's to choose."""

    def traced(**options):
        return select(
            QUERY, TEXTS, 60, reranker=lambda query, chunks: float(len(chunks)), **options
        )

    caps = [traced(evaluation_price=price).trace.cap for price in (0.0, 0.2, 2.0, 100.0)]
    assert caps == sorted(caps, reverse=True)
    assert caps[0] > caps[-1] == 0
    chunks, trace = traced(evaluation_price=100.0)
    assert chunks == select(QUERY, TEXTS, 60).chunks
    assert "not asked" in trace.notes[0]
    few, many = (traced(evaluation_price=100.0, evaluations=count).trace for count in (3, 30))
    assert (few.cap, few.evaluations, many.cap) == (3, 3, 30)
    assert not few.notes
    assert select(QUERY, TEXTS, 60).trace.cap is None


def test_a_reranker_with_batches_gets_batches():
    sizes = []

    class Batched:
        def score_batch(self, query, contexts):
            sizes.append(len(contexts))
            return [float(len(context)) for context in contexts]

    select(QUERY, TEXTS, 60, reranker=Batched(), evaluations=30)
    assert max(sizes) > 1
    assert sum(sizes) <= 30


@pytest.mark.parametrize("failing_call", [1, 12])
@pytest.mark.parametrize("fault", [float("nan"), RuntimeError("no memory left")])
def test_a_reranker_that_fails_keeps_the_best_so_far(failing_call, fault):
    calls = 0

    def reranker(query, chunks):
        nonlocal calls
        calls += 1
        if calls == failing_call:
            if isinstance(fault, Exception):
                raise fault
            return fault
        return float(len(chunks))

    chunks, trace = select(QUERY, TEXTS, 60, reranker=reranker)
    assert chunks
    assert any("reranker" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda contexts: [1.0] * (len(contexts) + 1), "scores for"),
        (lambda contexts: None, "TypeError"),
        (lambda contexts: 1 // 0, "ZeroDivisionError"),
        (lambda contexts: [float("nan") for _ in contexts], "returned nan"),
    ],
)
def test_batches_that_fail_are_one_line(scores, words):
    class Batched:
        def score_batch(self, query, contexts):
            return scores(contexts)

    chunks, trace = select(QUERY, TEXTS, 60, reranker=Batched())
    assert chunks
    assert words in trace.notes[0]
    assert "\n" not in trace.notes[0]


def test_scores_before_a_fault_in_the_same_batch_count():
    calls = 0

    def reranker(query, chunks):
        nonlocal calls
        calls += 1
        if calls == 6:
            raise ValueError("first line\nsecond line")
        return float(calls)

    trace = select(QUERY, TEXTS, 60, reranker=reranker).trace
    assert trace.evaluations == 5
    assert trace.method == "set_search with the reranker"
    assert "\n" not in trace.notes[0]


GOOD = [Chunk("a", "some text"), Chunk("b", "other text")]
BAD = {
    "no chunks": ([], "no chunks"),
    "twice": ([Chunk("a", "x"), Chunk("a", "y")], "twice"),
    "nan": ([Chunk("a", "x", score=float("nan"))], "score nan"),
    "lengths": (
        [Chunk("a", "x", embedding=[1.0, 2.0]), Chunk("b", "y", embedding=[1.0])],
        "lengths 1, 2",
    ),
    "endless": ([Chunk("a", "x", embedding=[float("inf")])], "finite"),
    "nested": ([Chunk("a", "x", embedding=[[1.0]])], "embedding"),
    "no text": ([{"id": "a"}], "no 'text'"),
    "tokens": ([Chunk("a", "x", n_tokens=0)], "n_tokens 0"),
    "words": ([{"id": "a", "text": "x", "n_tokens": "many"}], "n_tokens 'many'"),
    "score": ([{"id": "a", "text": "x", "score": "high"}], "score 'high'"),
    "score of a chunk": ([Chunk("a", "x", score="high")], "score 'high'"),
    "too large a score": ([Chunk("a", "x", score=1e300)], "finite"),
    "title": ([Chunk("a", "x", title=3)], "title is int"),
    "identity": ([{"id": None, "text": "x"}], "id None"),
    "bytes": ([b"caf\xe9"], "chunk 1: bytes"),
    "nothing": ([None], "chunk 1: NoneType"),
    "no list": ("one text", "expected a list of chunks"),
    "one line": ({"id": "a", "text": "x"}, "expected a list of chunks"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_chunks_are_one_line(name):
    chunks, words = BAD[name]
    with pytest.raises(InputError, match=words) as caught:
        select(QUERY, chunks, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", [0, -5, 2.5, True, None, "20", float("nan"), 10**30])
def test_bad_budgets(budget):
    with pytest.raises(InputError, match="budget"):
        select(QUERY, GOOD, budget)


def test_other_bad_input():
    with pytest.raises(InputError, match="every chunk is larger"):
        select(QUERY, [replace(GOOD[0], n_tokens=20)], 10)
    with pytest.raises(InputError, match="query"):
        select("  ", GOOD, 10)
    with pytest.raises(InputError, match="embedding of length 3"):
        select(QUERY, [Chunk("a", "x", embedding=np.ones(2))], 10, query_embedding=[1, 2, 3])
    with pytest.raises(InputError, match="tokenizer"):
        select(QUERY, ["x"], 10, tokenizer=lambda text: text.split())
    with pytest.raises(InputError, match="tokenizer failed: ZeroDivisionError"):
        select(QUERY, ["x"], 10, tokenizer=lambda text: 1 // 0)
    for options, words in (
        ({"evaluations": 0}, "evaluations 0"),
        ({"evaluations": 2.5}, "evaluations 2.5"),
        ({"moves": -1}, "moves -1"),
        ({"evaluation_price": -0.1}, "evaluation_price -0.1"),
        ({"evaluation_price": float("nan")}, "evaluation_price nan"),
        ({"time_limit": float("nan")}, "time_limit nan"),
        ({"position_weights": ["first"]}, "position_weights"),
        ({"all_weight": -1}, "all_weight -1"),
    ):
        with pytest.raises(InputError, match=words):
            select(QUERY, GOOD, 10, **options)
    with pytest.raises(InputError, match="cost_weight"):
        select(QUERY, GOOD, 10, cost_weight=float("nan"))
    with pytest.raises(InputError, match="reranker"):
        select(QUERY, GOOD, 10, reranker=3)


def test_a_chunk_larger_than_the_budget_is_only_left_out():
    large = replace(GOOD[0], n_tokens=500)
    chunks, trace = select(QUERY, [large, GOOD[1]], 10)
    assert [chunk.id for chunk in chunks] == ["b"]
    assert "larger than the whole budget" in trace.nearly_taken[0].why


@pytest.mark.parametrize(
    "texts",
    [[""], ["", ""], ["?!", "..."], ["一二三 四五", "一二三"], ["a" * 5000], ["\ud800 x", "y"]],
)
def test_odd_texts(texts):
    chunks, _ = select(QUERY, texts, 10**4)
    assert chunks
    assert select("?", texts, 10**4).chunks


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compiler_rl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_command_from_file_to_file(tmp_path):
    given = write(
        tmp_path / "in.jsonl",
        [{"id": f"[{i}]", "text": text, "metadata": {"n": i}} for i, text in enumerate(TEXTS)],
    )
    files = {name: tmp_path / name for name in ("out.jsonl", "report.json", "picture.svg")}
    done = run(
        *("select", "--query", QUERY, "--chunks", given, "--budget", "45"),
        *("--out", files["out.jsonl"], "--json", files["report.json"]),
        *("--plot", files["picture.svg"], "--cost-weight", "auto"),
    )
    assert done.returncode == 0, done.stderr
    assert "[0]" in done.stdout
    chosen = read_jsonl(files["out.jsonl"])
    assert {chunk.text for chunk in chosen} >= {TEXTS[0], TEXTS[1]}
    assert sum(chunk.n_tokens for chunk in chosen) <= 45
    assert all(TEXTS[chunk.metadata["n"]] == chunk.text for chunk in chosen)
    report = json.loads(files["report.json"].read_text())
    assert report["validated"] is True
    assert report["cost_weight"] in COST_WEIGHTS
    assert [row["id"] for row in report["taken"]] == [chunk.id for chunk in chosen]
    assert files["picture.svg"].read_text().startswith("<?xml")


def test_command_says_in_one_line_what_is_wrong(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"id": "a", "text": "caf\xe9"}\n')
    good = write(tmp_path / "good.jsonl", [{"id": "a", "text": "x"}])
    cases = {
        "not UTF-8": ("--chunks", bad, "--budget", "10"),
        "no folder": (
            *("--chunks", good, "--budget", "10"),
            *("--out", tmp_path / "none" / "out.jsonl"),
        ),
        "expected a number, or auto": (
            *("--chunks", good, "--budget", "10"),
            *("--cost-weight", "much"),
        ),
    }
    for words, options in cases.items():
        done = run("select", "--query", QUERY, *options)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_lines_that_are_no_chunks(tmp_path):
    path = tmp_path / "lines.jsonl"
    for content, words in (
        ("", "no chunks"),
        ("{\n", "line 1: not JSON"),
        ('{"id": "a", "text": "x"}\n[1]\n', "line 2: expected a JSON object"),
        ('{"id": "a", "text": "x", "score": NaN}\n', "score nan"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=words):
            read_jsonl(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_jsonl(tmp_path / "missing.jsonl")


def test_what_has_no_utf8_survives_files(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "\\ud800", "text": "half \\ud83d of a pair, and é"}\n')
    out, picture = tmp_path / "out.jsonl", tmp_path / "picture.svg"
    options = ("--budget", "30", "--out", out, "--plot", picture)
    done = run("select", "--query", QUERY, "--chunks", path, *options)
    assert done.returncode == 0, done.stderr
    assert read_jsonl(out)[0].text == read_jsonl(path)[0].text
    assert picture.exists()


def test_chunks_keep_their_own_counts():
    assert [c.n_tokens for c in make_chunks([Chunk("a", "one two", n_tokens=9), "one two"])] == [
        9,
        2,
    ]
