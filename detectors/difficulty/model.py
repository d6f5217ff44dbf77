"""What a router's score should be for a prompt: learnt per router version, by rank, with a robust spread."""

import math
import struct
from array import array
from bisect import bisect_left, bisect_right, insort
from statistics import NormalDist
from zlib import crc32

import numpy as np

from detectors.difficulty.regression import Regression, Vector

DIMENSIONS = 64  # of the prompt's vector
FEATURES = DIMENSIONS + 4  # and sizes, and a constant
REFERENCE = 512  # scores that give the ranks of a version
READY = 1_000  # learnt cases before anything is said
OFTEN = 2_000  # learnt cases from which only one in 16 is learnt,
SELDOM = 10_000  # and from which one in 256
LEARNERS = 128  # last learnt cases among which
MOST_OF_ONE = 32  # so many at most are of one principal
LEAST_SPREAD = 0.1
MOST_TAIL = 4.0  # no farther, whoever teaches it
MOST_LOW = 200  # more low cases than others by this: the router has changed, and its model begins anew

_HEAD = struct.Struct("<3d3IH")
_TENTH, _HUNDREDTH = (-NormalDist().inv_cdf(share) for share in (0.1, 0.01))
_NORMAL = [NormalDist().inv_cdf((half + 1) / (2 * REFERENCE + 2)) for half in range(2 * REFERENCE + 1)]


class RouterModel:
    """About 37 kB packed. A version of a router is a fixed function, so that nothing is forgotten."""

    def __init__(self, value: bytes | None = None) -> None:
        self.middle = self.tenth = self.hundredth = 0.0  # of the residuals: median, 10 % and 1 % quantile
        self.learnt = self.low = 0
        self._turn = 0
        self._reference: list[float] = []
        self._learners = array("Q", bytes(8 * LEARNERS))
        self._regression = Regression(FEATURES)
        if value is not None:
            self._unpack(value)

    def pack(self) -> bytes:
        """Packed little-endian; `RouterModel(value)` restores it exactly."""
        quantiles, known = (self.middle, self.tenth, self.hundredth), len(self._reference)
        head = _HEAD.pack(*quantiles, self.learnt, self.low, self._turn, known)
        return head + array("d", self._reference).tobytes() + self._learners.tobytes() + self._regression.pack()

    def _unpack(self, value: bytes) -> None:
        self.middle, self.tenth, self.hundredth, self.learnt, self.low, self._turn, known = _HEAD.unpack_from(value)
        at = _HEAD.size
        self._reference = list(struct.unpack_from(f"<{known}d", value, at))
        at += 8 * known
        self._learners = array("Q", value[at : at + 8 * LEARNERS])
        self._regression.unpack(value[at + 8 * LEARNERS :])

    @property
    def established(self) -> bool:
        """Whether its ranks are complete."""
        return len(self._reference) >= REFERENCE

    @property
    def ready(self) -> bool:
        """Whether its residuals mean something."""
        return self.learnt >= READY

    def share_above(self, score: float) -> float:
        """Share of this version's scores that are at least `score`, of those that gave the ranks."""
        return 1 - bisect_left(self._reference, score) / max(1, len(self._reference))

    def residual(self, score: float, x: Vector) -> float:
        """How far the score is above (below: negative) what `x` gets, in robust standard deviations."""
        return (self._normal(score) - self._regression.predict(x) - self.middle) / self._spread

    @property
    def tail(self) -> float:
        """How much farther than a normal's the lower tail of the residuals reaches, from 1 to MOST_TAIL.

        It does where few callers have taught the model: another's one topic is then far below what it expects.
        """
        return min(MOST_TAIL, max(1.0, (self.middle - self.hundredth) / _HUNDREDTH / self._spread))

    @property
    def _spread(self) -> float:
        return max(LEAST_SPREAD, self.middle - self.tenth) / _TENTH

    def wants(self, event_id: str) -> bool:
        """Whether this case is one to learn: fewer as more are known. Not for the sender to choose."""
        rate = 1 if self.learnt < OFTEN else 16 if self.learnt < SELDOM else 256
        return rate == 1 or crc32(event_id.encode("utf-8", "surrogatepass")) % rate == 0

    def learn(self, score: float, x: Vector, learner: int) -> None:
        """Take a case in, unless its principal (a non-zero 64-bit hash) has had its share."""
        crowded = self._learners.count(learner) >= MOST_OF_ONE
        self._learners[self._turn % LEARNERS] = 0 if crowded else learner
        self._turn += 1
        if crowded:
            return
        if not self.established:
            insort(self._reference, score)
            return
        y = self._normal(score)
        error = y - self._regression.predict(x)
        step = max(0.002, 0.5 / math.sqrt(self.learnt + 1))
        self.middle += step * (0.5 - (error < self.middle))
        self.tenth += step * (0.1 - (error < self.tenth))
        self.hundredth += 10 * step * (0.01 - (error < self.hundredth))  # ten times as rare, so as fast
        self._regression.learn(x, y)
        self.learnt += 1

    def forget(self, learner: int) -> bool:
        """Drop a principal's hash; whether it was there."""
        held = learner in self._learners
        for turn, one in enumerate(self._learners):
            if one == learner:
                self._learners[turn] = 0
        return held

    def _normal(self, score: float) -> float:
        """The score's mid-rank as a normal deviate."""
        return _NORMAL[bisect_left(self._reference, score) + bisect_right(self._reference, score)]


def features(vector: bytes, chars: int, tokens: int, messages: int) -> Vector | None:
    """float64[FEATURES]: the prompt's vector (float16[64], zeros if empty), sizes, a constant; None: unusable."""
    x = np.zeros(FEATURES)
    if vector:
        if len(vector) != 2 * DIMENSIONS:
            return None
        x[:DIMENSIONS] = np.frombuffer(vector, np.float16)
        x[:DIMENSIONS] *= 8
        if not float(x @ x) <= 65 * 4:  # nor where it is no number
            return None
    x[DIMENSIONS:] = (
        math.log1p(min(chars, 1 << 20)) - 5.5,
        math.log1p(min(tokens, 1 << 20)) / 2 - 2,
        math.log1p(min(messages, 1 << 10)),
        1.0,
    )
    return x
