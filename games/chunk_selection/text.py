"""What is read off the texts alone: terms, titles, names, and how the chunks hang together.

Everything is relative to the candidates of one query: document frequencies are theirs, so that a
problem needs nothing but itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_WORD = re.compile(r"[^\W_]+")
_GAP = r"[^\S\n]+"  # a name does not go on in the next line
_NAME = re.compile(
    rf"[A-Z][\w'’.-]*(?:{_GAP}(?:(?:of|the|and|de|van|von|for|in|la|du|del){_GAP}){{0,2}}"
    r"[A-Z0-9][\w'’.-]*)*"
)
_BRACKETS = re.compile(r"\s*\([^)]*\)\s*$")
_STOPWORDS = """
a about after all also an and any are as at be because been before being between both but by can
could did do does doing during each few for from further had has have having he her here him his how
i if in into is it its itself just me more most my no nor not of off on once only or other our out
over own s same she should so some such t than that the their them then there these they this those
through to too under until up us very was we were what when where which while who whom whose why
will with would you your
"""
STOPWORDS = frozenset(_STOPWORDS.split())
BM25_K1, BM25_B = 1.5, 0.75  # as bm25s has them
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, without a pattern: 2**64 / golden ratio
SHINGLE = 8  # words; a run this long that two chunks share is text that they share
_LONGEST_TITLE = 12  # words of a first line that counts as one


def words(text: str) -> list[str]:
    """Lower-case words."""
    return " ".join(_WORD.findall(text)).lower().split()


@lru_cache(maxsize=2**16)
def stem(word: str) -> str:
    """Without a plural's or a verb's s: enough for names and nouns, and never wrong by much."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


def stems(plain: Iterable[str]) -> list[str]:
    """Stems of those of the words that carry meaning."""
    return [stem(word) for word in plain if word not in STOPWORDS]


def title_of(text: str, title: str = "") -> str:
    """The title given, or a short first line that has a line of text after it, without brackets."""
    if not title:
        first, _, rest = text.lstrip().partition("\n")
        first = first.strip(" #*\t")
        if rest.strip() and 0 < len(first.split()) <= _LONGEST_TITLE and first[-1] not in ".!?:;,":
            title = first
    return _BRACKETS.sub("", title)


def names(text: str) -> set[str]:
    """Capitalised phrases and numbers, in lower case; a lone first word of a sentence only if it
    is no stopword.
    """
    found = set()
    for match in _NAME.findall(text):
        phrase = " ".join(words(match))
        head, _, rest = phrase.partition(" ")
        if head in STOPWORDS:  # "The Beatles", "In March"
            phrase = rest
        if len(phrase) > 2 and phrase not in STOPWORDS:
            found.add(phrase)
    return found


@dataclass(frozen=True)
class Texts:
    """The candidates of one query as numbers; N candidates, T terms of query and candidates.

    Attributes:
        bm25: f64[N] BM25 of the query.
        cosine: f64[N] of tf-idf vectors, query against candidate.
        similarity: f64[N, N] of tf-idf vectors, 1 on the diagonal.
        coverage: f64[N] inverse-frequency-weighted share of the query's terms that are there.
        joint: f64[N, N] the same of both chunks of a pair together.
        bigrams: f64[N] share of the query's neighbouring terms that are neighbours there.
        title_asked: f64[N] share of the title's terms that the query has.
        title_named: f64[N] 1 where the query has the whole title.
        names_asked: f64[N] share of the query's names in the text.
        mentions: f64[N, N] 1 where text i has the title of j, capitals and all, and they are not of
            one document.
        shared_names: f64[N, N] inverse-frequency-weighted names in both that the query has not.
        same_title: f64[N, N] 1 for chunks of one document.
        overlap: f64[N, N] share of chunk i's text that is word for word in j.
        years, numbers, people: f64[N] whether there is a year, number of digits (log), names (log).
        query_names: number of names in the query.
        query_terms: number of terms of the query.
    """

    bm25: Floats
    cosine: Floats
    similarity: Floats
    coverage: Floats
    joint: Floats
    bigrams: Floats
    title_asked: Floats
    title_named: Floats
    names_asked: Floats
    mentions: Floats
    shared_names: Floats
    same_title: Floats
    overlap: Floats
    years: Floats
    numbers: Floats
    people: Floats
    query_names: int
    query_terms: int


def read_texts(query: str, texts: Sequence[str], titles: Sequence[str]) -> Texts:
    """All of the above for one query, its candidates' texts [N] and titles [N] ("" if none)."""
    count = len(texts)
    titles = [title_of(text, title) for text, title in zip(texts, titles, strict=True)]
    exact_texts = [" ".join(_WORD.findall(text)) for text in texts]
    lower_texts = [text.lower() for text in exact_texts]
    numbered = _number([text.split() for text in lower_texts])
    query_words = words(query)
    asked = stems(query_words) or query_words
    vocabulary = {term: at for at, term in enumerate(dict.fromkeys(asked))}
    term_of = np.array(
        [
            -1 if word in STOPWORDS else vocabulary.setdefault(stem(word), len(vocabulary))
            for word in numbered.known
        ],
        dtype=np.int64,
    )
    size = max(len(vocabulary), 1)
    terms = term_of[numbered.words]
    owners, terms = numbered.owners[terms >= 0], terms[terms >= 0]
    counts = np.bincount(owners * size + terms, minlength=count * size).reshape(count, size)
    query_terms = [vocabulary[term] for term in asked]
    query_at = np.array(sorted(set(query_terms)), dtype=np.int64)
    has = counts > 0
    frequency = has.sum(axis=0)
    rarity = np.log1p((count - frequency + 0.5) / (frequency + 0.5))
    length = counts.sum(axis=1)
    scale = BM25_K1 * (1 - BM25_B + BM25_B * length / max(float(length.mean()), 1.0))
    part = counts[:, query_at]
    saturated = part * (BM25_K1 + 1) / (part + scale[:, None])
    bm25 = saturated @ rarity[query_at]

    weights = np.log1p(np.arange(counts.max(initial=0) + 1))[counts] * rarity
    unit = weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-9)
    query_vector = np.zeros(counts.shape[1])
    query_vector[query_at] = rarity[query_at]
    query_vector /= max(float(np.linalg.norm(query_vector)), 1e-9)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, 1.0)

    total = max(float(rarity[query_at].sum()), 1e-9)
    there = has[:, query_at] * rarity[query_at] / total
    coverage = there.sum(axis=1)
    both = there @ has[:, query_at].T.astype(np.float64)
    joint = coverage[:, None] + coverage[None, :] - both

    padded_query = f" {' '.join(query_words)} "
    bare = [" ".join(words(title)) for title in titles]
    # In its capitals a title is a name; "a river" names no article "River".
    exact = [" ".join(_WORD.findall(title)) for title in titles]
    if query == query.lower():
        named = [f" {title} " in padded_query for title in bare]
    else:
        exact_query = f" {' '.join(_WORD.findall(query))} "
        named = [f" {title} " in exact_query for title in exact]
    asked_names = _asked_names(query)
    found_names = [names(text) for text in texts]
    return Texts(
        bm25=bm25,
        cosine=unit @ query_vector,
        similarity=similarity,
        coverage=coverage,
        joint=joint,
        bigrams=_bigrams(query_terms, owners, terms, size, count),
        title_asked=_title_asked(bare, set(asked)),
        title_named=np.array([float(bool(t) and n) for t, n in zip(bare, named, strict=True)]),
        names_asked=np.array(
            [
                sum(f" {name} " in f" {text} " for name in asked_names) / max(len(asked_names), 1)
                for text in lower_texts
            ]
        ),
        mentions=_mentions(exact, exact_texts, numbered),
        shared_names=_shared_names(found_names, padded_query),
        same_title=np.array([[float(bool(a) and a == b) for b in bare] for a in bare]),
        overlap=_overlap(numbered),
        years=np.array([float(bool(_YEAR.search(text))) for text in texts]),
        numbers=np.log1p([len(_DIGIT.findall(text)) for text in texts]),
        people=np.log1p([len(each) for each in found_names]),
        query_names=len(asked_names),
        query_terms=len(asked),
    )


_DIGIT = re.compile(r"\d")
_YEAR = re.compile(r"\b1\d{3}\b|\b20\d{2}\b")


def _asked_names(query: str) -> list[str]:
    first = query.lstrip()[:1]
    # The first word of a question is in capitals whatever it is.
    return sorted(
        names(query if not first.isupper() else query.lstrip()[0].lower() + query[1:])
        | names(query) - {words(query)[0] if words(query) else ""}
    )


@dataclass(frozen=True)
class _Numbered:
    """The words of all texts, one after the other, as numbers: i64[W] each.

    Attributes:
        words: the number of each word in `known`.
        owners: the text that it is in.
        lengths: i64[N] words of each text.
        known: the number of each word.
    """

    words: Ints
    owners: Ints
    lengths: Ints
    known: dict[str, int]


def _number(texts: Sequence[Sequence[str]]) -> _Numbered:
    everything = list(chain.from_iterable(texts))
    known = {word: number for number, word in enumerate(dict.fromkeys(everything))}
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return _Numbered(
        words=np.array([known[word] for word in everything], dtype=np.int64),
        owners=np.repeat(np.arange(len(texts)), lengths),
        lengths=lengths,
        known=known,
    )


def _bigrams(asked: Sequence[int], owners: Ints, terms: Ints, size: int, count: int) -> Floats:
    """f64[count] of the query's terms and those of the texts, all below `size`."""
    wanted = np.array(sorted({a * size + b for a, b in pairwise(asked)}), dtype=np.int64)
    there = np.zeros((count, max(len(wanted), 1)), dtype=np.bool_)
    if len(wanted):
        pairs = terms[:-1] * size + terms[1:]
        place = np.minimum(np.searchsorted(wanted, pairs), len(wanted) - 1)
        hit = (wanted[place] == pairs) & (owners[:-1] == owners[1:])
        there[owners[:-1][hit], place[hit]] = True
    return there.mean(axis=1)


def _title_asked(titles: Sequence[str], asked: set[str]) -> Floats:
    parts = [stems(words(title)) for title in titles]
    return np.array([sum(t in asked for t in part) / max(len(part), 1) for part in parts])


def _mentions(titles: Sequence[str], texts: Sequence[str], numbered: _Numbered) -> Floats:
    result = np.zeros((len(titles), len(titles)))
    has = np.zeros((len(titles), len(numbered.known)), dtype=np.bool_)
    has[numbered.owners, numbered.words] = True
    for j, title in enumerate(titles):
        at = [numbered.known.get(word, -1) for word in title.lower().split()]
        if len(title) < 3 or -1 in at:
            continue
        needle = f" {title} "
        # Few texts have all of its words, and only those are searched.
        for i in np.flatnonzero(has[:, at].all(axis=1)).tolist():
            if titles[i] != title and needle in f" {texts[i]} ":
                result[i, j] = 1.0
    return result


def _shared_names(found: Sequence[set[str]], query: str) -> Floats:
    count = len(found)
    places: dict[str, list[int]] = {}
    for i, each in enumerate(found):
        for name in each:
            places.setdefault(name, []).append(i)
    # A set has no order of its own; sorted, the sums below are the same in every process.
    common = sorted(name for name, at in places.items() if len(at) > 1 and f" {name} " not in query)
    there = np.zeros((count, len(common)))
    for column, name in enumerate(common):
        there[places[name], column] = 1.0
    rarity = np.log(count / np.maximum(there.sum(axis=0), 1.0))
    result = (there * rarity) @ there.T
    np.fill_diagonal(result, 0.0)
    return np.log1p(result)


def _overlap(numbered: _Numbered) -> Floats:
    """f64[N, N]: share of i's runs of SHINGLE words that are in j; whole texts where shorter."""
    count = len(numbered.lengths)
    numbers = numbered.words.astype(np.uint64) + np.uint64(1)
    hashed = np.zeros(max(len(numbers) - SHINGLE + 1, 0), dtype=np.uint64)
    for at in range(SHINGLE):
        # Arithmetic modulo 2**64 is meant.
        hashed = hashed * _FACTOR + numbers[at : at + len(hashed)]
    inside = numbered.owners[: len(hashed)] == numbered.owners[SHINGLE - 1 :]
    runs, owners = hashed[inside], numbered.owners[: len(hashed)][inside]
    short = np.flatnonzero(numbered.lengths < SHINGLE)
    if len(short):
        ends = np.cumsum(numbered.lengths)
        wholes = np.zeros(len(short), dtype=np.uint64)
        for row, text in enumerate(short.tolist()):
            for number in numbers[ends[text] - numbered.lengths[text] : ends[text]]:
                wholes[row : row + 1] = wholes[row : row + 1] * _FACTOR + number
        runs, owners = np.concatenate([runs, wholes]), np.concatenate([owners, short])
    order = np.lexsort((owners, runs))
    runs, owners = runs[order], owners[order]
    other = np.append(True, runs[1:] != runs[:-1])
    once = other | np.append(True, owners[1:] != owners[:-1])
    owners, group = owners[once], np.cumsum(other[once]) - 1
    several = np.bincount(group) > 1
    there = np.zeros((count, int(several.sum())))
    in_several = several[group]
    there[owners[in_several], (np.cumsum(several) - 1)[group[in_several]]] = 1.0
    sizes = np.bincount(owners, minlength=count)
    result: Floats = there @ there.T / np.maximum(sizes, 1)[:, None]
    np.fill_diagonal(result, 1.0)
    return result
