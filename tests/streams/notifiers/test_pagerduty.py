import pytest
from aiohttp import web

from streams.notifiers.base import Refused, RetryLater
from streams.notifiers.pagerduty import PagerDutyNotifier, event
from tests.streams.notifiers.alerts import PAYLOADS, alert, hostile
from tests.streams.notifiers.receiver import Receiver

KEY = "R0UT1NGKEY" * 3


async def test_an_alert_is_one_incident_from_beginning_to_end(receiver: Receiver) -> None:
    notifier = PagerDutyNotifier(KEY, receiver.url)
    await notifier.send([alert(runbook_url="https://runbooks.example/known_trigger")])
    await notifier.send([alert(status="resolved", sequence=2)])
    await notifier.close()
    trigger, resolve = (message for message, _, _ in receiver.taken)
    assert (trigger["event_action"], trigger["dedup_key"]) == ("trigger", alert().fingerprint)
    assert trigger["routing_key"] == KEY
    assert trigger["links"] == [{"href": "https://runbooks.example/known_trigger", "text": "Runbook"}]
    payload = trigger["payload"]
    assert payload["summary"] == (
        "[firing, critical] known_trigger: A catalogued trigger is in use against the router (trigger_id=t1)"
    )
    assert (payload["severity"], payload["group"], payload["class"]) == (
        "critical",
        "cost_escalation",
        "known_trigger",
    )
    assert payload["timestamp"] == "2026-03-01T12:00:00.000Z"
    assert payload["custom_details"]["trigger_id"] == "t1"
    assert resolve == {"routing_key": KEY, "dedup_key": alert().fingerprint, "event_action": "resolve"}


async def test_each_alert_is_an_event_of_its_own(receiver: Receiver) -> None:
    notifier = PagerDutyNotifier(KEY, receiver.url)
    await notifier.send([alert("a"), alert("b")])
    await notifier.close()
    assert [message["payload"]["custom_details"]["trigger_id"] for message, _, _ in receiver.taken] == ["a", "b"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_names_from_events_are_inert_and_within_pagerdutys_limits(payload: str) -> None:
    made = event(hostile(payload * 40), KEY)
    assert len(made["payload"]["summary"]) <= 1024
    assert len(made["dedup_key"]) <= 255
    for text in (
        made["payload"]["summary"],
        made["payload"]["source"],
        *made["payload"]["custom_details"].values(),
    ):
        assert payload not in text
        assert text.isprintable()
        assert not set(text) & set("<>&@`*")


async def test_too_many_is_for_later_and_a_bad_event_is_not(receiver: Receiver) -> None:
    receiver.script = [web.Response(status=429, headers={"retry-after": "30"}), web.Response(status=400)]
    notifier = PagerDutyNotifier(KEY, receiver.url)
    with pytest.raises(RetryLater) as raised:
        await notifier.send([alert()])
    assert raised.value.retry_after == 30.0
    with pytest.raises(Refused):
        await notifier.send([alert()])
    await notifier.close()
