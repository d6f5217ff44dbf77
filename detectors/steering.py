"""Steering: one principal's routes move one way only, beyond what noise between paraphrases explains.

Two kinds of evidence, each for *up* (the wallet) and *down* (quality), added up per principal at the verdict:

- *residual*: how far the score is above what the prompt should get (`Difficulty.residual`), centred on the
  principal's own first clean requests, since a template may well be harder than it reads. A mixture of betting
  processes that begin again when they have lost (Shin, Ramdas and Rinaldo, "E-detectors", arXiv:2203.03532, with
  sub-Gaussian bets), and a margin below which a shift is nobody's doing. In the principal's own deviations:
  who works on several topics varies more than the fleet does, and bets would win on that.
- *pairs*: where the gateway asked the router again without a part of the prompt, whether that part had lifted the
  score; likelihood ratio of nine times the odds against the router's usual share.

Either alone may be an honest change of work, and is context. Beside them stands *odd text*: whether the
principal's prompts are odd (`novelty`) more often than its own first ones were, as a CUSUM of the likelihood
ratio. Both at once are `steered_by_text`: each prompt may be far from odd enough to be flagged by itself.

Evidence is in nats: e^x to one against chance. What has been told keeps no more of it than tells: an attack that is
over is not told again hours later, at the next prompt that is odd by chance.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.repeats import is_repeat
from detectors.thresholds import Thresholds
from schemas.verdicts import Direction, Reason

PRINCIPALS = 50_000
ROUTERS = 256
CLEAN = 40  # requests that give a principal's centre, and after which it is established
BETS = (0.3, 0.6, 1.0)
CLIP = 3.5  # standard deviations that one request can count for
LEAST, MOST = -3.0, 30.0  # nats: lost enough to begin again; said enough
ODDS = 9.0
DEVIATION_WEIGHT = 20.0  # requests that the fleet's deviation, 1, counts for in a principal's own
LEAST_DEVIATION = 0.8
MOST_PAIRS = 20  # of one principal that count for a router's usual share
ROUTER_MEMORY = 10_000.0
NEAR = 0.7
LEAST_ODD, MOST_ODD = 0.03, 0.4  # a principal's usual share of odd prompts: no less; above, it says nothing
ODD_SHARE = 0.6  # of the prompts of who steers by text

_ALONE = math.log(len(BETS))  # beyond the limit: a bet that reaches it without the others
_FORM = struct.Struct("<2I2f6f2f2fQ")
_USUAL = struct.Struct("<2d")
_FIRST_USUAL = (20.0, 10.0)  # pairs, and those that lifted: a prior of one half
_NOTES: dict[Direction, str] = {
    "up": "The principal's difficulty estimates are above what its prompts and its past explain",
    "down": "The principal's difficulty estimates are below what its prompts and its past explain",
}


@dataclass(slots=True)
class _Past:
    """64 bytes packed."""

    requests: int = 0
    pairs: int = 0
    centre: float = 0.0  # mean residual of the first CLEAN requests
    variance: float = 1.0  # of theirs
    bets: list[float] = field(default_factory=lambda: [0.0] * (2 * len(BETS)))  # nats; up, then down
    lifts: list[float] = field(default_factory=lambda: [0.0, 0.0])  # nats, of pairs; up, down
    usual_odd: float = 0.0  # odd prompts among the first CLEAN
    odd: float = 0.0  # nats
    likeness: int = 0  # of the last prompt (detectors/contract.py)

    @classmethod
    def unpack(cls, value: bytes) -> "_Past":
        if len(value) != _FORM.size:  # of an older release: begins anew
            return cls()
        requests, pairs, centre, variance, *rest = _FORM.unpack(value)
        return cls(requests, pairs, centre, variance, rest[: 2 * len(BETS)], rest[2 * len(BETS) : -3], *rest[-3:])

    def pack(self) -> bytes:
        return _FORM.pack(
            self.requests, self.pairs, self.centre, self.variance, *self.bets, *self.lifts,
            self.usual_odd, self.odd, self.likeness,
        )  # fmt: skip

    def add_residual(self, residual: float, margin: float) -> None:
        """Bet on both directions, once there is a centre. A centre never helps: only excess over it counts."""
        if self.requests < CLEAN:
            return
        known = self.requests + DEVIATION_WEIGHT
        spread = math.sqrt((self.requests * self.variance + DEVIATION_WEIGHT) / known)
        unit = max(LEAST_DEVIATION, spread)
        up = min(CLIP, (residual - max(self.centre, 0.0)) / unit) - margin
        down = min(CLIP, (-residual - max(-self.centre, 0.0)) / unit) - margin
        for i, bet in enumerate(BETS):
            drift = bet * bet / 2
            self.bets[i] = min(MOST, max(LEAST, self.bets[i] + bet * up - drift))
            self.bets[i + len(BETS)] = min(MOST, max(LEAST, self.bets[i + len(BETS)] + bet * down - drift))

    def learn_residual(self, residual: float) -> None:
        """Let one of the first clean requests into centre and variance."""
        self.requests += 1
        step = max(-CLIP, min(CLIP, residual)) - self.centre
        self.centre += step / self.requests
        self.variance += (step * step - self.variance) / self.requests

    def add_pair(self, lifted: bool, usual: float) -> None:
        """Add one pair; `usual` is the router's share of pairs that lift."""
        for i, share in enumerate((usual, 1 - usual)):
            tilted = ODDS * share / (1 - share + ODDS * share)
            hit = lifted == (i == 0)
            ratio = math.log(tilted / share if hit else (1 - tilted) / (1 - share))
            self.lifts[i] = min(MOST, max(0.0, self.lifts[i] + ratio))

    def add_text(self, is_odd: bool, likeness: int) -> None:
        """Add whether the prompt is odd, once there is a usual share; a prompt tried again counts once."""
        tried_again, self.likeness = is_repeat(likeness, self.likeness), likeness
        usual = max(LEAST_ODD, (self.usual_odd + 1) / (CLEAN + 1))
        if tried_again or self.requests < CLEAN or usual > MOST_ODD:
            return
        ratio = math.log(ODD_SHARE / usual if is_odd else (1 - ODD_SHARE) / (1 - usual))
        self.odd = min(MOST, max(0.0, self.odd + ratio))

    def tell(self, limit: float) -> None:
        """Give up what is beyond `limit`: to be told again takes new evidence at least for what has faded since."""
        self.odd = min(self.odd, limit)
        self.lifts = [min(lift, limit) for lift in self.lifts]
        self.bets = [min(bet, limit + _ALONE) for bet in self.bets]

    def evidence(self) -> tuple[float, Direction, str]:
        """The strongest evidence in nats, its direction, and what it is made of."""
        n = len(BETS)
        found: list[tuple[float, Direction, str]] = [
            (_mixture(self.bets[:n]), "up", "residual"), (_mixture(self.bets[n:]), "down", "residual"),
            (self.lifts[0], "up", "pairs"), (self.lifts[1], "down", "pairs"),
        ]  # fmt: skip
        return max(found)


_NO_PAST = _Past()  # of cases that say nothing: never changed


@dataclass(slots=True)
class _Taken:
    """What scoring a case worked out: `learn` takes it over."""

    case: Case
    key: str
    past: _Past
    residual: float | None
    lifted: list[bool]
    is_odd: bool
    answer: Answer


class Steering:
    """A StreamDetector. Stands before `Difficulty` in the order, so that both see one state of its models."""

    name = "steering"
    version = "3"
    kinds = ("steering", "steered_by_text")

    def __init__(
        self, thresholds: Thresholds, residual: Callable[[Case], float | None], principals: int = PRINCIPALS
    ) -> None:
        """Take `residual`: the score against what its prompt gets, in standard deviations, without side effects."""
        self._thresholds = thresholds
        self._residual = residual
        self._principals = Keyed("p/", principals, bytes, bytes)
        self._routers = Keyed("r/", ROUTERS, bytes, bytes)
        self._taken: _Taken | None = None

    @property
    def evicted(self) -> int:
        """Keys dropped by this process for want of room."""
        return self._principals.evicted + self._routers.evicted

    def score(self, case: Case) -> Answer:
        """Evidence in nats that the principal is steering; None: no residual and no pair, or no centre yet."""
        self._taken = self._take(case)
        return self._taken.answer

    def learn(self, case: Case, flagged: bool) -> None:
        """Move the evidence; flagged requests are none of the clean ones that give the centre."""
        taken = self._taken
        if taken is None or taken.case is not case:
            taken = self._take(case)
        self._taken = None
        past, answer = taken.past, taken.answer
        if taken.residual is None and not taken.lifted:
            return
        if isinstance(answer, Reason) and answer.kind == "steered_by_text" and answer.flagged:
            past.tell(answer.threshold)
        if taken.residual is not None and past.requests < CLEAN and not flagged:
            past.learn_residual(taken.residual)
            past.usual_odd += taken.is_odd
        if taken.lifted and case.route is not None:
            if past.pairs < MOST_PAIRS and not flagged:
                self._learn_usual(case.route.router_name, taken.lifted)
            past.pairs = min(MOST_PAIRS, past.pairs + len(taken.lifted))
        established = past.requests >= CLEAN or past.pairs >= MOST_PAIRS
        self._principals.put(taken.key, past.pack(), established)

    def forget(self, tenant: str, principal: str) -> None:
        """See `Forgetful.forget`."""
        self._taken = None
        self._principals.drop(compound_key(tenant, principal))

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        yield from self._principals.changes()
        yield from self._routers.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._principals.snapshot() | self._routers.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._taken = None
        if not self._principals.load(key, value):
            self._routers.load(key, value)

    def _take(self, case: Case) -> _Taken:
        """Add the case to a copy of its principal's past, and judge; changes nothing."""
        request, route = case.request, case.route
        key = compound_key(request.tenant_id, request.principal_hash)
        if case.outcome is not None or route is None or route.cache_hit or route.fallback_from:
            return _Taken(case, key, _NO_PAST, None, [], False, None)
        value = self._principals.get(key)
        past = _Past.unpack(value) if value else _Past()
        residual, lifted = self._residual(case), _lifted(case)
        is_odd = case.prompt.scores.get("novelty", 0.0) >= self._thresholds["steering.odd_text"]
        if residual is not None or lifted:
            past.add_text(is_odd, case.prompt.likeness)
        if residual is not None:
            past.add_residual(residual, self._thresholds["steering.margin"])
        if lifted:
            pairs, ups = self._usual(route.router_name)
            for up in lifted:
                past.add_pair(up, ups / pairs)
        ready = (residual is not None and past.requests >= CLEAN) or bool(lifted)
        return _Taken(case, key, past, residual, lifted, is_odd, self._answer(past, is_odd) if ready else None)

    def _answer(self, past: _Past, is_odd: bool) -> Answer:
        evidence, direction, stage = past.evidence()
        limit = self._thresholds["steering.evidence"]
        if evidence < min(NEAR * limit, self._thresholds.strictest("steering.evidence")):
            return evidence
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=evidence,
            threshold=limit,
            threshold_version=self._thresholds.version,
            flagged=evidence >= limit,
            kind="steered_by_text" if is_odd and min(past.odd, evidence) >= limit else "steering",
            stage=stage,
            direction=direction,
            note=_NOTES[direction],
        )

    def _usual(self, router: str) -> tuple[float, float]:
        value = self._routers.get(compound_key(router))
        return _USUAL.unpack(value) if value else _FIRST_USUAL

    def _learn_usual(self, router: str, lifted: list[bool]) -> None:
        pairs, ups = self._usual(router)
        scale = 0.5 if pairs > ROUTER_MEMORY else 1.0
        pairs, ups = pairs * scale + len(lifted), ups * scale + sum(lifted)
        # Never certain: a router that lifts always would make the first fall infinite evidence.
        ups = min(0.98 * pairs, max(0.02 * pairs, ups))
        self._routers.put(compound_key(router), _USUAL.pack(pairs, ups), pairs >= CLEAN)


def _mixture(logs: list[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(log - most) for log in logs) / len(logs))


def _lifted(case: Case) -> list[bool]:
    """For each part that the gateway left out, whether it had lifted the score; equal scores say nothing."""
    route = case.route
    if route is None or route.difficulty_score is None or not route.counterfactual_scores:
        return []
    lifts = [
        (route.difficulty_score - other.difficulty_score) * route.score_direction
        for other in route.counterfactual_scores[:4]
    ]
    return [lift > 0 for lift in lifts if math.isfinite(lift) and lift != 0]
