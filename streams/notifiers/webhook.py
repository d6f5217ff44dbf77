"""Any HTTP receiver, in the shape of Alertmanager's webhook, version 4, signed.

Header `X-Pointsman-Signature: sha256=HEX` is the HMAC-SHA256 of `TIMESTAMP.BODY`, with the timestamp (seconds since
1970) of header `X-Pointsman-Timestamp`: a receiver refuses old ones, so that nothing can be replayed to it.
"""

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.alerts import Alert
from streams.notifiers.http import Poster
from streams.notifiers.text import annotations, labels, timestamp

_NOT_ENDED = "0001-01-01T00:00:00Z"  # what Alertmanager writes there
_encode = msgspec.json.Encoder(order="sorted").encode


class WebhookNotifier:
    """Posts each group of transitions to `url`; signs with `secret` where there is one."""

    name = "webhook"
    resend_seconds = None

    def __init__(self, url: str, secret: str = "", timeout_seconds: float = 10.0) -> None:
        self._poster = Poster(url, timeout_seconds)
        self._secret = secret

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post one message. See `Notifier.send`."""
        body = _encode(message(alerts, self.name))
        headers = {}
        if self._secret:
            now = str(int(time.time()))
            headers = {"X-Pointsman-Timestamp": now, "X-Pointsman-Signature": signature(self._secret, now, body)}
        await self._poster.post(body, headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The signature header's value; receivers compare it by `hmac.compare_digest`."""
    return "sha256=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def message(alerts: Sequence[Alert], receiver: str) -> dict[str, Any]:
    """The body. Firing when any of its alerts is."""
    entries = [_entry(alert) for alert in alerts]
    common = _common([entry["labels"] for entry in entries])
    group = {name: common[name] for name in ("alertname",) if name in common}
    return {
        "version": "4",
        "groupKey": f"{{}}:{msgspec.json.encode(group).decode()}",
        "truncatedAlerts": 0,
        "status": "firing" if any(alert.status == "firing" for alert in alerts) else "resolved",
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": common,
        "commonAnnotations": _common([entry["annotations"] for entry in entries]),
        "externalURL": "",
        "alerts": entries,
    }


def _entry(alert: Alert) -> dict[str, Any]:
    return {
        "status": alert.status,
        "labels": labels(alert),
        "annotations": annotations(alert),
        "startsAt": timestamp(alert.starts_at),
        "endsAt": timestamp(alert.ends_at) if alert.ends_at else _NOT_ENDED,
        "generatorURL": "",
        "fingerprint": alert.fingerprint,
    }


def _common(maps: Sequence[dict[str, str]]) -> dict[str, str]:
    """Pairs that all of the maps have."""
    first, *rest = maps
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in rest)}
