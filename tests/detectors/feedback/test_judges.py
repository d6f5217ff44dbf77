"""Judges: whose answers count, what is believed of them, and what is said when they fail or are silent."""

import random

import msgspec
import pytest

from detectors.feedback import answers
from detectors.feedback.answers import Record
from schemas.signatures import signed
from schemas.topics import AUDITS, TICKETS
from tests.detectors.feedback.log import (
    DAY,
    Log,
    canary,
    findings,
    letters,
    ratchet_of,
)
from tests.factories import at


def test_a_judge_that_finds_nothing_is_no_longer_listened_to() -> None:
    known = tuple(canary(n, "unsafe") for n in range(60))
    log = Log(canaries=known)
    log.label("unsafe", judge="deaf")
    for n in range(40):
        log.label("safe", judge="deaf", request_id=f"c{n}", tenant_id="t9")
        log.label("unsafe", judge="desk", request_id=f"c{n}", tenant_id="t9")
    log.label("unsafe", judge="deaf")
    log.label("unsafe", judge="desk")
    feedback, _ = log.applied()
    assert feedback.counters["audit_labels.unfit"] == 1
    assert (feedback.counters["audit_labels.canary"], feedback.counters["audit_labels.worse"]) == (79, 1)
    assert feedback.counters["audit_labels.counted"] == 2
    assert (feedback.answers.judges["desk"].caught, feedback.answers.judges["desk"].unsafe) == (40, 40)


def test_silence_is_said_once_a_while_until_somebody_answers_or_nothing_is_left_to_be_answered() -> None:
    log = Log()
    asked = log.ticket(expires_at=at(log.time_ms + 4 * DAY))
    log.append(TICKETS, asked)
    assert log.applied()[0].waiting(), "a quiet log needs ticks for it"
    log.tick(DAY - 60_000)
    assert not findings(log.applied()[1])
    for _ in range(30):
        log.tick(3_600_000)
    said = findings(log.applied()[1])
    assert [(f.kind, f.stage) for f in said] == [("judges_failing", "silent")] * 2
    assert {f.labels["alertname"] for f in said} == {"judges_failing"}
    log.append(AUDITS, log.answer(asked))
    log.append(TICKETS, asked)  # the relay is late with it
    log.tick(2 * DAY)
    feedback, outputs = log.applied()
    assert len(findings(outputs)) == 2
    assert not feedback.waiting()
    log.append(TICKETS, log.ticket())  # of one day
    log.tick(3 * DAY)
    feedback, outputs = log.applied()
    assert len(findings(outputs)) == 2
    assert not feedback.waiting()


def test_a_ticket_that_nobody_of_ours_signed_asks_nothing() -> None:
    log = Log()
    log.append(TICKETS, signed(log.ticket(), b"a key of somebody else", "1"))
    feedback, outputs = log.applied()
    assert [letter.reason for letter in letters(outputs)] == ["bad_ticket"]
    assert not feedback.waiting()


def test_a_judge_that_gets_worse_is_said_and_measured_anew() -> None:
    log = Log(canaries=tuple(canary(n, "unsafe") for n in range(300)))
    log.label("unsafe")
    for n in range(200):
        log.label("unsafe" if n % 20 else "safe", request_id=f"c{n}", tenant_id="t9")
    feedback, outputs = log.applied()
    assert not findings(outputs)
    assert feedback.answers.sensitivity() == 0.85
    for n in range(200, 240):
        log.label("unsafe" if n % 2 else "safe", request_id=f"c{n}", tenant_id="t9")
    feedback, outputs = log.applied()
    (found,) = findings(outputs)
    assert (found.kind, found.stage, found.labels["alertname"]) == ("judges_failing", "worse", "judges_failing")
    assert "desk" in found.note
    assert feedback.answers.sensitivity() is None
    assert ratchet_of(feedback).config.sensitivity == 1.0, "and what is bet so is void once it is measured"


def test_an_unfit_judge_is_said_and_does_not_rule_the_others() -> None:
    log = Log(canaries=tuple(canary(n, "unsafe") for n in range(60)))
    log.label("unsafe", judge="deaf")
    log.label("unsafe", judge="desk")
    for n in range(40):
        log.label("safe", judge="deaf", request_id=f"c{n}", tenant_id="t9")
        log.label("unsafe", judge="desk", request_id=f"c{n}", tenant_id="t9")
    feedback, outputs = log.applied()
    assert [f.stage for f in findings(outputs)] == ["worse"]
    assert feedback.answers.sensitivity() == pytest.approx(0.8)


def test_what_is_said_of_a_judge_is_rarely_ever_better_than_it_is() -> None:
    """Looked at after every canary of 200 judges, each true to 0.8: at most 1 % err, and some chance."""
    rng, erred = random.Random(5), 0
    for _ in range(200):
        record, worst = Record(), False
        for _ in range(200):
            record.take_unsafe(rng.random() < 0.8)
            worst |= record.measured and record.sensitivity > 0.8
        erred += worst
    assert erred <= 6  # 2 in the mean at most; 6 is beyond 99 % of chance


def test_of_too_many_answers_the_oldest_are_given_up_and_others_to_them_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "MOST_ANSWERED", 10)
    log = Log()
    labels = [log.label() for _ in range(15)]
    log.tick(1000)
    for label in (labels[0], labels[4], labels[5]):
        log.append(AUDITS, msgspec.structs.replace(label, label_id="another"))
    feedback, outputs = log.applied()
    assert len(feedback.answers) == 10
    assert [f.stage for f in findings(outputs)] == ["expired", "expired", "replayed"]
    log.tick(2 * DAY)
    assert len(log.applied()[0].answers) == 0
