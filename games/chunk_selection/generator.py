"""Problems made up: questions over two facts, hidden among passages about other things.

Passages are sentences from templates about made-up names; the question names the first entity of a
chain, and the answer stands in the passage of the second one. Each is a function of its seed.
"""

from __future__ import annotations

import numpy as np

from games.chunk_selection.chunk import Chunk
from games.chunk_selection.problem import ChunkSelectionProblem, make_problem

# The split is by names and by relations: what is tested shares no fact with what is trained on.
TRAINING_SYLLABLES = ("ka", "lo", "mir", "ta", "ven", "sor", "eli", "dan")
TEST_SYLLABLES = ("bru", "quin", "osh", "fe", "gry", "pau", "zem", "hul")
TRAINING_RELATIONS = ("mentor", "publisher", "birthplace", "employer", "river")
TEST_RELATIONS = ("architect", "province", "sponsor", "patron saint", "observatory")
FILLERS = (
    "It was described by travellers of the last century.",
    "Records of that year are kept in the archive.",
    "Several editions mention it in passing.",
    "Nothing else is known of the circumstances.",
    "A catalogue of the museum lists it twice.",
)
CANDIDATES = (24, 60)
BUDGETS = (0.1, 0.4)  # of all tokens


def training_problem(seed: int) -> ChunkSelectionProblem:
    """A question with 24 to 60 candidates and a budget, all drawn."""
    return _drawn(np.random.default_rng(seed), TRAINING_SYLLABLES, TRAINING_RELATIONS)


def test_problems(count: int) -> list[tuple[str, ChunkSelectionProblem]]:
    """(name, problem) of `count` problems about names and relations that are never trained on."""
    made = [
        _drawn(np.random.default_rng([1, number]), TEST_SYLLABLES, TEST_RELATIONS)
        for number in range(count)
    ]
    return [(f"question {number}", problem) for number, problem in enumerate(made)]


def _drawn(
    random: np.random.Generator, syllables: tuple[str, ...], relations: tuple[str, ...]
) -> ChunkSelectionProblem:
    def name() -> str:
        return "".join(random.choice(syllables, 3)).capitalize()

    first, second = (str(each) for each in random.choice(relations, 2, replace=False))
    start, middle = name(), name()
    query = f"What is the {second} of the {first} of {start}?"
    facts = [(start, first, middle), (middle, second, name())]
    while len(facts) < int(random.integers(*CANDIDATES)):
        # Half of the others share a name or a relation with the question.
        subject = str(random.choice([start, middle, name(), name()]))
        facts.append((subject, str(random.choice(relations)), name()))
    wanted = set(query.lower().replace("?", "").split())
    chunks = []
    for number in random.permutation(len(facts)).tolist():
        subject, relation, value = facts[number]
        sentences = [f"The {relation} of {subject} is {value}."]
        sentences += random.choice(FILLERS, int(random.integers(0, 5))).tolist()
        text = " ".join(random.permutation(sentences).tolist())
        shared = len(wanted & set(text.lower().replace(".", "").split())) / len(wanted)
        score = float(shared + 0.1 * random.standard_normal())
        chunks.append(Chunk(f"c{number}", text, n_tokens=len(text.split()), score=score))
    tokens = np.array([chunk.n_tokens for chunk in chunks])
    budget = max(int(tokens.sum() * random.uniform(*BUDGETS)), int(tokens.min()))
    return make_problem(query, chunks, budget)
