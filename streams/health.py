"""Whether this worker works: what the lanes report, and what the probes make of it.

Alive: no lane stands still. A lane stands still when it has lag and has made no progress for STUCK_SECONDS,
or when, having reported lag before, it has stopped to report at all. The limit is above the longest stall that
a cluster of three was seen to recover from by itself (38 s, two brokers down); a restarted worker knows no lag
yet, so an outage never makes a loop of restarts.

Ready: every part that is expected says so, and none has failed within FAILED_SECONDS. An outage of the brokers
alone changes neither.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

STUCK_SECONDS = 120.0
FAILED_SECONDS = 30.0  # longer than the probes' period: a failure is seen, and does not flicker


@dataclass(slots=True)
class _Part:
    reported_at: float
    progress_at: float
    lag: int | None = None  # records behind; None: never reported
    ready: bool = False
    failed_at: float | None = None
    error: str = ""  # the class only: a message may quote an event


class Health:
    """What lanes (and other parts, as `catalogue`) report, by name. Cheap; for one event loop."""

    def __init__(self, expected: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """`expected`: the parts without which the worker is not ready; others join when they report."""
        self._clock = clock
        self._parts = {name: self._new() for name in expected}
        self._started = False

    def _new(self) -> _Part:
        now = self._clock()
        return _Part(reported_at=now, progress_at=now)

    def _part(self, name: str) -> _Part:
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = self._new()
        part.reported_at = self._clock()
        return part

    def progress(self, name: str) -> None:
        """A batch was judged, or there was nothing to judge."""
        part = self._part(name)
        part.progress_at = part.reported_at

    def lag(self, name: str, records: int) -> None:
        """How many records it is behind. A lane that reports lag must go on reporting it while it runs."""
        self._part(name).lag = records

    def ready(self, name: str, value: bool) -> None:
        """Whether it can work: partitions loaded, catalogue loaded."""
        self._part(name).ready = value

    def failed(self, name: str, error: BaseException) -> None:
        """Its work failed as a whole (not: one record was bad)."""
        part = self._part(name)
        part.failed_at = part.reported_at
        part.error = type(error).__name__

    def _stuck(self, part: _Part) -> bool:
        if part.lag is None:
            return False
        return self._clock() - (part.progress_at if part.lag else part.reported_at) > STUCK_SECONDS

    def _failing(self, part: _Part) -> bool:
        return part.failed_at is not None and self._clock() - part.failed_at <= FAILED_SECONDS

    def is_alive(self) -> bool:
        """No part stands still."""
        return not any(map(self._stuck, self._parts.values()))

    def is_ready(self) -> bool:
        """All parts are ready, none is failing, and there is one at all."""
        parts = self._parts.values()
        ready = bool(parts) and all(part.ready and not self._failing(part) for part in parts)
        self._started = self._started or ready
        return ready

    def has_started(self) -> bool:
        """It was ready once."""
        return self._started or self.is_ready()

    def word(self, ok: bool) -> str:
        """What to call a probe's answer: what has never been ready, and has not failed, is `starting`."""
        if ok:
            return "ok"
        broken = any(self._failing(part) or self._stuck(part) for part in self._parts.values())
        return "failing" if broken or self.has_started() else "starting"

    def report(self) -> dict[str, dict[str, str | int | float | bool | None]]:
        """Each part's state, for the probes' answers."""
        now = self._clock()
        return {
            name: {
                "ready": part.ready,
                "stuck": self._stuck(part),
                "lag": part.lag,
                "progress_seconds_ago": round(now - part.progress_at, 3),
                "error": part.error if self._failing(part) else "",
            }
            for name, part in self._parts.items()
        }
