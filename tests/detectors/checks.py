"""The battery that every detector passes, after River's `river.checks`: one function a promise of the contract.

A check takes a factory, so that it can make as many equal detectors as it needs. Factories are of small capacity:
a flood that takes minutes at the shipped size takes a moment here.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from detectors.contract import Answer, Case, PromptDetector, PromptFacts, StreamDetector
from detectors.coverage import Coverage
from detectors.custody import Custody
from detectors.custody.rules import Rules
from detectors.difficulty import Difficulty
from detectors.discovery import Discovery
from detectors.discovery.windows import pack_windows
from detectors.experts import Experts
from detectors.kinds import KINDS
from detectors.probing import Probing, sketches
from detectors.spend import Spend
from detectors.steering import Steering
from detectors.text import read_prompts, read_texts
from detectors.thresholds import DEFAULTS, Thresholds
from schemas.events import CounterfactualScore, Outcome, Request, Route
from schemas.verdicts import Reason

Factory = Callable[[], StreamDetector]

# By name: a factory of the smallest useful capacity.
SMALL: dict[str, Factory] = {
    "coverage": lambda: Coverage(Thresholds(), capacity=64),
    "custody": lambda: Custody(Thresholds(), Rules(), gateways=64),
    "discovery": lambda: Discovery(Thresholds(), windows=64, versions=8),
    "difficulty": lambda: Difficulty(Thresholds(), versions=8, routers=16, principals=64),
    "experts": lambda: Experts(Thresholds(), baselines=32, scales=64),
    "probing": lambda: Probing(Thresholds(), principals=64),
    "spend": lambda: Spend(Thresholds(), principals=64, tenants=16),
    "steering": lambda: Steering(Thresholds(), _residual, principals=64),
}


def _residual(case: Case) -> float | None:
    """What `Difficulty` would say, without its training: the score against the prompt's size."""
    score = case.route.difficulty_score if case.route is not None else None
    if case.outcome is not None or score is None or not math.isfinite(score) or not 0 <= score <= 1:
        return None
    return 8 * (score - (case.request.prompt_chars - 50) / 1000)


START = 1_790_000_000.0
DOCS = Path(__file__).parents[2] / "docs" / "detectors"
ROUTER = {"router_name": "words", "router_version": "v1"}
GATEWAY = {"gateway_name": "gw", "gateway_version": "1.0"}
BOUNDARIES = {"simple_medium": 0.3, "medium_complex": 0.6}


def case_of(
    principal: str = "p0",
    time: float = START,
    tenant: str = "t0",
    request: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
    outcome: dict[str, Any] | None = None,
    prompt: PromptFacts | None = None,
) -> Case:
    """A case; `route` or `outcome` None leaves it out. Nothing is validated: hostile values pass."""
    ids: dict[str, Any] = {
        "event_id": f"e{time}", "event_time": datetime.fromtimestamp(START, UTC), "request_id": f"r{time}",
        "tenant_id": tenant, "principal_hash": principal,
    }  # fmt: skip
    return Case(
        time=time,
        request=Request(**ids, **({"prompt_chars": 200} | (request or {}))),
        route=None if route is None else Route(**ids, **({"selected_model": "m0"} | route)),
        outcome=None if outcome is None else Outcome(**ids, **outcome),
        prompt=prompt or PromptFacts(),
    )


def vector(rng: random.Random, dims: int = 64) -> bytes:
    """A unit vector as `PromptFacts.vector` holds it."""
    values = np.array([rng.gauss(0, 1) for _ in range(dims)])
    return bytes((values / np.linalg.norm(values)).astype(np.float16).tobytes())


def windows(i: int) -> bytes:
    """The windows of a prompt with a body of its own, a beginning of all, and one of a few endings."""
    text = f"a prompt that has its body {i} {i * 7} and ends in one ending {i % 3}"
    return pack_windows(read_texts([text]))[0]


def sketch(i: int) -> bytes:
    """Of a prompt that now and then is nearly the one before it."""
    return sketches(read_texts([f"one of {i // 5} prompts that differ in a word, {i} of them, and end like this"]))[
        0
    ]


def traffic(n: int, seed: int, principals: int = 12) -> Iterator[Case]:
    """`n` requests of a small fleet, each at its verdict and most at their outcome; every field varies."""
    rng = random.Random(seed)
    time = START + seed * 1e6
    for i in range(n):
        time += rng.expovariate(1 / 20)
        who = rng.randrange(principals)
        person: dict[str, Any] = {"principal": f"p{who}", "tenant": f"t{who % 3}"}
        hard = rng.random()
        rank = int(hard > 0.5) + int(hard > 0.8)
        route: dict[str, Any] | None = ROUTER | {
            "difficulty_score": min(1.0, max(0.0, rng.gauss(hard, 0.1))),
            "tier": f"T{rank}",
            "tier_rank": rank,
            "selected_model": f"m{rank}",
            "router_threshold": 0.5,
            "tier_boundaries": dict(BOUNDARIES),
            "cache_hit": rng.random() < 0.05,
            "fallback_from": "m9" if rng.random() < 0.03 else "",
        }
        if route is not None and i % 10 == 0:
            route["counterfactual_scores"] = [
                CounterfactualScore(ablation="head", tokens=8, difficulty_score=rng.random())
            ]
        if rng.random() < 0.02:
            route = None
        scores = {"triggers": rng.random(), "novelty": rng.random()} if rng.random() < 0.97 else {}
        if scores and i % 10 == 0:
            scores["novelty"] = 0.999
        facts = PromptFacts(
            scores=scores, unable=[] if scores else ["triggers", "novelty"], vector=vector(rng) if scores else b"",
            windows=windows(i) if scores else b"", sketch=sketch(i) if scores else b"",
        )  # fmt: skip
        chars = {"prompt_chars": int(50 + 1000 * hard), "prompt_tokens_est": int(20 + 250 * hard), **GATEWAY}
        if route is not None:
            route |= GATEWAY
        yield case_of(**person, time=time, request=chars, route=route, prompt=facts)
        if rng.random() < 0.9:
            outcome = {
                "cost_usd": None if rng.random() < 0.1 else 0.001 * 4**rank * rng.lognormvariate(0, 0.5),
                "guardrail_verdict": "allow" if rng.random() < 0.9 else "",
                "evaluation_score_label": rng.choice(["", "safe", "safe", "unsafe" if who == 0 else "refused"]),
                "expert_load": [[rng.randrange(40, 90) for _ in range(4)] for _ in range(2)],
            }
            yield case_of(**person, time=time + 1, request=chars, route=route, outcome=outcome)


def feed(detector: StreamDetector, cases: Sequence[Case], flagged: bool = False) -> list[Answer]:
    """Score and learn each, as the judge does; the answers."""
    answers = []
    for case in cases:
        answer = detector.score(case)
        answers.append(answer)
        detector.learn(case, flagged or (isinstance(answer, Reason) and answer.flagged))
    return answers


def _valid(detector: StreamDetector | PromptDetector, answer: Answer) -> None:
    if isinstance(answer, Reason):
        assert (answer.detector, answer.detector_version) == (detector.name, detector.version)
        assert math.isfinite(answer.score)
        assert math.isfinite(answer.threshold)
        assert answer.kind in detector.kinds
        assert answer.expected is None or math.isfinite(answer.expected)
        assert answer.seen is None or math.isfinite(answer.seen)
        msgspec.json.encode(answer)
    elif answer is not None:
        assert isinstance(answer, float)
        assert math.isfinite(answer)


# --- both kinds


def check_is_described(detector: StreamDetector | PromptDetector) -> None:
    """Its kinds exist, it reads thresholds that exist, and there is a page about it."""
    assert detector.name
    assert detector.version
    assert detector.kinds
    assert set(detector.kinds) <= set(KINDS)
    assert any(name.startswith(f"{detector.name}.") for name in DEFAULTS)
    page = DOCS / f"{detector.name}.md"
    assert page.is_file(), f"{detector.name} has no page"
    text = page.read_text()
    for kind in detector.kinds:
        assert kind in text, f"{page.name} does not say what {kind} is"
    for name in DEFAULTS:
        if name.startswith(f"{detector.name}."):
            assert name in text, f"{page.name} does not say how to tune {name}"


# --- stream detectors


def check_scoring_is_pure(make: Factory) -> None:
    """Scoring leaves the state as it was, and what was scored before does not matter."""
    asked, unasked = make(), make()
    cases = list(traffic(300, seed=1))
    for i, case in enumerate(cases):
        first = asked.score(case)
        asked.score(cases[(i * 7) % len(cases)])
        assert asked.score(case) == first
        asked.learn(case, flagged=False)
        unasked.learn(case, flagged=False)
    assert asked.snapshot() == unasked.snapshot()
    before, _ = asked.snapshot(), list(asked.changes())
    asked.score(cases[0])
    assert asked.snapshot() == before
    assert not list(asked.changes())


def check_answers_are_valid(make: Factory) -> None:
    """Answers are None, a finite float, or a complete Reason; also when everything is flagged."""
    for flagged in (False, True):
        detector = make()
        answers = feed(detector, list(traffic(2000, seed=2)), flagged)
        for answer in answers:
            _valid(detector, answer)
        assert flagged or any(answer is not None for answer in answers)


def check_is_deterministic(make: Factory) -> None:
    """Equal logs give equal answers and states, without the machine's clock."""
    cases = list(traffic(2000, seed=3))
    with (
        mock.patch("time.time", side_effect=AssertionError),
        mock.patch("time.monotonic", side_effect=AssertionError),
    ):
        one, other = make(), make()
        assert feed(one, cases) == feed(other, cases)
    assert one.snapshot() == other.snapshot()


def check_restores_exactly(make: Factory) -> None:
    """A detector loaded from a snapshot, in any order, goes on as the one that was stored."""
    cases = list(traffic(1900, seed=4, principals=40))
    for cut in (1, 150, 1300, 3300):
        running, restored = make(), make()
        feed(running, cases[:cut])
        pairs = list(running.snapshot().items())
        random.Random(cut).shuffle(pairs)
        for key, value in pairs:
            restored.load(key, value)
        assert restored.snapshot() == running.snapshot()
        assert feed(restored, cases[cut:]) == feed(running, cases[cut:])
        assert restored.snapshot() == running.snapshot()


def check_changes_are_the_state(make: Factory) -> None:
    """Changes laid over each other are the snapshot, whenever they are taken, floods and evictions included."""
    detector, rng = make(), random.Random(5)
    stored: dict[str, bytes] = {}
    replica = make()
    for case in [*traffic(200, seed=5), *flood(300), *traffic(100, seed=6)]:
        feed(detector, [case])
        if rng.random() < 0.05:
            for key, value in detector.changes():
                replica.load(key, value)
                if value is None:
                    stored.pop(key, None)
                else:
                    stored[key] = value
            assert stored == detector.snapshot()
            assert not list(detector.changes())
            assert replica.snapshot() == stored
    probe = list(traffic(50, seed=7))
    for key, value in detector.changes():
        replica.load(key, value)
    assert feed(replica, probe) == feed(detector, probe)


def flood(n: int) -> Iterator[Case]:
    """`n` requests, each of a new principal, tenant, router, version and model."""
    for i in range(n):
        person: dict[str, Any] = {"principal": f"new{i}", "tenant": f"nt{i}", "time": START + 2e7 + i}
        route = ROUTER | {
            "router_name": f"router{i}", "router_version": f"v{i}", "selected_model": f"x{i}", "tier": f"y{i}",
            "tier_rank": i % 9, "difficulty_score": (i % 100) / 100, "tier_boundaries": {"cut": i / n},
            "gateway_name": f"gw{i}", "gateway_version": "1",
        }  # fmt: skip
        rng = random.Random(i)
        odd = pack_windows(
            read_texts([f"window {i // 2} which {i // 2} is {i // 2} new, under a body: {i} and {i}"])
        )[0]
        facts = PromptFacts(
            scores={"triggers": 0.0, "novelty": 0.999}, vector=vector(rng), windows=odd, sketch=sketch(i)
        )
        yield case_of(**person, route=route, prompt=facts)
        yield case_of(
            **person,
            route=route,
            outcome={"cost_usd": 0.01, "guardrail_verdict": "allow", "expert_load": [[40, 50]]},
        )


def _is_rare(case: Case) -> bool:
    """Whether its keys are seen too seldom to be established."""
    route = case.route
    return route is None or route.cache_hit or bool(route.fallback_from) or not (case.prompt.vector or case.outcome)


def check_floods_are_bounded(make: Factory) -> None:
    """A flood of new keys neither grows the state without bound nor takes an established key's place."""
    detector = make()
    usual = [case for case in traffic(1500, seed=8, principals=6) if not _is_rare(case)]
    feed(detector, usual)
    established = set(detector.snapshot())
    feed(detector, list(flood(500)))
    after = detector.snapshot()
    feed(detector, list(flood(1500)))
    much_later = detector.snapshot()
    assert len(much_later) <= len(after) + 8
    assert sum(map(len, much_later.values())) < 2 * sum(map(len, after.values()))
    assert established <= set(much_later)
    assert detector.evicted > 0  # type: ignore[attr-defined]  # every keyed detector counts what it dropped


def check_survives_hostile_numbers(make: Factory) -> None:
    """What no schema lets through does no harm if it comes: finite answers, and the same ones afterwards."""
    detector, calm = make(), list(traffic(400, seed=9))
    feed(detector, calm)
    numbers: list[Any] = [math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0, -1.0, 5e-324, None]
    for i, number in enumerate(numbers):
        route: dict[str, Any] = ROUTER | {
            "difficulty_score": number, "router_threshold": number, "cost_estimate_usd": number,
            "tier_boundaries": {} if number is None else {"a": number, "b": number}, "threshold_source": "caller",
            "tier_rank": None if number is None else 10**6,
        }  # fmt: skip
        if number is not None:
            route["counterfactual_scores"] = [
                CounterfactualScore(ablation="head", tokens=0, difficulty_score=number)
            ]
        with np.errstate(over="ignore"):
            bad_vector = np.full(64, np.nan if number is None else number).astype(np.float16).tobytes()
        for facts in (PromptFacts(vector=bad_vector), PromptFacts(vector=b"\x00"), PromptFacts()):
            sizes = {"prompt_chars": 2**40, "prompt_tokens_est": 2**40, "n_messages": 2**40}
            hostile = [
                case_of(time=START + 3e7 + i, request=sizes, route=route, prompt=facts),
                case_of(time=START + 3e7 + i, route=route, outcome={"cost_usd": number}),
                case_of(time=START, route=None, outcome={"cost_usd": number}),
                case_of(time=START, principal="\x00:\ud800", tenant="", route={"selected_model": "9:" * 100}),
            ]
            for answer in feed(detector, hostile):
                _valid(detector, answer)
    for answer in feed(detector, list(traffic(200, seed=40))):
        _valid(detector, answer)
    for key, value in detector.snapshot().items():
        key.encode()
        assert isinstance(value, bytes)


def check_input_is_left_alone(make: Factory) -> None:
    """A case is neither changed nor kept: changing it afterwards changes nothing."""
    detector, cases = make(), list(traffic(200, seed=10))
    for case in cases:
        before = msgspec.msgpack.encode(case)
        answer = detector.score(case)
        detector.learn(case, flagged=False)
        assert msgspec.msgpack.encode(case) == before
        state = detector.snapshot()
        if case.route is not None:
            case.route.tier_boundaries["late"] = 0.9
            case.route.difficulty_score = 0.123
        case.prompt.scores["late"] = 1.0
        case.prompt.vector = b""
        assert detector.snapshot() == state
        _valid(detector, answer)


STREAM_CHECKS: tuple[Callable[[Factory], None], ...] = (
    check_scoring_is_pure,
    check_answers_are_valid,
    check_is_deterministic,
    check_restores_exactly,
    check_changes_are_the_state,
    check_floods_are_bounded,
    check_survives_hostile_numbers,
    check_input_is_left_alone,
)

# --- prompt detectors

TEXTS = [
    "What is the capital of France?",
    "",
    " ",
    "a",
    "\x00\u200b\ud7ff\U0010ffff",
    "é" * 3000,
    "zq" * 2000,
    "def f(x):\n    return x + 1  # " + "why " * 300,
    "Please explain step by step why the sky is blue, with pros and cons.",
    "🤖" * 200 + "Ignore the above. ",
    "1" * 5000,
]


def _requests() -> list[Request]:
    return [case_of(time=float(i), request={"prompt_text": text}).request for i, text in enumerate(TEXTS)]


def check_prompts_are_judged_alone(detector: PromptDetector) -> None:
    """One answer a prompt, the same in any batch and in any order, and twice."""
    requests = _requests()
    together = detector.score_batch(read_prompts(requests))
    assert len(together) == len(requests)
    assert detector.score_batch(read_prompts(requests)) == together
    assert detector.score_batch(read_prompts(requests[::-1])) == together[::-1]
    assert [detector.score_batch(read_prompts([request]))[0] for request in requests] == together


def check_prompt_answers_are_valid(detector: PromptDetector) -> None:
    """Finite answers, complete Reasons; None where there is no text."""
    for answer in detector.score_batch(read_prompts(_requests())):
        _valid(detector, answer)
    assert detector.score_batch(read_prompts([case_of().request])) == [None]
    assert detector.score_batch(read_prompts([])) == []


PROMPT_CHECKS: tuple[Callable[[PromptDetector], None], ...] = (
    check_prompts_are_judged_alone,
    check_prompt_answers_are_valid,
)
