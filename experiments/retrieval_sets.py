"""Question sets for chunk selection: passages or documents, questions, and where the evidence is.

Known forms: HotpotQA and 2WikiMultihopQA (JSON), MuSiQue (JSON or JSONL), the Chroma chunking set
(a folder with `questions_df.csv` and documents), and BEIR folders (`corpus.jsonl, queries.jsonl,
qrels/*.tsv`).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from games.chunk_selection.chunk import read_lines
from hlo_frontend.errors import InputError

FULL = 1 - 1e-9  # recall that is all of the evidence

# The chunks [start, end) of a document's text.
Cut = Callable[[str], list[tuple[int, int]]]


class Span(NamedTuple):
    """Characters [start, end) of a document; a passage that counts as a whole is [0, 1)."""

    document: str
    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """A chunk of the corpus: what it says and what part of which document it is."""

    text: str
    title: str
    span: Span


@dataclass(frozen=True)
class Question:
    """A question with its evidence (disjoint spans) and answers (empty where there are none).

    `steps` are the simple questions that it is made of, each with its own evidence, where the set
    has them.
    """

    id: str
    text: str
    evidence: tuple[Span, ...]
    answers: tuple[str, ...] = ()
    steps: tuple[Question, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """A corpus and the questions on it."""

    name: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]

    @property
    def texts(self) -> list[str]:
        """What is retrieved and read: the title, where there is one, above the text."""
        return [f"{p.title}\n{p.text}" if p.title else p.text for p in self.passages]


def recall(question: Question, passages: Sequence[Passage]) -> float:
    """Share of the question's evidence, in characters or passages, that is in the passages."""
    total = covered = 0
    for document, start, end in question.evidence:
        total += end - start
        parts = sorted(
            (max(p.span.start, start), min(p.span.end, end))
            for p in passages
            if p.span.document == document
        )
        reached = start
        for low, high in parts:
            covered += max(0, high - max(low, reached))
            reached = max(reached, high)
    return covered / total if total else 0.0


def touched(question: Question, passages: Sequence[Passage]) -> float:
    """Share of the question's evidence, in spans, of which the passages have a part."""
    found = sum(
        any(
            p.span.document == document and p.span.start < end and start < p.span.end
            for p in passages
        )
        for document, start, end in question.evidence
    )
    return found / len(question.evidence) if question.evidence else 0.0


def gains(question: Question, passages: Sequence[Passage]) -> list[float]:
    """Recall of each passage alone."""
    return [recall(question, [passage]) for passage in passages]


def merge(name: str, sets: Sequence[QuestionSet]) -> QuestionSet:
    """One set of several; a passage that several have is there once."""
    passages: dict[Span, Passage] = {}
    for each in sets:
        for passage in each.passages:
            passages.setdefault(passage.span, passage)
    questions = tuple(question for each in sets for question in each.questions)
    return QuestionSet(name, tuple(passages.values()), questions)


def load(path: Path, *, cut: Cut | None = None) -> QuestionSet:
    """The question set at `path`, whatever known form it has.

    Args:
        path: a file or folder of one of the forms above.
        cut: makes chunks of documents that come unchunked (Chroma); `sentences` if None.

    Raises:
        InputError: no known form, or something that belongs to it is missing.
    """
    if path.is_dir():
        if (path / "corpus.jsonl").exists():
            return load_beir(path)
        if (path / "questions_df.csv").exists():
            return load_chroma(path, cut or sentences)
        raise InputError(
            f"{path}: expected corpus.jsonl, queries.jsonl and qrels/*.tsv (BEIR), or"
            " questions_df.csv (Chroma chunking), in this folder"
        )
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: no questions in it")
    try:
        if "paragraphs" in rows[0]:
            return _passages(path.stem, rows, _musique)
        if "context" in rows[0] and "supporting_facts" in rows[0]:
            return _passages(path.stem, rows, _hotpot)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: a question is not as the set has them ({error!r})") from error
    raise InputError(
        f"{path}: expected questions of HotpotQA or 2WikiMultihopQA (context, supporting_facts)"
        " or MuSiQue (paragraphs)"
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return read_lines(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: expected a list of questions")
    return rows


_Parsed = tuple[Question, list[tuple[str, str]], set[int]]


def _passages(
    name: str, rows: list[dict[str, Any]], parse: Callable[[dict[str, Any], int], _Parsed]
) -> QuestionSet:
    """Passages of all questions together are the corpus; equal ones are one."""
    passages: dict[tuple[str, str], Passage] = {}
    questions = []
    for number, row in enumerate(rows):
        question, context, gold = parse(row, number)
        evidence = []
        for place, (title, text) in enumerate(context):
            document = f"{title}\n{text}"
            passage = passages.setdefault((title, text), Passage(text, title, Span(document, 0, 1)))
            if place in gold and passage.span not in evidence:
                evidence.append(passage.span)
        questions.append(replace(question, evidence=tuple(evidence)))
    return QuestionSet(name, tuple(passages.values()), tuple(questions))


_REFERENCE = re.compile(r"#(\d+)")


def _musique(row: dict[str, Any], number: int) -> _Parsed:
    context = [(p["title"], p["paragraph_text"]) for p in row["paragraphs"]]
    gold = {place for place, p in enumerate(row["paragraphs"]) if p["is_supporting"]}
    answers = (row["answer"], *row.get("answer_aliases", ()))
    identity = str(row.get("id", number))
    parts = row.get("question_decomposition", ())
    steps = []
    for at, part in enumerate(parts):
        if part.get("paragraph_support_idx") is None:  # of a question without an answer
            continue
        # "#1" stands for the first answer; "Brand >> author" for a question.
        text = _REFERENCE.sub(lambda found: parts[int(found[1]) - 1]["answer"], part["question"])
        title, paragraph = context[part["paragraph_support_idx"]]
        evidence = (Span(f"{title}\n{paragraph}", 0, 1),)
        text = " ".join(text.replace(">>", " ").split())
        steps.append(Question(f"{identity}/{at + 1}", text, evidence, (part["answer"],)))
    return Question(identity, row["question"], (), answers, tuple(steps)), context, gold


def _hotpot(row: dict[str, Any], number: int) -> _Parsed:
    context, facts = row["context"], row["supporting_facts"]
    if isinstance(context, dict):  # as the Hugging Face hub has it
        context = list(zip(context["title"], context["sentences"], strict=True))
        facts = list(zip(facts["title"], facts["sent_id"], strict=True))
    pairs = [(title, "".join(sentences).strip()) for title, sentences in context]
    asked = {title for title, _ in facts}
    gold = {place for place, (title, _) in enumerate(pairs) if title in asked}
    identity = str(row.get("_id", row.get("id", number)))
    return Question(identity, row["question"], (), (row["answer"],)), pairs, gold


def load_chroma(folder: Path, cut: Cut) -> QuestionSet:
    """The Chroma chunking evaluation: documents cut into chunks; evidence is character spans."""
    passages: list[Passage] = []
    for path in sorted(folder.glob("*.md")):
        # The set's spans count characters of the file as it is, line ends included.
        text = path.read_bytes().decode("utf-8")
        for start, end in cut(text):
            # The space after it is nobody's loss: evidence that goes on there counts as whole.
            reach = end
            while reach < len(text) and text[reach].isspace():
                reach += 1
            passages.append(Passage(text[start:end], "", Span(path.stem, start, reach)))
    questions = []
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            spans = [
                (int(each["start_index"]), int(each["end_index"]))
                for each in json.loads(row["references"])
            ]
            evidence = tuple(Span(row["corpus_id"], *span) for span in _union(spans))
            questions.append(Question(str(number), row["question"], evidence))
    if not passages or not questions:
        raise InputError(f"{folder}: no documents (*.md) or no questions")
    return QuestionSet(folder.name, tuple(passages), tuple(questions))


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


_PIECE = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def windows(pieces: Sequence[tuple[int, int]], size: int, step: int) -> list[tuple[int, int]]:
    """Chunks [start, end) of `size` of a text's pieces [start, end), a new one every `step`."""
    starts = range(0, max(len(pieces) - size + step, 1), step) if pieces else ()
    return [(pieces[at][0], pieces[min(at + size, len(pieces)) - 1][1]) for at in starts]


def sentences(text: str, size: int = 200, overlap: float = 0.0) -> list[tuple[int, int]]:
    """Chunks of whole sentences up to `size` words and signs, [start, end): each shares about that
    part with the next. A longer sentence is cut where it has to be.
    """
    parts = _parts(text, size)
    chunks = []
    first = 0
    while first < len(parts):
        last, total = first, parts[first][2]
        while last + 1 < len(parts) and total + parts[last + 1][2] <= size:
            last += 1
            total += parts[last][2]
        chunks.append((parts[first][0], parts[last][1]))
        if last + 1 == len(parts):
            break
        following, repeated = last + 1, 0
        while following - 1 > first and repeated + parts[following - 1][2] <= overlap * size:
            following -= 1
            repeated += parts[following][2]
        first = following
    return chunks


def _parts(text: str, size: int) -> list[tuple[int, int, int]]:
    """Sentences, [start, end) and their number of words and signs, none with more than `size`."""
    borders = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    parts = []
    for begin, limit in pairwise(borders):
        pieces = [match.span() for match in _PIECE.finditer(text, begin, limit)]
        for at in range(0, len(pieces), size):
            run = pieces[at : at + size]
            parts.append((run[0][0], run[-1][1], len(run)))
    return parts


def load_beir(folder: Path) -> QuestionSet:
    """A BEIR folder; the judgements of all files in `qrels`, what they rate above 0 is evidence."""
    passages = {}
    for row in read_lines(folder / "corpus.jsonl"):
        identity, text = _field(row, "_id", folder / "corpus.jsonl"), row.get("text")
        if not isinstance(text, str):
            raise InputError(f"{folder / 'corpus.jsonl'}: document {identity} has no text")
        passages[identity] = Passage(text, str(row.get("title") or ""), Span(identity, 0, 1))
    asked = {}
    for row in read_lines(folder / "queries.jsonl"):
        asked[_field(row, "_id", folder / "queries.jsonl")] = row
    files = sorted((folder / "qrels").glob("*.tsv"))
    if not files:
        raise InputError(f"{folder / 'qrels'}: no .tsv file with judgements there")
    relevant: dict[str, list[str]] = {}
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            columns = line.split("\t")
            if not line.strip() or (number == 1 and not columns[-1].lstrip("-").isdigit()):
                continue
            if len(columns) != 3 or not columns[2].lstrip("-").isdigit():
                raise InputError(f"{path}, line {number}: expected query-id, corpus-id, score")
            if int(columns[2]) > 0 and columns[1] in passages and columns[0] in asked:
                known = relevant.setdefault(columns[0], [])
                if columns[1] not in known:
                    known.append(columns[1])
    questions = tuple(
        Question(
            query,
            str(asked[query].get("text", "")),
            tuple(Span(document, 0, 1) for document in documents),
            _answers(asked[query]),
        )
        for query, documents in relevant.items()
    )
    if not questions:
        raise InputError(f"{folder}: no query has a relevant document; look at the ids in qrels")
    return QuestionSet(folder.name, tuple(passages.values()), questions)


def _field(row: dict[str, Any], key: str, path: Path) -> str:
    if key not in row:
        raise InputError(f"{path}: a line without {key!r}")
    return str(row[key])


def _answers(row: dict[str, Any]) -> tuple[str, ...]:
    metadata = row.get("metadata") or {}
    answers = metadata.get("answers") or metadata.get("answer") or row.get("answer") or ()
    return (answers,) if isinstance(answers, str) else tuple(map(str, answers))


def folds(count: int, parts: int, seed: int = 0) -> np.ndarray:
    """i64[count]: the fold of each question."""
    order = np.random.default_rng(seed).permutation(count)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.arange(count) % parts
    return result
