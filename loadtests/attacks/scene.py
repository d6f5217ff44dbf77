"""What a campaign has at hand: the fleet it happens in, the router it is made against, and when."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loadtests.fleet import Ask, Fleet, Principal
from loadtests.router import DifficultyRouter


@dataclass(frozen=True, slots=True)
class Scene:
    """One campaign's stage. `start` and `seconds` are of stream time, from the stream's start."""

    fleet: Fleet
    router: DifficultyRouter
    rng: random.Random
    start: float
    seconds: float

    def attackers(self, n: int) -> list[Principal]:
        """Established callers that turn on the fleet: each has a past, and is in no other campaign."""
        return self.fleet.turn(self.rng, n)

    def asks(self, attack: str, texts: Sequence[str], callers: Sequence[Principal]) -> Iterator[Ask]:
        """Ask the texts in turn by the callers, evenly with some jitter; tokens as of ordinary calls."""
        step = self.seconds / max(len(texts), 1)
        for number, text in enumerate(texts):
            at = self.start + step * (number + self.rng.random() * 0.8)
            caller = callers[number % len(callers)]
            made = min(1_500, int(self.rng.lognormvariate(4.8, 0.8)))
            given = len(text) // 4 + self.rng.randint(20, 800)
            yield Ask(at, caller, text, f"{attack}-{caller.name}-{number}", 0, given, made, attack=attack)
