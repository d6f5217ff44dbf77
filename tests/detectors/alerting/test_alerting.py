"""The alerts' state machine: once per identity, whatever is redelivered, wherever a batch is cut."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from detectors.alerting import MARKER_KEY, Alerting
from detectors.alerting.episode import MOST_EVIDENCE
from detectors.kinds import fingerprint
from detectors.processor import Output
from schemas.alerts import Alert
from schemas.codec import encode, read_dead_letter
from schemas.topics import ALERTS, DEADLETTERS, FINDINGS
from tests.detectors.alerting.log import RULES, START, START_MS, Log, Row, alerts, finding, run, states

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
