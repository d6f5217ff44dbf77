"""Grow triggers against a router, for the catalogue, drills and tests: gadgets that move it whatever they stand by.

A hill climb over the tokens of the project's vocabulary (after Shafran et al., "Rerouting LLM Routers", 2025,
section 4): the router scores the gadget alone, so that what climbs does not depend on a prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detectors.vocabulary import FREE_BITS, vocabulary

Router = Callable[[Sequence[str]], NDArray[Any]]  # texts -> scores, higher is harder
Sampling = Literal["uniform", "frequency", "wordlike"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
Direction = Literal["up", "down"]

CANDIDATES = 32  # tried at one position in a step
STEPS = 100
PATIENCE = 25  # steps without gain after which it stops
COMMON_TOKENS = 100  # left out of the word-like ones
WORD_LETTERS = 3


@dataclass(frozen=True, slots=True)
class Grown:
    """A gadget, what the router gave it, and what it was at the start."""

    text: str
    score: float
    start_score: float
    queries: int  # texts that the router scored


@cache
def token_pool(sampling: Sampling) -> tuple[list[str], NDArray[np.float64]]:
    """Token strings and the chance of each."""
    known = vocabulary()
    strings = known.strings()
    usable = [t for t, s in enumerate(strings) if s.isprintable() and "\ufffd" not in s and s.strip()]
    if sampling == "wordlike":
        usable = [t for t in usable if strings[t].isalpha() and len(strings[t]) >= WORD_LETTERS]
        usable = sorted(usable, key=lambda t: known.bits[t])[COMMON_TOKENS:]
    chances = np.exp2(-known.bits[usable].astype(np.float64) - FREE_BITS)
    if sampling == "uniform":
        chances = np.ones(len(usable))
    return [strings[t] for t in usable], chances / chances.sum()


def grow(router: Router, sampling: Sampling, direction: Direction = "up", tokens: int = 10, seed: int = 0) -> Grown:
    """Climb from one repeated token to a gadget of `tokens` tokens: at a random place, the best of the candidates.

    `up` raises the router's score (a dear model for everything), `down` lowers it (a weak model for what is hard).
    """
    rng = np.random.default_rng(seed)
    strings, chances = token_pool(sampling)
    sign = 1.0 if direction == "up" else -1.0
    gadget = [strings[rng.choice(len(strings), p=chances)]] * tokens
    start = best = float(router([" ".join(gadget)])[0])
    queries, idle = 1, 0
    for _ in range(STEPS):
        place = int(rng.integers(tokens))
        drawn = rng.choice(len(strings), CANDIDATES, p=chances)
        tries = [[*gadget[:place], strings[token], *gadget[place + 1 :]] for token in drawn.tolist()]
        scores = np.asarray(router([" ".join(tried) for tried in tries]), np.float64)
        queries += CANDIDATES
        top = int((sign * scores).argmax())
        if sign * scores[top] > sign * best:
            gadget, best, idle = tries[top], float(scores[top]), 0
        else:
            idle += 1
        if idle == PATIENCE:
            break
    return Grown(" ".join(gadget), best, start, queries)
