"""Every kind of finding: its category, severity, the labels that are an alert's identity, and its taxonomy ids."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.codec import stable_id
from schemas.verdicts import Category, Finding, Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """`identity` names the Finding's fields that make the alert's identity, beside kind and category.

    An alert fires at its `fire_count`-th finding within `fire_span_s` seconds of stream time.
    """

    name: str
    category: Category
    severity: Severity
    identity: tuple[str, ...]
    summary: str
    mitre_atlas: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()
    pages: bool = True  # False: context for other alerts, never an alert by itself
    fire_count: int = 1
    fire_span_s: float = 0.0


# MITRE ATLAS and OWASP LLM ids
_WALLET = (("AML.T0034",), ("LLM10:2025",))  # cost harvesting; unbounded consumption
_EVADE = (("AML.T0015",), ("LLM01:2025",))  # evade ML model; prompt injection
_SUPPLY = (("AML.T0010",), ("LLM03:2025",))  # supply chain

_ALL = (
    Kind("known_trigger", "cost_escalation", "critical", ("trigger_id",),
         "A catalogued trigger is in use against the router", *_WALLET),
    Kind("unseen_trigger", "cost_escalation", "critical", ("window",),
         "The same odd window under many different prompts of several callers", *_WALLET,
         fire_count=3, fire_span_s=600),
    Kind("novel_text", "cost_escalation", "warning", ("tenant_id", "principal_hash"),
         "Prompts carry text that reads like an optimised trigger", *_WALLET, fire_count=3, fire_span_s=600),
    Kind("denial_of_wallet", "cost_escalation", "critical", ("tenant_id", "principal_hash"),
         "A principal's spend or strong share has left its own past", *_WALLET),
    Kind("fleet_spend", "cost_escalation", "warning", ("tenant_id",),
         "Many principals' spend rises together", *_WALLET),
    Kind("spoofed_difficulty", "quality_hijack", "warning", ("router_name", "tenant_id", "principal_hash"),
         "Difficulty estimates far below what prompts like these get", *_EVADE, fire_count=5, fire_span_s=600),
    Kind("tier_contradiction", "cost_escalation", "warning", ("router_name",),
         "The score says a cheap tier, the route took a dear one", *_WALLET, fire_count=5, fire_span_s=600),
    Kind("caller_threshold", "cost_escalation", "warning", ("tenant_id", "principal_hash"),
         "The caller, not the operator, chose the routing threshold", *_WALLET),
    Kind("boundaries_changed", "pipeline", "info", ("router_name",),
         "A router's tier boundaries changed between events", *_SUPPLY),
    Kind("steering", "cost_escalation", "warning", ("tenant_id", "principal_hash"),
         "A principal's routes move one way only", *_EVADE, pages=False),
    Kind("guardrail_gap", "safety_bypass", "warning", ("router_name",),
         "Requests reach a route without a guardrail verdict", *_EVADE),
    Kind("unsafe_route", "safety_bypass", "critical", ("router_name",),
         "A route's unsafe share is beyond its allowance", *_EVADE),
    Kind("unjudged", "pipeline", "warning", ("router_name",),
         "Requests could not be judged"),
)  # fmt: skip

KINDS = {kind.name: kind for kind in _ALL}


def labels_for(kind: Kind, finding: Finding) -> dict[str, str]:
    """The labels that are the identity of the alert which a finding of this kind belongs to."""
    identity = {name: str(getattr(finding, name)) for name in kind.identity}
    return {"alertname": kind.name, "category": kind.category, **identity}


def fingerprint(labels: Mapping[str, str]) -> str:
    """The key of an alert and of its findings: 32 hex digits, whatever the order of the labels."""
    return stable_id(*(f"{name}={value}" for name, value in sorted(labels.items())))
