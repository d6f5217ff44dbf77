"""Prometheus Alertmanager, API v2: grouping, silences, inhibition and receivers are its part.

Labels are its identity. It resolves what is not sent again in time, so firing alerts are re-sent; `endsAt` in the
past resolves at once. Severity is a label (routes need it): one that rises is another alert there, and the old
one ends by not being sent again.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from schemas.alerts import Alert
from streams.notifiers.http import Poster
from streams.notifiers.text import annotations, labels, timestamp

_MISSED = 4  # re-sends that may fail before Alertmanager resolves by itself


class AlertmanagerNotifier:
    """Posts to the Alertmanager at `url` (without the API's path)."""

    name = "alertmanager"

    def __init__(self, url: str, resend_seconds: float = 60.0, timeout_seconds: float = 10.0) -> None:
        self.resend_seconds = resend_seconds
        self._holds_for = timedelta(seconds=_MISSED * resend_seconds)
        self._poster = Poster(f"{url.rstrip('/')}/api/v2/alerts", timeout_seconds)

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the states. See `Notifier.send`."""
        until = datetime.now(UTC) + self._holds_for
        await self._poster.post(msgspec.json.encode([_entry(alert, until) for alert in alerts]))

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def _entry(alert: Alert, until: datetime) -> dict[str, Any]:
    return {
        "labels": labels(alert),
        "annotations": annotations(alert),
        "startsAt": timestamp(alert.starts_at),
        "endsAt": timestamp(alert.ends_at or until),
    }
