"""What gateways publish: request, route and outcome, one topic, one key (`principal_hash`).

Names follow the OpenTelemetry GenAI conventions without the `gen_ai.` prefix, dots as underscores; what
OpenTelemetry lacks has a noun of its own (`router_*`, `difficulty_*`, `cost_*`, `principal_*`). Unknown
fields are ignored (gateways are newer than readers); numbers are finite and bounded, times carry a zone.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=256)]
Name = Annotated[str, Meta(max_length=256)]
Time = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0, le=2**40)]
Usd = Annotated[float, Meta(ge=0, le=1e6)]
Real = Annotated[float, Meta(ge=-1e9, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Names = Annotated[list[Name], Meta(max_length=256)]

# The text of a prompt that is kept whole; longer ones are cut to a head and a tail of `CUT_CHARS`.
PROMPT_CAP_CHARS = 65_536
CUT_CHARS = 4_096


class Event(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="event_type", gc=False):
    """What every event carries."""

    event_id: Id
    event_time: Time  # the gateway's clock: data, never the stream's time
    request_id: Id
    tenant_id: Id
    principal_hash: Id  # HMAC of the key or user that pays
    schema_version: Annotated[int, Meta(ge=1, le=1000)] = 1
    trace_id: Name = ""
    end_user_hash: Name = ""
    gateway_name: Name = ""
    gateway_instance: Name = ""
    gateway_version: Name = ""
    gateway_plugins_hash: Name = ""


class Request(Event, kw_only=True, omit_defaults=True, tag="request"):
    """What the client asked: published before the route is known."""

    operation_name: Name = ""
    request_model: Name = ""
    conversation_id: Name = ""
    turn_index: Count = 0
    request_stream: bool = False
    request_max_tokens: Count = 0
    prompt_hash: Name = ""  # `hmac-sha256:...`
    prompt_chars: Count = 0  # true length, whatever was cut
    prompt_tokens_est: Count = 0
    n_messages: Count = 0
    system_prompt_hash: Name = ""
    # One of the three is needed to judge the text; without any the text detectors answer None.
    prompt_text: str = ""
    prompt_head: str = ""
    prompt_tail: str = ""
    prompt_embedding: Annotated[list[Real], Meta(max_length=4096)] | None = None
    embedding_model: Name = ""
    source_ip_prefix: Name = ""
    user_agent: Annotated[str, Meta(max_length=1024)] = ""


class CounterfactualScore(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The router's score for the same prompt without a part of it (sampled by the gateway's guard)."""

    ablation: Literal["head", "tail", "window"]
    tokens: Count
    difficulty_score: Real


class Route(Event, kw_only=True, omit_defaults=True, tag="route"):
    """What the router decided. `difficulty_score` keeps the router's own scale."""

    selected_model: Id
    router_name: Name = ""
    router_type: Name = ""
    router_version: Name = ""
    provider_name: Name = ""
    provider_region: Name = ""
    provider_retention: Name = ""
    difficulty_score: Real | None = None
    score_kind: Literal["", "strong_win_rate", "complexity", "confidence", "p_solve"] = ""
    score_direction: Literal[-1, 1] = 1  # +1: a higher score is harder, and goes to a stronger model
    router_threshold: Real | None = None
    threshold_source: Literal["", "config", "caller"] = ""
    tier_boundaries: Annotated[dict[Name, Real], Meta(max_length=32)] = {}
    tier: Name = ""
    tier_rank: Annotated[int, Meta(ge=0, le=1000)] | None = None  # 0 is the weakest (cheapest) tier
    category: Name = ""
    decision_cause: Name = ""
    signals: Names = []
    escalated: bool = False
    cache_hit: bool = False
    attempt: Annotated[int, Meta(ge=0, le=1000)] = 0
    fallback_from: Name = ""
    fallback_chain: Names = []
    classifier_model: Name = ""
    classifier_confidence: Share | None = None
    classifier_cost_usd: Usd = 0.0
    cost_estimate_usd: Usd | None = None
    baseline_model: Name = ""
    baseline_cost_usd: Usd | None = None
    counterfactual_scores: Annotated[list[CounterfactualScore], Meta(max_length=16)] = []


class Outcome(Event, kw_only=True, omit_defaults=True, tag="outcome"):
    """What came of it. Untrusted, whatever it says: trusted labels come on a topic of their own."""

    response_id: Name = ""
    response_model: Name = ""
    response_finish_reasons: Names = []
    response_status: Name = ""
    response_path: Name = ""
    error_type: Name = ""
    usage_input_tokens: Count = 0
    usage_output_tokens: Count = 0
    usage_cache_read_input_tokens: Count = 0
    usage_reasoning_output_tokens: Count = 0
    cost_usd: Usd | None = None
    cost_source: Literal["", "provider", "local"] = ""
    duration_s: Seconds = 0.0
    time_to_first_chunk_s: Seconds = 0.0
    evaluation_name: Name = ""
    evaluation_score_value: Real | None = None
    evaluation_score_label: Literal["", "safe", "unsafe", "refused", "unknown"] = ""
    guardrail_verdict: Literal["", "allow", "deny", "modify", "warn", "escalate"] = ""
    guardrail_action: Literal["", "allow", "block", "modify", "escalate"] = ""
    risk_category: Names = []
    fit_verdict: Literal["", "good_fit", "underpowered", "overprovisioned", "failed"] = ""
    outcome_source: Literal["", "user", "agent", "eval", "operator", "provider", "router"] = ""
    idempotency_key: Name = ""
    response_hash_provider: Name = ""
    response_hash_client: Name = ""
    tool_calls_hash_provider: Name = ""
    tool_calls_hash_client: Name = ""
    expert_load: Annotated[list[Annotated[list[Count], Meta(max_length=4096)]], Meta(max_length=256)] = []
    canary_hits: Names = []


AnyEvent = Request | Route | Outcome


def without_text(request: Request) -> Request:
    """The request without its prompt: what state, history and findings may keep."""
    return msgspec.structs.replace(request, prompt_text="", prompt_head="", prompt_tail="", prompt_embedding=None)
