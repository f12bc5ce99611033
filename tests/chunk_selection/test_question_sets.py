"""Question sets, their measures, retrieval, and `compiler-rl evaluate select`."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from compiler_rl.retrieval import reciprocal_rank
from experiments import bench_chunk_calibration, bench_chunk_transfer
from experiments import chunk_calibration as checks
from experiments import chunk_evaluation as measures
from experiments.common import Results
from experiments.evidence_examples import evidence_of
from experiments.pseudo_questions import pseudo_questions
from experiments.retrieval_pools import Pool, family_of, load_sets
from experiments.retrieval_sets import (
    Passage,
    Question,
    QuestionSet,
    Span,
    folds,
    load,
    merge,
    recall,
    sentences,
    touched,
    windows,
)
from experiments.train_chunk_selection import Lesson, examples_of
from games.chunk_selection.chunk import Chunk
from hlo_frontend.errors import InputError

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "rag"


def passage(start: int, end: int, document: str = "d") -> Passage:
    return Passage("x" * (end - start), "", Span(document, start, end))


def test_recall_counts_each_character_once():
    question = Question("q", "?", (Span("d", 10, 20), Span("e", 0, 10)))
    assert recall(question, []) == 0
    assert recall(question, [passage(0, 15)]) == 0.25
    assert recall(question, [passage(0, 15), passage(12, 30)]) == 0.5
    assert recall(question, [passage(12, 30), passage(0, 15), passage(0, 30)]) == 0.5
    assert recall(question, [passage(0, 40), passage(0, 40, "e")]) == 1


class Letters:
    """An encoder whose word pieces are single letters."""

    def pieces(self, text):
        return [(at, at + 1) for at, letter in enumerate(text) if not letter.isspace()]


def test_sets_by_name(tmp_path):
    path = chroma(tmp_path)
    whole = load_sets(str(path), Letters())
    assert len(whole.passages) == 1
    assert whole == load(path)
    cut = load_sets(f"{path}:40/20", Letters()).passages
    letters = len(Letters().pieces(whole.passages[0].text))
    assert len(cut) == -(-(letters - 40) // 20) + 1
    assert all(len(Letters().pieces(passage.text)) == 40 for passage in cut[:-1])
    assert len(load_sets(f"{path}:0.5", Letters()).passages) == 1
    two = load_sets(f"{hotpot(tmp_path)}+{musique(tmp_path)}", Letters())
    assert len(two.questions) == 2
    assert len(two.passages) == 3
    for wrong in ("40/50", "0/0", "1.5", "x", "40/", "nan"):
        with pytest.raises(InputError, match="expected SIZE/STEP"):
            load_sets(f"{path}:{wrong}", Letters())


def test_sets_cut_in_other_ways_are_one_data_set():
    assert family_of("docs:128/64") == family_of("docs") == "docs"
    assert family_of("a.json+b.json") == "a.json"


def test_examples_with_and_without_titles():
    passages = tuple(
        Passage(f"It is in {name}.", title, Span(name, 0, 1))
        for name, title in (("Torsby", "River"), ("Kil", "Lake"), ("Arvika", "Bay"))
    )
    chunks = tuple(
        Chunk(str(i), f"{p.title}\n{p.text}", 9, title=p.title) for i, p in enumerate(passages)
    )
    question = Question("q", "Where is the Lake?", (Span("Kil", 0, 1),))
    pool = Pool(question, passages, chunks, None)
    assert [chunk.text for chunk in pool.untitled().chunks] == [p.text for p in passages]
    (found,) = examples_of([pool], "set")
    assert [(each.ranks, each.levels) for each in found] == [
        *[(True, True), (True, False), (False, True)] * 2
    ]
    assert [example.evidence for example in found[::3]] == [(1,), (1,)]
    assert found[0].features.candidate[1].tolist() != found[3].features.candidate[1].tolist()
    bare = replace(pool, passages=tuple(replace(p, title="") for p in passages))
    assert [len(each) for each in examples_of([bare], "set")] == [3]
    (found,) = examples_of([replace(bare, steps=(pool,))], "set")
    assert [example.group for example in found] == ["set"] * 3 + ["set, steps"] * 6


class Lengths:
    """An encoder for which texts of a length are alike."""

    def encode(self, texts):
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        return np.stack([np.cos(lengths / 99), np.sin(lengths / 99)], axis=1)


def towns(titled: bool = True) -> QuestionSet:
    """Each town's text names the next one."""
    names = [f"Town{letter}" for letter in "abcdefghijklmnopqrst"]
    passages = tuple(
        Passage(
            f"{name} has a market, a bridge and {i} mills. A road leads from there to {after}.",
            f"{name} (town)" if titled else "",
            Span(name, 0, 1),
        )
        for i, (name, after) in enumerate(pairwise([*names, "nowhere"]))
    )
    return QuestionSet("towns", passages, ())


def test_pseudo_questions_follow_links():
    given = towns()
    made = pseudo_questions(given, Lengths())
    assert made.passages == given.passages
    hops = [question for question in made.questions if question.id.startswith("hops")]
    compared = [question for question in made.questions if question.id.startswith("comparison")]
    assert len(hops) == 19
    for question in hops:
        first, second = (span.document for span in question.evidence)
        assert ord(second[-1]) == ord(first[-1]) + 1
        assert second not in question.text
    assert len(compared) == 20
    for question in compared:
        assert all(span.document in question.text for span in question.evidence)
    assert pseudo_questions(given, Lengths()) == made
    assert pseudo_questions(towns(titled=False), Lengths()).questions == ()


def test_held_out_questions_hold_out_pseudo_questions():
    asked = [Question(name, "?", (Span(name, 0, 1),)) for name in "ab"]
    made = [Question(f"{a}{b}", "?", (Span(a, 0, 1), Span(b, 0, 1))) for a, b in ("ac", "bc", "cd")]
    pools, pseudo = ([Pool(each, (), (), None) for each in some] for some in (asked, made))
    names = [[[question.id] for question in some] for some in (asked, made)]
    lesson = Lesson(pools, names[0], pseudo, names[1])
    assert lesson.without(np.array([True, False])) == ["b", "bc", "cd"]
    assert lesson.without(np.array([False, False])) == ["a", "b", "ac", "bc", "cd"]


def test_touched_counts_spans():
    question = Question("q", "?", (Span("d", 10, 20), Span("e", 0, 10)))
    assert touched(question, []) == 0
    assert touched(question, [passage(19, 30), passage(20, 30), passage(0, 9, "f")]) == 0.5
    assert touched(question, [passage(0, 10), passage(5, 7, "e")]) == 0.5
    assert touched(question, [passage(19, 30), passage(5, 7, "e")]) == 1


def test_evidence_is_marginal():
    question = Question("q", "?", (Span("d", 10, 20),))
    pool = [passage(0, 15), passage(0, 18), passage(12, 30), passage(9, 21, "other")]
    assert evidence_of(question, pool) in (((1, 2), 1.0), ((2, 0), 1.0))
    assert evidence_of(question, [*pool, passage(5, 25), passage(5, 25)]) == ((4,), 1.0)
    assert evidence_of(question, [passage(30, 40)]) == ((), 0.0)
    assert evidence_of(question, [passage(5, 15)]) == ((0,), 0.5)


def test_chunks_are_whole_sentences_and_repeat_their_share():
    text = " ".join(f"Sentence number {i} is here." for i in range(20))  # six pieces each
    plain = [text[a:b] for a, b in sentences(text, 30, 0.0)]
    assert [chunk.count(".") for chunk in plain] == [5, 5, 5, 5]
    assert " ".join(plain) == text
    half = sentences(text, 30, 0.5)
    assert [text[a:b].count(".") for a, b in half] == [5] * 6
    assert all(b > c for (_, b), (c, _) in pairwise(half))
    assert (half[0][0], half[-1][1]) == (0, len(text))
    long = " ".join(f"w{i}" for i in range(100))
    assert [len(long[a:b].split()) for a, b in sentences(long, 30, 0.0)] == [30, 30, 30, 10]
    assert sentences("", 30, 0.5) == []


def test_windows_of_pieces():
    pieces = [(3 * i, 3 * i + 2) for i in range(10)]
    assert windows(pieces, 4, 2) == [(0, 11), (6, 17), (12, 23), (18, 29)]
    assert windows(pieces, 4, 4) == [(0, 11), (12, 23), (24, 29)]
    assert windows(pieces, 20, 10) == [(0, 29)]
    assert windows([], 4, 2) == []


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = {
        "d1": ("Torsby", "Torsby is a town. The river Klar flows through Torsby."),
        "d2": ("Ada Lindqvist", "Ada Lindqvist was a painter born in Torsby."),
        "d3": ("Soap", "Soap is made of fat and lye."),
        "d4": ("Klar", "The Klar is a river of the north."),
    }
    rows = [{"_id": k, "title": t, "text": x} for k, (t, x) in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [
        {"_id": "q1", "text": "Which river flows through the town where Ada Lindqvist was born?"},
        {"_id": "q2", "text": "What is soap made of?"},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq2\td3\t1\nq2\td4\t0\n"
    )
    return folder


def test_beir(tmp_path):
    found = load(beir(tmp_path / "set"))
    assert [question.id for question in found.questions] == ["q1", "q2"]
    assert [span.document for span in found.questions[0].evidence] == ["d1", "d2"]
    assert found.texts[2] == "Soap\nSoap is made of fat and lye."


def test_hotpot_in_both_forms_and_musique(tmp_path):
    context = [["A", ["One. ", "Two."]], ["B", ["Three."]], ["C", ["Four."]]]
    plain = {"question": "?", "answer": "x", "context": context, "_id": "1"}
    plain["supporting_facts"] = [["A", 0], ["B", 0]]
    hub = {
        **plain,
        "context": {"title": ["A", "B", "C"], "sentences": [c[1] for c in context]},
        "supporting_facts": {"title": ["A", "B"], "sent_id": [0, 0]},
    }
    sets = []
    for name, rows in (("plain", [plain]), ("hub", [hub])):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(rows))
        sets.append(load(path))
    assert sets[0].questions == sets[1].questions
    assert len(sets[0].questions[0].evidence) == 2
    both = merge("both", sets)
    assert len(both.passages) == 3
    assert len(both.questions) == 2
    musique = {
        "id": "2hop",
        "question": "?",
        "answer": "x",
        "answer_aliases": ["y"],
        "paragraphs": [
            {"title": "A", "paragraph_text": "One.", "is_supporting": True},
            {"title": "B", "paragraph_text": "Two.", "is_supporting": False},
        ],
        "question_decomposition": [
            {"question": "Brand >> author", "answer": "Ibsen", "paragraph_support_idx": 1},
            {"question": "Where is #1 ?", "answer": "x", "paragraph_support_idx": 0},
            {"question": "Why?", "answer": "", "paragraph_support_idx": None},
        ],
    }
    path = tmp_path / "musique.jsonl"
    path.write_text(json.dumps(musique) + "\n")
    question = load(path).questions[0]
    assert question.answers == ("x", "y")
    assert len(question.evidence) == 1
    assert [step.text for step in question.steps] == ["Brand author", "Where is Ibsen ?"]
    assert [step.evidence[0].document for step in question.steps] == ["B\nTwo.", "A\nOne."]


CONTEXT = [
    ["Ada Lindqvist", ["Ada Lindqvist was a painter.", " She was born in Torsby."]],
    ["Torsby", ["Torsby is a town.", " The river Klar flows through Torsby."]],
    ["Soap", ["Soap is made of fat and lye."]],
]
ASKED = "Which river flows through the town where Ada Lindqvist was born?"


def hotpot(folder: Path) -> Path:
    row = {
        **{"_id": "5a", "type": "bridge", "level": "hard", "question": ASKED, "answer": "Klar"},
        **{"context": CONTEXT, "supporting_facts": [["Ada Lindqvist", 1], ["Torsby", 1]]},
    }
    path = folder / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps([row]))
    return path


def two_wiki(folder: Path) -> Path:
    row = {
        **{"_id": "61a46987092f11ebbdaeac1f6bf848b6", "type": "compositional"},
        **{"question": ASKED, "context": CONTEXT, "answer": "Klar", "answer_id": "Q1"},
        "supporting_facts": [["Ada Lindqvist", 1], ["Torsby", 1]],
        "entity_ids": "Q2_Q3",
        "evidences": [["Ada Lindqvist", "place of birth", "Torsby"], ["Torsby", "river", "Klar"]],
        "evidences_id": [["Q2", "place of birth", "Q3"], ["Q3", "river", "Q1"]],
    }
    path = folder / "dev.json"
    path.write_text(json.dumps([row]))
    return path


def musique(folder: Path) -> Path:
    paragraphs = [
        {"idx": i, "title": t, "paragraph_text": "".join(s), "is_supporting": i < 2}
        for i, (t, s) in enumerate(CONTEXT)
    ]
    row = {"id": "2hop__1_2", "paragraphs": paragraphs, "question": ASKED, "answer": "Klar"}
    path = folder / "musique_ans_v1.0_dev.jsonl"
    path.write_text(json.dumps({**row, "answer_aliases": [], "answerable": True}) + "\n")
    return path


def chroma(folder: Path) -> Path:
    text = "\n\n".join("".join(sentences) for _, sentences in CONTEXT)
    (folder / "wikitexts.md").write_text(text)
    found = [
        {"content": s.strip(), "start_index": text.index(s.strip())}
        for s in (CONTEXT[0][1][1], CONTEXT[1][1][1])
    ]
    references = [{**f, "end_index": f["start_index"] + len(f["content"])} for f in found]
    with (folder / "questions_df.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "references", "corpus_id"])
        rows.writerow([ASKED, json.dumps(references), "wikitexts"])
    return folder


@pytest.mark.parametrize("make", [hotpot, two_wiki, musique, chroma])
def test_every_form_is_evaluated(tmp_path, make):
    pytest.importorskip("bm25s", reason="needs the extra rag")
    path = make(tmp_path)
    question = load(path).questions[0]
    assert len(question.evidence) == 2
    report = measures.evaluate_set(path, [60], dense=False)
    assert report["questions"] == 1
    assert report["pool_recall"] == 1
    rows = report["budgets"]["60"]
    assert set(rows) == set(measures.METHODS)
    assert rows["oracle"]["recall"] == rows["select"]["recall"] == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[1]", "list of questions"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "no questions"),
        ("a.json", '[{"a": 1}]', "expected questions of"),
        ("a.json", '[{"paragraphs": [{}], "question": "?"}]', "not as the set has them"),
        ("a.jsonl", "[]\n", "expected a JSON object"),
    ],
)
def test_bad_sets_are_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        load(tmp_path / name)


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match=r"corpus\.jsonl"):
        load(tmp_path)
    folder = beir(tmp_path / "set")
    (folder / "qrels" / "test.tsv").write_text("q1\td1\tmuch\nq2\td3\tmore\n")
    with pytest.raises(InputError, match="line 2: expected query-id"):
        load(folder)


def pool_of(passages: list[Passage], evidence: tuple[Span, ...], answers=()) -> Pool:
    chunks = tuple(Chunk(str(i), p.text, n_tokens=10) for i, p in enumerate(passages))
    return Pool(Question("q", "what?", evidence, answers), tuple(passages), chunks, None)


def test_measures_by_hand():
    passages = [passage(0, 1, name) for name in "abcd"]
    pool = pool_of(passages, (Span("a", 0, 1), Span("c", 0, 1)))
    assert measures.token_f1(pool, [0, 1]) == pytest.approx(0.5)
    assert measures.token_f1(pool, [0, 2]) == 1
    assert measures.token_f1(pool, []) == 0
    assert measures.ndcg(pool.question, passages, [0, 2]) == pytest.approx(1)
    late = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    assert measures.ndcg(pool.question, passages, [1, 0]) == pytest.approx(late)
    question = Question("q", "?", (), ("Rio de Janeiro",))
    assert measures.answer_in_context(question, ["In RIO DE JANEIRO, yes"]) == 1
    assert measures.answer_in_context(question, ["Rio"]) == 0
    assert np.isnan(measures.answer_in_context(Question("q", "?", (), ("yes",)), ["yes"]))


def test_bootstrap_and_counts():
    same = measures.bootstrap([1, 0, 1], [1, 0, 1])
    assert same["difference"] == same["low"] == same["high"] == 0
    draw = np.random.default_rng(0)
    better = measures.bootstrap(draw.normal(0.5, 1, 400), draw.normal(0, 1, 400))
    assert 0 < better["low"] < better["difference"] < better["high"]
    assert better["p"] < 0.01
    assert measures.counted([1, 2, 3], [2, 2, 2]) == {"wins": 1, "ties": 1, "losses": 1}


def test_folds_and_fusion():
    dealt = folds(103, 5)
    assert np.bincount(dealt).tolist() == [21, 21, 21, 20, 20]
    assert (dealt == folds(103, 5)).all()
    fused = reciprocal_rank([np.array([3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0])])
    assert fused[1] == pytest.approx(1 / 62 + 1 / 61)
    assert int(np.argmax(fused)) == 1


def test_evaluate_command(tmp_path):
    pytest.importorskip("bm25s", reason="needs the extra rag")
    folder, out = beir(tmp_path / "set"), tmp_path / "out.json"
    options = ("--budgets", "15,40", "--json", str(out), "--no-dense")
    done = subprocess.run(
        [sys.executable, "-m", "compiler_rl", "evaluate", "select", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["questions"] == 2
    for rows in report["budgets"].values():
        assert set(rows) == set(measures.METHODS)
        assert all(0 <= row["recall"] <= rows["oracle"]["recall"] <= 1 for row in rows.values())
        assert all(row["tokens"] <= 40 for row in rows.values())
    assert report["budgets"]["40"]["oracle"]["recall"] == 1


def rivers(folder: Path, count: int) -> Path:
    """A BEIR folder with a question for each of so many towns."""
    (folder / "qrels").mkdir(parents=True)
    names = [f"Zor{chr(97 + i)}ka" for i in range(count)]
    corpus = [{"_id": x, "title": x, "text": f"{x} lies on the river {x[::-1]}."} for x in names]
    queries = [{"_id": x, "text": f"On which river is {x}?"} for x in names]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = "".join(f"{x}\t{x}\t1\n" for x in names)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder


def test_calibrate_command(tmp_path):
    pytest.importorskip("bm25s", reason="needs the extra rag")
    value = tmp_path / "value.json"
    chunks = tmp_path / "chunks.jsonl"
    chunks.write_text(
        '{"id": "a", "text": "Zoraka lies on a river."}\n{"id": "b", "text": "Soap."}\n'
    )
    sets = rivers(tmp_path / "many", 14), beir(tmp_path / "few")
    select = ("select", "--query", "On which river is Zoraka?", "--chunks", chunks, "--budget", "9")

    def run(*options):
        return subprocess.run(
            [sys.executable, "-m", "compiler_rl", *map(str, options)],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    done = run("calibrate", sets[0], "--out", value, "--budget", "40", "--no-dense")
    assert done.returncode == 0, done.stderr
    assert "14 questions" in done.stdout
    expected = []
    for options in ((), ("--value", value)):
        report = tmp_path / "report.json"
        done = run(*select, *options, "--json", report)
        assert done.returncode == 0, done.stderr
        expected.append(json.loads(report.read_text())["all_found"])
    assert 0.0 < expected[0] < expected[1] < 1.0

    for words, bad in {
        "2 questions, expected at least 10": (
            *("calibrate", sets[1], "--out", value),
            "--no-dense",
        ),
        "report.json: schema compiler-rl/selection/1, expected": (*select, "--value", report),
        "budget 1: smaller than every": (
            *("calibrate", sets[0], "--out", value),
            *("--budget", "1", "--no-dense"),
        ),
        "no folder": ("calibrate", sets[0], "--out", tmp_path / "none" / "value.json"),
    }.items():
        done = run(*bad)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("path", "questions", "evidence"),
    [
        ("hotpotqa/hipporag_hotpotqa_train100.json", 100, 200),
        ("hotpotqa/meve_hotpot_dev100.json", 100, 200),
        ("musique/hipporag_musique_train100.json", 100, 237),
        ("chroma_chunking", 472, 790),
    ],
)
def test_shared_sets(path, questions, evidence):
    if not (SHARED / path).exists():
        pytest.skip("the question sets are not here (../shared/data/rag)")
    found = load(SHARED / path)
    assert len(found.questions) == questions
    assert sum(len(question.evidence) for question in found.questions) == evidence
    assert all(recall(question, found.passages) > 0.99 for question in found.questions[::7])


def test_transfer_is_the_mean_over_trainings(tmp_path):
    results = Results(tmp_path / "chunk_transfer.json", bench_chunk_transfer.NAME)
    for seed, (own, away) in enumerate([(0.75, 0.5), (0.5, 0.5)]):
        found = {"questions": 8, "in_domain": own, "zero_shot": away}
        results.measure({"set": "facts", "budget": 64, "seed": seed}, lambda found=found: found)
    row = bench_chunk_transfer.table(results).splitlines()[-1]
    assert row.split(" | ")[0].endswith("facts @64")
    assert "| 8 | 2 | 0.625 (0.500 to 0.750) | 0.500 (0.500 to 0.500)" in row
    assert "| 0.125 (0.000 to 0.250) |" in row


def test_calibration_of_right_and_wrong_probabilities():
    Measured = checks.Measured
    right = [Measured(0.25, float(i == 0), 0.5, 0.5) for i in range(4)]
    sure = [Measured(1.0, 1.0, 1.0, 1.0) for _ in range(2)]
    tallies = [checks.tally(rows) for rows in (right, sure)]
    found = checks.calibration(tallies)
    assert found.error == pytest.approx(0.0)
    assert found.chance == found.there == pytest.approx(0.5)
    assert found.recall == found.expected == pytest.approx(4 / 6)
    # 1.5 would come by always saying one half, 0.75 by saying a quarter four times.
    assert found.skill == pytest.approx(0.5)
    # The one bin with chance in it has a variance of 4 * 3 / 16.
    assert found.by_chance == pytest.approx(np.sqrt(2 / np.pi * 0.75) / 6, abs=1e-4)

    wrong = [Measured(0.9, 0.0, 0.9, 0.3) for _ in range(5)]
    found = checks.calibration([checks.tally(wrong)])
    assert found.error == pytest.approx(0.9)
    assert found.expected - found.recall == pytest.approx(0.6)


def test_calibration_is_the_mean_over_trainings_and_the_sum_over_sets(tmp_path):
    bench = bench_chunk_calibration
    results = Results(tmp_path / "chunk_calibration.json", bench.NAME)
    for name, seed, there in (("a", 0, 1.0), ("b", 0, 0.0), ("a", 1, 1.0), ("b", 1, 1.0)):
        rows = [checks.Measured(0.5, there, 0.5, there)] * 4
        cell = {
            value: {given: checks.tally(rows) for given in bench.GIVEN} for value in bench.VALUES
        }
        results.measure({"set": name, "budget": 9, "seed": seed}, lambda cell=cell: cell)
    (first, *_) = bench.short_table(results).splitlines()[2:]
    # Both sets together are right in the first training and miss half in the second.
    assert first.startswith("| all | cross-fitted | 60 | 0.50 / 0.75 | 0.50 / 0.75 | 0.250 |")
    a = [row for row in bench.table(results).splitlines() if row.startswith("| a @9 | zero-shot")]
    assert len(a) == len(bench.GIVEN)
    assert "| 0.50 / 1.00 | 0.500 |" in a[0]
