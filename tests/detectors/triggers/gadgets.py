"""Triggers without meaning for the tests: random tokens of our own vocabulary, and ordinary prompts."""

import random

from detectors.vocabulary import SIZE, vocabulary

PROMPTS = (
    "Write a short letter to a landlord who has not mended the heating for three weeks. Keep it polite.",
    "What is the capital of Australia, and why was it not Sydney?",
    "def area(r):\n    return 3.14159 * r ** 2\n\nExplain what this function does and how to test it.",
    "A train leaves at 9:40 and arrives at 11:05. How long is the journey? Give the answer in minutes.",
    "Summarise the following paragraph in two sentences: "
    "The tide tables of the harbour were first printed in 1821, "
    "when the lighthouse keeper began to write down the water level every hour of the day and of the night.",
)
WORDS = (
    "table",
    "green",
    "seven",
    "window",
    "carefully",
    "market",
    "return",
    "letter",
    "harbour",
    "quick",
    "plural",
)


def gadget(rng: random.Random, tokens: int = 10) -> str:
    """Tokens drawn evenly from the vocabulary, with a space between them."""
    words = vocabulary().strings()
    found: list[str] = []
    while len(found) < tokens:
        text = words[rng.randrange(300, SIZE)]
        if text.isprintable() and "\ufffd" not in text:
            found.append(text)
    return " ".join(found)
