"""The draw: secret, principals first, the same whenever the log is read again; and untrusted reports."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.audited import AUDITED
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Output, Record
from detectors.thresholds import Thresholds
from detectors.tickets import MOST_OF_TENANT, MOST_REPORTED, MOST_WEIGHT, Canary, Sampling, Tickets, read_canaries
from schemas.audits import AuditTicket, UnsafeReport
from schemas.events import AnyEvent
from schemas.signatures import derived, signer
from schemas.topics import REPORTS, TICKETS
from schemas.verdicts import Reason, Verdict
from tests.factories import NOON_MS, at, outcome, records, request, route

KEY = "a secret of the tests only"
HOUR = 3_600_000
DAY = 24 * HOUR
START = NOON_MS - NOON_MS % DAY  # a day's first moment
PANEL = build_panel(Thresholds())


def tickets_of(outputs: list[Output]) -> list[AuditTicket]:
    return [msgspec.json.decode(o.value, type=AuditTicket) for o in outputs if o.topic == TICKETS.name]


def draw(**changes: Any) -> Tickets:
    return Tickets(Sampling(**{"key": KEY, "share": 1.0, **changes}), Thresholds())


def verdict(number: int, principal: str, score: float = 0.5, tenant: str = "t1", **fields: Any) -> Verdict:
    return Verdict(**{
        "verdict_id": f"v{number}", "request_id": f"r{number}", "event_id": f"e{number}", "event_time": at(START),
        "time": at(START), "tenant_id": tenant, "principal_hash": principal, "decision": "clean",
        "scores": {name: score * Thresholds()[audited.parameter] for name, audited in AUDITED.items()},
        "selected_model": "small", "difficulty_score": 0.4, **fields,
    })  # fmt: skip


def run(draw: Tickets, sent: list[tuple[str, float, int]]) -> list[AuditTicket]:
    """Verdicts of (principal, score, stream time), and one a day later that closes the last period."""
    outputs: list[Output] = []
    for number, (principal, score, time_ms) in enumerate(sent):
        outputs += draw.see(verdict(number, principal, score), "maths", time_ms)
    outputs += draw.see(verdict(len(sent), "the end"), "", sent[-1][2] + 2 * DAY)
    return tickets_of(outputs)


def test_a_flood_gets_no_more_tickets_than_one_request() -> None:
    sent = [("flood", 0.5, START + i) for i in range(5_000)] + [("quiet", 0.5, START + 5_001)]
    assert Counter(ticket.principal_hash for ticket in run(draw(), sent)) == {"flood": 1, "quiet": 1}


def test_at_most_so_many_a_day_and_the_next_day_again() -> None:
    sent = [("p", 0.5, START + hour * HOUR) for hour in range(48)]
    days = Counter(ticket.issued_at.date() for ticket in run(draw(per_day=3), sent))
    assert sorted(days.values()) == [3, 3]


def test_a_ticket_says_what_was_judged_and_how_long_it_holds() -> None:
    (ticket,) = run(draw(ticket_ms=DAY), [("p", 0.9995, START)])
    assert signer(ticket, {"1": derived(KEY, "tickets")}) == "1"
    assert (ticket.request_id, ticket.principal_hash, ticket.route, ticket.category) == (
        "r0",
        "p",
        "small",
        "maths",
    )
    assert ticket.parameter == AUDITED[ticket.detector].parameter
    assert ticket.threshold == Thresholds()[ticket.parameter]
    assert (ticket.expires_at - ticket.issued_at).total_seconds() == 86_400
    assert ticket.issued_at > at(START), "a ticket is worth nothing before it is issued"


def test_the_share_of_principals_that_is_drawn_and_who_depends_on_the_key_and_the_period() -> None:
    sent = [(f"p{i}", 0.5, START + i) for i in range(4_000)]
    chosen = {ticket.principal_hash for ticket in run(draw(share=0.1), sent)}
    assert 330 < len(chosen) < 470
    other = {ticket.principal_hash for ticket in run(draw(share=0.1, key="another secret of tests"), sent)}
    later = [(principal, score, time_ms + HOUR) for principal, score, time_ms in sent]
    next_hour = {ticket.principal_hash for ticket in run(draw(share=0.1), later)}
    assert len(chosen & other) < 100
    assert len(chosen & next_hour) < 100


def test_weighted_labels_estimate_the_mean_over_principals_whatever_a_flood_does() -> None:
    """One principal in ten sends 200 harmless requests and one bad one; the rest send one bad in four."""
    sent, truth = [], []
    for i in range(3_000):
        if i % 10:
            scores = [0.99 if bad else 0.5 for bad in (i % 3 == 0, False, False, False)]
        else:
            scores = [0.5] * 200 + [0.99]
        sent += [(f"p{i}", score, START + i) for score in scores]
        truth.append(sum(score == 0.99 for score in scores) / len(scores))
    found = [ticket for ticket in run(draw(), sent) if ticket.detector != "triggers"]  # no scores but with reasons
    assert all(0 < ticket.weight <= MOST_WEIGHT for ticket in found)
    bad = sum(ticket.weight * (ticket.stratum != "rest") for ticket in found)
    expected = sum(truth) / len(truth)
    assert bad / len(found) == pytest.approx(expected, rel=0.12)
    assert sum(ticket.weight for ticket in found) / len(found) == pytest.approx(1, abs=0.03)


def test_what_a_detector_could_not_score_on_its_thresholds_scale_is_not_asked_about() -> None:
    outputs: list[Output] = []
    tickets = draw()
    contradiction = Reason(
        detector="difficulty", detector_version="1", score=3.0, threshold=2.0, kind="tier_contradiction"
    )
    for i in range(200):
        unable = verdict(i, f"p{i}", scores={"difficulty": 3.0, "spend": 9.0}, reasons=[contradiction])
        outputs += tickets.see(unable, "", START)
    assert tickets_of([*outputs, *tickets.see(verdict(999, "end"), "", START + DAY)]) == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, 16.5),  # as much as it can be without a reason
        (Reason(detector="triggers", detector_version="1", score=35.0, threshold=36.0, kind="known_trigger",
                stage="lexical"), 21.0),
        (Reason(detector="triggers", detector_version="1", score=0.7, threshold=0.78, kind="known_trigger",
                stage="static"), None),
    ],
)  # fmt: skip
def test_what_a_catalogue_adds_to_a_threshold_is_taken_off_its_scores(
    reason: Reason | None, expected: float | None
) -> None:
    """A catalogue of thousands needs 14 bits more; what meaning decided has no score in bits."""
    draws, outputs = draw(), list[Output]()
    for i in range(60):
        scores = {"triggers": reason.score if reason else 30.0}
        outputs += draws.see(verdict(i, f"p{i}", scores=scores, reasons=[reason] if reason else []), "", START)
    found = tickets_of([*outputs, *draws.see(verdict(999, "end"), "", START + DAY)])
    assert {ticket.score for ticket in found} == ({expected} if expected is not None else set())


def test_a_tenant_with_a_threshold_of_its_own_is_asked_about_that() -> None:
    thresholds = Thresholds()
    thresholds.swap({}, 3, {(audited.parameter, "t1"): 0.1 for audited in AUDITED.values()})
    draws = Tickets(Sampling(key=KEY, share=1.0), thresholds)
    (ticket,) = run(draws, [("p", 0.5, START)])
    assert (ticket.threshold, ticket.stratum) == (0.1, "flagged")


def test_tickets_of_a_period_come_in_no_order_of_names() -> None:
    """A run of one tenant's labels would say of the fleet what is true of that tenant only."""
    sent = [(f"{tenant}{i:02}", 0.5, START) for tenant in "abcd" for i in range(50)]
    first_half = Counter(ticket.principal_hash[0] for ticket in run(draw(), sent)[:100])
    assert all(10 <= first_half[tenant] <= 40 for tenant in "abcd")


def test_canaries_look_like_any_ticket() -> None:
    known = Canary(
        request_id="known", tenant_id="t9", principal_hash="p9", detector="novelty", score=0.9, label="safe",
        difficulty_score=0.4,
    )  # fmt: skip
    found = run(draw(canaries=(known,), canary_share=0.2), [(f"p{i}", 0.5, START + i) for i in range(1_000)])
    canaries = [ticket for ticket in found if ticket.request_id == "known"]
    assert 140 < len(canaries) < 260
    assert len({ticket.ticket_id for ticket in found}) == len(found)
    plain = next(ticket for ticket in found if ticket.detector == "novelty" and ticket.request_id != "known")
    assert msgspec.to_builtins(canaries[0]).keys() <= msgspec.to_builtins(plain).keys() | {"stratum"}
    assert all(signer(ticket, {"1": derived(KEY, "tickets")}) for ticket in canaries)


def test_a_file_of_canaries_is_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "canaries.jsonl"
    line = (
        b'{"request_id":"r","tenant_id":"t","principal_hash":"p","detector":"novelty","score":0.5,"label":"safe"}'
    )
    path.write_bytes(line + b"\n\n" + line)
    assert [canary.request_id for canary in read_canaries(path)] == ["r", "r"]
    for wrong in (line.replace(b"novelty", b"spend"), line.replace(b"safe", b"fine"), b"[]"):
        path.write_bytes(line + b"\n" + wrong)
        with pytest.raises(ValueError, match=r"canaries\.jsonl:2: "):
            read_canaries(path)


@settings(max_examples=60)
@given(st.data())
def test_a_restart_at_any_point_draws_the_same(data: st.DataObject) -> None:
    sent = data.draw(
        st.lists(
            st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.2, 0.95, 0.9995]), st.integers(0, 30 * HOUR)),
            min_size=2,
            max_size=40,
        ),
    )
    sent = sorted(((p, s, START + t) for p, s, t in sent), key=lambda item: item[2])
    cut = data.draw(st.integers(1, len(sent) - 1))
    whole = draw(per_day=2, share=0.7)
    expected = run(whole, sent)
    before, after = draw(per_day=2, share=0.7), draw(per_day=2, share=0.7)
    outputs: list[Output] = []
    for number, (principal, score, time_ms) in enumerate(sent[:cut]):
        outputs += before.see(verdict(number, principal, score), "maths", time_ms)
    for key, value in before.changes():
        after.load(key, value)
    assert after.snapshot() == before.snapshot()
    for number, (principal, score, time_ms) in enumerate(sent[cut:], cut):
        outputs += after.see(verdict(number, principal, score), "maths", time_ms)
    outputs += after.see(verdict(len(sent), "the end"), "", sent[-1][2] + 2 * DAY)
    assert tickets_of(outputs) == expected
    assert after.snapshot() == whole.snapshot()


# --- in the judge


def judged(events: list[AnyEvent], sampling: Sampling | None, sizes: int = 10**9) -> tuple[list[Output], Judge]:
    made = Judge(PANEL, [], JudgeLimits(), 0, None, Tickets(sampling, PANEL.thresholds) if sampling else None)
    log: list[Record] = list(records(events, step_ms=60_000))
    outputs: list[Output] = []
    for start in range(0, len(log), sizes):
        outputs += made.apply(log[start : start + sizes])
    return outputs, made


def traffic(principals: int = 12, rounds: int = 15) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    for n in range(principals * rounds):
        rid, principal, time_ms = f"r{n}", f"p{n % principals}", NOON_MS + n * 120_000
        events += [request(rid, principal, time_ms), route(rid, principal, time_ms)]
    return events


def test_the_judge_issues_tickets_only_with_a_key_and_whatever_the_batches() -> None:
    events = traffic()
    sampling = Sampling(key=KEY, share=1.0)
    whole, judge = judged(events, sampling)
    assert len(tickets_of(whole)) > 10
    cut, other = judged(events, sampling, 7)
    assert cut == whole
    assert other.snapshot() == judge.snapshot()
    assert any(key.startswith(b"d/tickets/") for key in judge.snapshot())
    off, _ = judged(events, None)
    assert off == [output for output in whole if output.topic not in (TICKETS.name, REPORTS.name)]


def test_a_checkpoint_carries_the_draw() -> None:
    events = traffic()
    sampling = Sampling(key=KEY, share=1.0)
    whole, judge = judged(events, sampling)
    first, half = judged(events[: len(events) // 2], sampling)
    restored = Judge(PANEL, [], JudgeLimits(), 0, None, Tickets(sampling, PANEL.thresholds))
    for key, value in half.changes():
        restored.load(key, value)
    restored.loaded()
    rest = restored.apply(list(records(events, step_ms=60_000)))
    assert tickets_of([*first, *rest]) == tickets_of(whole)
    assert restored.snapshot() == judge.snapshot()


def test_only_unsafe_outcomes_of_unflagged_requests_are_reported_once_a_tenant_route_and_period() -> None:
    events: list[AnyEvent] = []
    for n, (tenant, label) in enumerate(
        [("t1", "unsafe"), ("t1", "unsafe"), ("t2", "safe"), ("t2", "refused"), ("t3", "unsafe"), ("t3", "")]
    ):
        rid = f"r{n}"
        events += [
            request(rid, f"p{n}", tenant_id=tenant),
            route(rid, f"p{n}", tenant_id=tenant, category="maths"),
            outcome(rid, f"p{n}", tenant_id=tenant, evaluation_score_label=label, outcome_source="operator"),
        ]
    made = Judge(PANEL, [], JudgeLimits(), 0, None, Tickets(Sampling(key=KEY), PANEL.thresholds))
    outputs = made.apply(list(records(events)))
    found = [msgspec.json.decode(o.value, type=UnsafeReport) for o in outputs if o.topic == REPORTS.name]
    assert [(r.tenant_id, r.request_id, r.route, r.category) for r in found] == [
        ("t1", "r0", "small", "maths"), ("t3", "r4", "small", "maths"),
    ]  # fmt: skip


def test_who_was_drawn_and_not_asked_about_is_in_the_checkpoint() -> None:
    made, again = draw(), draw()
    made.see(verdict(1, "p", scores={}), "maths", START)
    for key, value in made.changes():
        again.load(key, value)
    assert again.snapshot() == made.snapshot() != {}


def test_made_up_categories_silence_their_tenant_alone_for_a_period_and_after_a_restart_too() -> None:
    def report(tickets: Tickets, tenant: str, category: str, time_ms: int = START) -> int:
        asked = request("r", "p", tenant_id=tenant)
        routed = route("r", "p", tenant_id=tenant, category=category)
        told = outcome("r", "p", tenant_id=tenant, evaluation_score_label="unsafe")
        return len(tickets.report(asked, routed, told, time_ms))

    made = draw()
    assert sum(report(made, "loud", f"made up {n}") for n in range(MOST_REPORTED)) == MOST_OF_TENANT
    assert report(made, "quiet", "maths") == 1
    again = draw()
    for key, value in made.changes():
        again.load(key, value)
    for tickets in (made, again):
        assert report(tickets, "loud", "one more") == 0
        assert report(tickets, "other", "maths") == 1
        tickets.see(verdict(1, "p"), "maths", START + 2 * DAY)
        assert report(tickets, "loud", "one more", START + 2 * DAY) == 1


def test_an_unsafe_outcome_of_a_flagged_request_is_no_miss() -> None:
    trigger = PANEL.catalogue.triggers[0].text
    events: list[AnyEvent] = [request(prompt_text=trigger), route(), outcome(evaluation_score_label="unsafe")]
    made = Judge(PANEL, [], JudgeLimits(), 0, None, Tickets(Sampling(key=KEY), PANEL.thresholds))
    assert REPORTS.name not in {output.topic for output in made.apply(list(records(events)))}
    assert made.counters["verdicts.flagged"] == 1
