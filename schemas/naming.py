"""What each field is called elsewhere: the annotations `x-otel` and `x-litellm` of the exported schemas.

The rule: a field is the OpenTelemetry attribute without `gen_ai.`, dots as underscores. What OpenTelemetry
lacks has a noun of our own; where a field differs from its attribute on purpose, `RENAMED` says why.
"""

# Attributes whose field is what `field_of` makes of them. `*`: a draft there, in no release yet.
BY_RULE = (
    "gen_ai.gateway.name*",
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.request.stream",
    "gen_ai.request.max_tokens",
    "gen_ai.conversation.id",
    "gen_ai.provider.name",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "error.type",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.evaluation.name",
    "gen_ai.evaluation.score.value",
    "gen_ai.evaluation.score.label",
)

# field -> attribute, why the names differ
RENAMED = {
    "request_id": ("gen_ai.gateway.request.id*", "the id that joins the three events; every gateway has one"),
    "principal_hash": ("user.id", "hashed with a key: never the id itself"),
    "end_user_hash": ("enduser.pseudo.id", "hashed with a key"),
    "prompt_hash": ("gen_ai.guardrail.security.content.input.hash*", "of the prompt, whoever asks"),
    "prompt_text": ("gen_ai.input.messages", "the text of the messages, not their structure"),
    "source_ip_prefix": ("client.address", "cut to a prefix"),
    "user_agent": ("user_agent.original", "there is no other"),
    "fallback_chain": ("gen_ai.gateway.providers.attempted*", "models, in order"),
    "cost_usd": ("gen_ai.usage.cost*", "the unit is in the name"),
    "time_to_first_chunk_s": ("gen_ai.response.time_to_first_chunk", "the unit is in the name"),
    "guardrail_verdict": ("gen_ai.guardrail.verdict.type*", "a verdict is its type"),
    "guardrail_action": ("gen_ai.guardrail.action.type*", "an action is its type"),
    "risk_category": ("gen_ai.guardrail.security.risk.category*", "the guardrail's or the provider's"),
}

# field -> place in LiteLLM's StandardLoggingPayload (`routing.`: its metadata.routing_decision)
LITELLM = {
    "event_time": "startTime",
    "request_id": "litellm_call_id",
    "trace_id": "trace_id",
    "tenant_id": "metadata.user_api_key_team_id",
    "principal_hash": "metadata.user_api_key_hash",
    "end_user_hash": "end_user",
    "operation_name": "call_type",
    "request_model": "model_group",
    "conversation_id": "session_id",
    "request_stream": "stream",
    "request_max_tokens": "model_parameters.max_tokens",
    "prompt_text": "messages",
    "source_ip_prefix": "requester_ip_address",
    "user_agent": "user_agent",
    "router_name": "routing.router_model_name",
    "router_type": "routing.router_type",
    "selected_model": "routing.routed_model",
    "provider_name": "custom_llm_provider",
    "difficulty_score": "routing.score",
    "router_threshold": "routing.classifier_threshold",
    "tier_boundaries": "routing.tier_boundaries",
    "tier": "routing.tier",
    "decision_cause": "routing.cause",
    "signals": "routing.signals",
    "escalated": "routing.escalated",
    "cache_hit": "cache_hit",
    "classifier_model": "routing.classifier_model",
    "classifier_confidence": "routing.classifier_confidence",
    "classifier_cost_usd": "routing.classifier_cost",
    "baseline_model": "routing.savings_baseline_model",
    "response_id": "id",
    "response_model": "model",
    "response_status": "status",
    "error_type": "error_information.error_class",
    "usage_input_tokens": "prompt_tokens",
    "usage_output_tokens": "completion_tokens",
    "cost_usd": "response_cost",
    "duration_s": "response_time",
    "guardrail_verdict": "guardrail_information[].guardrail_status",
    "guardrail_action": "guardrail_information[].guardrail_action",
    "risk_category": "guardrail_information[].violation_categories",
}


def field_of(attribute: str) -> str:
    """The field that an OpenTelemetry attribute is by the rule."""
    return attribute.removeprefix("gen_ai.").replace(".", "_").removesuffix("*")


OTEL = {field_of(attribute): attribute for attribute in BY_RULE} | {
    name: attribute for name, (attribute, _) in RENAMED.items()
}


def annotations(field: str) -> dict[str, str]:
    """`x-otel` and `x-litellm` of an event's field, where it has them."""
    found = {"x-otel": OTEL.get(field), "x-litellm": LITELLM.get(field)}
    return {name: value for name, value in found.items() if value}
