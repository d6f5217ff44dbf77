"""Many small principals that rise together: River's Page-Hinkley test over ten-minute price residuals."""

import math
import struct
from array import array

from detectors.river import PageHinkley
from detectors.spend.past import BUCKET_S

MOST_VALUES = 288  # since the last reset: two days
ALLOWANCE = 0.1  # standard deviations of one request: smaller shifts are drift
LEAST_WEIGHT = 5.0  # ten minutes with less say nothing
CLIP = 4.0
DELTA = 1.5  # a shift to be told: ordinary ten minutes vary by 1.4, and half of it stays for the next
LEAST_VALUES = 12

_HEAD = struct.Struct("<4d2B")


class Level:
    """The tenant's current ten minutes, and the test with the values that it was fed since its last reset.

    River gives no way to store the test's sums, so that the values are what is stored: feeding them again
    rebuilds it exactly, because a full buffer is cut by the same rule while running.
    """

    def __init__(self, value: bytes | None = None) -> None:
        self.bucket = self.weight = self.squares = self.total = 0.0
        self.alarmed = self.drifted = False
        self._values = array("f")
        if value is not None:
            self.bucket, self.weight, self.squares, self.total, alarmed, drifted = _HEAD.unpack_from(value)
            self.alarmed, self.drifted = bool(alarmed), bool(drifted)
            self._values.frombytes(value[_HEAD.size :])
        self._test = _test_of(self._values)

    def pack(self) -> bytes:
        """34 bytes, and 4 a value."""
        head = _HEAD.pack(self.bucket, self.weight, self.squares, self.total, self.alarmed, self.drifted)
        return head + self._values.tobytes()

    @property
    def established(self) -> bool:
        """Whether there is a past worth keeping."""
        return len(self._values) >= LEAST_VALUES

    def add(self, residual: float, weight: float, time: float, threshold: float) -> None:
        """Add one principal's residual (own standard deviations); closes the ten minutes that have passed."""
        if time - self.bucket >= BUCKET_S:
            if self.weight >= LEAST_WEIGHT:
                self._feed(threshold)
            self.bucket, self.weight, self.squares, self.total = time - time % BUCKET_S, 0.0, 0.0, 0.0
        self.weight += weight
        self.squares += weight * weight
        self.total += weight * residual

    def _feed(self, threshold: float) -> None:
        if self.drifted:
            del self._values[:]
        if len(self._values) >= MOST_VALUES:
            del self._values[: MOST_VALUES // 2]
        if self.drifted or len(self._values) == MOST_VALUES // 2:
            self._test = _test_of(self._values)
        mean = self.total / self.weight
        value = (mean - ALLOWANCE) * self.weight / math.sqrt(self.squares)
        self._values.append(max(-CLIP, min(CLIP, value)))
        self._test.threshold = threshold
        self._test.update(self._values[-1])
        self.drifted = self._test.drift_detected
        self.alarmed = self.alarmed or self.drifted


def _test_of(values: "array[float]") -> PageHinkley:
    test = PageHinkley(min_instances=LEAST_VALUES, delta=DELTA, alpha=0.999, mode="up", threshold=math.inf)
    for value in values:
        test.update(value)
    return test
