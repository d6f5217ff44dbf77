"""A principal's past and the three sums that say that it has been left."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

from detectors.repeats import is_repeat

RANKS = 6  # tiers told apart: rank 5 and above count as one
WARM_REQUESTS = 20
WARM_HOURS = 3.0
TILT = 3.0  # odds of a step up under attack
FLEET_WEIGHT = 4.0  # requests that the fleet's tiers count for in a principal's own distribution
MEMORY = 1_000.0  # requests over which a baseline forgets
HOURS = 168.0  # hours over which the usual spend forgets
PRICE_ALLOWANCE = 0.35  # standard deviations
CLIP = 3.0  # standard deviations that one request can count for
HALF_LIFE_S = 86_400.0
MOST_SUM = 100.0  # a sum that has said enough: after an attack it must come down again
RISEN_TIER, RISEN_PRICE = 6.0, 12.0  # sums above these, half an alarm, hold the baseline
MOST_HELD = 500  # cases: then a change of habit is learnt
MOST_USD = 1e6
BUCKET_S = 600.0


_FORM = struct.Struct("<4d11f2I6fQI")
_TILTS = tuple(TILT**rank for rank in range(RANKS))
_LOG_TILT = math.log(TILT)


@dataclass(slots=True)
class Past:
    """120 bytes packed. Times in seconds of the stream, money in USD, sums in units of their own."""

    seen: float = 0.0  # last case
    paid: float = 0.0  # last outcome with a cost
    hour: float = 0.0  # start of the current hour of spend
    bucket: float = 0.0  # start of the current ten minutes
    in_bucket: float = 0.0  # requests in it
    tier_sum: float = 0.0
    price_sum: float = 0.0
    rate_usd: float = 0.0  # dollars beyond twice the usual
    costs: float = 0.0  # outcomes with a cost, up to MEMORY
    mean: float = 0.0  # of log cost
    variance: float = 1.0
    hour_usd: float = 0.0
    hours: float = 0.0  # closed ones, up to HOURS
    hour_mean: float = 0.0
    hour_variance: float = 0.0
    requests: int = 0
    held: int = 0  # cases in a row that did not move the baseline
    ranks: list[float] = field(default_factory=lambda: [0.0] * RANKS)  # fading counts of tiers
    likeness: int = 0  # of the last prompt (detectors/contract.py)
    repeats: int = 0  # near-duplicates in a row, the last prompt included

    @classmethod
    def unpack(cls, value: bytes) -> "Past":
        """What `pack` wrote."""
        fields = _FORM.unpack(value)
        past = cls(*fields[: -RANKS - 2])
        past.ranks = list(fields[-RANKS - 2 : -2])
        past.likeness, past.repeats = fields[-2:]
        return past

    def pack(self) -> bytes:
        """Packed little-endian."""
        return _FORM.pack(
            self.seen, self.paid, self.hour, self.bucket, self.in_bucket, self.tier_sum, self.price_sum,
            self.rate_usd, self.costs, self.mean, self.variance, self.hour_usd, self.hours, self.hour_mean,
            self.hour_variance, self.requests, self.held, *self.ranks,
            self.likeness, self.repeats,
        )  # fmt: skip

    def fade(self, time: float) -> None:
        """Let the sums forget what is long ago."""
        if self.seen and time > self.seen:
            kept = 0.5 ** ((time - self.seen) / HALF_LIFE_S)
            self.tier_sum *= kept
            self.price_sum *= kept
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

    def residual(self, usd: float) -> float | None:
        """Log cost in own standard deviations, clipped; None while there is too little past."""
        if self.costs < WARM_REQUESTS:
            return None
        return max(-CLIP, min(CLIP, (_log(usd) - self.mean) / math.sqrt(self.variance + 0.02)))

    def add_cost(self, usd: float, time: float, floor: float) -> None:
        """Price sum and rate sum; `floor` is the spend in USD an hour that is nobody's concern."""
        residual = self.residual(usd)
        if residual is not None:
            self.price_sum = min(MOST_SUM, max(0.0, self.price_sum + residual - PRICE_ALLOWANCE))
        if self.costs >= WARM_REQUESTS and self.hours >= WARM_HOURS:
            usual = 2 * self.hour_mean + math.sqrt(self.hour_variance) + floor
            idle = max(0.0, time - self.paid) / 3600
            most = MOST_SUM * self._dear_hour(floor)
            self.rate_usd = min(most, max(0.0, self.rate_usd + usd - usual * idle))
        self.paid = max(self.paid, time)

    def rate_sum(self, floor: float) -> float:
        """Dollars beyond twice the usual, in dear hours of the principal's own."""
        return self.rate_usd / self._dear_hour(floor)

    def learn_cost(self, usd: float, time: float, floor: float) -> None:
        """Let the cost into the usual price and the usual hour."""
        self.costs = min(self.costs + 1, MEMORY)
        step = _log(usd) - self.mean
        if self.costs <= WARM_REQUESTS or abs(step) < 4 * math.sqrt(self.variance + 0.02):
            self.mean += step / self.costs
            self.variance += (step * step - self.variance) / self.costs
        self._close_hours(time, floor)
        self.hour_usd += usd

    def _dear_hour(self, floor: float) -> float:
        return self.hour_mean + 2 * math.sqrt(self.hour_variance) + floor

    def _close_hours(self, time: float, floor: float) -> None:
        if not self.hour:
            self.hour = time
        if time - self.hour > HOURS * 3600:  # after a week away there is no usual hour
            self.hour, self.hours, self.hour_mean, self.hour_variance, self.hour_usd = time, 0.0, 0.0, 0.0, 0.0
        while time - self.hour >= 3600:
            self.hours = min(self.hours + 1, HOURS)
            spent = self.hour_usd
            if self.hours > 12:  # one hour cannot move the usual by more than a dear one
                spent = min(spent, self.hour_mean + 4 * math.sqrt(self.hour_variance) + floor)
            step = spent - self.hour_mean
            self.hour_mean += step / self.hours
            self.hour_variance += (step * step - self.hour_variance) / self.hours
            self.hour_usd = 0.0
            self.hour += 3600

    def restart(self, tier: float, price: float, rate: float, floor: float) -> None:
        """After an alarm: bring each sum down to half of its threshold.

        A sum that only falls as slowly as it rose would alarm for hours after an attack has ended.
        """
        self.tier_sum = min(self.tier_sum, tier / 2)
        self.price_sum = min(self.price_sum, price / 2)
        self.rate_usd = min(self.rate_usd, rate / 2 * self._dear_hour(floor))

    def holds(self, flagged: bool) -> bool:
        """Whether this case must not move the baseline; counts the cases held in a row."""
        risen = flagged or self.tier_sum > RISEN_TIER or self.price_sum > RISEN_PRICE
        self.held = self.held + 1 if risen else 0
        return 0 < self.held <= MOST_HELD


def _log(usd: float) -> float:
    return math.log(usd + 1e-6)
