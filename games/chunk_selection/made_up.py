"""Made-up questions of two hops with their candidates, for runs that need no data set.

A person was born in a town, a town lies on a river: the question asks for the river of a person's
town. Candidates are some sentences each, about other persons and towns too, some said twice.
"""

from __future__ import annotations

import numpy as np

_FIRST = ("Ada", "Bruno", "Clara", "Dario", "Elsa", "Felix", "Greta", "Hugo", "Irma", "Jonas")
_LAST = ("Almqvist", "Brandt", "Castell", "Dvorak", "Ekholm", "Ferrant", "Grieve", "Holm", "Ilves")
_START = ("Tors", "Lind", "Karl", "Strom", "Wald", "Birk", "Stein", "Ravn", "Gull", "Eich")
_END = ("by", "stad", "heim", "berg", "fors", "holt")
_RIVERS = ("Klar", "Lule", "Enns", "Aller", "Orba", "Tenna", "Vils", "Sorga", "Drina", "Neris")
_TRADES = ("painter", "engineer", "botanist", "composer", "printer", "surveyor")
CANDIDATES = 24


def question(seed: int) -> tuple[str, list[str]]:
    """(query, texts): a question and CANDIDATES texts; the two that answer it are among them."""
    random = np.random.default_rng(seed)

    def pick(words: tuple[str, ...]) -> str:
        return str(words[int(random.integers(len(words)))])

    pairs = [(first, last) for first in _FIRST for last in _LAST]
    names = [" ".join(pairs[int(k)]) for k in random.permutation(len(pairs))]
    towns = [start + end for start in _START for end in _END]
    towns = [towns[int(k)] for k in random.permutation(len(towns))]
    texts = []
    for number in range(CANDIDATES // 2):
        name, town, river = names[number], towns[number], pick(_RIVERS)
        born = int(random.integers(1800, 1950))
        life = [
            f"{name} was born in {town} in {born}.",
            f"{name} became a {pick(_TRADES)} and moved to {towns[-1 - number]}.",
            f"A street in {towns[-1 - number]} is named after {name.split()[1]}.",
        ]
        place = [
            f"{town} lies on the river {river}.",
            f"{town} has {int(random.integers(2, 90))} thousand inhabitants.",
            f"The bridge of {town} was built in {born + int(random.integers(5, 60))}.",
            f"Timber from {town} was floated down to {towns[-1 - number]}.",
        ]
        texts.append(" ".join(life[: int(random.integers(1, len(life) + 1))]))
        texts.append(" ".join(place[: int(random.integers(1, len(place) + 1))]))
    copied = int(random.integers(2, CANDIDATES))
    texts[-1] = f"{texts[copied]} {texts[-1]}"
    asked = f"Which river flows past the town where {names[0]} was born?"
    return asked, [texts[int(k)] for k in random.permutation(CANDIDATES)]
