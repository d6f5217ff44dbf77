"""LiteLLM's data as events: whatever a client or a new release puts in it, what comes out is valid."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import decode_event, encode, event_headers
from schemas.events import AnyEvent
from schemas.topics import EVENTS
from streams.gateways.litellm_events import Gateway, attempt_number, ip_prefix, read_messages, tokens_of
from streams.gateways.privacy import Identity
from streams.replay import FileRecord

GATEWAY = Gateway(Identity(b"a key of the tests' own"))
NOW = time.time()

DECISION = {
    "router_model_name": "smart", "router_type": "complexity", "router_config_fingerprint": "52ad" * 16,
    "tier": "REASONING",
    "cause": "reasoning_override", "score": 0.1, "signals": ["reasoning (step by step)"], "escalated": False,
    "tier_boundaries": {"simple_medium": 0.15, "medium_complex": 0.35, "complex_reasoning": 0.6},
    "savings_baseline_model": "openai/o3",
}  # fmt: skip


def survives(event: AnyEvent) -> AnyEvent:
    """The event as the lane reads it."""
    headers = tuple(event_headers(event, "//litellm/test"))
    decoded = decode_event(FileRecord(EVENTS.name, 0, round(NOW * 1000), encode(event), b"", headers))
    assert decoded is not None
    return decoded


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=400) | st.just("n" * 2_000)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=300), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def shaped(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the names that are read, each with anything behind it."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, anything))


decisions = shaped(
    *DECISION, "classifier_p_solve", "classifier_threshold", "classifier_cost", "classifier_confidence",
    "request_type", "context_escalated",
)  # fmt: skip
metadata = st.builds(
    lambda rest, decision: {**rest, "routing_decision": decision},
    shaped("user_api_key_hash", "user_api_key_team_id", "model_group", "session_id", "trace_id", "user_agent",
           "requester_ip_address", "attempted_retries", "attempted_fallbacks", "max_retries", "previous_models",
           "original_model_group"),
    decisions | anything,
)  # fmt: skip
payloads = shaped(
    "id", "model", "status", "response", "error_information", "prompt_tokens", "completion_tokens", "metadata",
    "response_cost", "response_time", "completionStartTime", "stream", "cache_hit", "guardrail_information",
)  # fmt: skip


@given(anything, anything, metadata, anything, anything, payloads)
def test_every_event_is_valid_whatever_the_data(
    call_id: Any, user: Any, meta: dict[str, Any], messages: Any, model: Any, payload: dict[str, Any]
) -> None:
    call = GATEWAY.call(call_id, call_id, meta, user)
    parameters = {"model": model, "input": messages, "stream": user, "max_tokens": call_id}
    attempt = attempt_number(meta)
    survives(GATEWAY.request(call, parameters, messages, meta, model))
    survives(GATEWAY.route(call, attempt, model, user, meta, price=lambda *_: 0.5))
    survives(GATEWAY.outcome(call, attempt, {**payload, "startTime": NOW - 1, "endTime": NOW}))


def test_a_decision_becomes_a_route() -> None:
    call = GATEWAY.call("c1", "", {}, "u1")
    route = GATEWAY.route(
        call,
        0,
        "o3",
        "openai",
        {"routing_decision": DECISION},
        prompt_tokens=10,
        price=lambda model, *_: len(model),
    )
    assert (route.selected_model, route.router_name, route.tier_rank) == ("openai/o3", "smart", 3)
    assert route.router_version == "52ad" * 4
    assert (route.difficulty_score, route.score_direction, route.threshold_source) == (0.1, 1, "config")
    assert (route.cost_estimate_usd, route.baseline_cost_usd) == (len("openai/o3"), len("openai/o3"))
    assert route.signals == ["reasoning (step by step)"]
    by_classifier = GATEWAY.route(call, 0, "m", "", {"routing_decision": {"classifier_p_solve": 0.9}})
    assert (by_classifier.difficulty_score, by_classifier.score_direction) == (0.9, -1)
    assert by_classifier.score_kind == "p_solve"


@pytest.mark.parametrize(
    ("entries", "verdict", "action"),
    [
        (None, "", ""),
        ([{"guardrail_status": "not_run"}], "", ""),
        ([{"guardrail_status": "success"}, {"guardrail_status": "guardrail_flagged"}], "warn", "allow"),
        ([{"guardrail_status": "guardrail_intervened"}, {"guardrail_status": "success"}], "deny", "block"),
        ([{"guardrail_status": "guardrail_intervened", "masked_entity_count": {"EMAIL": 1}}], "modify", "modify"),
    ],
)
def test_the_strictest_guardrail_counts(entries: Any, verdict: str, action: str) -> None:
    outcome = GATEWAY.outcome(GATEWAY.call("c1", "", {}, ""), 0, {"guardrail_information": entries})
    assert (outcome.guardrail_verdict, outcome.guardrail_action) == (verdict, action)


@pytest.mark.parametrize(
    ("messages", "asked", "system", "turns"),
    [
        ("plain", "plain", "", 1),
        ([{"role": "system", "content": "S"}, {"role": "user", "content": "a"}], "a", "S", 1),
        (
            [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "image_url"}]},
                {"role": "tool", "content": "t"},
            ],
            "c", "", 2,
        ),
        ([{"role": "tool", "content": "t"}], "t", "", 0),
        (["an", "embedding"], "embedding", "", 2),
        ([1, 2, 3], "", "", 0),
        (None, "", "", 0),
    ],
)  # fmt: skip
def test_what_is_asked_is_the_users_last_message(messages: Any, asked: str, system: str, turns: int) -> None:
    assert read_messages(messages)[:3] == (asked, system, turns)


def test_times_are_the_payloads() -> None:
    payload = {
        "startTime": NOW - 3,
        "completionStartTime": NOW - 2,
        "endTime": NOW,
        "response_time": 3.0,
        "stream": True,
    }
    outcome = GATEWAY.outcome(GATEWAY.call("c1", "", {}, ""), 0, payload)
    assert outcome.event_time.timestamp() == pytest.approx(NOW)
    assert outcome.duration_s == 3.0
    assert outcome.time_to_first_chunk_s == pytest.approx(1.0)


def test_attempts_count_on_over_fail_overs() -> None:
    steps = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    numbers = [
        attempt_number({"attempted_fallbacks": fallback, "attempted_retries": retry, "max_retries": 1})
        for fallback, retry in steps
    ]
    assert numbers == [0, 1, 2, 3, 4]
    assert attempt_number({}) == 0


@pytest.mark.parametrize(
    ("address", "prefix"),
    [("203.0.113.77", "203.0.113.0/24"), ("2001:db8:1:2::9", "2001:db8:1::/48"), ("", ""), (None, ""), ("x", "")],
)
def test_an_address_is_cut_to_its_network(address: Any, prefix: str) -> None:
    assert ip_prefix(address) == prefix


def test_events_of_one_request_share_its_ids_and_others_do_not() -> None:
    one, other = GATEWAY.call("c1", "", {}, "u1"), GATEWAY.call("c1", "", {}, "u1")
    assert one.request_id == other.request_id == "c1"
    assert one.principal_hash == other.principal_hash
    assert one.event_id("route", 0) == one.event_id("route", 0)
    ids = {call.event_id(kind, n) for call in (one, other) for kind in ("route", "outcome") for n in (0, 1)}
    assert len(ids) == 8
    assert (one.first("route"), one.first("route"), one.first("route", 1)) == (True, False, True)
    assert not one.ended
    assert one.first("outcome")
    assert one.ended


def test_tokens_are_about_a_quarter_of_the_characters() -> None:
    assert tokens_of([{"content": "x" * 40}, {"content": [{"text": "y" * 40}]}, {"content": None}]) == 20
    assert tokens_of("x" * 40) == 10
    assert tokens_of(None) == 0
