"""The codec: every limit by its reason, CloudEvents both ways, dead letters, and nothing else ever raised."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import InvalidRecord, decode, decode_event, encode, event_headers
from schemas.deadletters import InvalidReason
from schemas.events import CUT_CHARS, PROMPT_CAP_CHARS, AnyEvent, CounterfactualScore, Outcome, Request, Route
from schemas.export import FOLDER
from schemas.verdicts import Verdict

NOW = datetime(2026, 3, 2, 9, 15, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
Headers = Sequence[tuple[str, bytes]]


class Rec(NamedTuple):
    value: bytes | None
    headers: Headers = ()
    key: bytes | None = b"p"
    topic: str = "router.events.v1"
    partition: int = 3
    offset: int = 41
    timestamp: int = NOW_MS


COMMON: dict[str, Any] = {
    "event_id": "e",
    "event_time": "2026-03-02T09:15:00Z",
    "request_id": "r",
    "tenant_id": "t",
    "principal_hash": "p",
}
ROUTE = {"event_type": "route", **COMMON, "selected_model": "m"}
REQUEST = {"event_type": "request", **COMMON}
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


def refused(value: bytes | None, headers: Headers = (), **place: Any) -> InvalidRecord:
    with pytest.raises(InvalidRecord) as caught:
        decode_event(Rec(value, headers, **place))
    return caught.value


def with_number(text: str, field: str = "difficulty_score") -> bytes:
    """A route with a number spelt as given."""
    return raw(ROUTE | {field: 0}).replace(b": 0}", f": {text}}}".encode())


# --- what is accepted


def test_bare_json_of_every_type() -> None:
    for kind in ("request", "route", "outcome"):
        event = decode_event(Rec(raw(ROUTE | {"event_type": kind})))
        assert event is not None
        assert codec.event_type(event) == kind


def test_unknown_fields_are_ignored() -> None:
    assert decode_event(Rec(raw(ROUTE | {"new_in_2030": {"a": [1, None]}}))) == decode_event(Rec(raw(ROUTE)))


def test_binary_mode_round_trip() -> None:
    route = decode_event(Rec(raw(ROUTE)))
    assert route is not None
    headers = event_headers(route, "//litellm/eu/pod-7", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert decode_event(Rec(encode(route), headers)) == route
    by_name = dict(headers)
    assert by_name["ce_type"] == b"pointsman.llmrouter.route.v1"
    assert by_name["ce_id"] == b"e"
    assert by_name["ce_subject"] == b"r"
    assert by_name["ce_source"] == b"//litellm/eu/pod-7"
    assert datetime.fromisoformat(by_name["ce_time"].decode()) == NOW
    assert by_name["ce_traceparent"].startswith(b"00-4bf9")
    assert "ce_traceparent" not in dict(event_headers(route, "//x"))


def test_types_of_other_vendors_are_accepted() -> None:
    assert decode_event(Rec(raw(ROUTE), [("ce_type", b"com.example.llmrouter.route.v1")])) is not None


def envelope(**changes: Any) -> bytes:
    document = {
        "specversion": "1.0",
        "id": "e",
        "source": "//kong",
        "type": "kong.llmrouter.route.v1",
        "traceparent": "00-1",
        "data": ROUTE,
    }
    return raw({name: value for name, value in (document | changes).items() if value is not None})


def test_structured_mode() -> None:
    assert decode_event(Rec(envelope(), STRUCTURED)) == decode_event(Rec(raw(ROUTE)))


@pytest.mark.parametrize("value", [b"", None])
def test_tick(value: bytes | None) -> None:
    assert decode_event(Rec(value, codec.TICK_HEADERS)) is None


@pytest.mark.parametrize("zone", ["Z", "+02:00", "-11:30"])
def test_times_keep_their_instant(zone: str) -> None:
    event = decode_event(Rec(raw(ROUTE | {"event_time": f"2026-03-02T09:15:00{zone}"})))
    assert event is not None
    assert event.event_time == datetime.fromisoformat(f"2026-03-02T09:15:00{zone}")


@pytest.mark.parametrize("hours", [-23.9, 23.9])
def test_clocks_within_a_day_are_accepted(hours: float) -> None:
    assert decode_event(Rec(raw(ROUTE), timestamp=NOW_MS + int(hours * 3_600_000))) is not None


# --- limits


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        (None, "empty", ""),
        (b"", "empty", ""),
        (b"{" + b" " * (1 << 20), "too_large", ""),
        (raw(ROUTE)[:-1] + b', "tier": "\xff"}', "not_utf8", ""),
        (raw(ROUTE)[:-1] + b', "ignored": "\xff"}', "not_utf8", ""),
        (b"{", "not_json", "$"),
        (b"hello", "not_json", "$"),
        (raw(ROUTE) + b"{}", "not_json", "$"),
        (b"\xef\xbb\xbf" + raw(ROUTE), "not_json", "$"),
        (raw(ROUTE)[:-1] + b', "tier": "\\ud800"}', "not_json", "$"),
        (raw(ROUTE)[:-1] + b', "deep": ' + b"[" * 100_000, "not_json", "$"),
        (raw(ROUTE)[:-1] + b', "deep": ' + b'{"a":' * 50_000, "not_json", "$"),
        (b"[]", "wrong_type", "$"),
        (b"3", "wrong_type", "$"),
        (b"null", "wrong_type", "$"),
        (raw(COMMON), "missing_field", "$.event_type"),
        (raw(ROUTE | {"event_type": "alert"}), "unknown_type", "$.event_type"),
        (raw(ROUTE | {"event_type": 3}), "wrong_type", "$.event_type"),
        (raw({"event_type": "route", **COMMON}), "missing_field", "$.selected_model"),
        (raw(ROUTE | {"counterfactual_scores": [{"ablation": "head"}]}), "missing_field",
         "$.counterfactual_scores[0].tokens"),
        (raw(ROUTE | {"tier": 3}), "wrong_type", "$.tier"),
        (raw(ROUTE | {"signals": None}), "wrong_type", "$.signals"),
        (raw(ROUTE | {"signals": ["a", 3]}), "wrong_type", "$.signals[1]"),
        (raw(ROUTE | {"attempt": 1.5}), "wrong_type", "$.attempt"),
        (raw(ROUTE | {"escalated": "true"}), "wrong_type", "$.escalated"),
        (raw(ROUTE | {"score_kind": "elo"}), "wrong_type", "$.score_kind"),
        (raw(ROUTE | {"score_direction": 3}), "wrong_type", "$.score_direction"),
        (raw(ROUTE | {"event_time": "yesterday"}), "wrong_type", "$.event_time"),
        (raw(ROUTE | {"event_time": 1.5}), "wrong_type", "$.event_time"),
        (raw(ROUTE | {"event_time": "2026-03-02T09:15:00"}), "time_without_zone", "$.event_time"),
        (raw(ROUTE | {"event_time": "2026-03-01T09:14:59Z"}), "time_off", "$.event_time"),
        (raw(ROUTE | {"event_time": "2026-03-03T09:15:01Z"}), "time_off", "$.event_time"),
        (raw(ROUTE | {"event_time": "0001-01-01T00:00:00+14:00"}), "time_off", "$.event_time"),
        (raw(ROUTE | {"event_id": ""}), "out_of_range", "$.event_id"),
        (raw(ROUTE | {"event_id": "x" * 257}), "out_of_range", "$.event_id"),
        (raw(ROUTE | {"tier": "é" * 257}), "out_of_range", "$.tier"),
        (raw(ROUTE | {"attempt": -1}), "out_of_range", "$.attempt"),
        (raw(ROUTE | {"attempt": 10**30}), "out_of_range", "$.attempt"),
        (raw(ROUTE | {"difficulty_score": 1e10}), "out_of_range", "$.difficulty_score"),
        (raw(ROUTE | {"classifier_confidence": 1.01}), "out_of_range", "$.classifier_confidence"),
        (raw(ROUTE | {"tier_boundaries": {"a": 1e10}}), "out_of_range", "$.tier_boundaries[...]"),
        (raw(ROUTE | {"tier_boundaries": {str(i): 0 for i in range(33)}}), "out_of_range", "$.tier_boundaries"),
        (raw(ROUTE | {"signals": ["a"] * 257}), "out_of_range", "$.signals"),
        (raw(REQUEST | {"prompt_embedding": [0.0] * 4097}), "out_of_range", "$.prompt_embedding"),
        (with_number("1e999"), "out_of_range", "$.difficulty_score"),
        (with_number("-1e999"), "out_of_range", "$.difficulty_score"),
        (with_number("9" * 400), "out_of_range", "$.difficulty_score"),
        (with_number("NaN"), "out_of_range", "$"),
        (with_number("Infinity"), "out_of_range", "$"),
        (with_number("-Infinity"), "out_of_range", "$"),
    ],
)  # fmt: skip
def test_limit(value: bytes | None, reason: str, field: str) -> None:
    error = refused(value)
    assert (error.reason, error.field) == (reason, field)
    assert (error.topic, error.partition, error.offset) == ("router.events.v1", 3, 41)
    assert error.detail


@pytest.mark.parametrize("name", ["event_id", "event_time", "request_id", "tenant_id", "principal_hash"])
def test_required_fields(name: str) -> None:
    error = refused(raw({key: value for key, value in REQUEST.items() if key != name}))
    assert (error.reason, error.field) == ("missing_field", f"$.{name}")


def test_a_value_of_exactly_the_limit_is_read() -> None:
    value = raw(ROUTE)
    assert decode_event(Rec(value + b" " * (codec.MAX_VALUE_BYTES - len(value)))) is not None
    assert refused(value + b" " * (codec.MAX_VALUE_BYTES - len(value) + 1)).reason == "too_large"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ([("ce_type", b"pointsman.llmrouter.request.v1")], "ce_type"),
        ([("ce_type", b"com.example.sold")], "ce_type"),
        ([("ce_type", b"a.llmrouter.route.v1"), ("ce_type", b"a.llmrouter.request.v1")], "ce_type"),
        ([("ce_type", codec.TICK_TYPE)], "ce_type"),
        ([("ce_specversion", b"0.3")], "ce_specversion"),
        ([("content-type", b"application/cloudevents-batch+json")], "content-type"),
        ([("content-type", b"application/cloudevents+avro")], "content-type"),
    ],
)
def test_bad_headers(headers: Headers, field: str) -> None:
    error = refused(raw(ROUTE), headers)
    assert (error.reason, error.field) == ("bad_envelope", field)


@pytest.mark.parametrize("name", ["ce_type", "content-type", "other"])
def test_null_headers_are_empty_ones(name: str) -> None:
    null: Any = None
    record = Rec(raw(ROUTE), [(name, null)])
    assert decode_event(record) is not None
    letter = codec.dead_letter_headers(InvalidRecord("judge_failed", record), record, "judge")
    assert codec.read_dead_letter(Rec(b"", letter)).headers == [(name, b"")]


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"specversion": "0.3"}, "bad_envelope", "$.specversion"),
        ({"type": None}, "bad_envelope", "$.type"),
        ({"data": None}, "bad_envelope", "$.data"),
        ({"id": ""}, "bad_envelope", "$.id"),
        ({"type": "kong.llmrouter.outcome.v1"}, "bad_envelope", "ce_type"),
        ({"data": ROUTE | {"tier": 3}}, "wrong_type", "$.data.tier"),
        ({"data": "text"}, "wrong_type", "$.data"),
        ({"data": ROUTE | {"event_time": "2025-01-01T00:00:00Z"}}, "time_off", "$.data.event_time"),
    ],
)
def test_bad_envelope(changes: dict[str, Any], reason: str, field: str) -> None:
    error = refused(envelope(**changes), STRUCTURED)
    assert (error.reason, error.field) == (reason, field)


def test_text_of_an_error_names_everything_and_quotes_nothing() -> None:
    secret = "swordfish"  # noqa: S105  it stands for the event's content
    for document in (
        ROUTE | {"score_kind": secret},
        ROUTE | {"event_type": secret},
        ROUTE | {"tier_boundaries": {secret: secret}},
        ROUTE | {"event_time": secret},
        ROUTE | {"difficulty_score": secret},
        ROUTE | {"tier": secret * 100},
    ):
        error = refused(raw(document))
        assert secret not in str(error)
        assert secret not in repr(error)
        for part in (error.reason, error.field, error.detail, "router.events.v1[3]@41"):
            assert part in str(error)


# --- prompts


def test_long_prompts_are_cut_to_their_ends() -> None:
    text = "a" * CUT_CHARS + "é" * PROMPT_CAP_CHARS + "z" * CUT_CHARS
    event = decode_event(Rec(raw(REQUEST | {"prompt_text": text, "prompt_head": "x"})))
    assert isinstance(event, Request)
    assert event.prompt_text == ""
    assert (event.prompt_head, event.prompt_tail) == ("a" * CUT_CHARS, "z" * CUT_CHARS)
    assert event.prompt_chars == len(text)


def test_a_prompt_at_the_cap_is_kept_whole() -> None:
    event = decode_event(Rec(raw(REQUEST | {"prompt_text": "a" * PROMPT_CAP_CHARS, "prompt_chars": 9})))
    assert isinstance(event, Request)
    assert len(event.prompt_text) == PROMPT_CAP_CHARS
    assert event.prompt_chars == 9


def test_length_of_a_prompt_that_the_gateway_cut_before() -> None:
    text = "a" * (PROMPT_CAP_CHARS + 1)
    event = decode_event(Rec(raw(REQUEST | {"prompt_text": text, "prompt_chars": 500_000})))
    assert isinstance(event, Request)
    assert event.prompt_chars == 500_000


def test_long_ends_are_cut_on_the_inside() -> None:
    document = REQUEST | {"prompt_head": "h" + "x" * CUT_CHARS, "prompt_tail": "x" * CUT_CHARS + "t"}
    event = decode_event(Rec(raw(document | {"prompt_chars": 77})))
    assert isinstance(event, Request)
    assert event.prompt_head == "h" + "x" * (CUT_CHARS - 1)
    assert event.prompt_tail == "x" * (CUT_CHARS - 1) + "t"
    assert event.prompt_chars == 77


# --- our own topics, dead letters, ids


def test_own_topics() -> None:
    verdict = msgspec.json.decode((FOLDER / "examples" / "verdict.v1.json").read_bytes(), type=Verdict)
    assert decode(Verdict, Rec(encode(verdict))) == verdict
    for value, reason in ((b"", "empty"), (None, "empty"), (b"{", "not_json"), (b"{}", "missing_field")):
        with pytest.raises(InvalidRecord) as caught:
            decode(Verdict, Rec(value))
        assert caught.value.reason == reason


headers_of_any_kind = st.lists(
    st.tuples(st.text(max_size=12) | st.just("x-reason"), st.binary(max_size=12)), max_size=5
)


@given(
    value=st.binary(max_size=30),
    key=st.binary(max_size=5) | st.none(),
    headers=headers_of_any_kind,
    reason=st.sampled_from(get_args(InvalidReason)),
)
def test_dead_letters_come_back(value: bytes, key: bytes | None, headers: Headers, reason: InvalidReason) -> None:
    original = Rec(value, headers, key)
    error = InvalidRecord(reason, original, "$.tier", "why")
    letter_key, letter_value, letter_headers = codec.dead_letter(error, original, "decode")
    letter = codec.read_dead_letter(
        Rec(letter_value, letter_headers, letter_key, topic="pointsman.deadletters.v1", offset=7)
    )
    assert (letter.topic, letter.partition, letter.offset) == ("router.events.v1", 3, 41)
    assert (letter.stage, letter.reason, letter.field, letter.detail) == ("decode", reason, "$.tier", "why")
    assert (letter.value, letter.key, letter.size) == (value, key or b"", len(value))
    assert letter.headers == list(headers)
    assert letter.time == NOW
    assert letter.letter_id == codec.stable_id("router.events.v1", "3", "41")


@pytest.mark.parametrize(
    ("value", "key", "headers"),
    [
        (b"v" * (9 << 20), b"k", [("h", b"1")]),
        (b"v", b"k" * (9 << 20), []),
        (b"v", b"k", [("", b"")] * (1 << 18)),
    ],
    ids=["value", "key", "headers"],
)
def test_a_record_that_fits_into_no_dead_letter_leaves_its_beginning(
    value: bytes, key: bytes, headers: Headers
) -> None:
    original = Rec(value, headers, key)
    left = codec.dead_letter(InvalidRecord("too_large", original), original, "decode")
    assert left[:2] == (b"", value[: codec.MAX_VALUE_BYTES])
    assert len(left[2]) == 10
    letter = codec.read_dead_letter(Rec(left[1], left[2], left[0]))
    assert letter.size > codec.MAX_LETTER_BYTES
    assert (letter.offset, letter.reason, letter.headers) == (41, "too_large", [])


@pytest.mark.parametrize(
    "change",
    [
        None,
        ("x-reason", b"tired"),
        ("x-size", b"x"),
        ("x-original-offset", b"x"),
        ("x-detail", b"\xff"),
        ("x-original-timestamp", b"9" * 30),
        ("x-original-partition", None),
    ],
)
def test_what_is_no_dead_letter(change: tuple[str, Any] | None) -> None:
    original = Rec(b"v")
    headers = dict(codec.dead_letter_headers(InvalidRecord("empty", original), original, "decode"))
    if change is None:
        del headers["x-letter-id"]
    else:
        headers[change[0]] = change[1]
    with pytest.raises(InvalidRecord) as caught:
        codec.read_dead_letter(Rec(b"v", list(headers.items())))
    assert caught.value.reason == "bad_envelope"


def test_stable_ids() -> None:
    assert codec.stable_id("a", "b") == blake2b(b"1:a1:b", digest_size=16).hexdigest()
    assert (
        len({codec.stable_id(*parts) for parts in (("a", "b"), ("ab",), ("a:b",), ("b", "a"), ("a", "b", ""))}) == 5
    )


# --- anything at all


def settle(record: Rec) -> None:
    """A record, a tick or InvalidRecord: nothing else may come of it."""
    try:
        event = decode_event(record)
    except InvalidRecord:
        return
    if event is None:
        assert not record.value
        return
    assert isinstance(event, AnyEvent)
    assert abs(event.event_time.timestamp() * 1000 - record.timestamp) <= codec.MAX_CLOCK_OFF_MS
    if isinstance(event, Request):
        assert len(event.prompt_text) <= PROMPT_CAP_CHARS
        assert max(len(event.prompt_head), len(event.prompt_tail)) <= CUT_CHARS
    encode(event).decode()


ce_headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_type", "ce_specversion", "content-type", "ce_id"]) | st.text(max_size=5),
        st.sampled_from(
            [codec.TICK_TYPE, b"1.0", b"a.llmrouter.route.v1", b"application/cloudevents+json", b"application/json"]
        )
        | st.binary(max_size=9),
    ),
    max_size=4,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = [field.name for kind in (Request, Route, Outcome) for field in msgspec.structs.fields(kind)]


@given(st.binary(max_size=200) | st.none(), ce_headers)
def test_any_bytes(value: bytes | None, headers: Headers) -> None:
    settle(Rec(value, headers))


@given(
    st.sampled_from(["request", "route", "outcome", "x"]),
    st.dictionaries(st.sampled_from(names) | st.text(max_size=5), json_values, max_size=3),
    ce_headers,
    st.booleans(),
)
@settings(max_examples=300)
def test_any_fields(kind: str, changes: dict[str, Any], headers: Headers, wrapped: bool) -> None:
    document = ROUTE | {"event_type": kind} | changes
    settle(Rec(envelope(data=document), [*STRUCTURED, *headers]) if wrapped else Rec(raw(document), headers))


@given(st.sampled_from(["request", "route", "outcome"]), st.data())
@settings(max_examples=300)
def test_damaged_examples(kind: str, data: st.DataObject) -> None:
    value = bytearray((FOLDER / "examples" / f"{kind}.v1.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value) - 1))
        value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    settle(Rec(bytes(value)))


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
short = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**40)
reals = st.floats(-1e9, 1e9)
times = st.floats(-86_399, 86_399).map(lambda seconds: NOW + timedelta(seconds=seconds))
common = {
    "event_id": ids,
    "event_time": times,
    "request_id": ids,
    "tenant_id": ids,
    "principal_hash": ids,
    "gateway_name": short,
}
events: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(
        Request,
        **common,
        prompt_text=short,
        prompt_chars=counts,
        prompt_embedding=st.none() | st.lists(reals, max_size=4),
        request_stream=st.booleans(),
    ),
    st.builds(
        Route,
        **common,
        selected_model=ids,
        difficulty_score=st.none() | reals,
        tier_boundaries=st.dictionaries(short, reals, max_size=3),
        signals=st.lists(short, max_size=3),
        tier_rank=st.none() | st.integers(0, 1000),
        counterfactual_scores=st.lists(
            st.builds(
                CounterfactualScore,
                ablation=st.sampled_from(["head", "tail", "window"]),
                tokens=counts,
                difficulty_score=reals,
            ),
            max_size=2,
        ),
    ),
    st.builds(
        Outcome,
        **common,
        cost_usd=st.none() | st.floats(0, 1e6),
        duration_s=st.floats(0, 86_400),
        usage_input_tokens=counts,
        evaluation_score_label=st.sampled_from(["", "safe", "unsafe"]),
        expert_load=st.lists(st.lists(counts, max_size=3), max_size=2),
    ),
)


@given(events)
@settings(max_examples=300)
def test_valid_events_come_back_in_every_form(event: AnyEvent) -> None:
    value = encode(event)
    assert decode_event(Rec(value)) == event
    assert decode_event(Rec(value, event_headers(event, "//gateway"))) == event
    wrapped = envelope(type=f"kong.llmrouter.{codec.event_type(event)}.v1", data=json.loads(value))
    assert decode_event(Rec(wrapped, STRUCTURED)) == event


def test_numbers_that_json_has_not_are_written_as_null() -> None:
    assert b"null" in encode(CounterfactualScore(ablation="head", tokens=1, difficulty_score=math.nan))
