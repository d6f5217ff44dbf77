"""A cap on what one channel is told: the flood of one alert's name neither buries the others nor goes unsaid.

Each name may fire so often a minute (a token bucket: a minute's worth at once). What is over it is held back, and
told as one alert of the channel's own, `alerts_held_back`, with the counts: at once at first, then once a minute,
resolved after a minute in which nothing was held. An end is told if its beginning was.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from detectors.detections.model import SEVERITIES
from detectors.kinds import fingerprint
from schemas.alerts import Alert
from schemas.codec import stable_id

HELD_BACK = "alerts_held_back"
_MOST_HELD = 10_000  # ids remembered, so that their ends are not told
_MINUTE = 60.0


class Cap:
    """One channel's. The clock is monotonic, in seconds."""

    def __init__(self, channel: str, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._labels = {"alertname": HELD_BACK, "category": "pipeline", "channel": channel}
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # by alertname: tokens, and when they were counted
        self._held: dict[str, None] = {}  # ids of alerts that were held back and may yet end
        self._untold: Counter[str] = Counter()  # held back since the last summary, by alertname
        self._summary: Alert | None = None  # while it fires
        self._due = 0.0

    @property
    def holding(self) -> bool:
        """Whether something was held back that no summary has told yet."""
        return bool(self._untold)

    def admit(self, alerts: Iterable[Alert]) -> tuple[list[Alert], int]:
        """Those to tell, in order, and how many firing ones are held back."""
        told, before = [], self._untold.total()
        for alert in alerts:
            if alert.status == "resolved":
                if alert.alert_id in self._held:
                    del self._held[alert.alert_id]
                else:
                    told.append(alert)
            elif self._take(alert.alertname):
                self._held.pop(alert.alert_id, None)
                told.append(alert)
            else:
                self._hold(alert)
        return told, self._untold.total() - before

    def summary(self) -> Alert | None:
        """The alert about what was held back, when it is time to tell one."""
        now = self._clock()
        if now < self._due or self._summary is None:
            return None
        self._due = now + _MINUTE
        summary = self._summary
        summary.sequence += 1
        if self._untold:
            summary.count += self._untold.total()
            counts = ", ".join(f"{number} {name}" for name, number in sorted(self._untold.items()))
            summary.summary = f"Held back by this channel's cap, see pointsman alerts ls: {counts}"
            self._untold.clear()
        else:
            summary.status, summary.ends_at, self._summary = "resolved", summary.last_seen, None
            self._due = 0.0
        return summary

    def _take(self, name: str) -> bool:
        now = self._clock()
        tokens, counted = self._buckets.get(name, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - counted) * self._per_minute / _MINUTE)
        self._buckets[name] = (tokens - 1 if tokens >= 1 else tokens), now
        return tokens >= 1

    def _hold(self, alert: Alert) -> None:
        self._held[alert.alert_id] = None
        if len(self._held) > _MOST_HELD:
            del self._held[next(iter(self._held))]
        self._untold[alert.alertname] += 1
        if self._summary is None:
            self._summary = Alert(
                alert_id=stable_id(*self._labels.values(), alert.time.isoformat()),
                fingerprint=fingerprint(self._labels), alertname=HELD_BACK, category="pipeline",
                severity=alert.severity, status="firing", labels=self._labels,
                starts_at=alert.time, last_seen=alert.time, time=alert.time,
            )  # fmt: skip
        self._summary.last_seen = self._summary.time = alert.time
        self._summary.severity = max(self._summary.severity, alert.severity, key=SEVERITIES.index)
