"""The drill, short: a calm day is quiet, planted attacks are told under their names, with their requests."""

import pytest

from loadtests.drill import TUNED_ON, Alarm, Day, Found, benign, concerns, drill, find, page, play
from loadtests.router import DifficultyRouter
from loadtests.traffic import START, Attack
from schemas.alerts import Alert

ATTACKS = ("known", "caller_threshold", "contradiction")


@pytest.fixture(scope="module")
def _router() -> None:
    DifficultyRouter.load("words")


@pytest.mark.usefixtures("_router")
def test_a_short_drill() -> None:
    report = drill(3_000, 11, "words", ATTACKS)
    assert report.benign.requests == 3_000
    assert report.benign.alerts <= 1, report.benign.by_name
    assert [found.name for found in report.attacks] == list(ATTACKS)
    written = page(report)
    assert written.count("| yes |") == len(ATTACKS)
    assert "This is one of them." in written
    report.seed = TUNED_ON + 1
    assert "This one is held out" in page(report)
    for found in report.attacks:
        assert found.named, found
        assert 0 < found.evidence_hits <= found.planted
        assert found.requests_until_alert is not None
        assert found.requests_until_alert <= 20


def _alarm(name: str, at: float, requests: list[str], principal: str = "") -> Alarm:
    from datetime import timedelta

    when = START + timedelta(seconds=at)
    alert = Alert(
        alert_id=f"{name}-{at}", fingerprint=name, alertname=name, category="cost_escalation", severity="warning",
        status="firing", labels={}, starts_at=when, last_seen=when, time=when, first_request_id=requests[0],
        request_ids=requests, principal_hash=principal,
    )  # fmt: skip
    return Alarm(alert, alert)


def test_alerts_are_credited_by_what_they_cite_and_whom_they_name() -> None:
    attack = Attack("wallet", ["denial_of_wallet"], ["p1"], ["r1", "r2", "r3"], first_at=100.0)
    sent_at = {"r1": 100.0, "r2": 110.0, "r3": 120.0}
    cites = _alarm("novel_text", 105.0, ["r1"])
    names = _alarm("denial_of_wallet", 112.0, ["other"], "p1")
    too_early = _alarm("denial_of_wallet", 50.0, ["other"], "p1")
    other = _alarm("novel_text", 112.0, ["other"], "p1")
    assert [concerns(alarm, attack) for alarm in (cites, names, too_early, other)] == [True, True, False, False]
    fleet = Attack("fleet_wallet", ["fleet_spend"], ["p2"], ["r9"], first_at=100.0, last_at=200.0)
    during, long_after = _alarm("fleet_spend", 300.0, ["other"]), _alarm("fleet_spend", 9_000.0, ["other"])
    assert [concerns(alarm, fleet) for alarm in (during, long_after)] == [True, False]
    found = find(attack, [cites, names, too_early, other], sent_at)
    assert found == Found("wallet", 3, True, True, 2, {"denial_of_wallet": 1, "novel_text": 1}, 12.0, 2, 1)
    stands = _alarm("denial_of_wallet", 90.0, ["r1"])  # of a former attack with the same text
    assert find(attack, [stands], sent_at).first_alert_s == 0.0


@pytest.mark.usefixtures("_router")
def test_campaigns_are_counted_apart() -> None:
    played = play(Day(300, 3, "words"))
    told = [_alarm("known_trigger", 1.0, ["r"]), _alarm("novel_text", 2.0, ["r"])]
    played.alarms = told
    summary = benign(Day(300, 3, "words"), played)
    assert (summary.campaigns, summary.alerts) == (1, 2)
