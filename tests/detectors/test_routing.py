"""Routing: what is proposed for a category that a route serves badly, and what never is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.routing import Economy, RouteLabel, Routing, RoutingConfig, RoutingProposal

CONFIG = RoutingConfig(ladder=("small", "medium", "large"))
ECONOMY = Economy(
    route_usd={"small": 0.001, "medium": 0.003, "large": 0.02},
    guardrail_usd=0.0005,
    requests_per_day={("small", "medical"): 10_000, ("small", "chat"): 50_000},
)


def labels(
    route: str, category: str, n: int, unsafe: float = 0.0, lost: float | None = None, seed: int = 0
) -> list[RouteLabel]:
    rng = random.Random(f"{route}{category}{seed}")
    return [
        RouteLabel(
            tenant_id=f"t{i % 4}", principal_hash=f"p{i % 50}", route=route, category=category,
            unsafe=rng.random() < unsafe, quality_loss=None if lost is None else float(rng.random() < lost),
        )
        for i in range(n)
    ]  # fmt: skip


def proposed(*logs: list[RouteLabel], economy: Economy = ECONOMY) -> list[RoutingProposal]:
    routing = Routing(CONFIG)
    for log in logs:
        for label in log:
            routing.take(label)
    return routing.proposals(economy)


def test_an_unsafe_category_gets_the_cheaper_of_guardrail_and_stronger_route() -> None:
    unsafe, safe = labels("small", "medical", 1_500, 0.1), labels("small", "chat", 1_500, 0.005)
    better = labels("medium", "medical", 1_500, 0.0)
    (found,) = proposed(unsafe, safe, better)
    assert (found.kind, found.route, found.category) == ("guardrail", "small", "medical")
    assert found.cost_usd_per_day == pytest.approx(5.0)  # 10,000 requests at half a mill
    assert found.e_value >= CONFIG.arl
    dear = Economy(route_usd=ECONOMY.route_usd, guardrail_usd=0.01, requests_per_day=ECONOMY.requests_per_day)
    (found,) = proposed(unsafe, safe, better, economy=dear)
    assert (found.kind, found.to_route) == ("stronger_route", "medium")
    assert found.cost_usd_per_day == pytest.approx(20.0)
    assert found.expected <= found.allowed


def test_a_stronger_route_that_is_not_shown_to_be_safe_is_not_proposed() -> None:
    dear = Economy(route_usd=ECONOMY.route_usd, guardrail_usd=1.0, requests_per_day=ECONOMY.requests_per_day)
    few = labels("medium", "medical", 50, 0.0)
    (found,) = proposed(labels("small", "medical", 1_500, 0.1), few, economy=dear)
    assert found.kind == "guardrail"


def test_lost_quality_gets_a_stronger_route() -> None:
    weak, strong = labels("small", "chat", 800, lost=0.5), labels("large", "chat", 800, lost=0.05)
    (found,) = proposed(weak, strong)
    assert (found.kind, found.cause, found.to_route) == ("stronger_route", "quality", "large")
    assert found.cost_usd_per_day == pytest.approx(950.0)
    (found,) = proposed(weak)  # nothing is known of the others: the next one up
    assert (found.to_route, found.expected) == ("medium", 1.0)


def test_unknown_costs_are_said_to_be_unknown() -> None:
    (found,) = proposed(
        labels("small", "medical", 1_500, 0.1), labels("medium", "medical", 1_500),
        economy=Economy(route_usd={}, guardrail_usd=None, requests_per_day={}),
    )  # fmt: skip
    assert (found.kind, found.cost_usd_per_day) == ("guardrail", None)


def test_without_a_category_nothing_is_proposed() -> None:
    """A proposal without one would be a push on the whole route."""
    assert proposed(labels("small", "", 2_000, 0.3)) == []


def test_one_principal_alone_proposes_nothing() -> None:
    flood = [
        RouteLabel(tenant_id="t", principal_hash="p", route="small", category="chat", unsafe=True)
        for _ in range(99)
    ]
    assert proposed(flood) == []


def test_findings_at_the_boundary_are_rare() -> None:
    """At the allowed share, cells have at least `arl` labels between false findings in the mean."""
    early = 0
    for seed in range(100):
        routing = Routing(CONFIG)
        for label in labels("small", "chat", 1_000, CONFIG.unsafe_allowed, seed=seed):
            routing.take(label)
        early += bool(routing.proposals(ECONOMY))
    assert early <= 100 * 1_000 / CONFIG.arl  # 10; Markov's bound for a mean of 10,000


LABELS = st.lists(
    st.builds(
        RouteLabel,
        tenant_id=st.sampled_from("ab"),
        principal_hash=st.sampled_from("abcdefgh"),
        route=st.sampled_from(["small", "medium", "large", "odd"]),
        category=st.sampled_from(["", "chat"]),
        unsafe=st.sampled_from([None, True, True, False]),
        quality_loss=st.none() | st.floats(allow_nan=True, allow_infinity=True),
        weight=st.floats(min_value=-1, max_value=4),
    ),
    max_size=80,
)


@given(LABELS)
@settings(max_examples=60, deadline=None)
def test_any_stream_is_taken_restored_exactly_and_never_pushes_a_whole_route(log: list[RouteLabel]) -> None:
    routing = Routing(CONFIG)
    for label in log:
        routing.take(label)
    again = Routing.restore(CONFIG, routing.snapshot())
    assert again.snapshot() == routing.snapshot()
    found = routing.proposals(ECONOMY)
    assert again.proposals(ECONOMY) == found
    assert all(
        proposal.category and (proposal.kind == "guardrail") == (not proposal.to_route) for proposal in found
    )


def test_cells_are_bounded() -> None:
    routing = Routing(RoutingConfig(ladder=("small",), most_cells=3))
    for i in range(9):
        routing.take(RouteLabel(tenant_id="t", principal_hash="p", route="small", category=f"c{i}", unsafe=True))
    assert len(routing.snapshot()) == 3
