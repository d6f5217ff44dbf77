"""A fleet's callers and what they ask: tenants, principals with habits, conversations, retries, edits."""

import hashlib
import hmac
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from loadtests.arrivals import arrivals
from loadtests.prompts import Prompt, benign, grammar, unsafe
from schemas.events import AnyEvent

KEY = b"loadtests"  # of the hashes here; a gateway has a secret of its own
UNSAFE_SHARE = 0.002  # harmful requests of ordinary traffic
LONGEST_EDIT = 6


@dataclass(slots=True)
class Ask:
    """One request before it is an event. What an attack forces stands in the last five."""

    at: float  # seconds from the start
    principal: "Principal"
    text: str
    conversation: str
    turn: int
    input_tokens: int
    output_tokens: int
    unsafe: bool = False
    attack: str = ""
    score: float | None = None  # claimed instead of the router's own
    tamper: Callable[[AnyEvent], None] | None = None  # changes each of its events before it is published


@dataclass(frozen=True, slots=True)
class Principal:
    """Who pays. Shares are chances for each of its requests."""

    name: str
    hash: str
    tenant: str
    topics: tuple[str, ...]
    weight: float  # share of the traffic, relative
    head: str  # slot template around its prompts, or empty
    tail: str
    retry: float
    edit: float
    turn: float  # goes on in the same conversation
    streams: bool


def hashed(text: str) -> str:
    """Keyed hash with its algorithm's name before it."""
    return "hmac-sha256:" + hmac.digest(KEY, text.encode(), hashlib.sha256).hex()


class Fleet:
    """Seeded: the same arguments give the same asks."""

    def __init__(self, seed: int, data: Path | None, principals: int = 300, tenants: int = 40) -> None:
        self.seed = seed
        self.data = data
        self.rng = random.Random(seed)
        self.prompts = benign(data)
        self.unsafe = unsafe(data)
        self._turned: set[str] = set()
        self._by_topic: dict[str, list[str]] = {}
        for prompt in self.prompts:
            self._by_topic.setdefault(prompt.topic, []).append(prompt.text)
        companies = grammar()["companies"]
        names = [f"{companies[i % len(companies)]}-{i}".lower() for i in range(tenants)]
        self.principals = [self._principal(i, names) for i in range(principals)]

    def asks(self, n: int, rate: float) -> list[Ask]:
        """`n` requests at `rate` a second in the mean, in order of time."""
        when = arrivals(n, rate, self.seed, self.data)
        totals = list(accumulate(principal.weight for principal in self.principals))
        callers = self.rng.choices(self.principals, cum_weights=totals, k=n)
        habits: dict[str, Iterator[Ask]] = {}
        out = []
        for at, given, made, caller in zip(
            when.at.tolist(), when.input_tokens.tolist(), when.output_tokens.tolist(), callers, strict=True
        ):
            habit = habits.setdefault(caller.name, self.habit(caller))
            ask = next(habit)
            ask.at, ask.output_tokens = at, made
            ask.input_tokens = max(given, len(ask.text) // 4)
            out.append(ask)
        return out

    def habit(self, caller: Principal) -> Iterator[Ask]:
        """What a principal asks, without an end; `at` and tokens are for the caller of this to set."""
        rng = random.Random(f"{self.seed}/{caller.name}")
        text, conversation, turn, edits = "", "", 0, 0
        for n in range(1 << 62):
            chance = rng.random()
            harmful = False
            if edits:
                text, edits = self._edited(rng, text), edits - 1
            elif not text or chance > caller.retry + caller.edit:
                harmful = rng.random() < UNSAFE_SHARE
                text = rng.choice(self.unsafe) if harmful else self._worded(rng, caller)
            elif chance > caller.retry:
                text, edits = self._edited(rng, text), rng.randint(1, LONGEST_EDIT)
            turn = turn + 1 if conversation and rng.random() < caller.turn else 0
            conversation = conversation if turn else f"{caller.name}-{n}"
            yield Ask(0.0, caller, text, conversation, turn, 0, 0, unsafe=harmful)

    def turn(self, rng: random.Random, n: int) -> list[Principal]:
        """Choose attackers among the busiest half, none of them twice: they have a past by the time of an attack.

        Raises:
            ValueError: there are not so many left.
        """
        ranked = sorted(self.principals, key=lambda principal: -principal.weight)
        left = [caller for caller in ranked[: len(ranked) // 2] if caller.name not in self._turned]
        chosen = rng.sample(left, n)
        self._turned.update(caller.name for caller in chosen)
        return chosen

    def bodies(self, rng: random.Random, n: int) -> list[Prompt]:
        """Distinct benign prompts of any topic, for attacks to ride on."""
        return rng.sample(self.prompts, n)

    def _principal(self, number: int, tenants: Sequence[str]) -> Principal:
        rng = self.rng
        name, tenant = f"key-{self.seed}-{number}", rng.choice(tenants)
        topics = list(self._by_topic)
        slots = {"tenant": tenant.title(), "n": rng.randint(2, 90)}
        templated = rng.random() < 0.4
        return Principal(
            name=name,
            hash=hashed(name),
            tenant=tenant,
            topics=tuple(rng.sample(topics, min(len(topics), rng.choice((1, 1, 2, 3, 6))))),
            weight=1 / (number + 4) ** 0.8,
            head=rng.choice(grammar()["heads"]).format(**slots) if templated else "",
            tail=rng.choice(grammar()["tails"]).format(**slots) if rng.random() < 0.35 else "",
            retry=rng.choice((0.01, 0.02, 0.02, 0.15)),
            edit=rng.choice((0.0, 0.01, 0.01, 0.04)),
            turn=rng.choice((0.0, 0.3, 0.6)),
            streams=rng.random() < 0.5,
        )

    def _worded(self, rng: random.Random, caller: Principal) -> str:
        parts = [caller.head, rng.choice(self._by_topic[rng.choice(caller.topics)]), caller.tail]
        return "\n".join(part for part in parts if part)

    def _edited(self, rng: random.Random, text: str) -> str:
        words = text.split(" ")
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(words))
            other = rng.choice(rng.choice(self.prompts).text.split(" "))
            kind = rng.random()
            if kind < 0.4:
                words[place] = other
            elif kind < 0.7 or len(words) < 8:
                words.insert(place, other)
            else:
                del words[place]
        if rng.random() < 0.25:
            words.append(rng.choice(grammar()["follow_ups"]))
        return " ".join(words)
