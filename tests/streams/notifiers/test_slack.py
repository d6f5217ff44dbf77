import pytest
from aiohttp import web

from streams.notifiers.base import Refused, RetryLater
from streams.notifiers.slack import SlackNotifier, message
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile
from tests.streams.notifiers.receiver import Receiver


async def test_one_message_and_a_plain_block_each(receiver: Receiver) -> None:
    notifier = SlackNotifier(receiver.url)
    await notifier.send([alert("a", runbook_url="https://runbooks.example/x"), alert("b", "resolved")])
    await notifier.close()
    ((sent, _, _),) = receiver.taken
    assert sent["text"].startswith("[firing, critical] known_trigger: A catalogued trigger")
    assert sent["text"].endswith(", and 1 more")
    assert sent["mrkdwn"] is sent["link_names"] is sent["unfurl_links"] is False
    first, second = (block["text"] for block in sent["blocks"])
    assert (first["type"], first["emoji"]) == ("plain_text", False)
    assert first["text"].splitlines() == [
        "[firing, critical] known_trigger: A catalogued trigger is in use against the router (trigger_id=a)",
        "3 findings from 2 principals of 1 tenant, 2026-03-01T12:00:00.000Z to 2026-03-01T12:01:00.000Z,"
        " estimated extra cost 1.25 USD",
        "pointsman explain id of a",
        "Runbook: https://runbooks.example/x",
    ]
    assert second["text"].startswith("[resolved, critical]")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_from_events_are_inert_and_within_slacks_limits(payload: str) -> None:
    sent = message([hostile(payload * 60)] * SlackNotifier.most_alerts)
    assert len(sent["blocks"]) <= 50
    for text in (sent["text"], *(block["text"]["text"] for block in sent["blocks"])):
        assert len(text) <= 3_020
        assert payload not in text
        assert all(line.isprintable() for line in text.split("\n"))
        assert not set(text) & set("<>&@`*~|")


async def test_what_slack_refuses_and_what_may_pass(receiver: Receiver) -> None:
    receiver.script = [web.Response(status=429, headers={"retry-after": "7"}), web.Response(status=404)]
    notifier = SlackNotifier(receiver.url)
    for retry_after in (7.0, None):  # a channel that is archived may come back: it is tried again
        with pytest.raises(RetryLater) as raised:
            await notifier.send([alert()])
        assert raised.value.retry_after == retry_after
    receiver.script = [web.Response(status=400)]
    with pytest.raises(Refused):
        await notifier.send([alert()])
    await notifier.close()
