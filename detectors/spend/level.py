"""Many small principals that rise together: River's Page-Hinkley test over ten-minute price residuals."""

import math
from array import array

from detectors.river import PageHinkley
from detectors.spend.past import CLIP as MOST_RESIDUAL

MOST_VALUES = 288  # since the last reset: two days
ALLOWANCE = 0.1  # standard deviations of one request: smaller shifts are drift
CLIP = 4.0
DELTA = 1.5  # a shift to be told: ordinary ten minutes vary by 1.4, and half of it stays for the next
MOST_REQUESTS = 4  # of one principal in ten minutes that count, the n-th 1/n
# Ten minutes with less say nothing: so one principal, however dear, is no shift of many. (18 callers will do.)
LEAST_SQUARES = (MOST_RESIDUAL * sum(1 / n for n in range(1, MOST_REQUESTS + 1)) / DELTA) ** 2
LEAST_VALUES = 12


class Level:
    """The test of one tenant, or of all, with the values that it was fed since its last reset.

    River gives no way to store the test's sums, so that the values are what is stored: feeding them again
    rebuilds it exactly, because a full buffer is cut by the same rule while running.
    """

    def __init__(self, value: bytes = b"\0") -> None:
        self.drifted = bool(value[0])
        self._values = array("f", value[1:])
        self._test = _test_of(self._values)

    def pack(self) -> bytes:
        """1 byte, and 4 a value."""
        return bytes([self.drifted]) + self._values.tobytes()

    @property
    def established(self) -> bool:
        """Whether there is a past worth keeping."""
        return len(self._values) >= LEAST_VALUES

    def add(self, weight: float, squares: float, total: float, threshold: float) -> bool:
        """Take ten minutes in (sums of weights, of their squares, of residuals by weight); whether they alarm."""
        if not (LEAST_SQUARES <= squares < math.inf and 0 < weight < math.inf and math.isfinite(total)):
            return False
        if self.drifted:
            del self._values[:]
        if len(self._values) >= MOST_VALUES:
            del self._values[: MOST_VALUES // 2]
        if self.drifted or len(self._values) == MOST_VALUES // 2:
            self._test = _test_of(self._values)
        value = (total / weight - ALLOWANCE) * weight / math.sqrt(squares)
        self._values.append(max(-CLIP, min(CLIP, value)))
        self._test.threshold = threshold
        self._test.update(self._values[-1])
        self.drifted = bool(self._test.drift_detected)
        return self.drifted


def _test_of(values: "array[float]") -> PageHinkley:
    test = PageHinkley(min_instances=LEAST_VALUES, delta=DELTA, alpha=0.999, mode="up", threshold=math.inf)
    for value in values:
        test.update(value)
    return test
