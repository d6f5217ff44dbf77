"""The kinds of finding, each with its category: the vocabulary of detectors and of detections.

A new kind needs a line here and a detection that reads it (detectors/detections/shipped, docs/detections.md).
"""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.codec import stable_id
from schemas.verdicts import Category

KINDS: Mapping[str, Category] = MappingProxyType(
    {
        "boundaries_changed": "pipeline",
        "canary_credential": "custody",
        "caller_threshold": "cost_escalation",
        "denial_of_wallet": "cost_escalation",
        "egress_personal": "custody",
        "egress_secret": "custody",
        "experts_crowded": "safety_bypass",
        "experts_silenced": "safety_bypass",
        "feedback_poisoning": "feedback_poisoning",
        "fleet_spend": "cost_escalation",
        "gateway_changed": "custody",
        "guardrail_gap": "safety_bypass",
        "judges_failing": "pipeline",
        "known_trigger": "cost_escalation",
        "novel_text": "cost_escalation",
        "price_levels": "cost_escalation",
        "probing": "cost_escalation",
        "response_changed": "custody",
        "route_rule_broken": "custody",
        "spoofed_difficulty": "quality_hijack",
        "steered_by_text": "cost_escalation",
        "steering": "cost_escalation",
        "threshold_at_floor": "safety_bypass",
        "tier_contradiction": "cost_escalation",
        "tier_downgrade": "quality_hijack",
        "tool_calls_changed": "custody",
        "transplant": "cost_escalation",
        "trigger_candidate": "cost_escalation",
        "unjudged": "pipeline",
        "unsafe_route": "safety_bypass",
        "unseen_trigger": "cost_escalation",
        "usual_window": "cost_escalation",
    }
)

# What the lanes tell each other on the findings topic: no detection reads them, and no verdict names them.
EVIDENCE = frozenset({"price_levels", "trigger_candidate", "transplant"})

# What one request gives rise to and that is about neither it nor its principal: all of a kind go to one partition.
OF_MANY = frozenset({"price_levels"})


def fingerprint(labels: Mapping[str, str]) -> str:
    """The key of an alert and of its findings: 32 hex digits, whatever the order of the labels."""
    return stable_id(*(f"{name}={value}" for name, value in sorted(labels.items())))
