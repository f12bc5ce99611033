"""Pseudo-questions of a corpus with titles: more to learn from than the few questions of a set.

A passage that names the title of another leads to it: words of both, without that title, make a
question of two hops. Two passages of a kind make a comparison. That is no English, but the value
sees shares of words and links, no sentences. No question of the set and no label is looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from compiler_rl.retrieval import Encoder
from experiments.retrieval_sets import Passage, Question, QuestionSet
from games.chunk_selection.text import STOPWORDS, title_of

HOPS, COMPARISONS = 240, 100  # questions of two hops, and comparisons; of a corpus, at most
OFTEN = 2  # questions of two hops that lead to the same title
ALIKE = 15  # the most similar passages that one is compared with
LONGEST = 6  # words of a title that is looked for
LEAST, MOST = 6, 6  # words of a sentence that is asked about; of those, in the question
TITLED = 0.6  # of questions of two hops say where they start
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_STARTS = ("What", "Who", "Which", "When", "Where")
_COMPARISONS = (
    "Are {a} and {b} both {word}?",
    "Which {word} was first, {a} or {b}?",
    "Were {a} and {b} of the same {word}?",
    "Which is {word}, {a} or {b}?",
    "Who is older, {a} or {b}?",
    "What {word} do {a} and {b} have in common?",
)


def pseudo_questions(given: QuestionSet, encoder: Encoder, seed: int = 0) -> QuestionSet:
    """The corpus with pseudo-questions; none where nothing has a title."""
    passages = given.passages
    titles = [title_of("", passage.title) for passage in passages]
    draw = np.random.default_rng(seed)
    found = _hops(passages, titles, draw) + _comparisons(passages, titles, encoder, draw)
    return QuestionSet(f"{given.name}, pseudo-questions", passages, tuple(found))


def _links(passages: Sequence[Passage], titles: Sequence[str]) -> list[list[int]]:
    """For each passage those whose titles it names."""
    starting: dict[str, list[int]] = {}
    for place, title in enumerate(titles):
        parts = _WORD.findall(title)
        if 0 < len(parts) <= LONGEST and len(title) > 3 and title.lower() not in STOPWORDS:
            starting.setdefault(parts[0], []).append(place)
    return [
        sorted(
            place
            for word in set(_WORD.findall(passage.text))
            for place in starting.get(word, ())
            if titles[place] != title and _names(passage.text, titles[place])
        )
        for passage, title in zip(passages, titles, strict=True)
    ]


def _names(text: str, title: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text) is not None


def _without(text: str, titles: Sequence[str]) -> str:
    for title in titles:
        text = re.sub(rf"(?<!\w){re.escape(title)}(?!\w)", " ", text)
    return text


def _hops(
    passages: Sequence[Passage], titles: Sequence[str], draw: np.random.Generator
) -> list[Question]:
    """Of a passage and one whose title it names."""
    links = _links(passages, titles)
    found: list[Question] = []
    led_to: Counter[str] = Counter()
    for first in draw.permutation(len(passages)).tolist():
        following = [place for place in links[first] if led_to[titles[place]] < OFTEN]
        if not following or not titles[first]:
            continue
        second = int(draw.choice(following))
        leading = [each for each in _sentences(passages[first]) if _names(each, titles[second])]
        last = _sentences(passages[second])
        if not leading or not last:
            continue
        hidden = (titles[first], titles[second])
        clue, asked = (
            _some(_without(sentences[int(draw.integers(len(sentences)))], hidden), draw)
            for sentences in (leading, last)
        )
        if draw.random() < TITLED:
            clue = f"{titles[first]} {clue}" if draw.random() < 0.5 else f"{clue} {titles[first]}"
        parts = (asked, clue) if draw.random() < 0.65 else (clue, asked)
        start = _STARTS[int(draw.integers(len(_STARTS)))]
        text = f"{start} {' '.join(' '.join(parts).split())}?"
        spans = (passages[first].span, passages[second].span)
        found.append(Question(f"hops {first}/{second}", text, spans))
        led_to[titles[second]] += 1
        if len(found) == HOPS:
            break
    return found


def _sentences(passage: Passage) -> list[str]:
    parts = _SENTENCE_END.split(passage.text)
    return [part for part in parts if len(_WORD.findall(part)) >= LEAST]


def _some(sentence: str, draw: np.random.Generator) -> str:
    """Words of a stretch of the sentence, up to MOST that carry meaning."""
    found = _WORD.findall(sentence)
    content = [at for at, word in enumerate(found) if word.lower() not in STOPWORDS]
    if not content:
        return ""
    count = min(MOST, max(2, round(len(content) * draw.uniform(0.2, 0.6))))
    width = int(np.ceil(1.6 * count))
    first = int(draw.integers(max(len(content) - width, 0) + 1))
    kept = set(draw.permutation(content[first : first + width])[:count].tolist())
    return " ".join(
        word
        for at, word in enumerate(found)
        if at in kept
        or (min(kept) < at < max(kept) and word.lower() in STOPWORDS and draw.random() < 0.6)
    )


def _comparisons(
    passages: Sequence[Passage],
    titles: Sequence[str],
    encoder: Encoder,
    draw: np.random.Generator,
) -> list[Question]:
    places = [place for place, title in enumerate(titles) if title]
    if len(places) <= ALIKE:
        return []
    # What a thing is stands in the first sentence; without its title, things of a kind are alike.
    says = [_without(_SENTENCE_END.split(passages[p].text)[0], [titles[p]]) for p in places]
    embedded = encoder.encode(says)
    found: list[Question] = []
    for row in draw.permutation(len(places)).tolist():
        alike = embedded @ embedded[row]
        alike[row] = -1.0
        other = int(np.argsort(-alike, kind="stable")[int(draw.integers(ALIKE))])
        one, two = places[row], places[other]
        if titles[one] == titles[two]:
            continue
        common = set(_WORD.findall(says[other]))
        shared = [
            word
            for word in _WORD.findall(says[row])
            if word in common and word.lower() not in STOPWORDS
        ]
        form = _COMPARISONS[int(draw.integers(len(_COMPARISONS)))]
        text = form.format(a=titles[one], b=titles[two], word=" ".join(shared[:3]) or "one")
        spans = (passages[one].span, passages[two].span)
        found.append(Question(f"comparison {one}/{two}", text, spans))
        if len(found) == COMPARISONS:
            break
    return found
