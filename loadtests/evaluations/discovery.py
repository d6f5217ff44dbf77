"""How `discovery` does on whole days: `python -m loadtests.evaluations.discovery` prints its page's tables.

A day is a fleet's traffic of real prompts with callers' templates, retries and edits, a sixth of it by tenants that
begin in the middle of the day, and campaigns whose gadgets were grown against the router that the day's scores
come from. Both levels run as in the service, in process; the transplants ask the router itself.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.triggers.grow import SAMPLINGS, Direction, grow
from loadtests.attacks.mutations import MUTATIONS, as_prefix, as_suffix
from loadtests.fleet import Ask, Fleet, Principal
from loadtests.prompts import data_dir, words
from loadtests.router import QUICK, DifficultyRouter, Kind

Score = Callable[[Sequence[str]], npt.NDArray[np.float64]]
ROUTERS = (*QUICK, "mixed")  # "mixed": the mean of one that is linear and one that is not
KINDS = ("prefix", "suffix", "mutated", "middle")
CALM = 0.25  # of the day, before the first campaign
USES = 30  # of a campaign
CALLERS = 6
LEAST_LIFT = 1.2  # standard deviations: what a campaign's gadget does at least to a prompt's score
NEWCOMERS = 1 / 6  # of the traffic of the second half
CHUNK = 4_096


class Planted(NamedTuple):
    """A campaign: where its gadget stands, which way it pushes, how far, and the gadget."""

    kind: str
    direction: Direction
    lift: float
    gadget: str


@dataclass(frozen=True)
class Day:
    """Requests in order; `campaign` is -1 for ordinary ones."""

    asks: list[Ask]
    campaign: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    planted: list[Planted]


def scorer(name: str) -> Score:
    """The router's scores, in chunks."""
    kinds: tuple[Kind, ...] = ("words", "static") if name == "mixed" else (name,)  # type: ignore[assignment]
    routers = [DifficultyRouter.load(kind) for kind in kinds]

    def score(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        parts = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
        scores: npt.NDArray[np.float64] = np.concatenate(
            [np.mean([router.score(part) for router in routers], axis=0) for part in parts]
        )
        return scores

    return score


def _inside(gadget: str, prompt: str) -> str:
    parts = prompt.split(" ")
    half = len(parts) // 2
    return " ".join([*parts[:half], gadget, *parts[half:]])


def plant(score: Score, fleet: Fleet, each: int, rng: random.Random) -> list[Planted]:
    """`each` campaigns of every kind, a quarter of them downwards, with gadgets that move the router enough."""
    bodies = [prompt.text for prompt in fleet.bodies(rng, 200)]
    plain = score(bodies)
    spread = float(plain.std())
    planted: list[Planted] = []
    for kind in KINDS:
        while sum(campaign.kind == kind for campaign in planted) < each:
            direction: Direction = "down" if rng.random() < 0.25 else "up"
            grown = grow(score, rng.choice(SAMPLINGS), direction, 10, rng.getrandbits(32))
            place = _place(kind, rng)
            shift = score([place(grown.text, body) for body in bodies]) - plain
            lift = float(shift.mean()) / spread * (1 if direction == "up" else -1)
            if lift >= LEAST_LIFT:
                planted.append(Planted(kind, direction, lift, grown.text))
    return planted


def _place(kind: str, rng: random.Random) -> Callable[[str, str], str]:
    if kind == "middle":
        return _inside
    if kind == "mutated":
        return rng.choice((as_prefix, as_suffix))
    return as_prefix if kind == "prefix" else as_suffix


def make_day(name: str, seed: int, requests: int, each: int) -> Day:
    """A day of the router called `name`: the same arguments give the same day."""
    rng = random.Random(f"discovery/{seed}")
    score, data = scorer(name), data_dir()
    fleet = Fleet(seed, data, principals=max(200, requests // 250), tenants=50)
    newcomers = Fleet(seed + 500_000, data, principals=max(40, requests // 1250), tenants=10)
    late = round(requests * NEWCOMERS / 2)
    asks = fleet.asks(requests - late, 100.0)
    end = asks[-1].at
    fresh = newcomers.asks(late, 100.0)
    for ask in fresh:
        ask.at = end / 2 * (1 + ask.at / fresh[-1].at)
    planted = plant(score, fleet, each, rng)
    vocabulary = words(data)
    for number, campaign in enumerate(planted):
        callers = fleet.turn(rng, CALLERS) if len(fleet.principals) > 12 * len(planted) else _any(fleet, rng)
        place = _place(campaign.kind, rng)
        times = sorted(rng.uniform(CALM * end, end) for _ in range(USES))
        for use, (at, body) in enumerate(zip(times, fleet.bodies(rng, USES), strict=True)):
            mutation = MUTATIONS["replaced_20" if campaign.kind == "mutated" else "exact"]
            text = place(mutation(campaign.gadget, rng, vocabulary), body.text)
            asks.append(Ask(at, callers[use % CALLERS], text, "", 0, 0, 0, attack=str(number)))
    asks = sorted([*asks, *fresh], key=lambda ask: ask.at)
    texts = list(dict.fromkeys(ask.text for ask in asks))
    known = dict(zip(texts, score(texts).tolist(), strict=True))
    return Day(
        asks,
        np.array([int(ask.attack or -1) for ask in asks]),
        np.array([known[ask.text] for ask in asks]),
        planted,
    )


def _any(fleet: Fleet, rng: random.Random) -> list[Principal]:
    return rng.sample(fleet.principals, CALLERS)
