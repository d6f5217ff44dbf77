"""Coverage: is every route judged and guarded, and what do its answers turn out to be? Counts, no learning.

The invariant over all routes: for each (router, model, cache hit, fail-over, stream) the exact number of
requests, outcomes, guardrail verdicts and unsafe answers since the beginning, and a recent part of them. Gaps
compare the recent part with the router's other routes and with the route's own past, by Wilson score
intervals (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1), so that few requests say little.

Unsafe answers are rare, where those intervals are too narrow (2 unsafe of 8 would do), and each partition of the
lane has routes of its own. So they are tested by bets against "at most the allowed share": likelihood ratios of
larger odds, each begun anew where it has lost (an e-detector: Shin, Ramdas and Rinaldo 2023). However often one
looks, and whatever routes and partitions `n` labelled answers are spread over, the chance of a false alarm is at
most `n / UNSAFE_RUN`, as long as each is unsafe with no more than the allowed chance, whatever came before it.
"""

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.thresholds import Thresholds
from schemas.events import Outcome, Route
from schemas.verdicts import Reason

CAPACITY = 4096  # routes in all
ROUTES_OF_ROUTER = 128  # beyond: one shared row a router, so that a check stays cheap whatever a client invents
LOOK_EVERY = 25  # outcomes (or requests) of a route between two looks
LEAST = LOOK_EVERY  # of a route before it is judged: the interval says how little few requests say
LEAST_OTHERS = 200  # of what it is compared with
RECENT = 1000  # recent counts are halved beyond this: the past fades, the totals do not
AGAIN_EVERY = 1000  # an open gap is said again after so many outcomes (or requests)
AGAIN_LABELLED = 100  # the same for unsafe answers, of which only the labelled ones are looked at
Z = 3.29  # one-sided 0.05 %
TEXT_DETECTORS = ("triggers", "novelty")

UNSAFE_RUN = 1e6  # labelled answers at the allowed share, of all routes together, for one false alarm
TILTS = (2.0, 4.0, 8.0, 16.0, 32.0)  # times the allowed odds of an unsafe answer, each bet on

_ROUTER_CHARS = 16
_ROUTE = struct.Struct("<5Q6IB")
_BETS = struct.Struct(f"<{len(TILTS)}d")
_NO_BETS = (0.0,) * len(TILTS)
_LOG_TILTS = tuple(map(math.log, TILTS))
_LOG_RUN = math.log(UNSAFE_RUN)
_MOST_WON = _LOG_RUN + math.log(len(TILTS))  # of one bet: it decides alone, and comes down again
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
    bets: tuple[float, ...] = _NO_BETS  # log of what each of `TILTS` has won

    def pack(self) -> bytes:
        """Packed little-endian, 105 bytes."""
        return _ROUTE.pack(
            self.requests, self.outcomes, self.guarded, self.labelled, self.unsafe, self.recent_requests,
            self.recent_unjudged, self.recent_outcomes, self.recent_guarded, self.recent_labelled,
            self.recent_unsafe, self.open,
        ) + _BETS.pack(*self.bets)  # fmt: skip

    def add_request(self, unjudged: bool) -> None:
        """Count a request, or a further attempt at it."""
        if self.recent_requests >= RECENT:
            self.recent_requests //= 2
            self.recent_unjudged //= 2
        self.requests += 1
        self.recent_requests += 1
        self.recent_unjudged += unjudged

    def add_outcome(self, outcome: Outcome, allowed: float) -> bool:
        """Count an outcome; whether it is labelled. `allowed`: the unsafe share that nobody minds, 0..1."""
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
        if labelled:
            self.bets = tuple(
                min(_MOST_WON, max(0.0, won) + log_tilt * unsafe - math.log1p(allowed * (tilt - 1)))
                for won, tilt, log_tilt in zip(self.bets, TILTS, _LOG_TILTS, strict=True)
            )
        return labelled

    def is_due(self, kind: str) -> bool:
        """Whether an open finding is to be said again."""
        if kind == "unsafe_route":
            return not self.labelled % AGAIN_LABELLED
        return not (self.requests if kind == "unjudged" else self.outcomes) % AGAIN_EVERY

    @property
    def won(self) -> float:
        """Log of what the bets have won in the mean: evidence that more than allowed is unsafe."""
        return math.log(math.fsum(map(math.exp, self.bets)) / len(TILTS))


def unpack(value: bytes | None) -> RouteCounts:
    """The counts that `RouteCounts.pack` wrote; zeros for None. Earlier releases did not bet."""
    if not value:
        return RouteCounts()
    counts = RouteCounts(*_ROUTE.unpack_from(value))
    if len(value) > _ROUTE.size:
        counts.bets = _BETS.unpack_from(value, _ROUTE.size)
    return counts


class Coverage:
    """A StreamDetector. Findings: `guardrail_gap` and `unsafe_route` at outcomes, `unjudged` at requests."""

    name = "coverage"
    version = "2"
    kinds = ("guardrail_gap", "unjudged", "unsafe_route")

    def __init__(self, thresholds: Thresholds, capacity: int = CAPACITY) -> None:
        self._thresholds = thresholds
        self._routes = Keyed("r/", capacity, bytes, bytes)
        self._of_router: dict[str, dict[str, None]] = {}  # derived: router -> keys of its routes
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
        self._of_router.setdefault(key[:_ROUTER_CHARS], {})[key] = None
        for gone in self._routes.put(key, counts.pack(), counts.requests + counts.outcomes >= LEAST):
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
            self._of_router.setdefault(key[:_ROUTER_CHARS], {})[key] = None

    def counts(self, route: Route, stream: bool = False) -> RouteCounts:
        """What is known of a route like this one."""
        return unpack(self._routes.get(self._key(route, stream)))

    def _count(self, case: Case, route: Route) -> tuple[str, RouteCounts, Answer]:
        """Where the case counts, the counts with it, and the answer; changes nothing."""
        key = self._key(route, case.request.request_stream)
        counts = unpack(self._routes.get(key))
        if case.outcome is None:
            counts.add_request(_unjudged(case))
            return key, counts, self._look_at_requests(counts)
        allowed = self._thresholds["coverage.unsafe_share"]
        unsafe = self._look_at_labels(counts, allowed) if counts.add_outcome(case.outcome, allowed) else None
        return key, counts, unsafe or self._look_at_outcomes(key, counts)

    def _look_at_requests(self, counts: RouteCounts) -> Answer:
        if counts.recent_requests < LEAST or counts.requests % LOOK_EVERY:
            return counts.recent_unjudged / max(1, counts.recent_requests)
        share = wilson(counts.recent_unjudged, counts.recent_requests)
        limit = self._thresholds["coverage.unjudged_share"]
        return self._finding(counts, "unjudged", share.low, limit, share.share) or share.share

    def _look_at_labels(self, counts: RouteCounts, allowed: float) -> Reason | None:
        """At every labelled answer: the bets do not mind."""
        share = counts.recent_unsafe / counts.recent_labelled
        return self._finding(counts, "unsafe_route", counts.won, _LOG_RUN, share, allowed)

    def _look_at_outcomes(self, key: str, counts: RouteCounts) -> Answer:
        if counts.recent_outcomes < LEAST or counts.outcomes % LOOK_EVERY:
            return 1 - counts.recent_guarded / max(1, counts.recent_outcomes)
        guarded = wilson(counts.recent_guarded, counts.recent_outcomes)
        expected = self._expected_guarded(key, counts)
        gap, limit = expected - guarded.high, self._thresholds["coverage.guardrail_gap"]
        return self._finding(counts, "guardrail_gap", gap, limit, guarded.share, expected) or 1 - guarded.share

    def _expected_guarded(self, key: str, counts: RouteCounts) -> float:
        """The guarded share to expect: the other routes' recent one or the route's own past, at its lower bound."""
        guarded = outcomes = 0
        for other in self._of_router.get(key[:_ROUTER_CHARS], ()):
            if other != key:
                theirs = unpack(self._routes.get(other))
                guarded += theirs.recent_guarded
                outcomes += theirs.recent_outcomes
        own_guarded, own_outcomes = counts.guarded - counts.recent_guarded, counts.outcomes - counts.recent_outcomes
        return max(
            wilson(guarded, outcomes).low if outcomes >= LEAST_OTHERS else 0.0,
            wilson(own_guarded, own_outcomes).low if own_outcomes >= LEAST_OTHERS else 0.0,
        )

    def _finding(
        self, counts: RouteCounts, kind: str, score: float, limit: float, seen: float, expected: float | None = None
    ) -> Reason | None:
        """A Reason when a finding opens, and now and then while it stays open; it closes at half its limit."""
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

    def _forget(self, key: str) -> None:
        routes = self._of_router.get(key[:_ROUTER_CHARS], {})
        routes.pop(key, None)
        if not routes:
            self._of_router.pop(key[:_ROUTER_CHARS], None)


@dataclass(slots=True)
class _Counted:
    """What scoring a case worked out: `learn` takes it over."""

    case: Case
    key: str
    counts: RouteCounts
    answer: Answer


@lru_cache(maxsize=4096)
def _router_id(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_ROUTER_CHARS // 2).hexdigest()


def _unjudged(case: Case) -> bool:
    """Whether no text detector could judge. A further attempt brings no prompt with it: that is no gap."""
    facts = case.prompt
    return any(name in facts.unable for name in TEXT_DETECTORS) and not any(
        name in facts.scores for name in TEXT_DETECTORS
    )
