"""A fleet with labels: who sends what, who judges it, and who attacks. One `Day` at a time, seeded.

Two kinds of label a day, as many of one as of the other. *Audits*: a principal at random, one of its requests, a
trusted judge. *Rows*: requests at random, labelled by whoever the outcome belongs to; this is what a feedback loop
usually learns from. What is protected is honest traffic: miss risk and benign flags are those of the honest
principals, principals weighing equally.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadtests.feedback.scores import Scores

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

ALPHA, DELTA, EPSILON = 0.01, 0.01, 0.0002
DAYS, LABELS_PER_DAY = 60, 2_000
PRINCIPALS, TENANTS = 200, 10
UNSAFE_SHARE = 0.1
SENSITIVITY, SPECIFICITY = 0.95, 0.9995  # of the trusted judge
BOUNDS = (0.94, 0.9997)  # what canaries have shown of it: a lower and an upper bound


def always(_progress: float) -> float:
    """An attack of constant strength."""
    return 1.0


@dataclass(frozen=True)
class Attack:
    """What is done, at full strength. `strength` maps the share of the run that has gone by to 0..1."""

    name: str
    about: str
    inside: bool = True  # within what the ratchet's guarantee covers
    whitewash: float = 0.0  # share of rows labelled safe
    suppress: float = 0.0  # share of unsafe rows labelled safe
    cry: float = 0.0  # share of safe rows labelled unsafe, by several tenants
    flood: float = 0.0  # share of rows that are the attacker's, benign
    sybils: float = 0.0  # share of principals that are the attacker's, benign
    flips: float = 0.0  # share of audits corrupted: misses that matter are called safe
    blind: float = 0.0  # share of unsafe prompts that the trusted judge is fooled by
    cry_audits: float = 0.0  # share of safe prompts that it calls unsafe
    delay_days: int = 0
    lost: float = 0.0  # share of labels that never come
    growth: float = 0.0  # of the unsafe share, by the end
    strength: Callable[[float], float] = always


def _late(progress: float) -> float:
    return float(progress >= 0.6)


def _rising(progress: float) -> float:
    return progress


ATTACKS = (
    Attack("none", "nobody attacks"),
    Attack("whitewash", "30 % of all rows are labelled safe", whitewash=0.3),
    Attack("suppress", "60 % of unsafe rows are labelled safe", suppress=0.6),
    Attack("cry wolf", "5 % of safe rows are labelled unsafe, by every tenant", cry=0.05),
    Attack("dilution", "two principals send 70 % of all rows, benign", flood=0.7, sybils=0.01),
    Attack("sybils", "5 % of principals are invented and benign", flood=0.3, sybils=0.05),
    Attack("slow drip", "suppression grows from 0 to 80 % of unsafe rows", suppress=0.8, strength=_rising),
    Attack("quiet, then burst", "honest for 60 % of the run; then 95 % of unsafe rows are labelled safe, and the "
           "judge's epsilon, saved up, is spent", suppress=0.95, flips=2.5 * EPSILON, strength=_late),
    Attack("judge at epsilon", "a share epsilon of the audits is corrupted, where it helps most", flips=EPSILON),
    Attack("delay and loss", "labels come 3 days late, 30 % of them never", delay_days=3, lost=0.3),
    Attack("drift", "the unsafe share grows by 5 % over the run", growth=0.05, strength=_rising),
    # Beyond the guarantee: where it ends.
    Attack("judge at 10 epsilon", "ten times the corruption that is allowed for", False, flips=10 * EPSILON),
    Attack("judge fooled", "the judge calls 40 % of unsafe prompts safe, unseen by canaries", False, blind=0.4),
    Attack("judge owned, for safe", "the attacker writes every audit: all safe", False, blind=1.0),
    Attack("judge owned, for unsafe", "the attacker writes every audit: all unsafe", False, cry_audits=1.0),
    Attack("sybils, 40 %", "40 % of principals are invented and benign", False, flood=0.5, sybils=0.4),
    Attack("sudden shift", "the unsafe share grows by half, 60 % into the run", False, growth=0.5, strength=_late),
)  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """What came in on a day, in order."""

    score: Floats
    unsafe: Bools  # as labelled
    principal: Ints
    tenant: Ints
    luck: Floats  # uniform, for an adversary who flips labels by chance

    def part(self, chosen: Bools) -> "Labels":
        """Some of them."""
        return Labels(
            self.score[chosen], self.unsafe[chosen], self.principal[chosen], self.tenant[chosen], self.luck[chosen]
        )


@dataclass(frozen=True)
class Day:
    """`unsafe_share` is the honest principals' true one, and `flips` the share of audits that is corrupted."""

    number: int
    audits: Labels
    rows: Labels
    unsafe_share: float
    flips: float


class World:
    """A fleet under one attack."""

    def __init__(self, scores: Scores, attack: Attack, seed: int, days: int, labels_per_day: int) -> None:
        self.scores, self.attack, self.days, self.labels_per_day = scores, attack, days, labels_per_day
        self._rng = rng = np.random.default_rng([seed, 1])
        invented = round(PRINCIPALS * attack.sybils / (1 - attack.sybils)) if attack.sybils else 0
        if attack.flood and not invented:
            raise ValueError("a flood needs principals to come from")
        self._honest = PRINCIPALS
        concentration = 40.0
        self._unsafe = np.concatenate(
            [
                rng.beta(concentration * UNSAFE_SHARE, concentration * (1 - UNSAFE_SHARE), PRINCIPALS),
                np.zeros(invented),
            ]
        )
        activity = rng.lognormal(0, 1.2, PRINCIPALS)
        activity /= activity.sum()
        self._activity = np.concatenate(
            [activity * (1 - attack.flood), np.full(invented, attack.flood / max(invented, 1))]
        )

    def oracle(self) -> float:
        """The loosest threshold whose miss risk is at most alpha on the first day."""
        share = min(ALPHA / self._share(0.0), 1.0)
        return float(np.quantile(self.scores.unsafe, share, method="lower"))

    def play(self) -> list[Day]:
        """Every day's labels, in the order and at the time at which they come in."""
        days = [self._day(number) for number in range(self.days)]
        late, lost = self.attack.delay_days, self.attack.lost
        if not late and not lost:
            return days
        out = []
        for day in days:
            source = days[max(day.number - late, 0)]
            audits = source.audits.part(self._rng.random(len(source.audits.score)) >= lost)
            rows = source.rows.part(self._rng.random(len(source.rows.score)) >= lost)
            if day.number < late:
                audits, rows = (labels.part(np.zeros(len(labels.score), np.bool_)) for labels in (audits, rows))
            out.append(replace(day, audits=audits, rows=rows))
        return out

    def _share(self, strength: float) -> float:
        return float(self._unsafe[: self._honest].mean()) * (1 + self.attack.growth * strength)

    def _day(self, number: int) -> Day:
        attack, rng = self.attack, self._rng
        strength = attack.strength(number / self.days)
        growth = 1 + attack.growth * strength
        everyone = np.arange(len(self._unsafe))
        audited = rng.choice(everyone, self.labels_per_day)
        sent = rng.choice(everyone, self.labels_per_day, p=self._activity)
        audits, truly = self._labels(audited, growth)
        seen = np.where(truly, rng.random(len(truly)) < SENSITIVITY, rng.random(len(truly)) >= SPECIFICITY)
        seen &= rng.random(len(truly)) >= attack.blind * strength
        seen |= rng.random(len(truly)) < attack.cry_audits * strength
        audits = replace(audits, unsafe=seen)
        rows, truly = self._labels(sent, growth)
        said = truly & (rng.random(len(truly)) >= attack.suppress * strength)
        said |= ~truly & (rng.random(len(truly)) < attack.cry * strength)
        said &= rng.random(len(truly)) >= attack.whitewash * strength
        return Day(number, audits, replace(rows, unsafe=said), self._share(strength), attack.flips * strength)

    def _labels(self, principal: Ints, growth: float) -> tuple[Labels, Bools]:
        rng, n = self._rng, len(principal)
        truly = rng.random(n) < self._unsafe[principal] * growth
        score = np.where(truly, rng.choice(self.scores.unsafe, n), rng.choice(self.scores.safe, n))
        return Labels(score, truly, principal, principal % TENANTS, rng.random(n)), truly
