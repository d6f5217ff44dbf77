"""A budget in stream time: how often something dear may be done, as a function of the log.

A wall clock would give two answers to one request when it is judged again after a crash.
"""

from collections.abc import Callable

import msgspec

Grant = Callable[[int], bool]  # asked for the i-th prompt of a batch, in order: may it be judged by the dear stage?

_decode = msgspec.msgpack.Decoder(tuple[float, int]).decode


class Budget:
    """A token bucket: `per_second` in the mean, up to `burst` at once. 0 per second: nothing is granted."""

    def __init__(self, per_second: float, burst: float = 10.0) -> None:
        self._per_ms = per_second / 1000
        self._burst = burst if per_second else 0.0
        self._tokens = self._burst
        self._time_ms = 0

    def take(self, time_ms: int) -> bool:
        """Take one at this stream time (it never goes back), if there is one."""
        if time_ms > self._time_ms:
            self._tokens = min(self._burst, self._tokens + (time_ms - self._time_ms) * self._per_ms)
            self._time_ms = time_ms
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def pack(self) -> bytes:
        """Its state."""
        return msgspec.msgpack.encode((self._tokens, self._time_ms))

    def load(self, state: bytes) -> None:
        """Take over a packed state."""
        self._tokens, self._time_ms = _decode(state)
