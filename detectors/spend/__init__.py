"""Denial of wallet: a principal's spend or share of dear models leaves its own past; many rise together.

Per principal one-sided CUSUMs (Page 1954), each against the principal's own past:

- *tier*, at the verdict: log-likelihood ratio of the tier taken, own (and at first the fleet's) distribution
  over tiers against the same one tilted so that each step up has three times the odds. A first use of a dear tier
  is rare under one's own past, so that a burst of them counts in full.
- *price*, at the outcome: the log cost of one request beyond what the fleet pays in its tier, in own standard
  deviations, beyond an allowance; or its log cost as it is, likewise.
- *rate*, at the outcome: requests of an hour in own standard deviations, beyond an allowance. One hour counts for
  no more than a bound below the threshold until an alarm, and for nothing while it has cost less than a floor.

Real traffic bursts to 26 times its mean, so that the rate is a matter of hours; tier and price do not
depend on the rate at all. Their sums fade with stream time: a quiet principal does not collect chance over weeks.

What each ten minutes' price residuals sum to, by tenant, is told the fleet lane (tally.py), which adds up what all
partitions tell and watches each tenant, and all, with River's Page-Hinkley test (levels.py). For single principals
River's detectors were behind: docs/detectors/spend.md has the comparison.

Flagged cases, and those of a risen sum, do not move the baseline, for a bounded number of cases: a real change
of habit becomes the new past.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from detectors.contract import Answer, Case
from detectors.keyed import Keyed, compound_key
from detectors.spend.level import MOST_REQUESTS
from detectors.spend.past import FLEET_WEIGHT, MOST_USD, RANKS, WARM_REQUESTS, Past, log_of
from detectors.spend.tally import Tally
from detectors.thresholds import Thresholds
from schemas.verdicts import PriceLevels, Reason

PRINCIPALS = 50_000
TENANTS = 1_000  # in ten minutes
ROUTERS = 256
ESTABLISHED = 50  # requests after which a principal's past is protected from a flood of new ones
ROUTER_MEMORY = 10_000.0  # requests over which a router's tiers are remembered
NEAR = 0.7  # share of a threshold from which the answer says why

_TIERS = struct.Struct(f"<{RANKS}d")
_FIRST_TIERS = (1.0,) + (0.0,) * (RANKS - 1)
_Price = tuple[float, float]  # weight of requests, mean log cost
_PRICE = struct.Struct("<2d")
_NO_PRICE = (0.0, 0.0)
_TALLY_KEY = "l/"
_NOTES = {
    "tier": "The principal's requests go to dearer tiers than its own past explains",
    "price": "The principal's requests cost more each than its own past explains",
    "rate": "The principal sends more requests an hour than its own past explains",
}


class Spend:
    """A StreamDetector. Judges tiers at the verdict, and costs at the outcome."""

    name = "spend"
    version = "3"
    kinds = ("denial_of_wallet", "price_levels")

    def __init__(self, thresholds: Thresholds, principals: int = PRINCIPALS, tenants: int = TENANTS) -> None:
        self._thresholds = thresholds
        self._principals = Keyed("p/", principals, bytes, bytes)
        self._tally = Tally(tenants)
        self._routers = Keyed("r/", ROUTERS, bytes, bytes)
        self._prices: Keyed[_Price] = Keyed(
            "c/", ROUTERS * (RANKS + 1), lambda price: _PRICE.pack(*price), _price_of
        )
        self._taken: _Taken | None = None  # of the last `score`

    @property
    def evicted(self) -> int:
        """Keys dropped by this process for want of room."""
        return self._principals.evicted + self._routers.evicted + self._prices.evicted

    def score(self, case: Case) -> Answer:
        """The largest sum over its threshold, a Reason from `NEAR` on; None: nothing to judge, or no past."""
        self._taken = self._take(case)
        return self._taken.answer

    def learn(self, case: Case, flagged: bool) -> None:
        """Move the sums; the baseline too, unless it is held."""
        taken = self._taken
        if taken is None or taken.case is not case:
            taken = self._take(case)
        self._taken = None
        past, rank, usd = taken.past, taken.rank, taken.usd
        if isinstance(taken.answer, Reason) and taken.answer.levels is not None:
            self._tally.restart()
        if rank is None and usd is None:
            return
        weight, held = past.weigh(case.time), past.holds(flagged)
        if isinstance(taken.answer, Reason) and taken.answer.flagged:
            limits = self._thresholds
            past.restart(
                limits["spend.tier_odds"],
                limits["spend.price"],
                limits["spend.rate"],
                limits["spend.floor_usd_per_hour"],
            )
        if rank is not None and case.route is not None:
            past.requests += 1
            if not held:
                past.learn_tier(rank)
                self._learn_router(case.route.router_name, rank, weight)
        if usd is not None:
            log_usd = log_of(usd)
            residual = past.residual(log_usd)
            # Requests that have a tier were counted at their verdict too.
            number = past.in_bucket if _tier(case) is None else math.ceil(past.in_bucket / 2)
            if residual is not None and number <= MOST_REQUESTS:
                self._tally.add(case.request.tenant_id, residual, 1 / number, case.time)
            if not held:
                past.learn_cost(log_usd, taken.beyond)
                if number <= MOST_REQUESTS:
                    self._learn_price(taken.tier, log_usd, weight)
        established = max(past.requests, past.costs) >= ESTABLISHED
        self._principals.put(taken.key, past.pack(), established)

    def forget(self, tenant: str, principal: str) -> None:
        """See `Forgetful.forget`."""
        self._taken = None
        self._principals.drop(compound_key(tenant, principal))

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """See `StreamDetector.changes`."""
        yield from self._principals.changes()
        yield from self._routers.changes()
        yield from self._prices.changes()
        if self._tally.changed:
            self._tally.changed = False
            yield _TALLY_KEY, self._tally.pack()

    def snapshot(self) -> dict[str, bytes]:
        """See `StreamDetector.snapshot`."""
        keyed = self._principals.snapshot() | self._routers.snapshot() | self._prices.snapshot()
        return keyed | {_TALLY_KEY: self._tally.pack()}

    def load(self, key: str, value: bytes | None) -> None:
        """See `StreamDetector.load`."""
        if key == _TALLY_KEY:
            self._tally.load(value)
        elif not self._principals.load(key, value) and not self._routers.load(key, value):
            self._prices.load(key, value)

    def _take(self, case: Case) -> "_Taken":
        """Add the case to a copy of its principal's past, and judge; changes nothing."""
        request, route, floor = case.request, case.route, self._thresholds["spend.floor_usd_per_hour"]
        key = compound_key(request.tenant_id, request.principal_hash)
        value = self._principals.get(key)
        past = Past.unpack(value) if value else Past()
        rank, usd = _rank(case), _usd(case)
        past.fade(case.time)
        best, stage, threshold = -1.0, "", ""
        if rank is not None and route is not None:
            past.add_tier(rank, self._tiers_of(route.router_name), case.prompt.likeness)
            if past.requests >= WARM_REQUESTS:
                best, stage, threshold = (
                    past.tier_sum / self._thresholds["spend.tier_odds"],
                    "tier",
                    "spend.tier_odds",
                )
        tier, beyond = "", None
        if usd is not None:
            tier = _name_of_tier(case)
            beyond = self._beyond(tier, usd)
            past.add_cost(usd, beyond, case.time, floor)
            if past.costs >= WARM_REQUESTS:
                price = past.price / self._thresholds["spend.price"]
                rate = past.rate(floor) / self._thresholds["spend.rate"]
                stage = "price" if price >= rate else "rate"
                best, threshold = max(price, rate), f"spend.{stage}"
        answer = self._answer(case, best, stage, threshold)
        return _Taken(case, key, past, rank, usd, tier, beyond, answer)

    def _answer(self, case: Case, best: float, stage: str, threshold: str) -> Answer:
        """The principal's own finding; else, at an outcome, what is to be told of all; else how near it is."""
        if best < 1.0 and case.outcome is not None and (levels := self._tally.due(case.time)) is not None:
            return self._evidence(levels)
        if not stage:
            return None
        return best if best < NEAR else self._reason("denial_of_wallet", stage, best, threshold)

    def _reason(self, kind: str, stage: str, ratio: float, name: str) -> Reason:
        threshold = self._thresholds[name]
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=ratio * threshold,
            threshold=threshold,
            threshold_version=self._thresholds.version,
            flagged=ratio >= 1.0,
            kind=kind,
            stage=stage,
            direction="up",
            note=_NOTES[stage],
        )

    def _evidence(self, levels: PriceLevels) -> Reason:
        return Reason(
            detector=self.name,
            detector_version=self.version,
            score=0.0,
            threshold=self._thresholds["spend.fleet"],
            threshold_version=self._thresholds.version,
            kind="price_levels",
            levels=levels,
        )

    def _tiers_of(self, router: str) -> tuple[float, ...]:
        """Counts of a router's tiers, all principals together."""
        value = self._routers.get(compound_key(router))
        return _TIERS.unpack(value) if value else _FIRST_TIERS

    def _learn_router(self, router: str, rank: int, weight: float) -> None:
        key = compound_key(router)
        value = self._routers.get(key)
        counts = list(_TIERS.unpack(value) if value else _FIRST_TIERS)
        if sum(counts) > ROUTER_MEMORY:
            counts = [count / 2 for count in counts]
        counts[rank] += weight
        self._routers.put(key, _TIERS.pack(*counts), sum(counts) >= ESTABLISHED)

    def _beyond(self, tier: str, usd: float) -> float | None:
        """Log cost beyond the tier's mean, all principals together; None while little is known of it."""
        known, mean = self._prices.get(tier) or _NO_PRICE
        return log_of(usd) - mean if known >= FLEET_WEIGHT else None

    def _learn_price(self, tier: str, log_usd: float, weight: float) -> None:
        known, mean = self._prices.get(tier) or _NO_PRICE
        known = min(known + weight, ROUTER_MEMORY)
        self._prices.put(tier, (known, mean + (log_usd - mean) * weight / known), known >= ESTABLISHED)


@dataclass(slots=True)
class _Taken:
    """What scoring a case worked out: `learn` takes it over, so that nothing is computed twice."""

    case: Case
    key: str
    past: Past
    rank: int | None
    usd: float | None
    tier: str  # that the cost is of
    beyond: float | None  # log cost beyond that tier's usual
    answer: Answer


def _rank(case: Case) -> int | None:
    """The tier, at the verdict."""
    return _tier(case) if case.outcome is None else None


def _tier(case: Case) -> int | None:
    """The tier of a first attempt: where a fail-over ends is the provider's doing."""
    route = case.route
    if route is None or route.tier_rank is None or route.attempt or route.fallback_from:
        return None
    return min(max(route.tier_rank, 0), RANKS - 1)


def _usd(case: Case) -> float | None:
    """The cost that an outcome says, else the route's estimate; None for what cost nothing."""
    if case.outcome is None:
        return None
    usd = case.outcome.cost_usd
    if usd is None and case.route is not None:
        usd = case.route.cost_estimate_usd
    return min(usd, MOST_USD) if usd is not None and math.isfinite(usd) and usd > 0 else None


def _name_of_tier(case: Case) -> str:
    """A key for a tier of a router; what has none, or was forced by a fail-over, is a tier by itself."""
    rank = _tier(case)
    return compound_key(case.route.router_name if case.route else "", "" if rank is None else str(rank))


def _price_of(value: bytes) -> _Price:
    weight, mean = _PRICE.unpack(value)
    return weight, mean
