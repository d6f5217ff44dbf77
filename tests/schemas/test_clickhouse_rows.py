"""Rows of records, without an engine."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.audits import AuditLabel, AuditTicket
from schemas.clickhouse import tables
from schemas.clickhouse.rows import TOPICS, rows
from schemas.codec import UNREADABLE_HEADERS, InvalidRecord, dead_letter_headers, encode
from schemas.events import CounterfactualScore
from schemas.thresholds import ThresholdScope, ThresholdUpdate
from streams.replay import FileRecord
from tests.factories import at
from tests.streams.history import planted
from tests.streams.history.planted import START, START_MS, record


def row(topic: topics.Topic, value: msgspec.Struct, offset: int = 7) -> dict[str, Any]:
    """The only row of `value`, by column."""
    ((table, values),) = rows(topic.name, record(topic, value, offset, partition=3))
    return dict(zip(table.columns, values, strict=True))


def test_a_request_without_its_text() -> None:
    made = row(
        topics.EVENTS, planted.request("r1", prompt_text="SECRET", prompt_head="SECRET", prompt_tail="SECRET")
    )
    assert made["request_id"] == "r1"
    assert made["event_time"] == START_MS
    assert made["time"] == START_MS + 7  # the broker's
    assert (made["log_partition"], made["log_offset"]) == (3, 7)
    assert "SECRET" not in repr(made)


def test_what_a_route_lacks_is_a_default_and_a_flag() -> None:
    lacking = row(topics.EVENTS, planted.route("r1", difficulty_score=None, tier_rank=None))
    assert (lacking["has_difficulty_score"], lacking["difficulty_score"]) == (False, 0.0)
    assert (lacking["has_tier_rank"], lacking["tier_rank"]) == (False, 0)
    zero = row(topics.EVENTS, planted.route("r1", difficulty_score=0.0, tier_rank=0))
    assert (zero["has_difficulty_score"], zero["difficulty_score"]) == (True, 0.0)
    assert (zero["has_tier_rank"], zero["tier_rank"]) == (True, 0)


def test_counterfactual_scores_are_parallel_arrays() -> None:
    scores = [CounterfactualScore(ablation="head", tokens=4, difficulty_score=0.1),
              CounterfactualScore(ablation="tail", tokens=5, difficulty_score=0.9)]  # fmt: skip
    made = row(topics.EVENTS, planted.route("r1", counterfactual_scores=scores))
    assert made["counterfactual_ablations"] == ["head", "tail"]
    assert made["counterfactual_tokens"] == [4, 5]
    assert made["counterfactual_scores"] == [0.1, 0.9]


def test_a_verdict_and_a_row_for_each_reason() -> None:
    seen = planted.reason(window="w1", span=(-9, -1), share=0.0, expected=1.5)
    near = planted.reason(detector="novelty", flagged=False)
    verdict = planted.verdict(
        "r1", decision="flagged", reasons=[seen, near], scores={"triggers": 0.9, "spend": 0.0}
    )
    (verdicts, whole), (reasons, first), (_, second) = rows(
        topics.VERDICTS.name, record(topics.VERDICTS, verdict, 7)
    )
    assert (verdicts, reasons) == (tables.VERDICTS, tables.REASONS)
    made = dict(zip(verdicts.columns, whole, strict=True))
    assert made["flagged_by"] == ["triggers"]
    assert made["scores"] == {"triggers": 0.9, "spend": 0.0}
    one, two = (dict(zip(reasons.columns, values, strict=True)) for values in (first, second))
    assert (one["number"], one["window"], one["flagged"]) == (0, "w1", True)
    assert (one["has_span"], one["span_start"], one["span_end"]) == (True, -9, -1)
    assert (one["has_share"], one["share"], one["has_expected"], one["expected"]) == (True, 0.0, True, 1.5)
    assert (two["number"], two["detector"], two["flagged"], two["has_span"]) == (1, "novelty", False, False)


def test_a_dead_letter_without_what_it_holds() -> None:
    bad = FileRecord(topics.EVENTS.name, 5, START_MS, b'{"prompt_text": "SECRET"', b"k", (("h", b"SECRET"),), 2)
    error = InvalidRecord("not_json", bad, "$", "truncated")
    letter = replace(
        bad, topic=topics.DEADLETTERS.name, offset=9, headers=dead_letter_headers(error, bad, "decode")
    )
    ((table, values),) = rows(topics.DEADLETTERS.name, letter)
    made = dict(zip(table.columns, values, strict=True))
    assert (made["topic"], made["original_partition"], made["original_offset"]) == (topics.EVENTS.name, 2, 5)
    assert (made["reason"], made["stage"], made["size"]) == ("not_json", "decode", 24)
    assert "SECRET" not in repr(made)


def test_a_dead_letter_of_unknown_time_has_its_letters_own() -> None:
    """Of a record that no client can decode no time is known; a row of 1970 is past its TTL, and gone."""
    bad = FileRecord(topics.EVENTS.name, 5, 0, b"", b"", UNREADABLE_HEADERS, 2)
    headers = dead_letter_headers(InvalidRecord("bad_envelope", bad), bad, "decode")
    letter = FileRecord(topics.DEADLETTERS.name, 9, START_MS, b"", b"", headers, 2)
    ((table, values),) = rows(topics.DEADLETTERS.name, letter)
    assert dict(zip(table.columns, values, strict=True))["time"] == START_MS


def test_thresholds_and_audits_by_their_inner_fields() -> None:
    update = ThresholdUpdate(
        update_id="u1", scope=ThresholdScope(detector="triggers", tenant_id="t1"), parameter="share",
        old_value=None, new_value=0.7, direction="tighten", version=2, mode="active", cause="auto", time=START,
    )  # fmt: skip
    (table, values), (links, link) = rows(
        topics.THRESHOLDS.name, FileRecord(topics.THRESHOLDS.name, 1, START_MS, encode(update))
    )
    assert dict(zip(links.columns, link, strict=True))["link"].encode() == encode(update)
    made = dict(zip(table.columns, values, strict=True))
    assert (made["detector"], made["tenant_id"], made["parameter"]) == ("triggers", "t1", "share")
    assert (made["has_old_value"], made["new_value"], made["has_expires_at"], made["expires_at"]) == (
        False, 0.7, False, 0,
    )  # fmt: skip
    ticket = AuditTicket(
        ticket_id="k1", request_id="r1", tenant_id="t1", principal_hash="p1", detector="coverage", score=0.5,
        threshold=0.4, threshold_version=1, issued_at=START, expires_at=at(START_MS + 1000),
    )  # fmt: skip
    label = AuditLabel(label_id="l1", ticket=ticket, judge="j", label="unsafe", labelled_at=START, reason="SECRET")
    made = row(topics.AUDITS, label)
    assert (made["ticket_id"], made["request_id"], made["label"], made["weight"]) == ("k1", "r1", "unsafe", 1.0)
    assert "SECRET" not in repr(made)


def test_ticks_and_tombstones_make_no_row() -> None:
    tick = FileRecord(topics.EVENTS.name, 1, START_MS, b"", b"", (("ce_type", b"pointsman.tick.v1"),))
    assert rows(topics.EVENTS.name, tick) == []
    assert rows(topics.FINDINGS.name, tick) == []  # an idle partition's stream time, no broken finding
    assert rows(topics.THRESHOLDS.name, FileRecord(topics.THRESHOLDS.name, 1, START_MS, None, b"k")) == []


def test_every_kept_topic_refuses_nonsense_in_one_way() -> None:
    for topic in TOPICS:
        with pytest.raises(InvalidRecord):
            rows(topic, FileRecord(topic, 1, START_MS, b"\xff{", b"k"))


@given(st.floats(-1e9, 1e9), st.text(max_size=20), st.integers(0, 2**40))
def test_values_pass_unchanged(score: float, name: str, count: int) -> None:
    made = row(topics.EVENTS, planted.route("r1", difficulty_score=score, tier=name))
    assert (made["difficulty_score"], made["tier"]) == (score, name)
    assert row(topics.EVENTS, planted.request("r1", prompt_chars=count))["prompt_chars"] == count
