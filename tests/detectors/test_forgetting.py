"""An erased principal leaves no trace in any state, and nobody else loses anything."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from detectors.alerting import Alerting
from detectors.detections import shipped
from detectors.discovery.campaigns import Campaigns
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Output, Processor, Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas import topics
from schemas.alerts import Alert
from schemas.codec import ERASE_HEADERS, encode
from schemas.erasures import Erasure, Erasures
from schemas.events import AnyEvent, CounterfactualScore
from schemas.topics import EVENTS, FINDINGS
from schemas.verdicts import Finding, Verdict, WindowUse
from streams.replay import FileRecord
from tests.factories import NOON_MS, at, outcome, request, route

PANEL = build_panel(Thresholds())
GONE, STAYS = "hmac-sha256:1:" + "a" * 64, "hmac-sha256:1:" + "b" * 64
ABLATED = CounterfactualScore(ablation="head", tokens=9, difficulty_score=0.1)
ERASURE = Erasure(tenant_id="t1", principal_hash=GONE, until=at(NOON_MS + 10**6))


def judge() -> Judge:
    return Judge(PANEL, stream_detectors(PANEL.thresholds), JudgeLimits())


def log(*more: AnyEvent | Erasure | bytes, each: int = 60) -> list[FileRecord]:
    """Traffic of both principals, a request of both that waits for its route, and `more`."""
    values: list[AnyEvent | Erasure | bytes] = []
    for number in range(each):
        for who in (GONE, STAYS):
            rid, prompt = f"{who[-1]}{number}", f"Please list the first {number} rivers of Norway."
            values += [
                request(rid, who, prompt_text=prompt), route(rid, who, counterfactual_scores=[ABLATED]),
                outcome(rid, who),
            ]  # fmt: skip
    values += [request("last-a", GONE), request("last-b", STAYS), *more]
    return [as_record(value, offset) for offset, value in enumerate(values)]


def as_record(value: AnyEvent | Erasure | bytes, offset: int) -> FileRecord:
    headers = ERASE_HEADERS if isinstance(value, Erasure | bytes) else ()
    data = value if isinstance(value, bytes) else encode(value)
    return FileRecord(EVENTS.name, offset, NOON_MS + 10 * offset, data, b"key", headers)


def names(state: dict[bytes, bytes], principal: str) -> list[bytes]:
    return [key for key, value in state.items() if principal.encode() in key + value]


def verdicts(outputs: Sequence[Output]) -> list[str]:
    return [
        msgspec.json.decode(output.value, type=Verdict).request_id
        for output in outputs
        if output.topic == topics.VERDICTS.name
    ]


def test_every_detectors_state_forgets_and_keeps_the_others() -> None:
    before, after = judge(), judge()
    before.apply(log())
    after.apply(log(ERASURE))
    held = before.snapshot()
    of = {key.split(b"/")[1] for key in names(held, GONE) if key.startswith(b"d/")}
    assert of >= {b"spend", b"steering", b"probing"}  # so the test plants something in each
    assert names(after.snapshot(), GONE) == []
    kept = after.snapshot()
    assert {key: kept[key] for key in names(held, STAYS)} == {key: held[key] for key in names(held, STAYS)}
    assert after.counters["oddities.erased_principal"] == 1
    assert after.counters["joins.erased"] == 61


def test_the_next_checkpoint_deletes_the_keys() -> None:
    subject, log_ = judge(), log(ERASURE)
    subject.apply(log_[:-1])
    stored = dict(subject.changes())
    subject.apply(log_[-1:])
    delta = dict(subject.changes())
    assert all(key in delta and delta[key] is None for key in names({k: v or b"" for k, v in stored.items()}, GONE))
    restarted = judge()
    for key, value in {**stored, **delta}.items():
        restarted.load(key, value)
    restarted.loaded()
    assert restarted.snapshot() == subject.snapshot()


def test_how_records_are_batched_makes_no_difference() -> None:
    whole, single, log_ = judge(), judge(), log(ERASURE, request("after", GONE), route("after", GONE))
    whole.apply(log_)
    for record in log_:
        single.apply([record])
    assert whole.snapshot() == single.snapshot()


def test_what_waits_is_gone_and_what_comes_later_is_judged_anew() -> None:
    subject, later = judge(), NOON_MS + 10_000_000
    log_ = log(ERASURE, request("after", GONE), route("after", GONE), each=0)
    end = FileRecord(EVENTS.name, len(log_), later, encode(request("end", STAYS, later)))
    assert verdicts(subject.apply([*log_, end])) == ["after", "last-b"]


def test_what_claims_to_be_an_erasure_and_is_not_is_a_dead_letter() -> None:
    subject = judge()
    outputs = subject.apply(log(b'{"tenant_id": 7}', each=0))
    assert [output.topic for output in outputs] == [topics.DEADLETTERS.name]
    assert names(subject.snapshot(), GONE)


# --- the fleet lane


def finding(number: int, principal: str, kind: str = "denial_of_wallet", trigger: str = "") -> Finding:
    """As it is addressed to the detection of its kind's name."""
    made = Finding(
        finding_id=f"f{number}", kind=kind, category="cost_escalation", severity="info", time=at(NOON_MS),
        labels={}, detector="spend", detector_version="1", tenant_id="t1", principal_hash=principal,
        request_id=f"r{number}", trigger_id=trigger,
    )  # fmt: skip
    return next(found for found in shipped().addressed(made) if found.labels["alertname"] == kind)


def of_findings(*values: Finding | Erasure) -> list[FileRecord]:
    return [
        FileRecord(FINDINGS.name, n, NOON_MS + n, encode(value), b"key",
                   ERASE_HEADERS if isinstance(value, Erasure) else ())
        for n, value in enumerate(values)
    ]  # fmt: skip


def alerts(subject: Processor, records: Sequence[Record]) -> list[tuple[str, str, str]]:
    found = [
        msgspec.json.decode(o.value, type=Alert) for o in subject.apply(records) if o.topic == topics.ALERTS.name
    ]
    return [(alert.alertname, alert.principal_hash[-1:], alert.status) for alert in found]


def test_alerts_about_the_principal_end_and_others_forget_it() -> None:
    subject = Alerting(shipped())
    said = alerts(subject, of_findings(
        finding(1, GONE, "known_trigger", "own"), finding(2, STAYS, "known_trigger", "theirs"),
        finding(3, GONE, "known_trigger", "both"), finding(4, STAYS, "known_trigger", "both"),
        finding(5, GONE, "novel_text"), ERASURE,
    ))  # fmt: skip
    assert [(principal, status) for _, principal, status in said if status == "resolved"] == [("a", "resolved")]
    state = subject.snapshot()
    assert names(state, GONE) == []
    assert len(names(state, STAYS)) == 2
    assert subject.firing == 2


def test_a_campaign_keeps_members_whose_name_only_contains_the_erased_one() -> None:
    subject = Alerting(shipped())
    other_tenant = msgspec.structs.replace(finding(2, GONE, "known_trigger", "both"), tenant_id="t2")
    longer = finding(3, f"{GONE}0", "known_trigger", "both")
    alerts(subject, of_findings(finding(1, GONE, "known_trigger", "both"), other_tenant, longer, ERASURE))
    (episode,) = [msgspec.msgpack.decode(value) for value in subject.snapshot().values() if b"members" in value]
    assert set(episode["members"]) == {f"t2\0{GONE}", f"t1\0{GONE}0"}


def candidate(number: int, principal: str, window: str) -> Finding:
    use = WindowUse(bodies=3, residual=0.5, rest=[1, 2, 3], tokens=[*window.encode()])
    return Finding(
        finding_id=f"c{number}", kind="trigger_candidate", category="cost_escalation", severity="info",
        time=at(NOON_MS), labels={}, detector="discovery", detector_version="1", tenant_id="t1",
        principal_hash=principal, request_id=f"r{number}", window=window, direction="up", use=use,
    )  # fmt: skip


def test_uses_of_a_window_are_forgotten_and_a_window_of_the_principal_alone() -> None:
    subject = Campaigns(shipped(), Thresholds(), transplants=False)
    subject.apply(of_findings(candidate(1, GONE, "own"), candidate(2, GONE, "both"), candidate(3, STAYS, "both")))
    assert len(names(subject.snapshot(), GONE)) == 2
    subject.apply([replace(of_findings(ERASURE)[0], offset=3)])
    assert names(subject.snapshot(), GONE) == []
    assert [key.rsplit(b"/", 1)[-1] for key in names(subject.snapshot(), STAYS)] == [b"both"]


# --- tombstones


@pytest.mark.parametrize(
    ("tenant", "principal", "seconds", "covered"),
    [("t1", GONE, -1, True), ("t1", GONE, 0, False), ("t2", GONE, -1, False), ("t1", STAYS, -1, False)],
)
def test_a_tombstone_covers_one_principal_of_one_tenant_until_its_time(
    tenant: str, principal: str, seconds: int, covered: bool
) -> None:
    held = Erasures()
    held.add(ERASURE)
    held.add(Erasure(tenant_id="t1", principal_hash=GONE, until=at(NOON_MS)))  # an older one changes nothing
    assert held.cover(tenant, principal, at(NOON_MS + 10**6 + 1000 * seconds)) == covered
