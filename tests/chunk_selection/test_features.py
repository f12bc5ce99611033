"""What is read off texts, by hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest

from games.chunk_selection.chunk import Chunk, count_tokens
from games.chunk_selection.features import CANDIDATE, PAIR, QUERY, make_features
from games.chunk_selection.text import names, read_texts, stem, title_of, words

QUERY_TEXT = "Who directed Big Stone Gap and where was the author Adriana Trigiani born?"
TEXTS = [
    "Big Stone Gap (film)\nBig Stone Gap is a 2014 drama written and directed by Adriana Trigiani.",
    "Adriana Trigiani\nAdriana Trigiani is an author of eighteen books who lives in New York.",
    "Greenwich Village\nGreenwich Village is a neighbourhood on the west side of New York.",
    "Something else\nA text about nothing at all, with no one in it.",
]


def test_titles_names_and_stems():
    assert title_of(TEXTS[0]) == "Big Stone Gap"
    assert title_of("A whole sentence ends here.\nMore of it.") == ""
    assert title_of("No second line") == ""
    assert title_of("x\ny", "Given (one)") == "Given"
    assert {"adriana trigiani", "new york"} <= names(TEXTS[1])
    assert "the" not in names("The end. The Beatles sang.")
    assert [stem(w) for w in ("cities", "books", "glass", "bus", "is")] == [
        *("city", "book", "glass", "bus", "is"),
    ]
    assert words("Ça n'est_pas 12,5") == ["ça", "n", "est", "pas", "12", "5"]
    assert count_tokens("internationalisation of x.") == 7


def test_links_between_texts():
    texts = read_texts(QUERY_TEXT, TEXTS, [""] * 4)
    assert texts.title_named.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert texts.mentions[0, 1] == 1.0  # the film's text has the title of the author's
    assert texts.mentions[1, 0] == 0.0
    assert texts.shared_names[1, 2] > 0  # New York, which the query has not
    assert texts.shared_names[0, 1] == 0  # Adriana Trigiani, which it has
    assert int(np.argmax(texts.bm25)) == 0
    assert texts.bm25[3] == 0
    assert texts.joint[0, 1] > max(texts.coverage[0], texts.coverage[1])
    assert texts.years.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_overlap_is_the_share_of_repeated_text():
    parts = [f"w{i}" for i in range(60)]
    chunks = [" ".join(parts[:40]), " ".join(parts[20:60]), " ".join(parts[:40]), "short one"]
    overlap = read_texts("w1", chunks, [""] * 4).overlap
    assert overlap[0, 2] == overlap[2, 0] == 1.0
    # Of 33 runs of eight words 13 are in the other half.
    assert overlap[0, 1] == pytest.approx(13 / 33)
    assert overlap[3].tolist() == [0, 0, 0, 1]
    assert np.diag(overlap).tolist() == [1.0] * 4


def test_features_do_not_depend_on_the_order_of_candidates():
    draw = np.random.default_rng(0)
    chunks = [
        Chunk(str(i), text, 20 + i, 0.5 - 0.1 * i, draw.normal(size=5))
        for i, text in enumerate(TEXTS)
    ]
    asked = draw.normal(size=5)
    straight = make_features(QUERY_TEXT, chunks, asked)
    order = [2, 0, 3, 1]
    turned = make_features(QUERY_TEXT, [chunks[i] for i in order], asked)
    assert straight.candidate.shape == (4, CANDIDATE)
    assert straight.pair.shape == (4, 4, PAIR)
    assert straight.query.shape == (QUERY,)
    np.testing.assert_allclose(straight.candidate[order], turned.candidate, atol=1e-9)
    np.testing.assert_allclose(straight.pair[np.ix_(order, order)], turned.pair, atol=1e-9)
    np.testing.assert_allclose(straight.pair, straight.pair.swapaxes(0, 1), atol=1e-12)
    np.testing.assert_allclose(straight.query, turned.query, atol=1e-12)
