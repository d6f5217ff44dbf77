"""Ways to set a threshold from labels: the ratchet, and what is usual. Each is told one day's labels at a time.

The usual ones see *rows* (what a feedback loop usually has), or *audits* (the ratchet's own labels: what is left is
then the rule's merit, not the labels').
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from detectors.ratchet import Move, Ratchet, RatchetConfig, TrustedLabel, UntrustedReport
from detectors.ratchet.terms import DAY_S, MOST_STEPS
from loadtests.feedback.scores import Scores
from loadtests.feedback.world import ALPHA, BOUNDS, DELTA, EPSILON, Day, Labels, World

Floats = npt.NDArray[np.float64]

FLOOR_FLAGS, CEILING_FLAGS = 0.045, 0.005  # of safe prompts, on the operator's calibration: the grid's ends
WARM_UP = 2_000  # labels that a fixed threshold is set by
WINDOW = 20_000  # labels of a re-fit
STEP = 0.05  # of ACI for one label, in the score's standard deviations
PID_STEP = 0.02


class Method(Protocol):
    """A threshold, and a rule for it."""

    @property
    def name(self) -> str:
        """As in the table."""

    @property
    def threshold(self) -> float:
        """In force."""

    @property
    def loosened(self) -> int:
        """Moves up; of rules that move at every label: days that end looser."""

    @property
    def tightened(self) -> int:
        """Moves down; of rules that move at every label: days that end stricter."""

    @property
    def labels_used(self) -> int:
        """Taken so far."""

    def learn(self, day: Day) -> Floats:
        """Take a day's labels; the thresholds that were in force, one a label (at least one)."""


def grid(scores: Scores) -> tuple[float, ...]:
    """Thresholds at evenly spaced logs of the share of safe prompts that they flag."""
    shares = np.geomspace(FLOOR_FLAGS, CEILING_FLAGS, MOST_STEPS)
    return tuple(np.quantile(scores.calibration, 1 - shares).tolist())


def flipped(labels: Labels, target: float, rate: float) -> Labels:
    """A corrupted judge calls misses below `target` safe: of all labels a share `rate`, each where it matters."""
    misses = labels.unsafe & (labels.score < target)
    chance = rate / max(float(misses.mean()), 1e-9) if len(misses) else 0.0
    unsafe = labels.unsafe & ~(misses & (labels.luck < chance))
    return Labels(labels.score, unsafe, labels.principal, labels.tenant, labels.luck)


class OurRatchet:
    """The ratchet as the service runs it, in mode active; rows are untrusted reports to it."""

    name = "ratchet"

    def __init__(self, world: World) -> None:
        low, high = BOUNDS
        config = RatchetConfig(
            grid=grid(world.scores), start=0, ceiling=MOST_STEPS - 1, alpha=ALPHA, delta=DELTA, epsilon=EPSILON,
            sensitivity=low, specificity=high, soft_principals=60, soft_tenants=3,
        )  # fmt: skip
        self.ratchet = Ratchet(config)
        self.moves: list[Move] = []
        self.labels_used = 0

    @property
    def threshold(self) -> float:
        """In force."""
        return self.ratchet.threshold

    @property
    def loosened(self) -> int:
        """Moves up, expiries of soft steps not counted."""
        return Counter(move.why for move in self.moves)["evidence"]

    @property
    def tightened(self) -> int:
        """Moves down."""
        return Counter(move.direction for move in self.moves)["tighten"]

    def learn(self, day: Day) -> Floats:
        """See `Method.learn`."""
        ratchet, config = self.ratchet, self.ratchet.config
        target = config.grid[min(ratchet.base + 1, config.ceiling)]
        labels = flipped(day.audits, target, day.flips)
        n = len(labels.score)
        times = (day.number * DAY_S + np.arange(n) * (DAY_S / max(n + 1, 1))).tolist()
        in_force = []
        for time, score, unsafe, principal, tenant in zip(
            times, labels.score.tolist(), labels.unsafe.tolist(), labels.principal.tolist(), labels.tenant.tolist(),
            strict=True,
        ):  # fmt: skip
            ratchet.take(
                TrustedLabel(
                    time=time, tenant_id=f"t{tenant}", principal_hash=f"p{principal}", score=score, unsafe=unsafe
                )
            )
            self._move(time)
            in_force.append(ratchet.threshold)
        self.labels_used += n
        self._report(day)
        return np.array(in_force or [ratchet.threshold])

    def _report(self, day: Day) -> None:
        """Rows labelled unsafe that passed, at the end of the day."""
        rows = day.rows.part(day.rows.unsafe)
        time = (day.number + 1) * DAY_S - 1
        for score, principal, tenant in zip(
            rows.score.tolist(), rows.principal.tolist(), rows.tenant.tolist(), strict=True
        ):
            self.ratchet.take_untrusted(
                UntrustedReport(time=time, tenant_id=f"t{tenant}", principal_hash=f"p{principal}", score=score)
            )
            self._move(time)

    def _move(self, time: float) -> None:
        move = self.ratchet.decision(time)
        if move is not None:
            self.ratchet.apply(move)
            self.moves.append(move)


class _Usual(ABC):
    """What the usual methods share: a rule that takes a day's labels."""

    rule: ClassVar[str]  # its name

    def __init__(self, world: World, audits: bool) -> None:
        self.name = f"{self.rule} on {'audits' if audits else 'rows'}"
        self.threshold = grid(world.scores)[0]
        self.loosened = self.tightened = self.labels_used = 0
        self._audits = audits
        self._scale = float(world.scores.calibration.std())

    def learn(self, day: Day) -> Floats:
        """See `Method.learn`."""
        labels = flipped(day.audits, self.threshold, day.flips) if self._audits else day.rows
        before = self.threshold
        self.labels_used += len(labels.score)
        in_force = self._take(labels)
        self.loosened += self.threshold > before
        self.tightened += self.threshold < before
        return in_force

    @abstractmethod
    def _take(self, labels: Labels) -> Floats:
        """Take labels in; the thresholds that were in force, one a label (at least one)."""


def _fit(score: Floats, unsafe: npt.NDArray[np.bool_], otherwise: float) -> float:
    """The loosest threshold with a share of misses of at most alpha among these labels."""
    allowed = int(ALPHA * len(score))
    found = np.sort(score[unsafe])
    return float(found[allowed]) if len(found) > allowed else otherwise


class Fixed(_Usual):
    """Set once, by the first labels."""

    rule = "fixed"

    def __init__(self, world: World, audits: bool) -> None:
        super().__init__(world, audits)
        self._scores: list[Floats] = []
        self._unsafe: list[npt.NDArray[np.bool_]] = []
        self._done = False

    def _take(self, labels: Labels) -> Floats:
        if not self._done:
            self._scores.append(labels.score)
            self._unsafe.append(labels.unsafe)
            score = np.concatenate(self._scores)
            if len(score) >= WARM_UP:
                self.threshold = _fit(score, np.concatenate(self._unsafe), self.threshold)
                self._done = True
        return np.array([self.threshold])


class Refit(_Usual):
    """Set anew at the end of every day, by the last `WINDOW` labels."""

    rule = "re-fit"

    def __init__(self, world: World, audits: bool) -> None:
        super().__init__(world, audits)
        self._score = np.zeros(0)
        self._unsafe = np.zeros(0, np.bool_)

    def _take(self, labels: Labels) -> Floats:
        in_force = np.array([self.threshold])
        self._score = np.concatenate([self._score, labels.score])[-WINDOW:]
        self._unsafe = np.concatenate([self._unsafe, labels.unsafe])[-WINDOW:]
        if len(self._score) >= WARM_UP:
            self.threshold = _fit(self._score, self._unsafe, self.threshold)
        return in_force


class Aci(_Usual):
    """Adaptive conformal inference (Gibbs and Candes 2021): each label moves by step * (alpha - miss)."""

    rule = "ACI"

    def _take(self, labels: Labels) -> Floats:
        step = STEP * self._scale
        drift = self.threshold + step * ALPHA * np.arange(len(labels.score) + 1)
        misses = np.zeros(len(drift))
        for i in np.flatnonzero(labels.unsafe).tolist():
            if labels.score[i] < drift[i] - step * misses[i]:
                misses[i + 1 :] += 1
        in_force: Floats = drift - step * misses
        self.threshold = float(in_force[-1])
        return in_force


class Pid(_Usual):
    """Conformal PID control (Angelopoulos, Candes and Tibshirani 2023): tracking and a saturated integrator."""

    rule = "PID"

    def __init__(self, world: World, audits: bool) -> None:
        super().__init__(world, audits)
        self._tracked, self._excess, self._taken = self.threshold, 0.0, 0
        total = world.days * world.labels_per_day
        # Their heuristic for the point of saturation: C = (2 / pi) (ceil(log(T) d) - 1 / T), d = 0.01.
        self._saturation = 2 / math.pi * (math.ceil(math.log(total) * 0.01) - 1 / total)

    def _take(self, labels: Labels) -> Floats:
        """Between unsafe labels nothing is missed: thresholds are worked out at those only."""
        in_force, done = [self.threshold], 0
        for i in np.flatnonzero(labels.unsafe).tolist():
            self._pass(i - done)
            in_force.append(self._now())
            missed = labels.score[i] < in_force[-1]
            self._excess += missed
            self._tracked -= PID_STEP * self._scale * missed
            done = i
        self._pass(len(labels.score) - done)
        self.threshold = self._now()
        return np.array(in_force)

    def _pass(self, labels: int) -> None:
        self._taken += labels
        self._excess -= ALPHA * labels
        self._tracked += PID_STEP * self._scale * ALPHA * labels

    def _now(self) -> float:
        angle = self._excess * math.log(self._taken + 1) / (self._saturation * (self._taken + 1))
        angle = min(max(angle, -math.pi / 2 + 1e-6), math.pi / 2 - 1e-6)
        return self._tracked - self._scale * math.tan(angle)


def methods(world: World) -> list[Method]:
    """One of each, new."""
    usual = [rule(world, audits) for rule in (Fixed, Refit, Aci, Pid) for audits in (False, True)]
    return [OurRatchet(world), *usual]
