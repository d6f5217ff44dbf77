"""Stream time: the broker's clock as its records tell it, but never back, and never still."""

from collections.abc import Iterable


class StreamTime:
    """Of one partition, a function of its records' timestamps (milliseconds since 1970).

    A broker whose clock was ahead and is set right stamps what follows with less than the stream's time, for as
    long as it was ahead (so does a new leader with another clock). Time then goes on by what lies between records:
    if it waited for the clock to catch up, nothing would expire for an hour after a step of an hour.
    """

    __slots__ = ("now_ms", "stamp_ms")

    def __init__(self, now_ms: int = 0, stamp_ms: int = 0) -> None:
        """`stamp_ms`: the last record's own; 0: not known."""
        self.now_ms = now_ms
        self.stamp_ms = stamp_ms

    def advance(self, stamps_ms: Iterable[int]) -> list[int]:
        """The stream time at each record. A stamp of 0 is not known: it moves nothing."""
        times = []
        for stamp in stamps_ms:
            if stamp >= self.now_ms:
                self.now_ms = stamp
            elif stamp > self.stamp_ms > 0:
                self.now_ms += stamp - self.stamp_ms
            self.stamp_ms = stamp or self.stamp_ms
            times.append(self.now_ms)
        return times
