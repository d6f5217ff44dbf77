"""PagerDuty, Events API v2: an alert is one incident from its beginning to its end, by its fingerprint.

Fields and limits: developer.pagerduty.com, "Send an event" of the Events API v2.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.alerts import Alert
from streams.notifiers.http import Poster
from streams.notifiers.text import annotations, cut, headline, inert, labels, timestamp

EVENTS_URL = "https://events.pagerduty.com/v2/enqueue"
_SUMMARY_MAX = 1024
_DEDUP_MAX = 255


class PagerDutyNotifier:
    """Posts to the service whose integration key is `routing_key`. What is told twice is one incident there."""

    name = "pagerduty"
    resend_seconds = None
    most_alerts = 1  # that is all that an event holds

    def __init__(self, routing_key: str, url: str = EVENTS_URL, timeout_seconds: float = 10.0) -> None:
        self._routing_key = routing_key
        self._poster = Poster(url, timeout_seconds)

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post one event for each. See `Notifier.send`."""
        for alert in alerts:
            await self._poster.post(msgspec.json.encode(event(alert, self._routing_key)))

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def event(alert: Alert, routing_key: str) -> dict[str, Any]:
    """The body of one event: `resolve` where the alert has ended, else `trigger`."""
    identity = {"routing_key": routing_key, "dedup_key": alert.fingerprint[:_DEDUP_MAX]}
    if alert.status == "resolved":
        return {**identity, "event_action": "resolve"}
    links = [{"href": alert.runbook_url, "text": "Runbook"}] if alert.runbook_url else []
    return {
        **identity,
        "event_action": "trigger",
        "client": "Pointsman",
        "links": links,
        "payload": {
            "summary": cut(headline(alert), _SUMMARY_MAX),
            "source": inert(alert.router_name or alert.tenant_id) or "pointsman",
            "severity": alert.severity,  # its words are PagerDuty's too
            "timestamp": timestamp(alert.starts_at),
            "component": inert(alert.detector),
            "group": alert.category,
            "class": inert(alert.alertname),
            "custom_details": {**labels(alert), **annotations(alert)},
        },
    }
