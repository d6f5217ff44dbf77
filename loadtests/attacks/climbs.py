"""Triggers climbed against a router: only its score is needed, and of every kind of router.

After Shafran et al., "Rerouting LLM Routers" (2025), section 4 (`gadget`), and the coordinate search of GCG (Zou et
al. 2023, arXiv:2307.15043, section 2) with queries in place of gradients (`coordinates`). The candidates are tokens
of tiktoken's `cl100k_base`, glued as they decode: what stands between them is theirs.
"""

import random
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from detectors.triggers.grow import CANDIDATES, PATIENCE, STEPS, Direction
from loadtests.attacks.text import COMMON, Material, printable

Score = Callable[[Sequence[str]], npt.NDArray[Any]]  # texts -> difficulty, higher is harder
Draw = Callable[[Material, random.Random, int], list[str]]

PREFIX_TOKENS = 10
SUFFIX_TOKENS = (15, 30)
COORDINATES = 20  # of a GCG-like suffix, which starts as as many exclamation marks

# Where candidates come from.
SAMPLINGS = MappingProxyType[str, Draw](
    {
        "uniform": lambda material, rng, n: rng.choices(printable(), k=n),
        "frequency": lambda material, rng, n: material.draw(rng, n),
        "wordlike": lambda material, rng, n: material.draw(rng, n, without=COMMON),
    }
)


def climb(
    score: Score, gadget: Sequence[str], draw: Callable[[int], list[str]], rng: random.Random, direction: Direction
) -> list[str]:
    """Take the best candidate at a random place if it is better; the router sees the gadget alone."""
    sign = 1.0 if direction == "up" else -1.0
    now = list(gadget)
    best, idle = sign * float(score(["".join(now)])[0]), 0
    for _ in range(STEPS):
        place = rng.randrange(len(now))
        tries = [[*now[:place], token, *now[place + 1 :]] for token in draw(CANDIDATES)]
        scores = sign * score(["".join(tried) for tried in tries])
        top = int(scores.argmax())
        idle += 1
        if scores[top] > best:
            now, best, idle = tries[top], float(scores[top]), 0
        if idle == PATIENCE:
            break
    return now


def gadget(
    score: Score, material: Material, rng: random.Random, sampling: str = "wordlike",
    direction: Direction = "up", tokens: int = PREFIX_TOKENS,
) -> str:  # fmt: skip
    """One gadget, climbed from a repeated token; `sampling` is one of `SAMPLINGS`."""

    def draw(n: int) -> list[str]:
        return SAMPLINGS[sampling](material, rng, n)

    return "".join(climb(score, draw(1) * tokens, draw, rng, direction)).strip()


def suffix(
    score: Score, material: Material, rng: random.Random, sampling: str = "wordlike", direction: Direction = "up"
) -> str:
    """As `gadget`, longer: at the end of a prompt a router pays less heed."""
    return gadget(score, material, rng, sampling, direction, rng.randint(*SUFFIX_TOKENS))


def coordinates(score: Score, rng: random.Random, direction: Direction = "up") -> str:
    """A GCG-like string: exclamation marks, replaced one by one by whatever printable ASCII token does most."""
    ascii_only = [token for token in printable() if token.isascii()]
    found = climb(score, [" !"] * COORDINATES, lambda n: rng.choices(ascii_only, k=n), rng, direction)
    return "".join(found).strip()
