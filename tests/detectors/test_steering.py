"""Steering: one-way moves are found, in both directions; noise, templates and fail-overs are not."""

import random
from typing import Any

import pytest

from detectors.contract import Case
from detectors.steering import CLEAN, Steering
from detectors.thresholds import Thresholds
from schemas.events import CounterfactualScore
from schemas.verdicts import Reason
from tests.detectors.checks import ROUTER, case_of


def detector() -> Steering:
    """The residual of a case is its score: what is tested here is how residuals add up."""
    return Steering(Thresholds(), lambda case: case.route.difficulty_score if case.route else None)


def play(steering: Steering, residuals: list[float], principal: str = "p0", **route: Any) -> int | None:
    """The request at which the principal is flagged, from 1."""
    for n, residual in enumerate(residuals, 1):
        case = case_of(principal, time=float(n), route=ROUTER | {"difficulty_score": residual} | route)
        answer = steering.score(case)
        steering.learn(case, isinstance(answer, Reason) and answer.flagged)
        if isinstance(answer, Reason) and answer.flagged:
            return n
    return None


def noise(n: int, seed: int, mean: float = 0.0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(mean, 1.0) for _ in range(n)]


@pytest.mark.parametrize(("shift", "direction"), [(1.8, "up"), (-1.8, "down")])
def test_a_steered_principal_is_found(shift: float, direction: str) -> None:
    steering = detector()
    assert play(steering, noise(60, 1)) is None
    took = play(steering, noise(60, 2, shift))
    assert took is not None
    assert took <= 30
    answer = steering.score(case_of(time=99.0, route=ROUTER | {"difficulty_score": shift}))
    assert isinstance(answer, Reason)
    assert (answer.kind, answer.direction, answer.stage) == ("steering", direction, "residual")


def test_honest_principals_are_left_alone() -> None:
    steering = detector()
    assert [play(steering, noise(300, seed), f"p{seed}") for seed in range(40)] == [None] * 40


def test_a_template_that_is_always_harder_than_it_reads_is_no_steering() -> None:
    assert play(detector(), noise(400, 3, mean=1.5)) is None


def test_a_centre_below_gives_no_room_above() -> None:
    steering = detector()
    play(steering, noise(CLEAN, 4, mean=-2.0))
    assert play(steering, noise(200, 5)) is None


def test_little_past_is_no_answer() -> None:
    steering = detector()
    assert steering.score(case_of(route=ROUTER | {"difficulty_score": 3.0})) is None
    assert steering.score(case_of(route=None)) is None


def test_fail_overs_and_cache_hits_do_not_count() -> None:
    steering = detector()
    play(steering, noise(60, 6))
    assert play(steering, [3.0] * 60, fallback_from="m1") is None
    assert play(steering, [3.0] * 60, cache_hit=True) is None


def pair(lifted: bool, principal: str, time: float) -> Case:
    other = CounterfactualScore(ablation="head", tokens=8, difficulty_score=0.0 if lifted else 1.0)
    route = ROUTER | {"difficulty_score": 0.5, "counterfactual_scores": [other]}
    return case_of(principal, time=time, route=route)


def test_pairs_that_lift_one_way_are_found_against_the_router_share() -> None:
    steering, rng = Steering(Thresholds(), lambda case: None), random.Random(7)
    for n in range(400):
        steering.learn(pair(rng.random() < 0.5, f"p{n % 40}", float(n)), flagged=False)
    took = None
    for n in range(40):
        case = pair(True, "steered", 1000.0 + n)
        answer = steering.score(case)
        steering.learn(case, flagged=False)
        if isinstance(answer, Reason) and answer.flagged:
            took = n + 1
            assert (answer.stage, answer.direction) == ("pairs", "up")
            break
    assert took is not None
    assert 12 <= took <= 24


def test_a_router_that_always_lifts_is_no_evidence() -> None:
    steering = Steering(Thresholds(), lambda case: None)
    for n in range(2000):
        steering.learn(pair(True, f"p{n % 100}", float(n)), flagged=False)
    for n in range(200):
        case = pair(True, "new", 5000.0 + n)
        answer = steering.score(case)
        steering.learn(case, flagged=False)
        assert not (isinstance(answer, Reason) and answer.flagged)
