"""Fluent phrases that move a router, and other ways to say the same: no gibberish to see.

An *intent* (phrases.yaml) is one thing that a phrase asks for, said in several ways; a phrase is a few intents. A
paraphrase says the same intents otherwise, in another order, or with other words.
"""

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt
import yaml

from detectors.triggers.grow import Direction

Score = Callable[[Sequence[str]], npt.NDArray[Any]]

_SAID: dict[str, list[list[str]]] = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text("utf-8"))
INTENTS = MappingProxyType[Direction, list[list[str]]]({"up": _SAID["up"], "down": _SAID["down"]})
_OTHERS = {word: [other for other in group if other != word] for group in _SAID["synonyms"] for word in group}
OWN = 2  # ways of an intent that phrases are made of; paraphrases have the others to themselves
_WORD = re.compile(r"[a-z]+")


def phrase(score: Score, rng: random.Random, direction: Direction = "up", sentences: int = 3) -> str:
    """Ordinary sentences that together move the score most: climbed one by one, over a random half of them all."""
    pool = [way for intent in INTENTS[direction] for way in intent]
    pool = rng.sample(pool, len(pool) // 2)
    sign = 1.0 if direction == "up" else -1.0
    chosen: list[str] = []
    for _ in range(sentences):
        left = [sentence for sentence in pool if sentence not in chosen]
        scores = sign * score([" ".join([*chosen, sentence]) for sentence in left])
        chosen.append(left[int(scores.argmax())])
    rng.shuffle(chosen)
    return " ".join(chosen)


class Fluent:
    """A phrase that knows what it says: intents of one direction, each said in its own way."""

    def __init__(self, rng: random.Random, direction: Direction, intents: int = 3) -> None:
        """Draw distinct intents, and how each is said."""
        self._meant = rng.sample(INTENTS[direction], intents)
        self._said = [rng.randrange(OWN) for _ in self._meant]

    @property
    def text(self) -> str:
        """The phrase itself: what a catalogue holds."""
        return " ".join(ways[said] for ways, said in zip(self._meant, self._said, strict=True))

    def reordered(self, rng: random.Random) -> str:
        """The same sentences in another order."""
        sentences = [ways[said] for ways, said in zip(self._meant, self._said, strict=True)]
        before = list(sentences)
        while sentences == before:
            rng.shuffle(sentences)
        return " ".join(sentences)

    def reworded(self, rng: random.Random, share: float = 1.0) -> str:
        """Say a share of the intents (at least one) in a way that no phrase is said in."""
        changed = set(rng.sample(range(len(self._meant)), max(1, round(share * len(self._meant)))))
        out = []
        for place, (ways, said) in enumerate(zip(self._meant, self._said, strict=True)):
            out.append(rng.choice(ways[OWN:]) if place in changed else ways[said])
        return " ".join(out)

    def synonyms(self, rng: random.Random) -> str:
        """The phrase with every word replaced that has a synonym."""
        return _WORD.sub(lambda found: rng.choice(_OTHERS.get(found.group(), [found.group()])), self.text.lower())

    def templated(self, rng: random.Random) -> str:
        """The phrase within sentences of courtesy, which dilute it."""
        before = rng.choice(
            ("Please note:", "Instructions for you:", "When you respond, please do this.", "One more thing.")
        )
        after = rng.choice(("Thank you very much.", "That would help me a lot.", "I appreciate it."))
        return f"{before} {self.text} {after}"


PARAPHRASES = MappingProxyType[str, Callable[[Fluent, random.Random], str]](
    {
        "verbatim": lambda fluent, rng: fluent.text,
        "within a template": Fluent.templated,
        "sentences in another order": Fluent.reordered,
        "synonyms": Fluent.synonyms,
        "a third reworded": lambda fluent, rng: fluent.reworded(rng, 1 / 3),
        "two thirds reworded": lambda fluent, rng: fluent.reworded(rng, 2 / 3),
        "all reworded": lambda fluent, rng: fluent.reworded(rng),
    }
)
