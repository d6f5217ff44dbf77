"""Custody at verdicts and outcomes: rules, tampering, canaries, gateways that change."""

from typing import Any

import pytest

from detectors.contract import PromptFacts
from detectors.custody import ESTABLISHED, KNOWN, Custody
from detectors.custody.rules import RuleFile, Rules, TenantRules
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason
from tests.detectors.checks import START, case_of, feed

RULES = Rules(
    RuleFile(
        tenants={
            "acme": TenantRules(providers=("azure", "bedrock"), regions=("eu-*",), retentions=("none", "30d")),
            "free": TenantRules(),
            "*": TenantRules(regions=("eu-*", "us-*")),
        },
        internal_providers=("vllm*",),
        recognise=False,
    )
)
HERE = {"provider_name": "azure", "provider_region": "eu-west", "provider_retention": "none"}


def custody(rules: Rules = RULES) -> Custody:
    return Custody(Thresholds(), rules)


def judged(detector: Custody, **parts: Any) -> Reason | float | None:
    return detector.score(case_of(**parts))


@pytest.mark.parametrize(
    ("tenant", "route", "broken"),
    [
        ("acme", {}, ""),
        ("acme", {"provider_name": "openai"}, "provider"),
        ("acme", {"provider_region": "us-east"}, "region"),
        ("acme", {"provider_retention": "forever"}, "retention"),
        ("acme", {"provider_region": "us-east", "cache_hit": True}, ""),
        ("acme", {"provider_name": "vllm-onprem", "provider_region": "us-east"}, ""),
        ("acme", {"provider_region": ""}, ""),
        ("free", {"provider_region": "mars"}, ""),
        ("other", {"provider_region": "us-east"}, ""),
        ("other", {"provider_region": "ap-south", "provider_name": "openai"}, "region"),
    ],
)
def test_a_route_against_its_tenants_rules(tenant: str, route: dict[str, Any], broken: str) -> None:
    answer = judged(custody(), tenant=tenant, route=HERE | route)
    if not broken:
        assert answer == 0.0
        return
    assert isinstance(answer, Reason)
    assert (answer.kind, answer.stage, answer.flagged) == ("route_rule_broken", broken, True)


@pytest.mark.parametrize(
    ("tenant", "outcome", "told"),
    [
        ("acme", {"response_status": "success"}, True),
        ("acme", {"response_status": "success", "response_path": "cache"}, True),
        ("acme", {"response_status": "success", "guardrail_verdict": "allow"}, False),
        ("acme", {"response_status": "success", "outcome_source": "provider"}, True),
        ("acme", {"response_status": "success", "outcome_source": "eval"}, False),
        ("acme", {"response_status": "failure"}, False),
        ("free", {"response_status": "success"}, False),
        ("other", {"response_status": "success"}, False),
    ],
)
def test_an_answer_without_the_guardrail_that_is_the_rule(tenant: str, outcome: dict[str, Any], told: bool) -> None:
    rules = Rules(RuleFile(tenants={"acme": TenantRules(guardrail=True), "free": TenantRules()}))
    answer = judged(custody(rules), tenant=tenant, route=HERE, outcome=outcome)
    if told:
        assert isinstance(answer, Reason)
        assert (answer.kind, answer.stage, answer.flagged) == ("route_rule_broken", "guardrail", True)
    else:
        assert answer == (0.0 if tenant == "acme" else None)


def test_a_fail_over_is_named_as_one() -> None:
    answer = judged(custody(), tenant="acme", route=HERE | {"provider_region": "us-east", "fallback_from": "big"})
    assert isinstance(answer, Reason)
    assert "fail-over" in answer.note


def test_without_rules_and_versions_nothing_can_be_checked() -> None:
    detector = custody(Rules())
    assert judged(detector, route={"provider_region": "us-east"}) is None
    assert judged(detector, route={}, outcome={}) is None


A, B = "hmac-sha256:k1:aa", "hmac-sha256:k1:bb"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"response_hash_provider": A, "response_hash_client": A}, 0.0),
        ({"response_hash_provider": A, "response_hash_client": B}, "response_changed"),
        ({"tool_calls_hash_provider": A, "tool_calls_hash_client": B}, "tool_calls_changed"),
        (
            {"response_hash_provider": A, "response_hash_client": B,
             "tool_calls_hash_provider": B, "tool_calls_hash_client": A},
            "tool_calls_changed",
        ),
        ({"response_hash_provider": A, "response_hash_client": B, "guardrail_action": "modify"}, 0.0),
        ({"response_hash_provider": A, "response_hash_client": "sha256:bb"}, 0.0),
        ({"response_hash_provider": A}, None),
        ({"canary_hits": ["k8s-token"]}, "canary_credential"),
    ],
)  # fmt: skip
def test_an_answer_on_its_way_to_the_client(outcome: dict[str, Any], kind: str | float | None) -> None:
    answer = judged(custody(), route=HERE, outcome=outcome)
    if isinstance(kind, str):
        assert isinstance(answer, Reason)
        assert answer.kind == kind
    else:
        assert answer == kind


@pytest.mark.parametrize(
    ("carries", "route", "kind"),
    [
        (["secret:Stripe Access Key"], HERE, "egress_secret"),
        (["personal:iban"], HERE, "egress_personal"),
        (["personal:iban", "secret:Slack Token", "canary:wiki"], HERE, "canary_credential"),
        (["personal:iban", "secret:Slack Token"], HERE, "egress_secret"),
        (["secret:Slack Token"], HERE | {"provider_name": "vllm"}, 0.0),
        (["secret:Slack Token"], HERE | {"cache_hit": True}, 0.0),
        (["secret:Slack Token"], None, "egress_secret"),
        (["secret:Slack Token"], HERE | {"provider_region": "mars"}, "egress_secret"),
    ],
)
def test_what_a_prompt_carries(carries: list[str], route: dict[str, Any] | None, kind: str | float) -> None:
    rules = Rules(RuleFile(tenants=RULES.file.tenants, internal_providers=("vllm*",)))
    answer = judged(custody(rules), tenant="acme", route=route, prompt=PromptFacts(carries=carries))
    if isinstance(kind, str):
        assert isinstance(answer, Reason)
        assert answer.kind == kind
    else:
        assert answer == kind


def test_how_many_personal_numbers_are_too_many_is_a_threshold() -> None:
    detector = Custody(Thresholds({"custody.personals": 3.0}), Rules(RuleFile()))
    assert judged(detector, route=HERE, prompt=PromptFacts(carries=["personal:iban"] * 2)) == 0.0
    assert isinstance(judged(detector, route=HERE, prompt=PromptFacts(carries=["personal:iban"] * 3)), Reason)


def send(detector: Custody, n: int, version: str, plugins: str = "", **parts: Any) -> list[Reason]:
    """`n` requests through one gateway; what was flagged."""
    software = {"gateway_name": "gw", "gateway_version": version, "gateway_plugins_hash": plugins}
    cases = [case_of(time=START + i, request=software, route=HERE | software, **parts) for i in range(n)]
    return [answer for answer in feed(detector, cases) if isinstance(answer, Reason)]


def test_a_gateway_that_changes_is_said_once() -> None:
    detector = custody()
    assert not send(detector, ESTABLISHED, "1.0", "p1")
    (upgraded,) = send(detector, 10, "1.1", "p1")
    assert (upgraded.kind, upgraded.stage) == ("gateway_changed", "version")
    (plugged,) = send(detector, 10, "1.1", "p2")
    assert plugged.stage == "plug-ins"
    assert not send(detector, 10, "1.0", "p1"), "a rolling upgrade runs both"
    assert not send(detector, 10, "1.1"), "an event that does not say what the plug-ins are"


def test_a_change_waits_for_what_is_graver() -> None:
    detector = custody()
    send(detector, ESTABLISHED, "1.0")
    found = send(detector, 1, "2.0", tenant="acme") + send(detector, 1, "2.0", tenant="acme")
    assert [reason.kind for reason in found] == ["gateway_changed"]
    detector = custody(Rules(RuleFile()))
    send(detector, ESTABLISHED, "1.0")
    found = send(detector, 3, "2.0", prompt=PromptFacts(carries=["secret:x"])) + send(detector, 3, "2.0")
    assert [reason.kind for reason in found] == ["egress_secret"] * 3 + ["gateway_changed"]


def test_a_new_gateway_and_one_without_a_version_are_no_news() -> None:
    detector = custody()
    assert not send(detector, ESTABLISHED // 2, "1.0") + send(detector, 2, "1.1")
    assert not send(custody(), 3 * ESTABLISHED, "")


def test_what_is_remembered_of_a_gateway_is_bounded() -> None:
    detector = custody()
    send(detector, ESTABLISHED, "1.0")
    for i in range(5 * KNOWN):
        send(detector, 1, f"2.{i}")
    (value,) = detector.snapshot().values()
    assert len(value) < 40 * KNOWN
