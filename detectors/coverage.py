"""Coverage: is every route judged and guarded, and what do its answers turn out to be? Counts, no learning.

The invariant over all routes: for each (router, model, cache hit, fail-over, stream) the exact number of
requests, outcomes, guardrail verdicts and unsafe answers since the beginning, and a recent part of them.

What is found are shares beyond what is allowed, by bets (detectors/bets.py): such cases are rare, are looked at
again and again, and each partition of the lane has routes of its own. How many answers may lack a guardrail's
verdict is known from the router's other routes and from the route's own past, at the lower Wilson bound of their
share (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1), so that few say little.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from detectors.bets import LOG_RUN, NO_BETS, Bets, after, won
from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.events import Outcome, Route
from schemas.verdicts import Reason

CAPACITY = 4096  # routes in all
ROUTES_OF_ROUTER = 128  # beyond: one shared row a router, so that a check stays cheap whatever a client invents
ESTABLISHED = 25  # outcomes and requests after which a route is protected from new ones
LEAST_OTHERS = 200  # outcomes of what it is compared with
RECENT = 1000  # recent counts are halved beyond this: the past fades, the totals do not
AGAIN_EVERY = 1000  # an open gap is said again after so many outcomes (or requests)
AGAIN_LABELLED = 100  # the same for unsafe answers, of which only the labelled ones are looked at
Z = 3.29  # one-sided 0.05 %
TEXT_DETECTORS = ("triggers", "novelty")

_ROUTER_CHARS = 16
_ROUTE = struct.Struct("<5Q6IB")
_BETS = struct.Struct(f"<{3 * len(NO_BETS)}d")
_BETS_OF_ONE = struct.Struct(f"<{len(NO_BETS)}d")
_OPEN = {"guardrail_gap": 1, "unsafe_route": 2, "unjudged": 4}
_NOTES = {
    "guardrail_gap": "Answers of this route carry a guardrail verdict far less often than expected",
    "unsafe_route": "The share of answers of this route that were labelled unsafe is beyond its allowance",
    "unjudged": "No text detector could read a large share of this route's requests",
}


class Interval(NamedTuple):
    """A share with its Wilson bounds."""

    share: float
    low: float
    high: float


def wilson(hits: float, n: float, z: float = Z) -> Interval:
    """The Wilson score interval of a binomial share; (0, 0, 1) without observations."""
    if n <= 0:
        return Interval(0.0, 0.0, 1.0)
    share, zz = hits / n, z * z
    centre = (share + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(share * (1 - share) / n + zz / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


@dataclass(slots=True)
class RouteCounts:
    """One route's counts: since the beginning, then recent ones, then which findings are open (bits)."""

    requests: int = 0
    outcomes: int = 0
    guarded: int = 0  # outcomes with a guardrail verdict
    labelled: int = 0  # outcomes that say safe, unsafe or refused
    unsafe: int = 0
    recent_requests: int = 0
    recent_unjudged: int = 0
    recent_outcomes: int = 0
    recent_guarded: int = 0
    recent_labelled: int = 0
    recent_unsafe: int = 0
    open: int = 0
    unsafe_bets: Bets = NO_BETS
    unguarded_bets: Bets = NO_BETS
    unjudged_bets: Bets = NO_BETS

    def pack(self) -> bytes:
        """Packed little-endian, 185 bytes."""
        return _ROUTE.pack(
            self.requests, self.outcomes, self.guarded, self.labelled, self.unsafe, self.recent_requests,
            self.recent_unjudged, self.recent_outcomes, self.recent_guarded, self.recent_labelled,
            self.recent_unsafe, self.open,
        ) + _BETS.pack(*self.unsafe_bets, *self.unguarded_bets, *self.unjudged_bets)  # fmt: skip

    def add_request(self, unjudged: bool, allowed: float) -> None:
        """Count a request, or a further attempt at it. `allowed`: the unjudged share that nobody minds, 0..1."""
        if self.recent_requests >= RECENT:
            self.recent_requests //= 2
            self.recent_unjudged //= 2
        self.requests += 1
        self.recent_requests += 1
        self.recent_unjudged += unjudged
        self.unjudged_bets = after(self.unjudged_bets, unjudged, allowed)

    def add_outcome(self, outcome: Outcome, unsafe_allowed: float, unguarded_allowed: float) -> bool:
        """Count an outcome; whether it is labelled. Allowed: the shares of such answers that nobody minds, 0..1."""
        if self.recent_outcomes >= RECENT:
            self.recent_outcomes //= 2
            self.recent_guarded //= 2
            self.recent_labelled //= 2
            self.recent_unsafe //= 2
        guarded, label = bool(outcome.guardrail_verdict), outcome.evaluation_score_label
        labelled, unsafe = label in ("safe", "unsafe", "refused"), label == "unsafe"
        self.outcomes += 1
        self.recent_outcomes += 1
        self.guarded += guarded
        self.recent_guarded += guarded
        self.labelled += labelled
        self.recent_labelled += labelled
        self.unsafe += unsafe
        self.recent_unsafe += unsafe
        self.unguarded_bets = after(self.unguarded_bets, not guarded, unguarded_allowed)
        if labelled:
            self.unsafe_bets = after(self.unsafe_bets, unsafe, unsafe_allowed)
        return labelled

    def is_due(self, kind: str) -> bool:
        """Whether an open finding is to be said again."""
        if kind == "unsafe_route":
            return not self.labelled % AGAIN_LABELLED
        return not (self.requests if kind == "unjudged" else self.outcomes) % AGAIN_EVERY


def unpack(value: bytes | None) -> RouteCounts:
    """The counts that `RouteCounts.pack` wrote; zeros for None. Earlier releases had fewer bets, or none."""
    if not value:
        return RouteCounts()
    bets = _BETS_OF_ONE.iter_unpack(value[_ROUTE.size :])
    return RouteCounts(*_ROUTE.unpack_from(value), *bets)


class _Recent(NamedTuple):
    """Recent outcomes, and how many of them carried a guardrail's verdict."""

    guarded: int = 0
    outcomes: int = 0


_NONE = _Recent()


class Coverage:
    """A StreamDetector. Findings: `guardrail_gap` and `unsafe_route` at outcomes, `unjudged` at requests."""

    name = "coverage"
    version = "3"
    kinds = ("guardrail_gap", "unjudged", "unsafe_route")

    def __init__(self, thresholds: Thresholds, capacity: int = CAPACITY) -> None:
        self._thresholds = thresholds
        self._routes = Keyed("r/", capacity, bytes, bytes)
        self._of_router: dict[str, dict[str, _Recent]] = {}  # derived: router -> its routes' keys
        self._together: dict[str, _Recent] = {}  # derived: router -> of all its routes
        self._counted: _Counted | None = None  # by the last `score`

    @property
    def evicted(self) -> int:
        """Routes dropped by this process for want of room."""
        return self._routes.evicted

    def score(self, case: Case) -> Answer:
        """Recent share without a judgement (requests) or without a guardrail verdict (outcomes); None: no route."""
        if case.route is None:
            return None
        self._counted = _Counted(case, *self._count(case, case.route))
        return self._counted.answer

    def learn(self, case: Case, flagged: bool) -> None:
        """Count the case. Counts are facts: flagged cases count too."""
        if case.route is None:
            return
        counted = self._counted
        if counted is None or counted.case is not case:
            counted = _Counted(case, *self._count(case, case.route))
        self._counted = None
        key, counts = counted.key, counted.counts
        self._add_up(key, counts)
        for gone in self._routes.put(key, counts.pack(), counts.requests + counts.outcomes >= ESTABLISHED):
            self._forget(gone)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        return self._routes.changes()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        return self._routes.snapshot()

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        self._counted = None
        self._routes.load(key, value)
        key = key.removeprefix(self._routes.prefix)
        if value is None:
            self._forget(key)
        else:
            self._add_up(key, unpack(self._routes.get(key)))

    def counts(self, route: Route, stream: bool = False) -> RouteCounts:
        """What is known of a route like this one."""
        return unpack(self._routes.get(self._key(route, stream)))

    def _count(self, case: Case, route: Route) -> tuple[str, RouteCounts, Answer]:
        """Where the case counts, the counts with it, and the answer; changes nothing."""
        key = self._key(route, case.request.request_stream)
        counts = unpack(self._routes.get(key))
        if case.outcome is None:
            allowed = self._thresholds["coverage.unjudged_share"]
            counts.add_request(_unjudged(case), allowed)
            share = counts.recent_unjudged / counts.recent_requests
            return key, counts, self._finding(counts, "unjudged", counts.unjudged_bets, share, allowed) or share
        allowed, usual = self._thresholds["coverage.unsafe_share"], self._usual(key, counts)
        labelled = counts.add_outcome(case.outcome, allowed, 1 - usual + self._thresholds["coverage.guardrail_gap"])
        guarded = counts.recent_guarded / counts.recent_outcomes
        unsafe = counts.recent_unsafe / max(1, counts.recent_labelled)
        return key, counts, (
            (labelled and self._finding(counts, "unsafe_route", counts.unsafe_bets, unsafe, allowed))
            or self._finding(counts, "guardrail_gap", counts.unguarded_bets, guarded, usual)
            or 1 - guarded
        )  # fmt: skip

    def _usual(self, key: str, counts: RouteCounts) -> float:
        """The guarded share that is usual: the other routes' recent one or the route's own past; 0: not known."""
        router = key[:_ROUTER_CHARS]
        own, together = self._of_router.get(router, {}).get(key, _NONE), self._together.get(router, _NONE)
        return max(
            _bound(together.guarded - own.guarded, together.outcomes - own.outcomes),
            _bound(counts.guarded - counts.recent_guarded, counts.outcomes - counts.recent_outcomes),
        )

    def _finding(self, counts: RouteCounts, kind: str, bets: Bets, seen: float, expected: float) -> Reason | None:
        """A Reason when a finding opens, and now and then while it stays open; it closes at half its limit."""
        score, limit = won(bets), LOG_RUN
        bit = _OPEN[kind]
        if score <= limit:
            if score <= limit / 2:
                counts.open &= ~bit
            return None
        if counts.open & bit and not counts.is_due(kind):
            return None
        counts.open |= bit
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=score,
            threshold=limit,
            threshold_version=self._thresholds.version,
            flagged=True,
            kind=kind,
            expected=expected,
            seen=seen,
            note=_NOTES[kind],
        )

    def _key(self, route: Route, stream: bool) -> str:
        router = _router_id(route.router_name)
        flags = f"{route.cache_hit:d}{bool(route.fallback_from):d}{stream:d}"
        key = router + compound_key(route.selected_model, flags)
        known = self._of_router.get(router, {})
        return key if key in known or len(known) < ROUTES_OF_ROUTER else router + "rest"

    def _add_up(self, key: str, counts: RouteCounts) -> None:
        router = key[:_ROUTER_CHARS]
        routes, together = self._of_router.setdefault(router, {}), self._together.get(router, _NONE)
        before = routes.get(key, _NONE)
        now = routes[key] = _Recent(counts.recent_guarded, counts.recent_outcomes)
        self._together[router] = _Recent(
            together.guarded + now.guarded - before.guarded, together.outcomes + now.outcomes - before.outcomes
        )

    def _forget(self, key: str) -> None:
        router = key[:_ROUTER_CHARS]
        routes = self._of_router.get(router, {})
        if key in routes:
            self._add_up(key, RouteCounts())
            del routes[key]
        if not routes:
            self._of_router.pop(router, None)
            self._together.pop(router, None)


@dataclass(slots=True)
class _Counted:
    """What scoring a case worked out: `learn` takes it over."""

    case: Case
    key: str
    counts: RouteCounts
    answer: Answer


def _bound(guarded: int, outcomes: int) -> float:
    return wilson(guarded, outcomes).low if outcomes >= LEAST_OTHERS else 0.0


@lru_cache(maxsize=4096)
def _router_id(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_ROUTER_CHARS // 2).hexdigest()


def _unjudged(case: Case) -> bool:
    """Whether no text detector could judge. A further attempt brings no prompt with it: that is no gap."""
    facts = case.prompt
    return any(name in facts.unable for name in TEXT_DETECTORS) and not any(
        name in facts.scores for name in TEXT_DETECTORS
    )
