import hashlib
import hmac
import time

import pytest
from aiohttp import web

from streams.notifiers.base import Refused, RetryLater
from streams.notifiers.webhook import WebhookNotifier
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile
from tests.streams.notifiers.receiver import Receiver


async def test_the_message_has_alertmanagers_shape(receiver: Receiver) -> None:
    notifier = WebhookNotifier(receiver.url)
    await notifier.send([alert("t1"), alert("t2", "resolved", severity="warning")])
    await notifier.close()
    ((message, _, headers),) = receiver.taken
    assert headers["Content-Type"] == "application/json"
    assert set(message) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip
    assert (message["version"], message["status"], message["receiver"]) == ("4", "firing", "webhook")
    assert message["groupLabels"] == {"alertname": "known_trigger"}
    assert message["commonLabels"] == {"alertname": "known_trigger", "category": "cost_escalation"}
    fired, resolved = message["alerts"]
    assert fired["labels"]["trigger_id"] == "t1"
    assert (fired["startsAt"], fired["endsAt"]) == ("2026-03-01T12:00:00.000Z", "0001-01-01T00:00:00Z")
    assert fired["fingerprint"] == alert("t1").fingerprint
    assert (resolved["status"], resolved["endsAt"]) == ("resolved", "2026-03-01T12:16:00.000Z")
    assert "X-Pointsman-Signature" not in headers


async def test_all_resolved_is_resolved(receiver: Receiver) -> None:
    notifier = WebhookNotifier(receiver.url)
    await notifier.send([alert("t1", "resolved"), alert("t2", "resolved")])
    await notifier.close()
    assert receiver.taken[0][0]["status"] == "resolved"


async def test_a_receiver_can_check_who_sent_it_and_when(receiver: Receiver) -> None:
    before = int(time.time())
    notifier = WebhookNotifier(receiver.url, "a secret")
    await notifier.send([alert()])
    await notifier.close()
    _, body, headers = receiver.taken[0]
    sent_at = headers["X-Pointsman-Timestamp"]
    assert before <= int(sent_at) <= time.time()
    digest = hmac.new(b"a secret", sent_at.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Pointsman-Signature"] == f"sha256={digest}"


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_names_from_events_are_inert(receiver: Receiver, payload: str) -> None:
    notifier = WebhookNotifier(receiver.url, "a secret")
    await notifier.send([hostile(payload)])
    await notifier.close()
    message, body, _ = receiver.taken[0]
    assert body.decode().isprintable()

    def strings(value: object) -> list[str]:
        if isinstance(value, dict):
            return [text for pair in value.items() for part in pair for text in strings(part)]
        if isinstance(value, list):
            return [text for part in value for text in strings(part)]
        return [value] if isinstance(value, str) else []

    texts = strings(message["alerts"])
    assert len(texts) > 20
    assert not any(payload in text for text in texts)
    assert not any(set(text) & set("<>&@`*") for text in texts)


@pytest.mark.parametrize("status", [401, 404, 408, 429, 500, 502, 503, 301])
async def test_what_may_pass_is_for_later(receiver: Receiver, status: int) -> None:
    receiver.script = [web.Response(status=status, headers={"location": receiver.url})]
    notifier = WebhookNotifier(receiver.url)
    with pytest.raises(RetryLater) as raised:
        await notifier.send([alert()])
    assert raised.value.retry_after is None
    assert receiver.seen == 1  # no redirect followed
    await notifier.close()


@pytest.mark.parametrize(
    ("header", "seconds"), [("17", 17.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-5", None), ("٣", None)]
)
async def test_a_receiver_may_say_when(receiver: Receiver, header: str, seconds: float | None) -> None:
    receiver.script = [web.Response(status=429, headers={"retry-after": header})]
    notifier = WebhookNotifier(receiver.url)
    with pytest.raises(RetryLater) as raised:
        await notifier.send([alert()])
    assert raised.value.retry_after == seconds
    await notifier.close()


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_bad_content_is_refused(receiver: Receiver, status: int) -> None:
    receiver.script = [web.Response(status=status)]
    notifier = WebhookNotifier(receiver.url)
    with pytest.raises(Refused):
        await notifier.send([alert()])
    await notifier.close()


async def test_a_hanging_a_dropping_and_an_absent_receiver_are_for_later(receiver: Receiver) -> None:
    receiver.script = ["hang", "drop"]
    for url in (receiver.url, receiver.url, "http://127.0.0.1:1/hook"):
        notifier = WebhookNotifier(url, timeout_seconds=0.3)
        with pytest.raises(RetryLater):
            await notifier.send([alert()])
        await notifier.close()
    assert receiver.seen == 2
    assert receiver.taken == []
