"""Credit where it is due: an alert names an attack by its kind and its evidence, and nothing else does."""

from datetime import UTC, datetime, timedelta

import pytest

from loadtests.report import (
    Percentiles,
    Report,
    Seen,
    Told,
    broken,
    latency,
    name_attacks,
    unjudged,
    verdicts_by_request,
)
from loadtests.traffic import Attack
from schemas.alerts import Alert
from schemas.verdicts import Finding, Verdict

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
WALLET = Attack("wallet", ["denial_of_wallet"], ["p1"], ["r1", "r2", "r3"], first_at=20.0)
KNOWN = Attack("known", ["known_trigger"], ["p2", "p3"], ["r4", "r5"], first_at=30.0)


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def _told(kind: str, seconds: float, *requests: str, principal: str = "", findings: tuple[str, ...] = ()) -> Told:
    alert = Alert(
        alert_id=f"{kind}-{seconds}", fingerprint=kind, alertname=kind, category="cost_escalation",
        severity="critical", status="firing", labels={}, starts_at=_at(seconds), last_seen=_at(seconds),
        time=_at(seconds), principal_hash=principal, request_ids=list(requests), finding_ids=list(findings),
        first_request_id=requests[0] if requests else "",
    )  # fmt: skip
    return Told(alert, _at(seconds))


def _verdict(event: str, decision: str = "clean", reason: str = "", number: int = 0) -> Verdict:
    return Verdict(
        verdict_id=f"v-{event}-{number}", request_id=event, event_id=event, event_time=START, time=START,
        tenant_id="t", principal_hash="p", decision=decision, unjudged_reason=reason,  # type: ignore[arg-type]
    )  # fmt: skip


def test_the_first_alert_of_the_right_kind_counts() -> None:
    told = [
        _told("known_trigger", 34, "r4"),
        _told("known_trigger", 32.5, "r5", "x"),
        _told("denial_of_wallet", 50),
    ]
    named = name_attacks([WALLET, KNOWN], told, START)
    assert [(d.name, d.planted, d.detected, d.first_alert_s) for d in named.detections] == [
        ("wallet", 3, False, None),
        ("known", 2, True, 2.5),
    ]
    assert [alarm.alert.alertname for alarm in named.false] == ["denial_of_wallet"]


def test_an_alert_about_the_attacker_needs_no_request() -> None:
    named = name_attacks([WALLET], [_told("denial_of_wallet", 21, principal="p1")], START)
    assert named.detections[0].first_alert_s == pytest.approx(1)


def test_before_the_attack_an_alert_about_its_caller_is_false() -> None:
    named = name_attacks([WALLET], [_told("denial_of_wallet", 12, principal="p1")], START)
    assert not named.detections[0].detected
    assert len(named.false) == 1


def test_another_name_for_an_attack_is_neither_credit_nor_false() -> None:
    named = name_attacks([WALLET, KNOWN], [_told("denial_of_wallet", 40, "r4", principal="p2")], START)
    assert not any(detection.detected for detection in named.detections)
    assert (len(named.side), len(named.false)) == (1, 0)


def test_latency_is_from_the_finding_that_made_it_fire() -> None:
    finding = Finding(
        finding_id="f", kind="k", category="cost_escalation", severity="critical", time=_at(9.5), labels={},
        detector="d", detector_version="1",
    )  # fmt: skip
    assert latency([_told("k", 10, findings=("f", "unseen"))], {"f": finding}) == Percentiles(500.0, 500.0)
    assert latency([], {}) == Percentiles(None, None)


def test_every_request_is_counted_with_its_verdicts() -> None:
    seen = Seen()
    for verdict in (_verdict("a"), _verdict("b", "unjudged", "no_text"), _verdict("b", number=1), _verdict("a")):
        seen.verdicts[verdict.verdict_id] = verdict
    assert verdicts_by_request(["a", "b", "c"], seen) == {"a": 1, "b": 2, "c": 0}
    assert unjudged(seen) == {"no_text": 1}


@pytest.mark.parametrize(
    ("least", "most", "rows", "problem"),
    [(1, 1, 5, ""), (0, 1, 5, "no verdict"), (1, 2, 5, "more than one"), (1, 1, 4, "4 rows of requests, not 5")],
)
def test_invariants(least: int, most: int, rows: int, problem: str) -> None:
    report = Report(
        events=15, requests=5, verdicts=5, verdicts_per_request_min=least, verdicts_per_request_max=most,
        unjudged={}, coverage=1.0, attacks=[], false_alerts=0, alert_latency_ms=Percentiles(None, None),
        requests_per_s=1.0, rows_in_clickhouse={"requests": rows}, seconds=1.0,
    )  # fmt: skip
    problems = broken(report, {"requests": 5})
    assert len(problems) == bool(problem)
    assert all(problem in found for found in problems)
