"""The callback on the real LiteLLM: whatever happens to a request there, its events tell."""

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.events import AnyEvent
from streams.gateways.litellm_events import Gateway
from streams.gateways.publisher import Publisher
from tests.factories import request
from tests.streams.gateways import litellm_rig as rig  # first: it keeps LiteLLM's import from the network
from tests.streams.gateways.litellm_rig import IDENTITY, SECRET, Collected, ask, collecting, deployment, router

litellm = rig.litellm

WILD = "hi, think step by step, analyze this and reason through the pros and cons"


@pytest.fixture
async def collected() -> AsyncIterator[Collected]:
    async for each in collecting():
        yield each


async def test_a_routed_request_gives_three_events_that_join(collected: Collected) -> None:
    await router().acompletion(model="smart", messages=ask(WILD), user="u1", max_tokens=99)
    await collected.outcome_count(1)
    (asked,), (route,), (outcome,) = collected.requests, collected.routes, collected.outcomes
    assert [type(event).__name__ for event in collected.events] == ["Request", "Route", "Outcome"]
    assert len({(e.request_id, e.principal_hash, e.tenant_id, e.trace_id) for e in collected.events}) == 1
    assert len({e.event_id for e in collected.events}) == 3
    assert asked.principal_hash == IDENTITY.hash("u1", "default")
    assert asked.prompt_text == WILD
    assert (asked.request_model, asked.operation_name, asked.n_messages) == ("smart", "chat", 1)
    assert (route.router_name, route.router_type, route.selected_model) == ("smart", "complexity", "openai/o3")
    assert (route.tier, route.tier_rank, route.attempt, route.cache_hit) == ("REASONING", 3, 0, False)
    assert route.score_kind == "complexity"
    assert route.difficulty_score is not None
    assert route.difficulty_score < route.tier_boundaries["complex_reasoning"], (
        "the wild case: scored low, routed high"
    )
    assert route.decision_cause == "reasoning_override"
    assert route.signals
    assert route.router_version, "boundaries change between releases: scores are ranked per version"
    assert route.provider_name == "openai"
    assert route.cost_estimate_usd
    assert outcome.response_status == "success"
    assert outcome.cost_usd
    assert outcome.usage_input_tokens
    assert outcome.usage_output_tokens
    assert outcome.response_finish_reasons == ["stop"]
    assert collected.logger.errors == 0


async def test_a_simple_prompt_takes_the_cheap_tier(collected: Collected) -> None:
    await router().acompletion(model="smart", messages=ask("hello there"))
    await collected.outcome_count(1)
    (route,) = collected.routes
    assert (route.tier, route.tier_rank, route.selected_model) == ("SIMPLE", 0, "openai/gpt-4o-mini")


async def test_the_request_is_published_before_the_route_is_known(collected: Collected) -> None:
    seen: list[list[str]] = []

    class Late(rig.CustomLogger):
        async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
            seen.append([type(event).__name__ for event in collected.events])

    litellm.callbacks.append(Late())
    await router().acompletion(model="smart", messages=ask("hello there"))
    assert seen == [["Request"]]


async def test_each_failed_attempt_and_the_fail_over_have_their_events(collected: Collected) -> None:
    fleet = router(num_retries=1, fallbacks=[{"broken": ["small"]}])
    await fleet.acompletion(model="broken", messages=ask("hello"), user="u1")
    await collected.outcome_count(3)
    assert len(collected.requests) == 1
    assert len({e.request_id for e in collected.events}) == 1
    assert len({e.event_id for e in collected.events}) == len(collected.events) == 7
    failed, again, served = sorted(collected.routes, key=lambda route: route.attempt)
    assert [failed.attempt, again.attempt, served.attempt] == [0, 1, 2]
    assert failed.selected_model == again.selected_model == "openai/gpt-4o"
    assert (failed.fallback_from, served.fallback_from) == ("", "broken")
    assert served.fallback_chain == ["broken"]
    assert served.selected_model == "openai/gpt-4o-mini"
    statuses = [(outcome.response_status, outcome.error_type) for outcome in collected.outcomes]
    assert statuses == [("failure", "RateLimitError"), ("failure", "RateLimitError"), ("success", "")]


async def test_a_request_that_fails_for_good_still_has_its_events(collected: Collected) -> None:
    with pytest.raises(litellm.RateLimitError):
        await router().acompletion(model="broken", messages=ask("hello"))
    await collected.outcome_count(1)
    assert [type(event).__name__ for event in collected.events] == ["Request", "Route", "Outcome"]


async def test_a_request_that_never_reaches_a_model_is_still_a_request(collected: Collected) -> None:
    """Every deployment of the group cools down: nothing is routed, and the Router raises."""
    fleet = router(allowed_fails=0, cooldown_time=60)
    fleet.set_model_list([*fleet.model_list, deployment("broken", "openai/gpt-4o-mini", "litellm.RateLimitError")])
    for _ in range(4):
        with pytest.raises((litellm.RateLimitError, ValueError)):
            await fleet.acompletion(model="broken", messages=ask("hello"))
    await collected.until(lambda c: len(c.requests) == 4)


async def test_a_stream_has_one_outcome_at_its_end(collected: Collected) -> None:
    stream = await router().acompletion(model="smart", messages=ask("hello there"), stream=True)
    assert not collected.outcomes
    async for _ in stream:
        pass
    await collected.outcome_count(1)
    (asked,), (_,), (outcome,) = collected.requests, collected.routes, collected.outcomes
    assert asked.request_stream
    assert outcome.usage_output_tokens
    assert outcome.response_path == "upstream"
    assert 0 <= outcome.time_to_first_chunk_s <= outcome.duration_s


async def test_an_answer_from_the_cache_is_routed_and_costs_nothing(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    # LiteLLM 1.106 without its proxy's dependencies fails at every cache hit, for the import of this one class.
    name = "litellm.llms.anthropic.pass_through.messages.response_cache"
    absent = types.ModuleType(name)
    absent.CachedAnthropicMessagesStreamIterator = type("Absent", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, absent)
    fleet = router()
    litellm.cache = litellm.Cache(type="local")
    for n in (1, 2):
        await fleet.acompletion(model="smart", messages=ask("asked twice"), caching=True)
        await collected.outcome_count(n)
    first, second = collected.routes
    assert (first.cache_hit, second.cache_hit) == (False, True)
    assert second.tier == first.tier == "SIMPLE"
    assert second.cost_estimate_usd == 0
    assert len({e.request_id for e in collected.events}) == 2
    assert collected.outcomes[1].response_path == "cache"
    assert collected.outcomes[1].cost_usd == 0


async def test_synchronous_calls_with_and_without_a_router(collected: Collected) -> None:
    fleet = router(num_retries=1, fallbacks=[{"broken": ["small"]}])
    await asyncio.to_thread(fleet.completion, model="broken", messages=ask("hello"), user="u1")
    await collected.until(lambda c: any(o.response_status == "success" for o in c.outcomes))
    assert len(collected.requests) == 1
    assert [route.attempt for route in collected.routes] == [0, 1, 2]
    collected.events.clear()
    model: dict[str, Any] = {"model": "openai/gpt-4o-mini", "mock_response": "x", "messages": ask("hello")}
    await asyncio.to_thread(litellm.completion, **model)
    await litellm.acompletion(**model)
    await collected.outcome_count(2)
    assert len(collected.requests) == len(collected.routes) == 2
    assert len({e.request_id for e in collected.events}) == 2
    assert len({e.event_id for e in collected.events}) == 6


async def test_one_dictionary_of_metadata_for_many_requests(collected: Collected) -> None:
    """LiteLLM writes into its caller's metadata, and so do we: the next request is another one all the same."""
    fleet, metadata = router(), {"trace_id": "session-1"}
    for n in range(3):
        await fleet.acompletion(model="small", messages=ask(f"question {n}"), metadata=metadata)
    await collected.outcome_count(3)
    assert len({request.event_id for request in collected.requests}) == 3
    assert len({request.request_id for request in collected.requests}) == 3
    assert {e.trace_id for e in collected.events} == {"session-1"}


async def test_the_same_ids_again_are_another_request(collected: Collected) -> None:
    """A client may choose its ids: events under the same ones must not pass for duplicates."""
    fleet = router()
    for n in range(2):
        await fleet.acompletion(model="small", messages=ask(f"question {n}"), litellm_call_id="mine")
        await collected.outcome_count(n + 1)
    assert {e.request_id for e in collected.events} == {"mine"}
    assert len({e.event_id for e in collected.events}) == 6


async def test_identity_is_the_virtual_key_in_its_team(collected: Collected) -> None:
    metadata = {"user_api_key_hash": "88dc28", "user_api_key_team_id": "team-a", "user_api_key_user_id": "alice"}
    await router().acompletion(model="small", messages=ask("hello"), metadata=metadata, user="end-user-1")
    await collected.outcome_count(1)
    for event in collected.events:
        assert event.tenant_id == "team-a"
        assert event.principal_hash == IDENTITY.hash("88dc28", "team-a")
        assert event.end_user_hash == IDENTITY.hash("end-user-1", "team-a")
    assert not any(plain in collected.bytes for plain in (b"88dc28", b"alice", b"end-user-1"))


async def test_metadata_cannot_pass_for_ours(collected: Collected) -> None:
    forged = {"_pointsman_call": {"request_id": "x", "principal_hash": "somebody else"}}
    await router().acompletion(model="small", messages=ask("hello"), metadata=forged)
    await collected.outcome_count(1)
    assert collected.requests[0].principal_hash == IDENTITY.hash("anonymous")


class Guard(rig.CustomGuardrail):
    """Refuses or passes, and records it as LiteLLM's guardrails do."""

    def __init__(self, status: str) -> None:
        super().__init__(guardrail_name="guard", event_hook="pre_call", default_on=True)
        self.status = status

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        self.add_standard_logging_guardrail_information_to_request_data(
            guardrail_json_response={"seen": kwargs["messages"]},
            request_data=kwargs,
            guardrail_status=self.status,
            guardrail_provider="test",
            tracing_detail={
                "violation_categories": ["violence"] if self.status != "success" else [],
                "risk_score": 7.5,
            },
        )
        if self.status == "guardrail_intervened":
            raise ValueError("refused")


@pytest.mark.parametrize(
    ("status", "verdict", "action"),
    [
        ("success", "allow", "allow"),
        ("guardrail_flagged", "warn", "allow"),
        ("guardrail_failed_to_respond", "", ""),
    ],
)
async def test_a_guardrails_verdict_is_in_the_outcome(
    collected: Collected, status: str, verdict: str, action: str
) -> None:
    litellm.callbacks.append(Guard(status))
    await router().acompletion(model="smart", messages=ask("hello there"))
    await collected.outcome_count(1)
    (outcome,) = collected.outcomes
    assert (outcome.guardrail_verdict, outcome.guardrail_action) == (verdict, action)
    if verdict:
        assert outcome.evaluation_name == "guard"
        assert outcome.evaluation_score_value == 7.5


async def test_a_guardrails_refusal_is_in_the_outcome(collected: Collected) -> None:
    litellm.callbacks.append(Guard("guardrail_intervened"))
    with pytest.raises(Exception, match="refused"):
        await router().acompletion(model="smart", messages=ask("hello there"))
    await collected.outcome_count(1)
    (outcome,) = collected.outcomes
    assert outcome.response_status == "failure"
    assert (outcome.guardrail_verdict, outcome.guardrail_action) == ("deny", "block")
    assert outcome.risk_category == ["violence"]
    assert len(collected.requests) == 1


@pytest.mark.parametrize("prompt", ["ends", "hash"])
async def test_nothing_leaks(prompt: Any) -> None:
    middle = "the merger closes on friday"
    text = "step by step " + "x" * 3000 + middle + "y" * 3000
    async for collected in collecting(prompt):
        fleet = router(fallbacks=[{"broken": ["small"]}])
        await fleet.acompletion(model="smart", messages=ask(text), user="alice@example.com")
        await fleet.acompletion(model="broken", messages=ask(text), user="alice@example.com")
        await collected.outcome_count(3)
        assert len(collected.requests) == 2
        assert SECRET.encode() not in collected.bytes
        assert b"alice" not in collected.bytes
        assert middle.encode() not in collected.bytes
        assert b"answer" not in collected.bytes, "answers are not published"
        assert (b"step by step" in collected.bytes) == (prompt == "ends")
        assert collected.requests[0].prompt_chars == len(text)


async def test_who_turns_litellms_message_logging_off_sends_us_no_text(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litellm, "turn_off_message_logging", True)
    await router().acompletion(model="smart", messages=ask("think step by step: a quiet question"))
    await collected.outcome_count(1)
    assert b"quiet question" not in collected.bytes
    assert b"step by step" not in collected.bytes
    assert collected.requests[0].prompt_hash


async def test_names_a_client_may_choose_never_make_an_event_invalid(collected: Collected) -> None:
    long = "n" * 5_000
    fleet = router(deployment(long, "openai/gpt-4o-mini", "x"))
    await fleet.acompletion(model=long, messages=ask("\ud800 hello"), user=long, metadata={"session_id": long})
    await collected.outcome_count(1)
    assert len(collected.events) == 3


async def test_a_callback_that_fails_or_has_no_room_does_not_disturb() -> None:
    def fails(event: AnyEvent) -> None:
        raise RuntimeError("no")

    full = Publisher({"bootstrap_servers": "127.0.0.1:9"}, "//litellm/test", queue_bytes=1)
    for publish in (fails, full.publish):
        logger = rig.PointsmanLogger(publish, Gateway(IDENTITY))
        rig.only(logger)
        fleet = router(fallbacks=[{"broken": ["small"]}])
        for model in ("smart", "broken"):
            answer = await fleet.acompletion(model=model, messages=ask("hello there"))
            assert answer.choices[0].message.content == "a small answer"
        stream = await fleet.acompletion(model="smart", messages=ask("hello there"), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "a small answer"
        await asyncio.to_thread(fleet.completion, model="small", messages=ask("hello there"))
        rig.only()
        assert (logger.errors > 0) == (publish is fails)
    assert full.dropped >= 5
    assert not full.publish(request())
    assert full.stop(0.1)
