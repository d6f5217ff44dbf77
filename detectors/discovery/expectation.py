"""What a router's score should be for a stretch of text, learnt per router version: so a window's share is seen.

Linear in the tokens, so that what a prompt gets without one of its windows is a difference of sums: one weight a
bucket of tokens, and two for a constant and the length, trained by AdaGrad on ranks of scores.
"""

import math
import struct
from bisect import bisect_left, bisect_right, insort
from statistics import NormalDist
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from detectors.discovery.kernel import teach

BUCKETS = 8_192  # of tokens, about four tokens each
REFERENCE = 512  # scores that give the ranks of a version
READY = 2_000  # learnt prompts before a residual is believed
OFTEN = 10_000  # learnt prompts from which only one in 16 is learnt
SELDOM = 30_000  # and from which one in 256
RATE = 0.1
LEAST_SPREAD = 0.2
LEARNERS = 64  # last learnt prompts among which
MOST_OF_ONE = 16  # so many at most are of one principal

_HEAD = struct.Struct("<2dIIH")
_NORMAL = [NormalDist().inv_cdf((half + 1) / (2 * REFERENCE + 2)) for half in range(2 * REFERENCE + 1)]

Tokens = NDArray[np.uint16]


class Expectation:
    """About 70 kB packed. A version of a router is a fixed function, so that nothing is forgotten."""

    def __init__(self, value: bytes | None = None) -> None:
        self.weights = np.zeros(BUCKETS + 2, np.float32)
        self._squares = np.zeros(BUCKETS + 2, np.float32)
        self._reference: list[float] = []
        self._learners = np.zeros(LEARNERS, np.uint64)
        self._variance = 1.0
        self._weight = 0.0  # of the variance's average so far
        self.learnt = self._turn = 0
        if value is not None:
            self._unpack(value)

    def pack(self) -> bytes:
        """Packed little-endian; `Expectation(value)` restores it exactly."""
        head = _HEAD.pack(self._variance, self._weight, self.learnt, self._turn, len(self._reference))
        arrays = (np.array(self._reference, np.float64), self._learners, self.weights, self._squares)
        return head + b"".join(array.tobytes() for array in arrays)

    def _unpack(self, value: bytes) -> None:
        self._variance, self._weight, self.learnt, self._turn, known = _HEAD.unpack_from(value)
        at = _HEAD.size
        self._reference = np.frombuffer(value, np.float64, known, at).tolist()
        at += 8 * known
        self._learners = np.frombuffer(value, np.uint64, LEARNERS, at).copy()
        at += 8 * LEARNERS
        self.weights = np.frombuffer(value, np.float32, BUCKETS + 2, at).copy()
        self._squares = np.frombuffer(value, np.float32, BUCKETS + 2, at + self.weights.nbytes).copy()

    @property
    def established(self) -> bool:
        """Whether its ranks are complete."""
        return len(self._reference) >= REFERENCE

    @property
    def ready(self) -> bool:
        """Whether residuals mean something."""
        return self.learnt >= READY

    @property
    def spread(self) -> float:
        """Standard deviation of the residuals."""
        return max(LEAST_SPREAD, math.sqrt(self._variance))

    @property
    def scale(self) -> float:
        """Half of what lies between the 16 % and the 84 % quantile of the scores: one standard deviation."""
        return (self._reference[REFERENCE * 84 // 100] - self._reference[REFERENCE * 16 // 100]) / 2

    def normal(self, score: float) -> float:
        """The score's mid-rank as a normal deviate."""
        return _NORMAL[bisect_left(self._reference, score) + bisect_right(self._reference, score)]

    def wants(self, event_id: str) -> bool:
        """Whether this prompt is one to learn: fewer as more are known. Not for the sender to choose."""
        rate = 1 if self.learnt < OFTEN else 16 if self.learnt < SELDOM else 256
        return rate == 1 or crc32(event_id.encode("utf-8", "surrogatepass")) % rate == 0

    def forget(self, learner: int) -> bool:
        """Drop a principal's hash; whether it was there."""
        held = self._learners == learner
        self._learners[held] = 0
        return bool(held.any())

    def learn(self, score: float, tokens: Tokens, learner: int) -> None:
        """Take a prompt in, unless its principal (a non-zero 64-bit hash) has had its share."""
        crowded = int((self._learners == learner).sum()) >= MOST_OF_ONE
        self._learners[self._turn % LEARNERS] = 0 if crowded else learner
        self._turn += 1
        if crowded or len(tokens) == 0:
            return
        if not self.established:
            insort(self._reference, score)
            return
        error = teach(tokens, self.normal(score), RATE, self.weights, self._squares)
        self.learnt += 1
        step = max(0.001, 1.0 / (self.learnt + 1))
        self._variance += step * (error * error - self._variance)
