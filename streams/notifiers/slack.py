"""Slack, by an incoming webhook: one message a group of transitions, a block each.

Blocks are `plain_text` without emoji, so that Slack reads no markup, and what stands in them is inert besides.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.alerts import Alert
from streams.notifiers.http import Poster
from streams.notifiers.text import cut, description, headline, inert

_BLOCK_MAX = 3_000  # characters


class SlackNotifier:
    """Posts to the webhook at `url`, which is a secret itself."""

    name = "slack"
    resend_seconds = None
    most_alerts = 20  # Slack takes 50 blocks

    def __init__(self, url: str, timeout_seconds: float = 10.0) -> None:
        self._poster = Poster(url, timeout_seconds)

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post one message. See `Notifier.send`."""
        await self._poster.post(msgspec.json.encode(message(alerts)))

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def message(alerts: Sequence[Alert]) -> dict[str, Any]:
    """The body; `text` is what notifications show."""
    more = f", and {len(alerts) - 1} more" if len(alerts) > 1 else ""
    return {
        "text": cut(headline(alerts[0]), _BLOCK_MAX) + more,
        "mrkdwn": False,
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
        "blocks": [{"type": "section", "text": _plain(_text(alert))} for alert in alerts],
    }


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "emoji": False, "text": cut(text, _BLOCK_MAX)}


def _text(alert: Alert) -> str:
    lines = [headline(alert), description(alert), f"pointsman explain {inert(alert.alert_id)}"]
    if alert.runbook_url:
        lines.append(f"Runbook: {alert.runbook_url}")
    return "\n".join(lines)
