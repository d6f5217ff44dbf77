"""People: who may propose, approve, pin, freeze and roll back, and what is refused."""

from typing import Any

import msgspec
import pytest

from detectors.thresholds import DEFAULTS
from schemas.codec import encode
from schemas.signatures import signed
from schemas.thresholds import ThresholdScope
from schemas.topics import DECISIONS
from tests.detectors.feedback.log import APPROVERS, DAY, FLAG, Log, canary, findings, letters, links_of, modes
from tests.factories import at


def test_a_proposal_is_approved_rejected_or_stale() -> None:
    log = Log()
    log.misses(20)
    (proposed,) = log.links()
    log.decide("approve", version=99)
    log.decide("approve", version=proposed.version)
    log.decide("approve", version=proposed.version)
    feedback, outputs = log.applied()
    assert modes(links_of(outputs)) == [("proposed", proposed.new_value), ("active", proposed.new_value)]
    assert [letter.detail for letter in letters(outputs)] == [
        "no open proposal of version 99: open are 1", "no open proposal of version 1: none is open",
    ]  # fmt: skip
    assert feedback.book.value(FLAG) == proposed.new_value
    link = links_of(outputs)[1]
    assert (link.approver, link.n_trusted) == ("ann", proposed.n_trusted)


def test_a_rejected_proposal_rests() -> None:
    log = Log()
    log.misses(20)
    log.decide("reject", version=1)
    log.misses(5)
    assert [link.mode for link in log.links()] == ["proposed", "rejected"]
    log.tick(2 * DAY)
    log.misses(1)
    assert [link.mode for link in log.links()] == ["proposed", "rejected", "proposed"]


def test_what_was_proposed_on_evidence_is_void_once_evidence_moves_by_itself() -> None:
    log = Log(mode="active", canaries=tuple(canary(n, "unsafe") for n in range(40)))
    log.misses()
    for _ in range(150):
        log.label("safe", score=0.65)
        log.tick(60_000)
    proposal = log.links()[-1]
    assert proposal.mode == "proposed", "the judge is not measured"
    for n in range(40):
        log.label("unsafe", request_id=f"c{n}", tenant_id="t9")
    for _ in range(150):
        log.label("safe", score=0.65)
    assert log.links()[-1].mode == "active"
    log.decide("approve", version=proposal.version)
    assert letters(log.applied()[1])[-1].detail == f"no open proposal of version {proposal.version}: none is open"


def test_a_proposal_that_nobody_settles_lapses_and_makes_room_for_the_evidences() -> None:
    log = Log()
    log.decide("propose", value=0.75)
    log.misses(20)
    assert [link.mode for link in log.links()] == ["proposed"], "people settle theirs first"
    assert log.applied()[0].waiting(), "a quiet log needs ticks for it"
    log.tick(8 * DAY)
    log.misses(1)
    assert [(link.mode, link.cause) for link in log.links()] == [
        ("proposed", "manual"), ("rejected", "expiry"), ("proposed", "auto"),
    ]  # fmt: skip


def test_a_proposal_is_not_approved_after_its_week() -> None:
    log = Log()
    log.decide("propose", value=0.75)
    log.time_ms += 20 * DAY
    log.decide("approve", version=1)  # the first record since: nothing else has told the time
    feedback, outputs = log.applied()
    assert [letter.detail for letter in letters(outputs)] == ["nobody settled it within a week"]
    assert [(link.mode, link.cause) for link in links_of(outputs)] == [
        ("proposed", "manual"),
        ("rejected", "expiry"),
    ]
    assert feedback.book.value(FLAG) == 0.8


def test_an_override_expires_and_a_pin_stays_until_it_is_taken_out() -> None:
    log = Log(mode="active")
    log.decide("propose", value=0.65, expires_at=at(log.time_ms + DAY))
    log.decide("approve", version=1)
    log.misses(20)  # evidence does not move what people hold
    log.tick(DAY + 60_000)
    links = log.links()
    assert [(link.mode, link.cause) for link in links] == [
        ("proposed", "manual"), ("active", "manual"), ("proposed", "auto"), ("active", "expiry"),
        ("active", "auto"),
    ]  # fmt: skip
    assert links[1].expires_at is not None
    log = Log(mode="active")
    log.decide("pin")
    log.misses(20)
    log.decide("unpin")
    assert [link.mode for link in log.links()] == ["pinned", "proposed", "active", "active"]


def test_frozen_nothing_moves_by_itself() -> None:
    log = Log(mode="active")
    log.decide("freeze", parameter="")
    log.misses(20)
    for n in range(10):
        log.report(f"t{n}", f"p{n}")
    feedback, outputs = log.applied()
    assert [link.mode for link in links_of(outputs)] == ["pinned", "proposed"]
    assert feedback.book.value(FLAG) == 0.8
    log.decide("unfreeze", parameter="")
    assert log.applied()[0].book.value(FLAG) < 0.8


def test_past_the_ceiling_two_approvers_with_keys() -> None:
    log = Log()
    log.decide("propose", value=0.9)
    log.decide("approve", version=1)
    assert "two approvers" in letters(log.applied()[1])[0].detail

    log = Log(approvers=APPROVERS)
    log.decide("propose", value=0.9)
    log.decide("approve", version=1)
    log.decide("approve", version=2)
    assert log.applied()[0].book.value(FLAG) == 0.8, "one person, twice"
    log.decide("approve", "ben", version=2)
    feedback, outputs = log.applied()
    assert feedback.book.value(FLAG) == 0.9
    links = links_of(outputs)
    assert [(link.mode, link.approver) for link in links] == [
        ("proposed", ""), ("proposed", "ann"), ("active", "ann, ben"),
    ]  # fmt: skip
    log.decide("rollback", version=2)
    assert log.applied()[0].book.value(FLAG) == 0.8


def test_one_approver_does_not_make_the_loosening_of_two_last() -> None:
    log = Log(approvers=APPROVERS)
    log.decide("propose", value=0.9, expires_at=at(log.time_ms + DAY // 2))
    log.decide("approve", version=1)
    log.decide("approve", "ben", version=2)
    log.decide("pin")
    log.tick(DAY)
    feedback, outputs = log.applied()
    assert "beyond its ceiling" in letters(outputs)[0].detail
    assert links_of(outputs)[-1].cause == "expiry"
    assert feedback.book.value(FLAG) == 0.8


@pytest.mark.parametrize("parameter", ["discovery.alike", "discovery.error", "discovery.queries"])
def test_what_finds_less_when_lower_is_loosened_by_two_and_tightened_by_one(parameter: str) -> None:
    log = Log()
    ships = DEFAULTS[parameter]
    log.decide("propose", parameter=parameter, value=ships / 2)
    log.decide("approve", version=1)
    feedback, outputs = log.applied()
    assert "two approvers" in letters(outputs)[0].detail
    assert links_of(outputs)[0].direction == "loosen"
    assert feedback.book.value(parameter) == ships
    log = Log()
    log.decide("propose", parameter=parameter, value=ships * 2)
    log.decide("approve", version=1)
    assert log.links()[-1].direction == "tighten"
    assert log.applied()[0].book.value(parameter) == ships * 2


@pytest.mark.parametrize("parameter", sorted(DEFAULTS))
def test_no_threshold_is_set_to_nothing_or_to_anything(parameter: str) -> None:
    """Detectors divide by some of them and take logarithms."""
    log = Log(ratchets={})
    for value in (0.0, -1.0, 5e-324, 1e9):
        log.decide("propose", parameter=parameter, value=value)
    _, outputs = log.applied()
    assert [f"{parameter} lies between" in letter.detail for letter in letters(outputs)] == [True] * 4
    assert links_of(outputs) == []


def test_decisions_must_be_signed_where_approvers_have_keys() -> None:
    log = Log(approvers=APPROVERS)
    good = log.decide("propose", value=0.7)
    log.append(DECISIONS, signed(msgspec.structs.replace(good, decision_id="x", value=0.1), b"guessed", "ann"))
    as_ben = msgspec.structs.replace(good, decision_id="y", actor="ben")
    log.append(DECISIONS, signed(as_ben, APPROVERS["ann"].encode(), "ann"))
    log.append(DECISIONS, encode(good))
    feedback, outputs = log.applied()
    assert len(links_of(outputs)) == 1
    assert [letter.detail for letter in letters(outputs)] == [
        "not signed by its actor", "not signed by its actor", "decided before",
    ]  # fmt: skip
    assert [f.stage for f in findings(outputs)] == ["forged decision"] * 2
    assert feedback.counters["dead_letters.audit.refused"] == 3


def test_an_old_decision_is_not_carried_out() -> None:
    log = Log()
    log.decide("pin", time=at(log.time_ms - 2 * 3_600_000))
    assert "more than an hour" in letters(log.applied()[1])[0].detail


@pytest.mark.parametrize(
    ("action", "fields", "why"),
    [
        ("propose", {"value": None}, "needs a value"),
        ("propose", {"value": 0.8}, "is in force"),
        ("propose", {"value": 0.7, "parameter": "nonsense"}, "no such threshold"),
        ("propose", {"value": 0.7, "scope": ThresholdScope(route="small")}, "all routers and routes"),
        ("propose", {"value": 0.81, "scope": ThresholdScope(tenant_id="t1")}, "never looser than the fleet's"),
        ("pin", {"parameter": "spend.rate", "scope": ThresholdScope(tenant_id="t1")}, "of novelty.flag only"),
        ("propose", {"value": 1.0, "parameter": "routing.guardrail"}, "needs a route and a category"),
        ("propose", {"value": 0.7, "expires_at": at(0)}, "would have expired"),
        ("unpin", {}, "nobody holds it"),
        ("unfreeze", {}, "is so already"),
        ("rollback", {}, "which version"),
        ("rollback", {"version": 7}, "which version"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(action: str, fields: dict[str, Any], why: str) -> None:
    log = Log()
    log.decide(action, **fields)
    feedback, outputs = log.applied()
    assert why in letters(outputs)[0].detail
    assert links_of(outputs) == []
    assert feedback.book.value(FLAG) == 0.8


def test_rollback_takes_one_or_all_to_what_they_were() -> None:
    log = Log()
    for parameter, value in ((FLAG, 0.7), ("triggers.share", 0.4), (FLAG, 0.65)):
        log.decide("propose", parameter=parameter, value=value)
        log.decide("approve", parameter=parameter, version=len(log.links()))
    assert log.applied()[0].book.chain.head.version == 6
    log.decide("rollback", version=2)
    book = log.applied()[0].book
    assert (book.value(FLAG), book.value("triggers.share")) == (0.7, 0.4)
    log.decide("rollback", version=2, parameter="")
    book = log.applied()[0].book
    assert (book.value(FLAG), book.value("triggers.share")) == (0.7, DEFAULTS["triggers.share"])


def test_a_decision_about_a_route_is_one_approval() -> None:
    log = Log()
    scope = ThresholdScope(router_name="main", route="small", category="maths")
    log.decide("propose", parameter="routing.guardrail", scope=scope, value=1.0, cost_usd_per_day=12.5)
    log.decide("approve", parameter="routing.guardrail", version=1)
    feedback, outputs = log.applied()
    assert feedback.book.value("routing.guardrail", scope) == 1.0
    assert [link.cost_usd_per_day for link in links_of(outputs)] == [12.5, 12.5]


def test_people_decide_about_a_tenants_own_threshold() -> None:
    log = Log()
    scope = ThresholdScope(tenant_id="t1")
    log.decide("propose", value=0.65, scope=scope)
    log.decide("approve", version=1)
    log.decide("propose", value=0.7)
    log.decide("approve", version=3)
    log.decide("rollback", version=2, scope=scope)
    log.decide("unpin", scope=scope)
    feedback, outputs = log.applied()
    assert [(link.scope.tenant_id, link.mode, link.new_value) for link in links_of(outputs)] == [
        ("t1", "proposed", 0.65), ("t1", "active", 0.65), ("", "proposed", 0.7), ("", "active", 0.7),
        ("t1", "active", 0.8),
    ]  # fmt: skip
    assert [letter.detail for letter in letters(outputs)] == ["nothing was different then"]
    assert feedback.book.value(FLAG) == 0.7
