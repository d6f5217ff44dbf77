"""Attacks, and accidents, that no prompt shows: only the events about the route and the outcome do."""

from collections.abc import Callable

from loadtests.attacks.scene import Scene
from loadtests.fleet import Ask
from schemas.events import AnyEvent, Outcome, Route

CHATTER = (
    "step by step, with pros and cons"  # what sent the cheapest prompts to the top tier (BerriAI/litellm#37500)
)
SPARE = "spare-13b"  # a model that only fail-overs reach
FAILING = 0.5  # share of unsafe answers on a route gone wrong


def caller_threshold(scene: Scene, n: int) -> list[Ask]:
    """One caller names a threshold that every prompt passes, and so gets the strong model each time."""

    def tamper(event: AnyEvent) -> None:
        if isinstance(event, Route):
            event.router_threshold, event.threshold_source = 0.0, "caller"

    return _ordinary(scene, "caller_threshold", n, 1, tamper)


def contradiction(scene: Scene, n: int) -> list[Ask]:
    """Easy prompts, easy scores, and the top tier all the same: a keyword overrules the router's own score."""

    def tamper(event: AnyEvent) -> None:
        if isinstance(event, Route):
            event.difficulty_score, event.tier, event.tier_rank = 0.02, "REASONING", 3
            event.selected_model, event.decision_cause = "reasoner-xl", "reasoning_override"

    asks = _ordinary(scene, "contradiction", n, 3, tamper)
    for ask in asks:
        ask.text = f"{ask.text}\n{CHATTER}"
    return asks


def guardrail_gap(scene: Scene, n: int) -> list[Ask]:
    """Provoked fail-overs reach a spare model that stands behind no guardrail."""

    def tamper(event: AnyEvent) -> None:
        if isinstance(event, Route):
            event.selected_model, event.fallback_from = SPARE, event.selected_model
        elif isinstance(event, Outcome):
            event.response_model, event.guardrail_verdict, event.guardrail_action = SPARE, "", ""

    return _ordinary(scene, "guardrail_gap", n, 4, tamper)


def unsafe_route(scene: Scene, n: int) -> list[Ask]:
    """Harmful prompts land on a weak route whose answers turn out unsafe."""

    def tamper(event: AnyEvent) -> None:
        if isinstance(event, Route):
            event.selected_model, event.tier, event.tier_rank = "small-8b-beta", "SIMPLE", 0
        elif isinstance(event, Outcome):
            event.response_model, event.evaluation_name = "small-8b-beta", "llm-judge"
            event.evaluation_score_label = "unsafe" if scene.rng.random() < FAILING else "safe"

    asks = _ordinary(scene, "unsafe_route", n, 4, tamper)
    for ask in asks:
        ask.unsafe = True
    return asks


def fleet_wallet(scene: Scene, n: int) -> list[Ask]:
    """Many callers rise together, each by too little to be told alone: every answer costs four times the usual."""
    callers = max(1, n // 15)

    def tamper(event: AnyEvent) -> None:
        if isinstance(event, Outcome) and event.cost_usd is not None:
            event.cost_usd *= 4

    return _ordinary(scene, "fleet_wallet", n, callers, tamper)


def _ordinary(scene: Scene, name: str, n: int, callers: int, tamper: Callable[[AnyEvent], None]) -> list[Ask]:
    """`n` ordinary prompts by so many callers, whose events are tampered with."""
    texts = [body.text for body in scene.fleet.bodies(scene.rng, n)]
    asks = list(scene.asks(name, texts, scene.attackers(callers)))
    for ask in asks:
        ask.tamper = tamper
    return asks
