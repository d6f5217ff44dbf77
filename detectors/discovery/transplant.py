"""The test that content cannot pass: the window glued to fixed probe prompts, scored by the router itself.

A window that moves every prompt it stands in is a trigger, whatever it stood in so far. One test costs a few tens
of queries to a *router*, which is cheap beside a model, and no further use by the attacker.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec

from schemas.verdicts import Place, Transplant

PROBES = Path(__file__).parents[1] / "artefacts" / "probes.jsonl"
LOOKS = (2, 4, 8, 13, 18, 26, 40)  # lifts after which it may end
HOPELESS = 0.5  # share of wins at a look, at or below which it ends
_BETS = (0.5, 0.9)  # shares of its wealth that a gambler puts on a win


class RouterScorer(Protocol):
    """The router, asked for scores only: in process, or over HTTP (streams/scorers.py)."""

    def score(self, texts: Sequence[str]) -> Iterable[float]:
        """A score for each text, a higher one for a harder text. Raises whatever keeps it from answering."""


class Probes:
    """Probe prompts with this router's scores of them, which are asked for once."""

    def __init__(self, scorer: RouterScorer, texts: Sequence[str]) -> None:
        """`texts`: 40 or more diverse ordinary prompts.

        Raises:
            ValueError: they are fewer.
        """
        if len(texts) < LOOKS[-1]:
            raise ValueError(f"{len(texts)} probes: {LOOKS[-1]} or more are needed")
        self._scorer = scorer
        self._texts = list(texts)
        self._plain: list[float] = []

    def tried(self, wanted: Transplant) -> list[float]:
        """The lifts in the window's direction, in standard deviations of the router's scores; as many as it takes.

        Raises:
            ValueError: the router gave other than finite scores.
        """
        if not self._plain:
            self._plain = self._ask(self._texts)
        sign = 1.0 if wanted.direction == "up" else -1.0
        lifts: list[float] = []
        most = min(wanted.probes, len(self._texts))
        for begin, end in _looks(most):
            scores = self._ask([glued(wanted.text, text, wanted.place) for text in self._texts[begin:end]])
            for before, after in zip(self._plain[begin:end], scores, strict=True):
                lifts.append(round(sign * (after - before) / wanted.scale, 3))
            if is_hopeless(lifts, wanted.margin) or log_wealth(lifts, wanted.margin) >= wanted.needed:
                break
        return lifts

    def _ask(self, texts: list[str]) -> list[float]:
        scores = [float(score) for score in self._scorer.score(texts)]
        if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
            raise ValueError("the router did not give a finite score to each text")
        return scores


def answer(probes: Probes, wanted: Transplant) -> Transplant:
    """What was wanted with its lifts, or with why there are none: a router's failure is an answer too."""
    try:
        return msgspec.structs.replace(wanted, lifts=probes.tried(wanted))
    except Exception as error:  # of somebody else's router or network
        return msgspec.structs.replace(wanted, failed=f"{type(error).__name__}: {error}"[:200])


def glued(window: str, body: str, place: Place) -> str:
    """The window where it stood: before a body, after it, or in its middle."""
    if place == "head":
        return f"{window} {body}"
    if place == "tail":
        return f"{body} {window}"
    parts = body.split(" ")
    half = len(parts) // 2
    return " ".join([*parts[:half], window, *parts[half:]])


def log_wealth(lifts: Sequence[float], margin: float) -> float:
    """Log of what a gambler owns who bet on every lift being `margin` or more, at even odds.

    He began with one. Were the median lift below the margin he would ever own `w` with a chance of 1/w at most
    (Ville 1939; Shafer, JRSS A 2021). The mean over several ways to bet is such a wealth too.
    """
    wins = sum(lift >= margin for lift in lifts)
    logs = [wins * math.log1p(bet) + (len(lifts) - wins) * math.log1p(-bet) for bet in _BETS]
    most = max(logs)
    return most + math.log(math.fsum(math.exp(log - most) for log in logs) / len(logs))


def is_hopeless(lifts: Sequence[float], margin: float) -> bool:
    """Whether a test should end without a finding; asked at its looks."""
    wins = sum(lift >= margin for lift in lifts)
    return wins <= (0 if len(lifts) <= LOOKS[0] else HOPELESS * len(lifts))


@cache
def shipped_probes() -> tuple[str, ...]:
    """The probe prompts that come with Pointsman: two questions each, as long as prompts usually are."""
    texts = [json.loads(line)["text"] for line in PROBES.read_text("utf-8").splitlines()]
    return tuple(f"{one}\n{other}" for one, other in zip(texts[::2], texts[1::2], strict=True))


def _looks(most: int) -> Iterator[tuple[int, int]]:
    begin = 0
    for look in LOOKS:
        end = min(look, most)
        if end > begin:
            yield begin, end
        begin = end
