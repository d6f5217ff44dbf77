"""A way to one receiver that does not give up: pace, retries with back-off, and what the receiver refuses.

The queue before it is Kafka: a channel reads the alerts topic in a consumer group of its own
(streams/lanes/notify.py), so a dead receiver delays no other and its backlog survives restarts.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator

from schemas.alerts import Alert
from streams.metrics import NOTIFICATIONS, NOTIFIER_FAILING
from streams.notifiers.base import Notifier, Refused, RetryLater
from streams.notifiers.cap import Cap

log = logging.getLogger(__name__)

_LONGEST_ASKED = 300.0  # what is granted to a Retry-After


class Channel:
    """Delivers to one notifier, one message at a time.

    At most one message in `gap_seconds`, of at most `most_alerts`: what comes faster is told together. Pauses after
    failures double from `first_pause` to `longest_pause` seconds, half of each at random (so that channels do
    not come in step), or are as long as the receiver asks for. `cap`: on what is told at all.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        gap_seconds: float = 1.0,
        most_alerts: int = 100,
        first_pause: float = 1.0,
        longest_pause: float = 60.0,
        cap: Cap | None = None,
    ) -> None:
        self.notifier = notifier
        self.name = notifier.name
        self._gap = gap_seconds
        self._most = most_alerts
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._cap = cap
        self._free_at = 0.0  # by the loop's clock

    @property
    def settled(self) -> bool:
        """Whether all that was given to `deliver` is told: not while the cap holds some that no summary told."""
        return self._cap is None or not self._cap.holding

    async def deliver(self, alerts: Iterable[Alert]) -> None:
        """Return when the receiver has taken, or refused, every one that the cap admits; that may take days."""
        if self._cap is not None:
            alerts, held = self._cap.admit(alerts)
            NOTIFICATIONS.labels(self.name, "held_back").inc(held)
            if summary := self._cap.summary():
                alerts.append(summary)
        for message in _messages(alerts, self._most):
            await self._deliver(message)

    async def _deliver(self, message: list[Alert]) -> None:
        clock = asyncio.get_running_loop().time
        pause, since = self._first_pause, clock()
        while True:
            await self._pace()
            try:
                await self.notifier.send(message)
            except RetryLater as later:
                self._count("failed", message)
                NOTIFIER_FAILING.labels(self.name).set(clock() - since)
                wait = max(pause * random.uniform(0.5, 1.0), min(later.retry_after or 0.0, _LONGEST_ASKED))
                log.warning("notifier %s: %s, again in %.1f s", self.name, later, wait)
                await asyncio.sleep(wait)
                pause = min(2 * pause, self._longest_pause)
            except Exception as error:  # a fault of ours must not block the channel for ever either
                NOTIFIER_FAILING.labels(self.name).set(0)
                await self._without_the_bad(message, error)
                return
            else:
                NOTIFIER_FAILING.labels(self.name).set(0)
                self._count("ok", message)
                return

    async def _without_the_bad(self, message: list[Alert], error: Exception) -> None:
        """One alert that the receiver refuses must not take others with it."""
        if len(message) > 1:
            for alert in message:
                await self._deliver([alert])
            return
        self._count("dropped", message)
        log.error(
            "notifier %s: alert %s dropped: %s", self.name, message[0].alert_id, error,
            exc_info=None if isinstance(error, Refused) else error,
        )  # fmt: skip

    async def _pace(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
        self._free_at = max(now, self._free_at) + self._gap

    def _count(self, result: str, message: list[Alert]) -> None:
        NOTIFICATIONS.labels(self.name, result).inc(len(message))


def _messages(alerts: Iterable[Alert], most: int) -> Iterator[list[Alert]]:
    """In order, cut so that no message is too long or holds two states of one identity."""
    message: dict[str, Alert] = {}
    for alert in alerts:
        if len(message) == most or alert.fingerprint in message:
            yield list(message.values())
            message = {}
        message[alert.fingerprint] = alert
    if message:
        yield list(message.values())
