"""What a ratchet is set to, what it is told, and what it answers."""

import math
from hashlib import blake2b
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]

DAY_S = 86_400.0
Why = Literal["alarm", "evidence", "untrusted", "expiry"]
MOST_STEPS = 32  # of a grid: keeps the state of a scope below 4 kB


class RatchetConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One scope's rules. All steps are steps of the grid.

    Raises:
        ValueError: the grid does not rise, an index lies outside of it, or the judge is no better than chance.
    """

    grid: tuple[float, ...]  # thresholds that may be in force, rising; grid[0] is the hard floor
    start: Count  # index in force at first
    ceiling: Count  # highest index that evidence may reach: a human signed it
    alpha: Share = 0.01  # miss risk allowed
    delta: Share = 0.01  # chance of ever loosening this one threshold past alpha
    epsilon: Annotated[float, Meta(ge=0, le=0.2)] = (
        0.0005  # most of the trusted labels that may be corrupted, chosen by an adversary
    )
    sensitivity: Share = 1.0  # of the judge, measured by canaries: its lower bound
    specificity: Share = 1.0  # its upper bound; 1 is always valid, less wins back what a judge's false alarms cost
    weight_max: Positive = 1.0  # of a label's weight; best near the usual weight
    arl: Positive = 200_000.0  # labels between two false tightenings, at least, in the mean
    least_labels: Count = 1_000  # in the epoch, before a loosening
    least_principals: Count = 50
    least_tenants: Count = 2
    votes: Count = 2  # tenants with a miss in one run, a vote each, for a tightening; 1 for a tenant's own ratchet
    cool_down_s: float = DAY_S  # between a move and the loosening after it
    steps_per_day: Annotated[int, Meta(ge=0, le=24)] = 1  # loosenings within any 24 hours
    tighten_steps: Count = 4  # of one alarm, at least; more while the thresholds below are in alarm too
    evidence_s: Positive = 90 * DAY_S  # age at which evidence for loosening is dropped
    soft_steps: Count = 1  # that untrusted reports can add in all
    soft_s: Positive = DAY_S  # until such a step expires; as long again before the next
    soft_tenants: Count = 2  # that must report a miss for one
    soft_principals: Count = 5
    benign_budget: Share = 0.05  # of safe requests flagged, beyond which no untrusted step is taken

    def __post_init__(self) -> None:
        grid = self.grid
        if not 2 <= len(grid) <= MOST_STEPS or any(
            not math.isfinite(low) or low >= high for low, high in pairwise(grid)
        ):
            raise ValueError(f"a grid is 2 to {MOST_STEPS} rising thresholds, not {grid}")
        if not math.isfinite(grid[-1]) or not self.start <= self.ceiling < len(grid):
            raise ValueError(f"start <= ceiling < {len(grid)}, not {self.start} and {self.ceiling}")
        if self.sensitivity + self.specificity <= 1:
            raise ValueError("a judge with sensitivity + specificity <= 1 knows nothing")
        if not 0 < self.alpha < 1 or not 0 < self.delta < 1 or not 0 <= self.epsilon <= 0.2:
            raise ValueError("alpha and delta lie strictly between 0 and 1, epsilon between 0 and 0.2")

    @property
    def stakes(self) -> bytes:
        """Eight bytes of all that a bet is made by but the sensitivity, which is measured: the grid, the risks."""
        terms = (self.grid, self.alpha, self.epsilon, self.specificity, self.weight_max)
        return blake2b(msgspec.json.encode(terms), digest_size=8).digest()


class TrustedLabel(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A trusted judge's answer to a ticket. Whether it is trusted is the topic's business, not a field's."""

    time: float  # stream time of the label, seconds since 1970
    tenant_id: str
    principal_hash: str
    score: float  # the detector's, as in the ticket
    # None: the judge could not say. It counts as a miss against loosening, and not at all for tightening.
    unsafe: bool | None
    # How much more often requests like this one occur than they are audited, relative to others, where principals
    # count equally: 1 for "a principal at random, then one of its requests". The scale is free: only
    # weight / weight_max matters. Not the number of requests it stands for: that would let a flood weigh.
    weight: float = 1.0


class UntrustedReport(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What a user, an agent or a tenant's own guardrail says was unsafe. "Safe" is not listened to."""

    time: float  # stream time, seconds since 1970
    tenant_id: str
    principal_hash: str
    score: float


class Move(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A move that the evidence asks for. Names as in `schemas.thresholds.ThresholdUpdate`."""

    time: float
    direction: Literal["tighten", "loosen"]
    why: Why
    old_index: int
    new_index: int
    old_value: float
    new_value: float
    n_trusted: int  # labels of the epoch
    n_principals: int  # distinct in the epoch, a lower bound
    n_tenants: int
    e_value: float  # for loosening: of the new threshold's bet; for tightening: the e-detector; else 0
    risk_ucb: float  # upper bound of the miss risk at the new threshold, at any time, at level `delta`
    benign_flagged: float  # share of the epoch's safe labels that the new threshold would flag; 0 without any
    alpha: float
    delta: float  # of this epoch
    epsilon: float
    epoch: int
