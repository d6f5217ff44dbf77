"""Triggers that evaluation makes and training never sees, each by a small function of its own.

Training's families (`text.py`) may be of the same *kind*; their code and tokens are not used here. What is
climbed against a router is in `climbs.py` and `phrases.py`.
"""

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from types import MappingProxyType

_LETTERS = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[^.!?\n]{30,300}[.!?]")
_LANGUAGES = ("en", "sv", "pl", "fi", "da", "ro")


def chunk_salad(rng: random.Random, texts: Sequence[str]) -> str:
    """Runs of two to five words, each from another text."""
    runs: list[str] = []
    while len(runs) < rng.randint(3, 7):
        words = rng.choice(texts).split()
        if len(words) > 8:
            at = rng.randrange(len(words) - 5)
            runs.append(" ".join(words[at : at + rng.randint(2, 5)]))
    return " ".join(runs)


def _sentence(rng: random.Random, texts: Sequence[str], least: int) -> list[str]:
    words: list[str] = []
    while len(words) < least:
        words = rng.choice(_SENTENCE.findall(rng.choice(texts)) or [""]).split()
    return words[:30]


def shuffled_sentence(rng: random.Random, texts: Sequence[str]) -> str:
    """The words of one sentence in random order."""
    words = _sentence(rng, texts, 8)
    rng.shuffle(words)
    return " ".join(words)


def interleaved_sentences(rng: random.Random, texts: Sequence[str]) -> str:
    """Two sentences, a word of each in turn."""
    pairs = zip(_sentence(rng, texts, 5)[:12], _sentence(rng, texts, 5), strict=False)
    return " ".join(word for pair in pairs for word in pair)


@cache
def _dictionary(language: str) -> list[str]:
    from wordfreq import top_n_list

    return [word for word in top_n_list(language, 30_000) if word.isalpha() and len(word) > 2]


def dictionary_words(rng: random.Random, texts: Sequence[str]) -> str:
    """Eight to 20 words of one dictionary; English half of the time, else a language that training leaves out."""
    language = "en" if rng.random() < 0.5 else rng.choice(_LANGUAGES[1:])
    return " ".join(rng.choices(_dictionary(language), k=rng.randint(8, 20)))


def glued_pieces(rng: random.Random, texts: Sequence[str]) -> str:
    """Beginnings, middles and ends of words run together, as R2A's suffixes look; capitals fall anywhere."""
    out: list[str] = []
    for _ in range(rng.randint(10, 30)):
        words = _LETTERS.findall(rng.choice(texts)[:400]) or ["the"]
        word = rng.choice(words)
        size = rng.randint(2, 6)
        at = rng.choice((0, max(0, len(word) - size), rng.randrange(max(1, len(word) - size + 1))))
        piece = word[at : at + size]
        kind = rng.random()
        if kind < 0.15:
            piece = piece.capitalize()
        elif kind < 0.22:
            piece += rng.choice((".", ",", "(", "_", "-", ":", "\\", "['", "=", ";"))
        out.append((" " if rng.random() < 0.2 else "") + piece)
    return "".join(out).strip()


GENERATORS = MappingProxyType[str, Callable[[random.Random, Sequence[str]], str]](
    {
        "chunk salad": chunk_salad,
        "shuffled sentence": shuffled_sentence,
        "interleaved sentences": interleaved_sentences,
        "dictionary words": dictionary_words,
        "R2A-like": glued_pieces,
    }
)
