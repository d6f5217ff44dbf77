import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web

from schemas.alerts import Alert
from streams.metrics import NOTIFICATIONS
from streams.notifiers.base import Refused, RetryLater
from streams.notifiers.channel import Channel
from streams.notifiers.webhook import WebhookNotifier
from tests.streams.notifiers.alerts import alert
from tests.streams.notifiers.receiver import Receiver


class Scripted:
    """Raises what its script says, then takes all but the alerts named `bad`."""

    resend_seconds = None

    def __init__(self, name: str, *script: Exception) -> None:
        self.name = name
        self.script = list(script)
        self.sent: list[list[str]] = []

    async def send(self, alerts: Sequence[Alert]) -> None:
        if self.script:
            raise self.script.pop(0)
        names = [f"{alert.labels['trigger_id']} {alert.status}" for alert in alerts]
        if any(name.startswith("bad") for name in names):
            raise Refused("bad")
        if any(name.startswith("bug") for name in names):
            raise ZeroDivisionError
        self.sent.append(names)

    async def close(self) -> None:
        pass


def quick(notifier: Scripted | WebhookNotifier) -> Channel:
    return Channel(notifier, gap_seconds=0.0, first_pause=0.001, longest_pause=0.01)


def counted(name: str) -> dict[str, float]:
    return {result: NOTIFICATIONS.labels(name, result)._value.get() for result in ("ok", "failed", "dropped")}


async def test_it_tries_until_it_is_taken() -> None:
    notifier = Scripted("patient", *[RetryLater("no") for _ in range(20)])
    await quick(notifier).deliver([alert("a"), alert("b")])
    assert notifier.sent == [["a firing", "b firing"]]
    assert counted("patient") == {"ok": 2, "failed": 40, "dropped": 0}


async def test_pauses_double_up_to_a_limit_and_a_receiver_may_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def no_sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    later = [RetryLater("no") for _ in range(9)]
    notifier = Scripted("pauses", *later, RetryLater("no", 99.0), RetryLater("no", 10**6))
    await Channel(notifier, gap_seconds=0.0, first_pause=1.0, longest_pause=60.0).deliver([alert()])
    for pause, most in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=False):
        assert most / 2 <= pause <= most
    assert pauses[9:] == [99.0, 300.0]


async def test_what_is_refused_takes_nothing_with_it() -> None:
    notifier = Scripted("refusing")
    await quick(notifier).deliver([alert("a"), alert("bad"), alert("b"), alert("bug"), alert("c")])
    assert notifier.sent == [["a firing"], ["b firing"], ["c firing"]]
    assert counted("refusing") == {"ok": 3, "failed": 0, "dropped": 2}


async def test_messages_hold_one_state_of_an_identity_and_keep_the_order() -> None:
    notifier = Scripted("order")
    await quick(notifier).deliver([alert("a"), alert("b"), alert("a", "resolved", 2), alert("c")])
    assert notifier.sent == [["a firing", "b firing"], ["a resolved", "c firing"]]


async def test_messages_are_bounded() -> None:
    notifier = Scripted("bounded")
    await Channel(notifier, gap_seconds=0.0, most_alerts=100).deliver([alert(str(n)) for n in range(250)])
    assert [len(message) for message in notifier.sent] == [100, 100, 50]


async def test_the_rate_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def no_sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    channel = Channel(Scripted("capped"), gap_seconds=1000.0, most_alerts=1)
    await channel.deliver([alert(str(n)) for n in range(4)])
    assert [round(pause, -3) for pause in pauses] == [1000.0, 2000.0, 3000.0]


async def test_a_real_receiver_that_hangs_fails_and_drops_gets_it_in_the_end(receiver: Receiver) -> None:
    receiver.script = ["hang", web.Response(status=500), "drop", web.Response(status=503), "drop"]
    notifier = WebhookNotifier(receiver.url, timeout_seconds=0.3)
    await quick(notifier).deliver([alert("a"), alert("a", "resolved", 2)])
    await notifier.close()
    assert receiver.statuses() == [("a", "firing"), ("a", "resolved")]
    assert receiver.seen == 7
