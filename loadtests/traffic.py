"""A fleet's events as gateways publish them, and which of them belong to which attack.

`python -m loadtests.traffic --seed 1 --requests 5000 --attacks known,unseen --out EVENTS.jsonl` writes one event a
line, in the order of publication, and beside it the truth (`EVENTS.truth.json`).

Real gateways are not tidy: of these, some events come late, twice or not at all, clocks differ between
gateways, calls fail over, and some prompts have no text.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from loadtests.fleet import Ask, Fleet, hashed
from loadtests.prompts import data_dir
from loadtests.router import TIERS, DifficultyRouter, Tier
from schemas.codec import encode
from schemas.events import AnyEvent, Outcome, Request, Route

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)  # of files: a stream played live starts when it does

# Chances for each request.
LATE = 0.01  # its request event is published after its route
ROUTE_LOST = 0.002
OUTCOME_LOST = 0.005
TWICE = 0.001  # published again by a gateway that saw no acknowledgement
FAILS_OVER = 0.01
FAILS = 0.008
NO_TEXT = 0.001
CACHED = 0.5  # where the tenant has asked the same before
UNGUARDED = 0.01
EVALUATED = 0.1
UNSAFE_ANSWER = 0.003  # of evaluated answers; after harmful prompts UNSAFE_AFTER
UNSAFE_AFTER = 0.3
TOKEN_S = 0.004  # seconds for a token of an answer
_GATEWAYS = (("gw-a", 0.0), ("gw-b", 0.035), ("gw-c", -0.020))  # with their clocks' errors in seconds


class Sent(NamedTuple):
    """An event and when it is published, in seconds from the start."""

    at: float
    event: AnyEvent


class Attack(msgspec.Struct, omit_defaults=True):
    """What was planted. `kinds`: those of findings (detectors/kinds.py) that name this attack for what it is."""

    name: str
    kinds: list[str]
    principals: list[str] = []
    request_ids: list[str] = []
    first_at: float = 0.0  # seconds from the start
    last_at: float = 0.0


class Truth(msgspec.Struct):
    """What is known of a stream beforehand."""

    seed: int
    requests: int
    events: int
    attacks: list[Attack]


def score_all(router: DifficultyRouter, asks: Iterable[Ask]) -> dict[str, float]:
    """Score each distinct text once."""
    texts = list(dict.fromkeys(ask.text for ask in asks))
    return dict(zip(texts, router.score(texts).tolist(), strict=True))


def events(
    asks: Sequence[Ask], scores: Mapping[str, float], router: DifficultyRouter, seed: int, start: datetime = START
) -> list[Sent]:
    """All events in order of publication. Request ids are `request_id(seed, n)` of the ask's place."""
    gateway = _Gateway(scores, router, seed, start)
    for number, ask in enumerate(asks):
        gateway.serve(number, ask)
    gateway.sent.sort(key=lambda sent: sent.at)
    return gateway.sent


def request_id(seed: int, number: int) -> str:
    """Return the id of the ask at this place."""
    return f"req-{seed}-{number:07d}"


def attacks_in(asks: Sequence[Ask], kinds: Mapping[str, Sequence[str]], seed: int) -> list[Attack]:
    """Collect what was planted, by the name on each ask; `kinds` says what each name should be found as."""
    found: dict[str, Attack] = {}
    for number, ask in enumerate(asks):
        if ask.attack:
            attack = found.setdefault(ask.attack, Attack(ask.attack, list(kinds[ask.attack]), first_at=ask.at))
            attack.request_ids.append(request_id(seed, number))
            attack.last_at = ask.at
            if ask.principal.hash not in attack.principals:
                attack.principals.append(ask.principal.hash)
    return list(found.values())


class _Gateway:
    """Turns asks into events; keeps what it has answered, for its cache."""

    def __init__(self, scores: Mapping[str, float], router: DifficultyRouter, seed: int, start: datetime) -> None:
        self.sent: list[Sent] = []
        self._scores = scores
        self._router = router
        self._seed = seed
        self._start = start
        self._rng = random.Random(f"{seed}/gateway")
        self._answered: set[tuple[str, str]] = set()

    def serve(self, number: int, ask: Ask) -> None:
        """Publish what comes of one ask."""
        rng, caller = self._rng, ask.principal
        identity = request_id(self._seed, number)
        name, skew = rng.choice(_GATEWAYS)
        common = {
            "request_id": identity,
            "tenant_id": caller.tenant,
            "principal_hash": caller.hash,
            "gateway_name": "pointsman-loadtests",
            "gateway_instance": name,
            "gateway_version": "1.0",
        }
        decided = ask.at + rng.lognormvariate(-4.8, 0.5)  # about 8 ms
        done = decided + 0.1 + ask.output_tokens * TOKEN_S * rng.lognormvariate(0, 0.3)
        cached = (caller.tenant, ask.text) in self._answered and rng.random() < CACHED
        if cached:
            done = decided + 0.01
        self._answered.add((caller.tenant, ask.text))

        late = rng.random() < LATE
        self._send(ask, decided + rng.expovariate(4) if late else ask.at, self._request(ask, common, ask.at + skew))
        score = self._scores[ask.text] if ask.score is None else ask.score
        tier = self._router.tier(score)
        if rng.random() >= ROUTE_LOST:
            self._send(ask, decided, self._route(ask, common, score, tier, cached, decided + skew))
            if not cached and rng.random() < FAILS_OVER:
                tier, failed = TIERS[min(tier.rank + 1, len(TIERS) - 1)], tier
                decided += 0.5 + rng.expovariate(1)
                done += decided - ask.at
                again = self._route(ask, common, score, tier, False, decided + skew, failed)
                self._send(ask, decided, again)
        if rng.random() >= OUTCOME_LOST:
            self._send(ask, done, self._outcome(ask, common, tier, cached, done - ask.at, done + skew))

    def _send(self, ask: Ask, at: float, event: AnyEvent) -> None:
        if ask.tamper:
            ask.tamper(event)
        self.sent.append(Sent(at, event))
        if self._rng.random() < TWICE:
            self.sent.append(Sent(at + 0.3, event))

    def _time(self, seconds: float) -> datetime:
        return self._start + timedelta(seconds=seconds)

    def _request(self, ask: Ask, common: dict[str, str], at: float) -> Request:
        text = "" if self._rng.random() < NO_TEXT else ask.text
        return Request(
            event_id=f"{common['request_id']}/request",
            event_time=self._time(at),
            operation_name="chat",
            request_model="auto",
            conversation_id=ask.conversation,
            turn_index=ask.turn,
            request_stream=ask.principal.streams,
            prompt_hash=hashed(ask.text),
            prompt_chars=len(ask.text),
            prompt_tokens_est=len(ask.text) // 4,
            n_messages=2 * ask.turn + 1,
            prompt_text=text,
            user_agent="openai-python/1.99",
            **common,  # type: ignore[arg-type]  # all of them strings of Event
        )

    def _route(
        self, ask: Ask, common: dict[str, str], score: float, tier: Tier, cached: bool, at: float,
        failed: Tier | None = None,
    ) -> Route:  # fmt: skip
        attempt = 0 if failed is None else 1
        return Route(
            event_id=f"{common['request_id']}/route/{attempt}",
            event_time=self._time(at),
            selected_model=tier.model,
            router_name=self._router.name,
            router_type="difficulty",
            router_version=self._router.version,
            provider_name=tier.provider,
            difficulty_score=score,
            score_kind="strong_win_rate",
            tier_boundaries=self._router.boundaries,
            threshold_source="config",
            tier=tier.name,
            tier_rank=tier.rank,
            decision_cause="health_failover" if failed else "classifier",
            cache_hit=cached,
            attempt=attempt,
            fallback_from=failed.model if failed else "",
            cost_estimate_usd=0.0 if cached else tier.cost(ask.input_tokens, 200),  # before the answer is known
            baseline_model=TIERS[-1].model,
            baseline_cost_usd=TIERS[-1].cost(ask.input_tokens, 200),
            **common,  # type: ignore[arg-type]
        )

    def _outcome(
        self, ask: Ask, common: dict[str, str], tier: Tier, cached: bool, seconds: float, at: float
    ) -> Outcome:
        rng = self._rng
        outcome = Outcome(
            event_id=f"{common['request_id']}/outcome",
            event_time=self._time(at),
            response_id=f"resp-{common['request_id']}",
            response_model=tier.model,
            response_status="success",
            response_path="cache" if cached else "upstream",
            response_finish_reasons=["stop"],
            usage_input_tokens=ask.input_tokens,
            usage_output_tokens=ask.output_tokens,
            cost_usd=0.0 if cached else tier.cost(ask.input_tokens, ask.output_tokens),
            cost_source="local",
            duration_s=min(seconds, 3600.0),
            outcome_source="provider",
            **common,  # type: ignore[arg-type]
        )
        if rng.random() >= UNGUARDED:
            denied = rng.random() < (0.9 if ask.unsafe else 0.002)
            outcome.guardrail_verdict = "deny" if denied else "allow"
            outcome.guardrail_action = "block" if denied else "allow"
        if rng.random() < FAILS:
            outcome.response_status, outcome.error_type, outcome.cost_usd = "failure", "timeout", 0.0
            outcome.usage_output_tokens = 0
        elif rng.random() < EVALUATED:
            harmful = rng.random() < (UNSAFE_AFTER if ask.unsafe else UNSAFE_ANSWER)
            outcome.evaluation_name = "llm-judge"
            outcome.evaluation_score_label = "unsafe" if harmful else "safe"
        return outcome


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--requests", default=5000, show_default=True, help="Ordinary ones; attacks come on top.")
@click.option("--rate", default=20.0, show_default=True, help="Requests a second of event time, in the mean.")
@click.option("--attacks", default="", help="Campaigns to plant, by commas: known, unseen, wallet, spoof, ...")
@click.option(
    "--router", "kind", default="words", show_default=True, type=click.Choice(["words", "chars", "static"])
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def main(seed: int, requests: int, rate: float, attacks: str, kind: str, out: Path) -> None:
    """Write a file of events for `pointsman replay`, and its truth."""
    from loadtests.attacks.campaigns import KINDS, plant

    router = DifficultyRouter.load(kind)  # type: ignore[arg-type]  # click has checked it
    fleet = Fleet(seed, data_dir())
    asks = fleet.asks(requests, rate)
    for name in filter(None, attacks.split(",")):
        asks += plant(name, fleet, router, start=0.5 * requests / rate, seconds=0.4 * requests / rate)
    asks.sort(key=lambda ask: ask.at)
    sent = events(asks, score_all(router, asks), router, seed)
    with out.open("wb") as file:
        file.writelines(encode(event) + b"\n" for _, event in sent)
    truth = Truth(seed, len(asks), len(sent), attacks_in(asks, KINDS, seed))
    out.with_suffix(".truth.json").write_bytes(msgspec.json.format(msgspec.json.encode(truth)))
    click.echo(f"{len(asks)} requests, {len(sent)} events, {len(truth.attacks)} attacks -> {out}")


if __name__ == "__main__":
    main()
