"""Campaigns and what they stand for; suppressions: what is published, and told to nobody."""

from datetime import timedelta
from typing import Any

import msgspec

from detectors.alerting import Alerting
from detectors.kinds import fingerprint
from detectors.suppressions import Suppressions
from schemas.alerts import Alert
from schemas.suppressions import Suppression
from schemas.topics import FINDINGS
from tests.detectors.alerting.log import RULES, START, START_MS, Log, Row, alerts, run


class Fleet:
    """One partition whose Alerting reads what it writes, as the findings topic carries it."""

    def __init__(self, **parts: Any) -> None:
        self.alerting = Alerting(RULES, **parts)
        self.log = Log()
        self.states: list[Alert] = []

    def finding(self, at: float, name: str, **fields: Any) -> None:
        self._take(at, self.log.finding(at, name, **fields))

    def tick(self, at: float) -> None:
        self._take(at, self.log.tick(at))

    def _take(self, at: float, row: Row) -> None:
        out = self.alerting.apply([row])
        self.states += alerts(out)
        for output in out:
            if output.topic == FINDINGS.name:
                assert output.key.decode() == fingerprint(msgspec.json.decode(output.value)["labels"])
                self._take(at, self.log.add(at, output.value))

    def told(self, name: str) -> list[Alert]:
        return [state for state in self.states if state.alertname == name]


def test_a_trigger_of_two_principals_is_a_campaign_with_its_members_and_cost() -> None:
    fleet = Fleet()
    fleet.finding(0, "a", principal_hash="p1", extra_cost_usd=0.5, direction="up")
    fleet.finding(5, "b", principal_hash="p2", tenant_id="other", extra_cost_usd=0.25, direction="up")
    first, campaign = fleet.told("known_trigger")
    assert not first.campaign
    assert campaign.campaign, "said at once, not at the next refresh"
    assert (campaign.principals, campaign.tenants, campaign.est_cost_usd) == (2, 2, 0.75)
    assert campaign.attributes["principal_hash"] == ["p1", "p2"]
    assert campaign.first_request_id == "request of a"
    assert campaign.direction == "up"


def test_a_campaign_inhibits_the_alerts_of_its_members_and_of_nobody_else() -> None:
    fleet = Fleet()
    for number, principal in enumerate(("p1", "p2")):
        fleet.finding(number, f"t{number}", principal_hash=principal)
    campaign = fleet.told("known_trigger")[-1]
    for number, principal in enumerate(("p1", "p2", "p3")):
        fleet.finding(10 + number, f"w{number}", kind="denial_of_wallet", principal_hash=principal)
    by_principal = {alert.principal_hash: alert.inhibited_by for alert in fleet.told("denial_of_wallet")}
    assert by_principal == {"p1": campaign.alert_id, "p2": campaign.alert_id, "p3": ""}


def test_an_alert_that_fires_already_is_published_again_when_a_campaign_takes_it_over() -> None:
    fleet = Fleet()
    fleet.finding(0, "w", kind="denial_of_wallet", principal_hash="p1")
    fleet.finding(1, "t1", principal_hash="p1")
    assert [alert.inhibited_by for alert in fleet.told("denial_of_wallet")] == [""]
    fleet.finding(2, "t2", principal_hash="p2")
    campaign = fleet.told("known_trigger")[-1]
    assert [alert.inhibited_by for alert in fleet.told("denial_of_wallet")] == ["", campaign.alert_id]
    fleet.tick(5000)
    last = fleet.told("denial_of_wallet")[-1]
    assert last.status == "resolved"


def test_what_comes_while_it_would_count_together_is_of_the_campaign_still() -> None:
    fleet = Fleet()
    for number, principal in enumerate(("p1", "p2")):
        fleet.finding(number, f"t{number}", principal_hash=principal)
    campaign = fleet.told("known_trigger")[-1]
    fleet.finding(19 * 60, "w1", kind="denial_of_wallet", principal_hash="p1")
    fleet.finding(21 * 60, "w2", kind="denial_of_wallet", principal_hash="p2")
    assert [alert.inhibited_by for alert in fleet.told("denial_of_wallet")] == [campaign.alert_id, ""]


def test_inhibition_ends_when_the_member_has_left_the_campaign() -> None:
    fleet = Fleet()
    for number, principal in enumerate(("p1", "p2")):
        fleet.finding(number, f"t{number}", principal_hash=principal)
    for number in range(40):  # p2 goes on; p1 only spends
        fleet.finding(60 * number + 10, f"again {number}", principal_hash="p2")
        fleet.finding(60 * number + 11, f"w{number}", kind="denial_of_wallet", principal_hash="p1")
    told = fleet.told("denial_of_wallet")
    assert told[0].inhibited_by
    assert not told[-1].inhibited_by
    assert {alert.alert_id for alert in told} == {told[0].alert_id}


def test_a_campaign_tells_a_member_rarely() -> None:
    log = Log()
    for number in range(600):
        log.finding(number, str(number), principal_hash=f"p{number % 2}")
    told = [out for out in run(log)[1] if out.topic == FINDINGS.name]
    rules = len(RULES.get("known_trigger").campaign.inhibits)  # type: ignore[union-attr]
    assert len(told) == 2 * 2 * rules  # two members, at the beginning and after half of the quiet time


def rule(name: str = "s1", begin: float = 0, end: float = 60, **labels: str) -> Suppression:
    return Suppression(
        suppression_id=name, labels=labels, starts_at=START + timedelta(seconds=begin),
        ends_at=START + timedelta(seconds=end), owner="ana", reason="known noise", created_at=START,
    )  # fmt: skip


def test_under_a_suppression_all_is_published_and_says_so() -> None:
    fleet = Fleet(suppressions=Suppressions({"s1": rule(alertname="known_trigger", trigger_id="t1")}))
    fleet.finding(10, "a")
    fleet.finding(11, "b", trigger_id="t2")
    assert [alert.suppressed_by for alert in fleet.states] == ["s1", ""]


def test_what_still_fires_when_its_suppression_ends_is_published_without_it() -> None:
    fleet = Fleet(suppressions=Suppressions({"s1": rule()}))
    fleet.finding(10, "a")
    fleet.finding(59, "b")
    fleet.finding(61, "c")
    fleet.tick(70)
    assert [(alert.status, alert.suppressed_by) for alert in fleet.states] == [("firing", "s1"), ("firing", "")]


def test_rules_are_in_force_from_their_start_until_before_their_end_and_the_longest_is_named() -> None:
    rules = Suppressions()
    rules.put(rule("short", 10, 20))
    rules.put(rule("long", 15, 40, alertname="a"))
    for second, labels, expected in (
        (9.999, {"alertname": "a"}, ""),
        (10, {"alertname": "a"}, "short"),
        (15, {"alertname": "a"}, "long"),
        (15, {"alertname": "b"}, "short"),
        (20, {"alertname": "b"}, ""),
        (40, {"alertname": "a"}, ""),
    ):
        assert rules.over(labels, START_MS + round(second * 1000)) == expected
    rules.remove("long")
    assert rules.over({"alertname": "a"}, START_MS + 20_000) == ""
