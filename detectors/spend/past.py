"""A principal's past and the sums that say that it has been left."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

from detectors.repeats import is_repeat

RANKS = 6  # tiers told apart: rank 5 and above count as one
WARM_REQUESTS = 20
WARM_HOURS = 6.0
TILT = 3.0  # odds of a step up under attack
FLEET_WEIGHT = 4.0  # requests that the fleet's tiers count for in a principal's own distribution
MEMORY = 1_000.0  # requests over which a baseline forgets
PRICE_ALLOWANCE = 0.5  # standard deviations
DEAR_ALLOWANCE, DEAR_WEIGHT = 0.35, 0.8  # of the sum over all tiers: it has more chance in it
CLIP = 3.0  # standard deviations that one request can count for
HALF_LIFE_S = 86_400.0
MOST_SUM = 100.0  # a sum that has said enough: after an attack it must come down again
RISEN_TIER, RISEN_PRICE = 6.0, 10.0  # sums above these, half an alarm, hold the baseline
MOST_HELD = 500  # cases: then a change of habit is learnt
MOST_USD = 1e6
BUCKET_S = 600.0
HOUR_S = 3600.0
HOURS = 168.0  # over which the usual hour forgets
PRIOR_HOURS = 12.0  # that the fleet's spread of hours counts for in a principal's own
MOST_OF_HOUR, LEAST_OF_HOUR = 6.0, -2.0  # standard deviations that one hour can count for: no single hour alarms
HOUR_ALLOWANCE = 1.0  # standard deviations
MOST_LEARNT = 4.0  # standard deviations by which an hour can move the usual one

_FORM = struct.Struct("<3d17f2I6fQI")
_LEAST_VARIANCE = 0.02
_TILTS = tuple(TILT**rank for rank in range(RANKS))
_LOG_TILT = math.log(TILT)


@dataclass(slots=True)
class Past:
    """136 bytes packed. Times in seconds of the stream, money in USD, sums in units of their own."""

    seen: float = 0.0  # last case
    hour: float = 0.0  # start of the current hour of the principal's
    bucket: float = 0.0  # start of the current ten minutes
    in_bucket: float = 0.0  # requests in it
    tier_sum: float = 0.0
    price_sum: float = 0.0
    dear_sum: float = 0.0  # of log cost whatever the tier, in units of `price_sum`
    rate_sum: float = 0.0  # of closed hours
    costs: float = 0.0  # outcomes with a cost, up to MEMORY
    mean: float = 0.0  # of log cost
    variance: float = 1.0
    prices: float = 0.0  # outcomes with a cost and a usual cost of their tier, up to MEMORY
    price_mean: float = 0.0  # of log cost beyond the usual of the tier
    price_variance: float = 1.0
    hour_usd: float = 0.0
    hour_requests: float = 0.0
    hour_clean: float = 0.0  # those that may move the baseline
    hours: float = 0.0  # closed ones, up to HOURS
    hour_mean: float = 0.0  # of requests
    hour_variance: float = 0.0
    requests: int = 0
    held: int = 0  # cases in a row that did not move the baseline
    ranks: list[float] = field(default_factory=lambda: [0.0] * RANKS)  # fading counts of tiers
    likeness: int = 0  # of the last prompt (detectors/contract.py)
    repeats: int = 0  # near-duplicates in a row, the last prompt included

    @classmethod
    def unpack(cls, value: bytes) -> "Past":
        """What `pack` wrote; what an older release wrote begins anew."""
        if len(value) != _FORM.size:
            return cls()
        fields = _FORM.unpack(value)
        past = cls(*fields[: -RANKS - 2])
        past.ranks = list(fields[-RANKS - 2 : -2])
        past.likeness, past.repeats = fields[-2:]
        return past

    def pack(self) -> bytes:
        """Packed little-endian."""
        return _FORM.pack(
            self.seen, self.hour, self.bucket, self.in_bucket, self.tier_sum, self.price_sum, self.dear_sum,
            self.rate_sum, self.costs, self.mean, self.variance, self.prices, self.price_mean, self.price_variance,
            self.hour_usd, self.hour_requests, self.hour_clean, self.hours, self.hour_mean, self.hour_variance,
            self.requests, self.held, *self.ranks, self.likeness, self.repeats,
        )  # fmt: skip

    @property
    def price(self) -> float:
        """The larger of the two price sums: dear for its tier, or dear whatever the tier."""
        return max(self.price_sum, self.dear_sum)

    def fade(self, time: float) -> None:
        """Let the sums forget what is long ago."""
        if self.seen and time > self.seen:
            kept = 0.5 ** ((time - self.seen) / HALF_LIFE_S)
            self.tier_sum *= kept
            self.price_sum *= kept
            self.dear_sum *= kept
        self.seen = max(self.seen, time)

    def weigh(self, time: float) -> float:
        """Count a case in its ten minutes; its weight in what many share: 1, 1/2, 1/3, ... of one principal."""
        if time - self.bucket >= BUCKET_S:
            self.bucket, self.in_bucket = time - time % BUCKET_S, 0.0
        self.in_bucket += 1
        return 1 / self.in_bucket

    def add_tier(self, rank: int, fleet: Sequence[float], likeness: int) -> None:
        """Tier sum: log-likelihood ratio of this tier, tilted distribution against the principal's own.

        `fleet`: counts of tiers that stand in for a past of `FLEET_WEIGHT` requests. Retries and edits of one
        prompt get one tier for one reason: the n-th in a row counts 1/n.
        """
        self.repeats = self.repeats + 1 if is_repeat(likeness, self.likeness) else 1
        self.likeness = likeness
        if self.requests < WARM_REQUESTS:
            return
        n = sum(self.ranks) + FLEET_WEIGHT
        tilted = sum(map(mul, self.ranks, _TILTS)) + FLEET_WEIGHT / sum(fleet) * sum(map(mul, fleet, _TILTS))
        ratio = rank * _LOG_TILT - math.log(tilted / n)
        self.tier_sum = min(MOST_SUM, max(0.0, self.tier_sum + ratio / self.repeats))

    def learn_tier(self, rank: int) -> None:
        """Let the tier into the principal's distribution."""
        self.ranks = [own * (1 - 1 / MEMORY) for own in self.ranks]
        self.ranks[rank] += 1

    def residual(self, log_usd: float) -> float | None:
        """Log cost in own standard deviations, whatever the tier; None while there is too little past."""
        return _deviations(log_usd - self.mean, self.variance) if self.costs >= WARM_REQUESTS else None

    def add_cost(self, usd: float, beyond: float | None, time: float, floor: float) -> None:
        """Count one cost in the price sum and in its hour.

        `beyond`: log cost beyond the fleet's mean in this tier, None: not known yet. Tiers differ in price by more
        than requests do, so that against one mean of all tiers a dearer request hardly shows. A caller whose
        attack is mixed with its ordinary requests shows in both, and hardly in the tier sum. `floor`: the spend in
        USD an hour that is nobody's concern.
        """
        if (own := self.residual(log_of(usd))) is not None:
            self.dear_sum = min(MOST_SUM, max(0.0, self.dear_sum + DEAR_WEIGHT * (own - DEAR_ALLOWANCE)))
        if beyond is not None and self.prices >= WARM_REQUESTS:
            residual = _deviations(beyond - self.price_mean, self.price_variance)
            self.price_sum = min(MOST_SUM, max(0.0, self.price_sum + residual - PRICE_ALLOWANCE))
        if time - self.hour >= HOUR_S:
            self._close_hours(time, floor)
        self.hour_usd += usd
        self.hour_requests += 1

    def rate(self, floor: float) -> float:
        """The rate sum: of closed hours, and what the current one has risen so far."""
        # Most requests are of ordinary hours, whose deviation need not be known.
        return self.rate_sum + max(0.0, self._rise(floor)) if self.hour_requests > self.hour_mean else self.rate_sum

    def learn_cost(self, log_usd: float, beyond: float | None) -> None:
        """Let the cost into the usual price, and the request into its hour's."""
        self.costs = min(self.costs + 1, MEMORY)
        self.mean, self.variance = _learnt(log_usd, self.mean, self.variance, self.costs)
        if beyond is not None:
            self.prices = min(self.prices + 1, MEMORY)
            self.price_mean, self.price_variance = _learnt(
                beyond, self.price_mean, self.price_variance, self.prices
            )
        self.hour_clean += 1

    def _rise(self, floor: float) -> float:
        """The current hour's requests beyond the usual hour's, in own standard deviations less the allowance."""
        if self.hours < WARM_HOURS:
            return 0.0
        rise = min(MOST_OF_HOUR, (self.hour_requests - self.hour_mean) / self._hour_deviation() - HOUR_ALLOWANCE)
        return rise if self.hour_usd >= floor else min(rise, 0.0)

    def _hour_deviation(self) -> float:
        """Standard deviation of an hour's requests: own, and while hours are few that of a fleet's callers.

        Theirs is as large as the mean, for bursts and times of day, and Poisson's beside.
        """
        prior = self.hour_mean * self.hour_mean + self.hour_mean + _LEAST_VARIANCE
        return math.sqrt((self.hours * self.hour_variance + PRIOR_HOURS * prior) / (self.hours + PRIOR_HOURS))

    def _close_hours(self, time: float, floor: float) -> None:
        if not self.hour:
            self.hour = time
        if time - self.hour > HOURS * HOUR_S:  # after a week away there is no usual hour
            self.hour, self.hours, self.hour_mean, self.hour_variance, self.rate_sum = time, 0.0, 0.0, 0.0, 0.0
            self.hour_usd = self.hour_requests = self.hour_clean = 0.0
        while time - self.hour >= HOUR_S:
            rise = max(LEAST_OF_HOUR, self._rise(floor))
            self.rate_sum = min(MOST_SUM, max(0.0, self.rate_sum + rise))
            if 2 * self.hour_clean >= self.hour_requests:  # an hour that was held says nothing of the usual one
                self._learn_hour()
            self.hour_usd = self.hour_requests = self.hour_clean = 0.0
            self.hour += HOUR_S

    def _learn_hour(self) -> None:
        clean = self.hour_clean
        if self.hours >= WARM_HOURS:
            clean = min(clean, self.hour_mean + MOST_LEARNT * self._hour_deviation())
        self.hours = min(self.hours + 1, HOURS)
        step = clean - self.hour_mean
        self.hour_mean += step / self.hours
        self.hour_variance += (step * step - self.hour_variance) / self.hours

    def restart(self, tier: float, price: float, rate: float, floor: float) -> None:
        """After an alarm: bring each sum down to half of its threshold.

        A sum that only falls as slowly as it rose would alarm for hours after an attack has ended.
        """
        self.tier_sum = min(self.tier_sum, tier / 2)
        self.price_sum, self.dear_sum = min(self.price_sum, price / 2), min(self.dear_sum, price / 2)
        self.rate_sum = min(self.rate(floor), rate / 2)
        usual = self.hour_mean + HOUR_ALLOWANCE * self._hour_deviation()
        self.hour_requests = min(self.hour_requests, usual)  # its rise is in the sum; what comes on top counts anew

    def holds(self, flagged: bool) -> bool:
        """Whether this case must not move the baseline; counts the cases held in a row."""
        risen = flagged or self.tier_sum > RISEN_TIER or self.price > RISEN_PRICE
        self.held = self.held + 1 if risen else 0
        return 0 < self.held <= MOST_HELD


def log_of(usd: float) -> float:
    """Log cost, where a cost of nothing is no infinity."""
    return math.log(usd + 1e-6)


def _deviations(step: float, variance: float) -> float:
    return max(-CLIP, min(CLIP, step / math.sqrt(variance + _LEAST_VARIANCE)))


def _learnt(value: float, mean: float, variance: float, n: float) -> tuple[float, float]:
    """Mean and variance with the n-th value in; what is far out moves neither, once there are some."""
    step = value - mean
    if n > WARM_REQUESTS and abs(step) >= 4 * math.sqrt(variance + _LEAST_VARIANCE):
        return mean, variance
    return mean + step / n, variance + (step * step - variance) / n
