"""The alerts' state machine: once per identity, whatever is redelivered, wherever a batch is cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from detectors.alerting import MARKER_KEY, Alerting
from detectors.alerting.episode import MOST_EVIDENCE
from detectors.detections import Detections, shipped
from detectors.detections.correlation import Correlation, Count
from detectors.kinds import KINDS, fingerprint
from detectors.processor import Output
from detectors.suppressions import Suppressions
from schemas.alerts import Alert
from schemas.codec import TICK_HEADERS, encode, read_dead_letter
from schemas.suppressions import Suppression
from schemas.topics import ALERTS, DEADLETTERS, FINDINGS
from schemas.verdicts import Finding

START = datetime(2026, 3, 1, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


def _rules() -> Detections:
    """What ships, but with numbers of this test's own: those that ship are chosen by measurement, and change."""
    held = {detection.rule_id: detection for detection in shipped()}
    group = ("tenant_id", "principal_hash")
    three = Correlation(type="event_count", group_by=group, timespan="10m", condition=Count(gte=3))
    held["novel_text"] = msgspec.structs.replace(held["novel_text"], correlation=three)
    one = Correlation(type="event_count", group_by=group, timespan="20m", condition=Count(gte=1))
    held["denial_of_wallet"] = msgspec.structs.replace(held["denial_of_wallet"], correlation=one)
    return Detections(held.values())


RULES = _rules()


@dataclass(frozen=True)
class Row:
    """A record of the findings topic."""

    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = b"k"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = FINDINGS.name
    partition: int = 3


@dataclass
class Log:
    """Writes the findings topic: `at` is in seconds since START, and the broker's time never goes back."""

    rows: list[Row] = field(default_factory=list)

    def add(self, at: float, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> Row:
        row = Row(len(self.rows), START_MS + int(at * 1000), value, headers=headers)
        self.rows.append(row)
        return row

    def finding(self, at: float, name: str, **fields: Any) -> Row:
        return self.add(at, encode(finding(name, at, **fields)))

    def tick(self, at: float) -> Row:
        return self.add(at, b"", TICK_HEADERS)


def finding(name: str, at: float = 0.0, kind: str = "known_trigger", **fields: Any) -> Finding:
    """As the detect lane addresses it to the detection of its kind's name, but for its id."""
    made = Finding(
        finding_id=name,
        kind=kind,
        category=KINDS[kind],
        severity="info",
        time=START + timedelta(seconds=at),
        labels={},
        detector="triggers",
        detector_version="1",
        tenant_id="acme",
        principal_hash="p1",
        trigger_id="t1",
        request_id=f"request of {name}",
    )
    severity = fields.pop("severity", None)
    for field_name, value in fields.items():
        setattr(made, field_name, value)
    (detection,) = (d for d in RULES if d.rule_id == kind) if kind != "steering" else (None,)
    if detection is not None:
        made = msgspec.structs.replace(detection.addressed(made), finding_id=name)
        made.severity = severity or made.severity
    return made


def alerts(outputs: Sequence[Output]) -> list[Alert]:
    return [msgspec.json.decode(out.value, type=Alert) for out in outputs if out.topic == ALERTS.name]


def states(outputs: Sequence[Output]) -> list[tuple[str, int]]:
    return [(alert.status, alert.count) for alert in alerts(outputs)]


def run(log: Log, **bounds: Any) -> tuple[Alerting, list[Output]]:
    alerting = Alerting(RULES, **bounds)
    return alerting, alerting.apply(log.rows)


# --- the state machine


def test_fires_at_the_first_finding_and_resolves_after_quiet() -> None:
    log = Log()
    log.finding(0, "a")
    log.finding(10, "b")
    log.tick(909.9)
    alerting, out = run(log)
    assert states(out) == [("firing", 1), ("firing", 2)]  # the second is growth, once it was due
    assert alerting.waiting()
    log.tick(910)
    out += alerting.apply(log.rows)
    fired, _, resolved = alerts(out)
    assert (resolved.status, resolved.count) == ("resolved", 2)
    assert resolved.alert_id == fired.alert_id
    assert resolved.starts_at == START
    assert resolved.ends_at == START + timedelta(seconds=910)
    assert [alert.sequence for alert in alerts(out)] == [1, 2, 3]
    assert not alerting.waiting()


def test_what_is_over_is_told_in_the_order_of_its_end() -> None:
    """Growth that was not told yet was due earlier, and changes nothing about that order."""
    log = Log()
    log.finding(0, "a")
    log.finding(5, "b", kind="denial_of_wallet")
    log.finding(10, "c")
    log.tick(20_000)
    over = [alert.alertname for alert in alerts(run(log)[1]) if alert.status == "resolved"]
    assert over == ["denial_of_wallet", "known_trigger"]


def test_the_next_episode_is_another_alert_of_the_same_fingerprint() -> None:
    log = Log()
    log.finding(0, "a")
    log.finding(1000, "b")
    first, resolved, second = alerts(run(log)[1])
    assert [first.status, resolved.status, second.status] == ["firing", "resolved", "firing"]
    assert first.fingerprint == second.fingerprint
    assert first.alert_id == resolved.alert_id != second.alert_id
    assert second.sequence == 1


def test_hysteresis_findings_keep_it_firing() -> None:
    log = Log()
    for number in range(20):
        log.finding(number * 800, str(number))
    statuses = {status for status, _ in states(run(log)[1])}
    assert statuses == {"firing"}


def test_growth_is_published_at_most_once_in_a_refresh() -> None:
    log = Log()
    for number in range(601):
        log.finding(number, str(number))
    times = [alert.time for alert in alerts(run(log)[1])]
    assert len(times) == 11
    assert all(b - a >= timedelta(seconds=60) for a, b in pairwise(times))


def test_growth_is_published_when_due_though_nothing_more_comes() -> None:
    log = Log()
    log.finding(0, "a")
    for number in range(4):
        log.finding(5, f"more {number}")
    log.tick(59)
    log.tick(60)
    log.tick(500)
    assert states(run(log)[1]) == [("firing", 1), ("firing", 5)]


def test_a_hold_down_wants_several_within_its_span() -> None:
    apart = Log()
    for number in range(12):
        apart.finding(number * 301, str(number), kind="novel_text")
    alerting, out = run(apart)
    assert out == []
    assert alerting.waiting()

    together = Log()
    for number in range(3):
        together.finding(number, str(number), kind="novel_text")
    (fired,) = alerts(run(together)[1])
    assert (fired.status, fired.count, fired.starts_at) == ("firing", 3, START)


def test_what_was_only_pending_is_forgotten_unsaid() -> None:
    log = Log()
    log.finding(0, "a", kind="novel_text")
    log.tick(900)
    alerting, out = run(log)
    assert out == []
    assert not alerting.waiting()
    assert alerting.counters["alert_transitions.lapsed"] == 1


def test_what_no_detection_reads_never_alerts() -> None:
    log = Log()
    for number in range(50):
        log.finding(number, str(number), kind="steering")
    alerting, out = run(log)
    assert out == []
    assert alerting.counters["oddities.context_finding"] == 50


def test_identity_is_the_labels_and_nothing_else() -> None:
    log = Log()
    log.finding(0, "a", trigger_id="t1", principal_hash="p1")
    log.finding(1, "b", trigger_id="t1", principal_hash="p2")
    log.finding(2, "c", trigger_id="t2", principal_hash="p1")
    out = [output for output in run(log)[1] if output.topic == ALERTS.name]
    assert len({alert.alert_id for alert in alerts(out)}) == 2
    for output, alert in zip(out, alerts(out), strict=True):
        assert output.key.decode() == alert.fingerprint == fingerprint(alert.labels)


# --- what an alert says


def test_the_numbers_of_many_findings() -> None:
    log = Log()
    log.finding(0, "a", score=0.7, threshold=0.5, extra_cost_usd=0.25, direction="up", router_name="r1",
                event_time=START + timedelta(seconds=2))  # fmt: skip
    log.finding(1, "b", score=0.9, threshold=0.6, extra_cost_usd=0.5, direction="up", router_name="r2",
                principal_hash="p2", event_time=START)  # fmt: skip
    log.finding(2, "c", score=0.8, direction="up", router_name="r1", tenant_id="other")
    log.tick(2000)
    resolved = alerts(run(log)[1])[-1]
    assert (resolved.score, resolved.threshold, resolved.est_cost_usd) == (0.9, 0.6, 0.75)
    assert (resolved.principals, resolved.tenants) == (3, 2)
    assert (resolved.direction, resolved.trigger_id) == ("up", "t1")  # all say so
    assert (resolved.router_name, resolved.tenant_id, resolved.principal_hash) == ("", "", "")  # they differ
    assert resolved.first_request_id == "request of a"
    assert resolved.first_event_time == START
    assert resolved.last_seen == START + timedelta(seconds=2)
    assert resolved.finding_ids == ["a", "b", "c"]
    assert resolved.request_ids == ["request of a", "request of b", "request of c"]
    assert resolved.owasp == ["LLM10:2025"]


def test_evidence_is_bounded_and_the_first() -> None:
    log = Log()
    for number in range(200):
        log.finding(number, str(number))
    log.tick(5000)
    resolved = alerts(run(log)[1])[-1]
    assert resolved.count == 200
    assert resolved.finding_ids == [str(number) for number in range(MOST_EVIDENCE)]
    assert len(resolved.request_ids) == MOST_EVIDENCE


def test_a_rise_in_severity_is_told_at_once_and_never_falls() -> None:
    log = Log()
    for at, severity in enumerate(("warning", "critical", "info")):
        log.finding(at, severity, kind="caller_threshold", severity=severity)
    log.tick(5000)
    assert [alert.severity for alert in alerts(run(log)[1])] == ["warning", "critical", "critical"]


# --- what is broken, and what is too much


def test_a_broken_finding_is_a_dead_letter_with_its_bytes() -> None:
    unknown = msgspec.structs.replace(finding("a"), labels={"alertname": "of another version"})
    for value, reason in (
        (b"{", "not_json"),
        (b"", "empty"),
        (b'{"finding_id": 5}', "wrong_type"),
        (encode(unknown), "unknown_type"),
    ):
        log = Log()
        log.add(0, value, [("h", b"1")])
        log.finding(1, "whole")
        alerting, (letter, alert) = run(log)
        assert (letter.topic, alert.topic) == (DEADLETTERS.name, ALERTS.name)
        read = read_dead_letter(Row(0, START_MS, letter.value, letter.key, letter.headers))
        assert (read.reason, read.value, read.topic, read.partition, read.offset) == (
            reason, value, FINDINGS.name, 3, 0,
        )  # fmt: skip
        assert read.headers == [("h", b"1")]
        assert [name for name in alerting.counters if name.startswith("dead_letters.alert.")]


def test_live_alerts_are_bounded_and_the_longest_quiet_goes_first_with_a_resolve() -> None:
    log = Log()
    for number in range(5):
        log.finding(number, str(number), trigger_id=f"t{number}")
    log.finding(5, "again", trigger_id="t0")
    log.finding(6, "new", trigger_id="t5")
    alerting, out = run(log, most_firing=5)
    resolved = [alert for alert in alerts(out) if alert.status == "resolved"]
    assert [alert.trigger_id for alert in resolved] == ["t1"]
    assert alerting.counters["state_evictions.firing_alerts"] == 1
    assert alerting.firing == 5


def test_a_flood_of_pending_alerts_evicts_no_firing_one() -> None:
    log = Log()
    log.finding(0, "a")
    for number in range(100):
        log.finding(1, str(number), kind="novel_text", principal_hash=str(number))
    alerting, out = run(log, most_pending=10, most_firing=10)
    assert states(out) == [("firing", 1)]
    assert alerting.counters["state_evictions.pending_alerts"] == 90


# --- campaigns, and what is not told


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


# --- a function of the log

Step = tuple[str, int, int, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["finding", "finding", "finding", "again", "told", "tick", "broken"]),
        st.sampled_from([0, 1, 20, 59, 60, 61, 400, 899, 900, 901, 5000]),  # seconds since the step before
        st.integers(0, 3),  # whose
        st.sampled_from(["known_trigger", "novel_text", "denial_of_wallet", "steering"]),
    ),
    max_size=60,
)


def written(steps: list[Step]) -> Log:
    log, at, last = Log(), 0, None
    for number, (what, later, who, kind) in enumerate(steps):
        at += later
        if what == "finding":
            last = log.finding(at, f"f{number}", kind=kind, principal_hash=f"p{who}", trigger_id=f"t{who // 2}",
                               severity=("info", "warning", "critical")[number % 3],
                               extra_cost_usd=number / 7)  # fmt: skip
        elif what == "told":
            log.finding(at, f"f{number}", kind=kind, principal_hash=f"p{who}", campaign=f"c{who}")
        elif what == "again" and last is not None:
            log.add(at, last.value)
        elif what == "broken":
            log.add(at, b"[]")
        else:
            log.tick(at)
    return log


SMALL: dict[str, Any] = {"most_firing": 3, "most_pending": 2, "most_inhibited": 2, "remembered": 256}


@given(STEPS, st.data())
def test_neither_outputs_nor_state_depend_on_the_batches_or_on_restarts(
    steps: list[Step], data: st.DataObject
) -> None:
    log = written(steps)
    whole, expected = run(log, **SMALL)

    checkpoints: dict[bytes, bytes | None] = {}
    part, out, at = Alerting(RULES, **SMALL), [], 0
    while at < len(log.rows):
        upto = data.draw(st.integers(at + 1, len(log.rows)))
        out += part.apply(log.rows[at:upto])
        at = upto
        then = data.draw(st.sampled_from(["go on", "checkpoint", "restart"]))
        if then == "go on":
            continue
        changes = part.changes()
        assert changes[-1][0] == MARKER_KEY
        checkpoints |= dict(changes)
        if then == "restart":
            before, part = part.snapshot(), Alerting(RULES, **SMALL)
            for key, value in sorted(checkpoints.items()):  # compaction keeps the last of each, in some order
                part.load(key, value)
            part.loaded()
            assert part.snapshot() == before
    assert out == expected
    assert part.snapshot() == whole.snapshot()
    assert part.waiting() == whole.waiting()


@given(STEPS)
def test_each_alert_fires_once_and_resolves_exactly_once(steps: list[Step]) -> None:
    log = written(steps)
    log.tick(10**6)
    alerting, out = run(log, **SMALL)
    by_id: dict[str, list[Alert]] = {}
    for alert in alerts(out):
        by_id.setdefault(alert.alert_id, []).append(alert)
    for history in by_id.values():
        assert [alert.sequence for alert in history] == list(range(1, len(history) + 1))
        assert [alert.status for alert in history[:-1]] == ["firing"] * (len(history) - 1)
        assert history[-1].status == "resolved"
    assert alerting.firing == 0
    counters = alerting.counters
    assert counters["alert_transitions.firing"] == counters["alert_transitions.resolved"] == len(by_id)


@given(STEPS, st.data())
def test_redelivered_findings_change_nothing(steps: list[Step], data: st.DataObject) -> None:
    """A detect lane that restarts publishes again the findings since its checkpoint, in order, later."""
    once = written([step for step in steps if step[0] in ("finding", "tick")])
    end = once.rows[-1].timestamp / 1000 - START.timestamp() if once.rows else 0
    since = data.draw(st.integers(0, len(once.rows)))
    again = Log(list(once.rows))
    pause = data.draw(st.sampled_from([0, 899, 5000]))
    for row in once.rows[since:]:
        again.add(end + pause, row.value, row.headers)
    for log in (once, again):
        log.tick(end + 20_000)
    assert alert_stories(run(once)[1]) == alert_stories(run(again)[1])


def alert_stories(outputs: Sequence[Output]) -> list[tuple[str, str, int, Any, Any]]:
    return [
        (a.alert_id, a.status, a.count, a.starts_at, a.ends_at) for a in alerts(outputs) if a.status != "firing"
    ]
