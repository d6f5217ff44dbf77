"""LiteLLM's request data, routing decisions and logging payloads as our events. Pure: needs no LiteLLM.

Written after LiteLLM 1.106. Everything that a client can choose (model, user, session, ids) is cut to what an
event may hold, or one long value would make its event invalid and its request unjudged. No dictionary of
LiteLLM's is passed on whole: they hold API keys.
"""

import ipaddress
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from schemas.codec import stable_id
from schemas.events import Outcome, Request, Route
from streams.gateways.privacy import Identity, PromptPolicy, clean, prompt_fields

Data = Mapping[str, Any]
Price = Callable[[str, int, int], float | None]  # model, input tokens, output tokens -> dollars, or unknown

TIER_RANKS = {"SIMPLE": 0, "MEDIUM": 1, "COMPLEX": 2, "REASONING": 3}
ANONYMOUS = "anonymous"  # who pays when LiteLLM knows neither a key nor a user
ANSWER_TOKENS = 200  # of an answer that is not there yet, for estimates of cost

_OPERATIONS = {"completion": "chat", "text_completion": "text_completion", "embedding": "embeddings"}
_Verdict = Literal["", "allow", "deny", "modify", "warn", "escalate"]
_Action = Literal["", "allow", "block", "modify", "escalate"]
_GUARDED: dict[str, tuple[_Verdict, _Action]] = {  # guardrail_status, the mildest first
    "success": ("allow", "allow"),
    "guardrail_flagged": ("warn", "allow"),
    "guardrail_intervened": ("deny", "block"),
}
_STATUSES = list(_GUARDED)


@dataclass(slots=True)
class Call:
    """One request on its way through LiteLLM: what its events share, and which of them were made."""

    request_id: str
    tenant_id: str
    principal_hash: str
    end_user_hash: str
    trace_id: str
    ids: tuple[object, ...]  # LiteLLM's of the call and of the trace: what later hooks know it by
    # A client may choose the request's id (`x-litellm-call-id`); event ids come from this, which it cannot, or
    # every request under one id would be taken for the first one's duplicate.
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    made: set[tuple[str, int]] = field(default_factory=set)

    @property
    def ended(self) -> bool:
        """Whether some attempt has an outcome."""
        return any(kind == "outcome" for kind, _ in self.made)

    def has(self, kind: str, attempt: int) -> bool:
        """Whether the event was made."""
        return (kind, attempt) in self.made

    def first(self, kind: str, attempt: int = 0) -> bool:
        """Whether this is the first event of its kind for this attempt, and from now on it is not."""
        before = len(self.made)
        self.made.add((kind, attempt))
        return len(self.made) > before

    def event_id(self, kind: str, attempt: int) -> str:
        """The same for the same request, kind and attempt."""
        return stable_id("litellm", self.nonce, kind, str(attempt))


@dataclass(frozen=True, slots=True)
class Gateway:
    """What all events of one gateway share, and what of a prompt may leave it."""

    identity: Identity
    prompt: PromptPolicy = "ends"
    name: str = "litellm"
    instance: str = ""
    version: str = ""

    def call(self, call_id: object, trace_id: object, metadata: Data, user: object) -> Call:
        """A new request. Its principal is the virtual key, else the user; its tenant the team or organisation."""
        tenant = _name(metadata.get("user_api_key_team_id") or metadata.get("user_api_key_org_id")) or "default"
        key = metadata.get("user_api_key_hash") or metadata.get("user_api_key_user_id")
        end_user = _text(user or metadata.get("user_api_key_end_user_id"))
        payer = _text(key) or end_user or ANONYMOUS
        return Call(
            request_id=_name(call_id or trace_id) or uuid.uuid4().hex,
            tenant_id=tenant,
            principal_hash=self.identity.hash(payer, tenant),
            end_user_hash=self.identity.hash(end_user, tenant) if end_user else "",
            trace_id=_name(metadata.get("trace_id") or trace_id),
            ids=tuple(filter(None, (call_id, trace_id))),
        )

    def request(self, call: Call, data: Data, messages: object, metadata: Data, operation: object = "") -> Request:
        """What was asked. `data`: the call's parameters."""
        asked, system, turns, n_messages = read_messages(messages or data.get("input") or data.get("prompt"))
        return Request(
            **self._shared(call, "request", 0),
            operation_name=_operation(operation) or ("chat" if messages else ""),
            request_model=_name(metadata.get("model_group") or data.get("model")),
            conversation_id=_name(data.get("litellm_session_id") or metadata.get("session_id")),
            turn_index=max(0, turns - 1),
            request_stream=bool(data.get("stream")),
            request_max_tokens=_count(data.get("max_completion_tokens") or data.get("max_tokens")),
            n_messages=n_messages,
            system_prompt_hash=self.identity.hash(system, call.tenant_id) if system else "",
            source_ip_prefix=ip_prefix(metadata.get("requester_ip_address")),
            user_agent=_text(metadata.get("user_agent"), 1024),
            **prompt_fields(asked, self.prompt, self.identity, call.tenant_id),
        )

    def route(
        self, call: Call, attempt: int, model: object, provider: object, metadata: Data, *,
        cache_hit: bool = False, prompt_tokens: int = 0, price: Price = lambda *_: None,
    ) -> Route:  # fmt: skip
        """Where an attempt went: the routing decision if there was one, and always the model."""
        decision: Data = _mapping(metadata.get("routing_decision"))
        selected = _model(model, provider)
        baseline = _name(decision.get("savings_baseline_model"))
        tier = _name(decision.get("tier"))
        p_solve = _real(decision.get("classifier_p_solve"))
        score = _real(decision.get("score"))
        fell_back = _count(metadata.get("attempted_fallbacks")) > 0
        chain = [_name(_mapping(step).get("model_group")) for step in _sequence(metadata.get("previous_models"))]
        return Route(
            **self._shared(call, "route", attempt),
            selected_model=selected,
            router_name=_name(decision.get("router_model_name") or metadata.get("model_group")),
            router_type=_name(decision.get("router_type")),
            router_version=_name(decision.get("router_config_fingerprint"))[:16],
            provider_name=_name(provider),
            difficulty_score=p_solve if score is None else score,
            score_kind="complexity" if score is not None else "p_solve" if p_solve is not None else "",
            score_direction=1 if score is not None or p_solve is None else -1,  # likelier solved: easier
            router_threshold=_real(decision.get("classifier_threshold")),
            threshold_source="config" if decision.get("tier_boundaries") else "",
            tier_boundaries={
                _name(name): number
                for name, value in list(_mapping(decision.get("tier_boundaries")).items())[:32]
                if (number := _real(value)) is not None
            },
            tier=tier,
            tier_rank=TIER_RANKS.get(tier.upper()),
            category=_name(decision.get("request_type")),
            decision_cause=_name(decision.get("cause")),
            signals=_signals(decision.get("signals"), self.prompt),
            escalated=bool(decision.get("escalated") or decision.get("context_escalated")),
            cache_hit=cache_hit,
            attempt=min(attempt, 1000),
            fallback_from=_name(metadata.get("original_model_group")) if fell_back else "",
            fallback_chain=list(dict.fromkeys(filter(None, chain)))[:256] if fell_back else [],
            classifier_model=_name(decision.get("classifier_model")),
            classifier_confidence=_bounded(decision.get("classifier_confidence"), 1.0),
            classifier_cost_usd=_bounded(decision.get("classifier_cost"), 1e6) or 0.0,
            cost_estimate_usd=0.0 if cache_hit else price(selected, prompt_tokens, ANSWER_TOKENS),
            baseline_model=baseline,
            baseline_cost_usd=price(baseline, prompt_tokens, ANSWER_TOKENS) if baseline else None,
        )

    def outcome(self, call: Call, attempt: int, payload: Data) -> Outcome:
        """What came of an attempt. `payload`: a StandardLoggingPayload, or as much of one as there is."""
        guard = _guard(payload.get("guardrail_information"))
        usage = _mapping(_mapping(payload.get("metadata")).get("usage_object"))
        began, ended, first = (_time(payload.get(name)) for name in ("startTime", "endTime", "completionStartTime"))
        waited = first - began if first is not None and began is not None and payload.get("stream") else 0.0
        failed = payload.get("status") == "failure"
        return Outcome(
            **self._shared(call, "outcome", attempt, ended),
            response_id=_name(payload.get("id")),
            response_model=_name(payload.get("model")),
            response_finish_reasons=_finish_reasons(payload.get("response")),
            response_status="failure" if failed else "success",
            response_path="cache" if payload.get("cache_hit") else "upstream",
            error_type=_name(_mapping(payload.get("error_information")).get("error_class")),
            usage_input_tokens=_count(payload.get("prompt_tokens")),
            usage_output_tokens=_count(payload.get("completion_tokens")),
            usage_cache_read_input_tokens=_count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
            usage_reasoning_output_tokens=_count(
                _mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")
            ),
            cost_usd=_bounded(payload.get("response_cost"), 1e6),
            cost_source="local",
            duration_s=_bounded(payload.get("response_time"), 86_400) or 0.0,
            time_to_first_chunk_s=_bounded(waited, 86_400) or 0.0,
            outcome_source="router",
            **guard,
        )

    def _shared(self, call: Call, kind: str, attempt: int, at: float | None = None) -> dict[str, Any]:
        return {
            "event_id": call.event_id(kind, attempt),
            "event_time": datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC),
            "request_id": call.request_id,
            "tenant_id": call.tenant_id,
            "principal_hash": call.principal_hash,
            "end_user_hash": call.end_user_hash,
            "trace_id": call.trace_id,
            "gateway_name": self.name,
            "gateway_instance": self.instance,
            "gateway_version": self.version,
        }


def attempt_number(metadata: Data) -> int:
    """0 for the first; retries and fail-overs count on. LiteLLM counts retries anew after each fail-over."""
    retries, most = _count(metadata.get("attempted_retries")), _count(metadata.get("max_retries"))
    return min(1000, _count(metadata.get("attempted_fallbacks")) * (most + 1) + retries)


def read_messages(messages: object) -> tuple[str, str, int, int]:
    """What is asked now, the system's text, how many user turns there are, and how many messages.

    Asked is the last message of the user, which is what LiteLLM's routers read; without one the last text there is.
    """
    if isinstance(messages, str):
        return messages, "", 1, 1
    asked, last, turns, count = "", "", 0, 0
    system: list[str] = []
    for message in _sequence(messages):
        count += 1
        plain = isinstance(message, str)
        role = "user" if plain else _mapping(message).get("role")
        text = message if plain else _content(_mapping(message).get("content"))
        last = text or last
        if role == "user":
            turns += 1
            asked = text or asked
        elif role in ("system", "developer"):
            system.append(text)
    return asked or last, "\n".join(filter(None, system)), turns, count


def tokens_of(messages: object) -> int:
    """About how many tokens the messages are: a quarter of their characters."""
    if isinstance(messages, str):
        return len(messages) // 4
    return sum(len(_content(_mapping(message).get("content"))) for message in _sequence(messages)) // 4


def ip_prefix(address: object) -> str:
    """The /24 or /48 network of an address; empty if it is none."""
    try:
        ip = ipaddress.ip_address(str(address))
    except ValueError:
        return ""
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = [_mapping(part).get("text") for part in _sequence(content)]
    return "\n".join(part for part in parts if isinstance(part, str))


def _guard(information: object) -> dict[str, Any]:
    """The strictest of the guardrails that ran. One that did not answer has no verdict: that is a gap."""
    entries = [information] if isinstance(information, Mapping) else _sequence(information)
    ran = [entry for entry in entries if _mapping(entry).get("guardrail_status") in _GUARDED]
    if not ran:
        return {}
    worst = max(ran, key=lambda entry: _STATUSES.index(entry["guardrail_status"]))
    verdict, action = _GUARDED[worst["guardrail_status"]]
    if action == "block" and worst.get("masked_entity_count"):
        verdict, action = "modify", "modify"
    risk, sure = _real(worst.get("risk_score")), _real(worst.get("confidence_score"))
    return {
        "guardrail_verdict": verdict,
        "guardrail_action": action,
        "risk_category": [_name(category) for category in _sequence(worst.get("violation_categories"))][:256],
        "evaluation_name": _name(worst.get("guardrail_name")),
        "evaluation_score_value": sure if risk is None else risk,
    }


def _signals(signals: object, policy: PromptPolicy) -> list[str]:
    """What the router matched; without the words, which are quoted from the prompt, when no text may leave."""
    texts = [_name(signal) for signal in _sequence(signals)][:256]
    return [text.partition("(")[0].rstrip() for text in texts] if policy == "hash" else texts


def _finish_reasons(response: object) -> list[str]:
    choices = _sequence(_mapping(response).get("choices"))
    reasons = (_mapping(choice).get("finish_reason") for choice in choices[:256])
    return [_name(reason) for reason in reasons if reason]


def _operation(call_type: object) -> str:
    name = _name(getattr(call_type, "value", call_type))
    return _OPERATIONS.get(name.removeprefix("a"), name)


def _model(model: object, provider: object) -> str:
    name, prefix = _name(model) or "unknown", _name(provider)
    return name if not prefix or name.startswith(f"{prefix}/") else f"{prefix}/{name}"[:256]


def _mapping(value: object) -> Data:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _text(value: object, most: int = 1 << 20) -> str:
    return clean(str(value)[:most]) if isinstance(value, str | int) and value else ""


def _name(value: object) -> str:
    return _text(value, 256)


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e9:
        return None
    return float(value)


def _time(value: object) -> float | None:
    """Seconds since 1970, before 2100."""
    return value if isinstance(value, float) and 0 <= value < 4.1e9 else None


def _bounded(value: object, most: float) -> float | None:
    number = _real(value)
    return None if number is None else min(max(number, 0.0), most)


def _count(value: object) -> int:
    return min(max(value, 0), 1 << 40) if isinstance(value, int) and not isinstance(value, bool) else 0
