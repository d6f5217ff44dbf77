"""The lane's judgement on one log: what counts, and what it moves; the same whenever it is read."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.audited import AUDITED
from detectors.feedback import RATCHETS, Feedback
from detectors.feedback.processor import MOST_BYTES
from detectors.ratchet import Move, Ratchet
from detectors.thresholds import DEFAULTS, Thresholds
from schemas.codec import encode
from schemas.signatures import chain_problems, derived, signed
from schemas.thresholds import ThresholdScope, ThresholdUpdate
from schemas.topics import AUDITS, EVENTS, REPORTS
from streams.replay import FileRecord
from tests.detectors.feedback.log import (
    APPROVERS,
    DAY,
    FLAG,
    KEY,
    QUICK,
    UPDATE_KEYS,
    Log,
    canary,
    findings,
    letters,
    links_of,
    modes,
    ratchet_of,
)
from tests.factories import at


def test_the_shipped_ratchets_are_about_audited_thresholds_and_begin_at_what_ships() -> None:
    assert set(RATCHETS) == {audited.parameter for audited in AUDITED.values()}
    for parameter, config in RATCHETS.items():
        assert config.grid[config.start] == config.grid[config.ceiling] == DEFAULTS[parameter]


# --- labels


def test_what_the_relay_cut_is_too_large_and_once() -> None:
    log = Log()
    for _ in range(2):
        log.append(AUDITS, b" " * (MOST_BYTES + 1), origin=0)
    _, outputs = log.applied()
    assert [letter.reason for letter in letters(outputs)] == ["too_large"]


def test_misses_make_one_proposal_with_its_evidence_and_move_nothing() -> None:
    log = Log()
    log.misses(30)
    feedback, outputs = log.applied()
    (link,) = links_of(outputs)
    assert (link.mode, link.cause, link.old_value, link.direction) == ("proposed", "auto", 0.8, "tighten")
    assert link.new_value < 0.8
    assert link.n_trusted > 1
    assert (link.e_value or 0) >= 20
    assert feedback.book.value(FLAG) == 0.8
    assert feedback.counters["audit_labels.counted"] == 30


def test_misses_that_no_threshold_of_the_grid_would_stop_are_said() -> None:
    log = Log(mode="active")
    log.misses(30)
    assert not findings(log.applied()[1]), "0.7 stops them"
    for _ in range(40):
        log.label("unsafe", score=0.1)
    feedback, outputs = log.applied()
    assert feedback.book.value(FLAG) == 0.6
    assert {(f.kind, f.stage, f.labels["alertname"]) for f in findings(outputs)} == {
        ("threshold_at_floor", FLAG, "threshold_at_floor")
    }


def test_observing_says_nothing_and_a_shadow_is_published_beside() -> None:
    log = Log(mode="observe")
    log.misses(30)
    assert log.links() == []
    log = Log(mode="shadow")
    log.misses(30)
    (link,) = log.links()
    assert link.mode == "shadow"
    assert log.applied()[0].book.value(FLAG) == 0.8


def test_active_tightens_and_loosens_back_only_once_the_judges_are_measured() -> None:
    known = tuple(canary(n, "unsafe") for n in range(40))
    log = Log(mode="active", canaries=known)
    log.misses()
    (tightened,) = log.links()
    assert (tightened.mode, tightened.cause) == ("active", "auto")

    def quiet() -> None:
        for _ in range(150):
            log.label("safe", score=0.65)
            log.tick(60_000)

    quiet()
    links = log.links()
    assert modes(links)[1:2] == [("proposed", links[1].new_value)], "nobody knows how good the judge is"
    for n in range(40):
        log.label("unsafe", request_id=f"c{n}", tenant_id="t9")
    quiet()
    after = log.links()[len(links) :]
    assert [(link.mode, link.direction) for link in after][:1] == [("active", "loosen")]
    assert all(link.new_value <= 0.8 for link in after)


def test_what_was_bet_before_the_judge_was_measured_does_not_loosen_once_it_is() -> None:
    log = Log(mode="active", canaries=tuple(canary(n, "unsafe") for n in range(60)))
    log.misses()
    for _ in range(150):
        log.label("safe", score=0.65)
        log.tick(60_000)
    before = ratchet_of(log.applied()[0])
    for n in range(60):  # it finds two of three
        log.label("safe" if n % 3 == 0 else "unsafe", request_id=f"c{n}", tenant_id="t9")
    log.label("safe", score=0.65)
    feedback, outputs = log.applied()
    after = ratchet_of(feedback)
    assert after.config.sensitivity < before.config.sensitivity == 1.0
    assert after.epoch > before.epoch
    assert not any(link.mode == "active" and link.direction == "loosen" for link in links_of(outputs))


def test_forged_altered_expired_and_replayed_tickets_count_nothing_and_are_said() -> None:
    log = Log()
    good = log.label("unsafe")
    late = log.ticket()
    altered = msgspec.structs.replace(log.ticket(), score=0.1)
    forged = signed(log.ticket(), b"a key of somebody else", "1")
    log.append(AUDITS, log.answer(altered))
    log.append(AUDITS, log.answer(forged))
    log.append(AUDITS, msgspec.structs.replace(log.answer(good.ticket), label_id="another"))
    log.tick(2 * DAY)
    log.append(AUDITS, log.answer(late))
    log.append(AUDITS, msgspec.structs.replace(log.answer(good.ticket), label_id="later"))
    feedback, outputs = log.applied()
    assert feedback.counters["audit_labels.counted"] == 1
    assert [letter.reason for letter in letters(outputs)] == ["bad_ticket"] * 5
    assert [f.stage for f in findings(outputs)] == ["forged", "forged", "replayed", "expired", "expired"]
    assert {f.labels["alertname"] for f in findings(outputs)} == {"feedback_poisoning"}


def test_what_a_former_key_signed_still_counts() -> None:
    log = Log(key="the key after it, of 2027", key_id="2", old_keys={"1": KEY})
    log.label("unsafe")
    log.append(AUDITS, log.answer(signed(log.ticket(), derived("the key after it, of 2027", "tickets"), "2")))
    assert log.applied()[0].counters["audit_labels.counted"] == 2


def test_what_is_delivered_twice_counts_once_and_is_no_attack() -> None:
    log = Log()
    label = log.label("unsafe")
    log.append(AUDITS, encode(label))  # the judge sends it again
    log.append(
        AUDITS, encode(log.label("unsafe")), origin=log.append(AUDITS, encode(log.label())) - 1
    )  # the relay does
    feedback, outputs = log.applied()
    assert feedback.counters["audit_labels.counted"] == 3
    assert feedback.counters["audit_labels.redelivered"] == 2
    assert not findings(outputs)
    assert not letters(outputs)


def test_rubbish_is_a_dead_letter_and_the_next_record_is_taken() -> None:
    log = Log()
    log.append(AUDITS, b"{}")
    log.append(EVENTS, b"{}")
    log.records.append(FileRecord("pointsman.feedback.v1", 2, log.time_ms, b"{}", b"", (("x-origin", b"x"),)))
    log.label()
    feedback, outputs = log.applied()
    assert [letter.reason for letter in letters(outputs)] == ["missing_field", "bad_envelope", "bad_envelope"]
    assert feedback.counters["audit_labels.counted"] == 1


# --- the untrusted


def test_reports_tighten_one_step_for_a_while_and_no_further() -> None:
    log = Log(mode="active")
    for n in range(30):
        log.report(f"t{n % 5}", f"p{n}")
    assert modes(log.links()) == [("active", 0.7)]
    assert log.applied()[0].waiting()
    log.tick(2 * 3_600_000)
    feedback, outputs = log.applied()
    links = links_of(outputs)
    assert [(link.cause, link.new_value) for link in links] == [("auto", 0.7), ("expiry", 0.8)]
    assert not feedback.waiting()
    log.tick(60_000)
    assert len(log.links()) == 2, "what was reported meanwhile does not renew it"


def test_reports_of_a_week_ago_propose_nothing_again() -> None:
    log = Log()
    for n in range(10):
        log.report(f"t{n % 5}", f"p{n}")
    log.tick(8 * DAY)
    log.label()
    assert modes(log.links()) == [("proposed", 0.7), ("rejected", 0.7)]


def test_one_tenants_reports_alone_do_nothing() -> None:
    log = Log(mode="active")
    for n in range(100):
        log.report("t1", f"p{n}")
    assert log.links() == []


# --- tenants


def test_a_tenants_misses_make_its_own_threshold_stricter_and_nobody_elses() -> None:
    config = msgspec.structs.replace(QUICK, votes=2)
    log = Log(mode="active", ratchets={FLAG: config}, canaries=tuple(canary(n, "unsafe") for n in range(40)))
    for _ in range(12):
        log.label("unsafe", score=0.75, tenant_id="t1")
    (link,) = log.links()
    assert (link.scope, link.mode, link.direction) == (
        ThresholdScope(detector="novelty", tenant_id="t1"),
        "active",
        "tighten",
    )
    feedback, _ = log.applied()
    assert feedback.book.value(FLAG, link.scope) < 0.8
    assert (
        feedback.book.value(FLAG)
        == feedback.book.value(FLAG, ThresholdScope(detector="novelty", tenant_id="t2"))
        == 0.8
    )
    for n in range(40):
        log.label("unsafe", request_id=f"c{n}", tenant_id="t9")
    for _ in range(200):  # and its own labels take it back, as far as the ceiling
        log.label("safe", score=0.65, tenant_id="t1")
        log.tick(600_000)
    links = log.links()[1:]
    assert {link.scope.tenant_id for link in links} == {"t1"}
    assert [(link.direction, link.mode) for link in links] == [("loosen", "active")] * len(links) != []
    assert links[-1].new_value <= 0.8


def test_a_ceiling_that_a_release_lowers_is_in_force_with_the_next_record() -> None:
    log = Log()
    log.decide("propose", value=0.7)
    log.decide("approve", version=1)
    log.decide("unpin")
    first, _ = log.applied()
    assert first.book.value(FLAG) == 0.8
    lower = msgspec.structs.replace(QUICK, start=1, ceiling=1)
    second = Feedback(msgspec.structs.replace(log.rules, ratchets={FLAG: lower}))
    for key, value in first.snapshot().items():
        second.load(key, value)
    second.loaded()
    log.tick(1000)
    (link,) = links_of(second.apply(log.records))
    assert (link.mode, link.direction, link.new_value) == ("active", "tighten", 0.7)


# --- the log again


def mixed(data: st.DataObject) -> Log:
    log = Log(mode=data.draw(st.sampled_from(["propose", "active", "shadow"])), approvers=APPROVERS)
    kinds = ["label", "miss", "misses", "replay", "forge", "report", "decide", "tick", "junk"]
    for kind in data.draw(st.lists(st.sampled_from(kinds), min_size=3, max_size=25)):
        if kind == "label":
            answer = data.draw(st.sampled_from(["safe", "unsafe", "unknown"]))
            log.label(answer, score=data.draw(st.floats(0, 1)), tenant_id=data.draw(st.sampled_from("abc")))
        elif kind == "miss":
            log.misses(1)
        elif kind == "misses":
            log.misses(15, data.draw(st.sampled_from("abc")))
        elif kind == "replay" and log.records:
            log.append(AUDITS, data.draw(st.sampled_from(log.records)).value or b"")
        elif kind == "forge":
            log.append(AUDITS, log.answer(signed(log.ticket(), b"not ours", "1"), "unsafe"))
        elif kind == "report":
            log.report(data.draw(st.sampled_from("abc")), data.draw(st.sampled_from("pqr")))
        elif kind == "decide":
            action = data.draw(
                st.sampled_from(["propose", "approve", "reject", "pin", "unpin", "freeze", "unfreeze", "rollback"])
            )
            version = data.draw(st.integers(1, 4))
            ends = data.draw(st.sampled_from([None, at(log.time_ms + DAY)])) if action == "propose" else None
            log.decide(
                action, data.draw(st.sampled_from(["ann", "ben", "eve"])), version=version, expires_at=ends,
                value=data.draw(st.sampled_from([0.65, 0.9])),
                scope=ThresholdScope(tenant_id=data.draw(st.sampled_from(["", "a"]))),
            )  # fmt: skip
        elif kind == "tick":
            log.tick(data.draw(st.integers(1, 2 * DAY)))
        else:
            log.append(REPORTS, data.draw(st.binary(max_size=20)))
    return log


@settings(max_examples=80)
@given(st.data())
def test_batches_and_restarts_give_the_same_thresholds_and_a_whole_chain(data: st.DataObject) -> None:
    log = mixed(data)
    whole, expected = log.applied()
    cut = data.draw(st.integers(0, len(log.records)))
    first = Feedback(log.rules)
    outputs = []
    for record in log.records[:cut]:
        outputs += first.apply([record])
    second = Feedback(log.rules)
    for key, value in first.changes():
        second.load(key, value)
    second.loaded()
    assert second.snapshot() == first.snapshot()
    outputs += second.apply(log.records)
    assert outputs == expected
    assert second.snapshot() == whole.snapshot()
    links = links_of(expected)
    assert chain_problems(links, UPDATE_KEYS) == []
    assert (links[-1].hash if links else "") == whole.book.chain.head.hash


@settings(max_examples=80)
@given(st.data())
def test_what_is_looked_at_is_all_that_is_due(data: st.DataObject) -> None:
    """The same comes of a look at every threshold with every record."""
    log = mixed(data)
    _, expected = log.applied()
    feedback, outputs = Feedback(log.rules), []
    for record in log.records:
        feedback.book.ratchets.ask_all()
        feedback.book.chain.touched = dict.fromkeys(feedback.book.chain.entries)
        outputs += feedback.apply([record])
    assert outputs == expected


def test_a_label_asks_no_other_tenants_ratchet(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(ratchets={FLAG: msgspec.structs.replace(QUICK, votes=20)})
    for n in range(15):
        log.misses(12, f"t{n}")
    feedback, outputs = log.applied()
    assert len([link for link in links_of(outputs) if link.scope.tenant_id]) == 15
    asked = 0
    decision = Ratchet.decision

    def counted(ratchet: Ratchet, now: float) -> Move | None:
        nonlocal asked
        asked += 1
        return decision(ratchet, now)

    monkeypatch.setattr(Ratchet, "decision", counted)
    log.label(tenant_id="t3")
    feedback.apply(log.records)
    assert asked == 2, "the fleet's and its tenant's"


@settings(max_examples=80)
@given(st.data())
def test_whoever_writes_labels_and_reports_no_value_passes_its_ceiling(data: st.DataObject) -> None:
    """Only two approvers can, and one of these has no key."""
    log = mixed(data)
    in_force: list[ThresholdUpdate] = [
        link for link in log.links() if link.mode in ("active", "pinned", "rolled_back") and link.parameter == FLAG
    ]
    assert all(link.new_value <= 0.8 or set(link.approver.split(", ")) == {"ann", "ben"} for link in in_force)
    assert all(Thresholds({FLAG: link.new_value})[FLAG] == link.new_value for link in in_force)
