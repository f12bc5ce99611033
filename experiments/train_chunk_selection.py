"""Trains the learned value of chunk selection and writes its weights.

    python -m experiments.train_chunk_selection SET ... [--out FILE]

SET is anything that `experiments.retrieval_pools.load_sets` reads. Sets with a common first path
are one data set; each counts the same, whatever its size. Each question is learned from as it is,
and again with texts alone or few candidates, so that the value serves whoever has no embeddings or
little to choose from; and all that again without titles, where a set has them. Which sets are
likely is learned from any few candidates, how likely they are from the retriever's best few.
The simple questions that MuSiQue's are made of are a data set of their own: they have one place, as
questions mostly do. So are the pseudo-questions of all corpora with titles
(`experiments.pseudo_questions`), of half the weight.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.common import ROOT, run
from experiments.evidence_examples import Example, evidence_of
from experiments.evidence_training import train
from experiments.retrieval_pools import TOP, Pool, family_of, load_pools, load_pseudo_pools
from games.chunk_selection.value import to_json
from games.files import replace_file
from hlo_frontend.errors import InputError

MODELS = 3
FEWEST, FEWEST_BEST = 4, 2  # candidates that are left of a question's: any, the best
PSEUDO_WEIGHT = 0.5  # of all pseudo-questions, against a data set


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains on all questions of all sets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="SET")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "games/chunk_selection/evidence_model.json"
    )
    parser.add_argument("--models", type=int, default=MODELS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.models < 1:
        raise InputError(f"--models {options.models}: expected at least 1")
    examples: list[Example] = []
    for name in options.sets:
        pools = load_pools(name, steps=True)
        lesson = lesson_of(name, pools, options.seed)
        examples += lesson.without(np.zeros(len(pools), dtype=np.bool_))
        print(
            f"{name}: {len(pools)} questions, {len(lesson.pseudo)} pseudo-questions",
            file=sys.stderr,
            flush=True,
        )
    model = train(examples, models=options.models, seed=options.seed)
    replace_file(options.out, (json.dumps(to_json(model)) + "\n").encode())


@dataclass(frozen=True)
class Lesson:
    """What a set has to learn from: its pools and pseudo-pools, and the examples of each."""

    pools: Sequence[Pool]
    examples: Sequence[Sequence[Example]]
    pseudo: Sequence[Pool]
    pseudo_examples: Sequence[Sequence[Example]]

    def without(self, held: npt.NDArray[np.bool_]) -> list[Example]:
        """Of questions that are not held out, and of pseudo-questions of other passages than the
        evidence of those that are.
        """
        asked = {
            span
            for pool, out in zip(self.pools, held, strict=True)
            for span in pool.question.evidence
            if out
        }
        found = [
            *(each for each, out in zip(self.examples, held, strict=True) if not out),
            *(
                each
                for each, pool in zip(self.pseudo_examples, self.pseudo, strict=True)
                if asked.isdisjoint(pool.question.evidence)
            ),
        ]
        return [example for each in found for example in each]


def lesson_of(name: str, pools: Sequence[Pool], seed: int = 0) -> Lesson:
    """Of the set of that name, whose pools are these."""
    pseudo = load_pseudo_pools(name)
    made = [
        [replace(example, weight=PSEUDO_WEIGHT) for example in each]
        for each in examples_of(pseudo, "pseudo-questions", seed)
    ]
    return Lesson(pools, examples_of(pools, family_of(name), seed), pseudo, made)


def examples_of(pools: Sequence[Pool], group: str, seed: int = 0) -> list[list[Example]]:
    """For each question, its examples and those of its steps, which are a group of their own."""
    draw, best = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    return [
        [
            *_examples(pool, group, draw, best),
            *(x for step in pool.steps for x in _examples(step, f"{group}, steps", draw, best)),
        ]
        for pool in pools
    ]


def _examples(
    given: Pool, group: str, draw: np.random.Generator, draw_best: np.random.Generator
) -> list[Example]:
    """A question three times: as it is; and without embeddings, or with few candidates, or both,
    any to learn to rank from, the best for the levels. Where passages have titles six times, the
    last three without them.
    """
    titled = any(passage.title for passage in given.passages)
    examples = []
    for pool in (given, given.untitled()) if titled else (given,):
        examples.append(example_of(pool, group, texts=False))
        kind = draw.integers(3)
        few = pool
        if kind > 0:
            few = pool.only(draw.permutation(len(pool.chunks))[: int(draw.integers(FEWEST, TOP))])
        examples.append(replace(example_of(few, group, texts=kind != 1), levels=False))
        kind = draw_best.integers(3)
        few = fewer(pool, draw_best) if kind > 0 else pool
        examples.append(replace(example_of(few, group, texts=kind != 1), ranks=False))
    return examples


def example_of(pool: Pool, group: str = "", *, texts: bool) -> Example:
    """A question with its candidates; of the texts alone, or with embeddings and scores."""
    evidence, share = evidence_of(pool.question, pool.passages)
    features = pool.text_features if texts else pool.features
    return Example(features, evidence, recall=share, group=group)


def fewer(pool: Pool, draw: np.random.Generator) -> Pool:
    """With the retriever's best candidates alone: about as often 2 to 4 as 30 to 60."""
    return pool.best(int(np.exp(draw.uniform(np.log(FEWEST_BEST), np.log(TOP)))))


if __name__ == "__main__":
    sys.exit(run(main))
