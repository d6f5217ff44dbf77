"""Records of every topic for tests of the history, with times near now (old rows would fall to the TTL)."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from schemas import topics
from schemas.alerts import Alert
from schemas.audits import AuditLabel, AuditTicket
from schemas.codec import encode
from schemas.events import Outcome, Request, Route
from schemas.topics import Topic
from schemas.verdicts import Finding, Reason, Verdict
from streams.replay import FileRecord
from tests import factories

# Two days ago, at ten: no test crosses an hour, a day or a month but on purpose.
START = (datetime.now(UTC) - timedelta(days=2)).replace(hour=10, minute=0, second=0, microsecond=0)
START_MS = round(START.timestamp() * 1000)
HOUR_MS = 3_600_000


def record(
    topic: Topic, value: msgspec.Struct | bytes, offset: int, partition: int = 0, **fields: Any
) -> FileRecord:
    """`value` at `offset` of `topic`."""
    data = value if isinstance(value, bytes) else encode(value)
    return FileRecord(topic.name, offset, START_MS + offset, data, b"key", partition=partition, **fields)


def log(topic: Topic, values: Iterable[msgspec.Struct], first: int = 0) -> list[FileRecord]:
    """`values` at successive offsets of `topic`."""
    return [record(topic, value, offset) for offset, value in enumerate(values, start=first)]


def request(request_id: str, principal: str = "p1", after_ms: int = 0, **fields: Any) -> Request:
    return factories.request(request_id, principal, START_MS + after_ms, **fields)


def route(request_id: str, principal: str = "p1", after_ms: int = 0, **fields: Any) -> Route:
    return factories.route(request_id, principal, START_MS + after_ms, **fields)


def outcome(request_id: str, principal: str = "p1", after_ms: int = 0, **fields: Any) -> Outcome:
    return factories.outcome(request_id, principal, START_MS + after_ms, **fields)


def verdict(request_id: str, principal: str = "p1", after_ms: int = 0, **fields: Any) -> Verdict:
    """The verdict on `request(request_id, ...)`."""
    moment = factories.at(START_MS + after_ms)
    defaults: dict[str, Any] = {
        "verdict_id": f"{request_id}-v", "request_id": request_id, "event_id": f"{request_id}-q",
        "event_time": moment, "time": moment, "tenant_id": "t1", "principal_hash": principal, "decision": "clean",
        "router_name": "main", "selected_model": "small", "tier": "SIMPLE", "tier_rank": 0,
    }  # fmt: skip
    return Verdict(**{**defaults, **fields})


def reason(**fields: Any) -> Reason:
    """A flagged reason of the detector `triggers`."""
    defaults: dict[str, Any] = {
        "detector": "triggers", "detector_version": "1", "score": 0.9, "threshold": 0.7, "flagged": True,
        "kind": "known_trigger", "direction": "up",
    }  # fmt: skip
    return Reason(**{**defaults, **fields})


def flagged(request_id: str, principal: str = "p1", after_ms: int = 0, **fields: Any) -> Verdict:
    """A verdict flagged by one `reason(**fields)`, on a strong model."""
    reasons = [reason(**fields)]
    at = {"selected_model": "large", "tier": "REASONING", "tier_rank": 3}
    return verdict(request_id, principal, after_ms, decision="flagged", reasons=reasons, **at)


def finding(finding_id: str, principal: str = "p1", after_ms: int = 0) -> Finding:
    return Finding(
        finding_id=finding_id, kind="known_trigger", category="cost_escalation", severity="critical",
        time=factories.at(START_MS + after_ms), labels={"trigger_id": "g1"}, detector="triggers",
        detector_version="1", tenant_id="t1", principal_hash=principal, request_id="r1",
    )  # fmt: skip


def alert(sequence: int, status: Any, alert_id: str = "a1") -> Alert:
    return Alert(
        alert_id=alert_id, fingerprint="f1", alertname="known_trigger", category="cost_escalation",
        severity="critical", status=status, labels={"trigger_id": "g1"}, starts_at=START, last_seen=START,
        time=factories.at(START_MS + sequence), count=sequence, sequence=sequence,
    )  # fmt: skip


def label(ticket_id: str, answer: Any, label_id: str = "first") -> AuditLabel:
    ticket = AuditTicket(
        ticket_id=ticket_id, request_id="q1", tenant_id="t1", principal_hash="p1", detector="novelty",
        parameter="novelty.flag", score=0.9, threshold=0.99, threshold_version=1, issued_at=START, expires_at=START,
    )  # fmt: skip
    return AuditLabel(label_id=label_id + ticket_id, ticket=ticket, judge="desk", label=answer, labelled_at=START)


def campaign() -> list[FileRecord]:
    """Two hours with known answers: p1 and p2 use window w1 (p2 first, trigger g1), p3 is ordinary.

    Hour 0: q1 (p3, clean, guarded), q2 (p2, w1), q3 (p1, w1), q4 (p1, unjudged: no_text).
    Hour 1: q5 (p1, w1), q6 (p3, no verdict at all).
    """
    requests = [
        request("q1", "p3", 0), request("q2", "p2", 1_000), request("q3", "p1", 2_000), request("q4", "p1", 3_000),
        request("q5", "p1", HOUR_MS), request("q6", "p3", HOUR_MS + 1_000),
    ]  # fmt: skip
    routes = [
        route("q1", "p3", 1), route("q2", "p2", 1_001, selected_model="large"),
        route("q3", "p1", 2_001, selected_model="large", escalated=True),
    ]  # fmt: skip
    outcomes = [
        outcome(
            "q1", "p3", 10, cost_usd=0.5, guardrail_verdict="allow", response_status="ok", response_model="small"
        ),
        outcome("q2", "p2", 1_010, cost_usd=2.0, response_model="large"),
        outcome("q3", "p1", 2_010, cost_usd=3.0, response_model="large", evaluation_score_label="unsafe"),
        outcome("q5", "p1", HOUR_MS + 10, cost_usd=4.0, response_model="large"),
        outcome("q6", "p3", HOUR_MS + 1_010, cost_usd=None),
    ]
    verdicts = [
        verdict("q1", "p3", 0),
        flagged("q2", "p2", 1_000, window="w1", trigger_id="g1"),
        flagged("q3", "p1", 2_000, window="w1"),
        verdict("q4", "p1", 3_000, decision="unjudged", unjudged_reason="no_text", unable=["triggers", "novelty"]),
        flagged("q5", "p1", HOUR_MS, window="w1"),
    ]
    return [
        *log(topics.EVENTS, [*requests, *routes, *outcomes]),
        *log(topics.VERDICTS, verdicts),
        *log(topics.FINDINGS, [finding("fi1", "p1", 2_100)]),
        *log(topics.ALERTS, [alert(1, "pending"), alert(2, "firing"), alert(3, "resolved")]),
        *log(topics.AUDITS, [label("a1", "unsafe"), label("a2", "safe"), label("a2", "unknown", "again")]),
    ]
