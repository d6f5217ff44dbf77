"""Steering: one-way moves are found, in both directions; noise, templates and fail-overs are not."""

import random
from typing import Any

import pytest

from detectors.contract import Case, PromptFacts
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


def test_who_varies_more_than_the_fleet_is_judged_by_its_own_deviation() -> None:
    wide = [[2.5 * residual for residual in noise(400, seed)] for seed in range(30)]
    found = [play(detector(), residuals) for residuals in wide]
    assert found == [None] * 30
    shifted = wide[0][:60] + [residual + 5.0 for residual in wide[0][60:]]
    assert play(detector(), shifted) is not None


def test_what_an_older_release_wrote_begins_anew() -> None:
    steering = detector()
    play(steering, noise(100, 1))
    [(key, value)] = [pair for pair in steering.snapshot().items() if pair[0].startswith("p/")]
    steering.load(key, value[:-4])
    assert steering.score(case_of("p0", time=1e3, route=ROUTER | {"difficulty_score": 0.0})) is None


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


def odd(share: float, n: int, seed: int, residual: float, principal: str = "p0") -> list[Case]:
    """Cases of which a share is odd text, each a prompt of its own."""
    rng = random.Random(seed)
    return [
        case_of(
            principal, time=seed * 1e6 + i, route=ROUTER | {"difficulty_score": rng.gauss(residual, 1.0)},
            prompt=PromptFacts(
                scores={"novelty": 0.97 if rng.random() < share else 0.4}, likeness=rng.getrandbits(64)
            ),
        )
        for i in range(n)
    ]  # fmt: skip


def kinds(steering: Steering, cases: list[Case]) -> list[str]:
    """Of each case: the kind that it is flagged as."""
    found = []
    for case in cases:
        answer = steering.score(case)
        is_flagged = isinstance(answer, Reason) and answer.flagged
        steering.learn(case, is_flagged)
        found.append(answer.kind if isinstance(answer, Reason) and is_flagged else "")
    return found


def test_who_steers_by_odd_text_is_told_from_who_does_it_otherwise() -> None:
    by_text, otherwise = detector(), detector()
    for steering, share in ((by_text, 0.9), (otherwise, 0.02)):
        assert set(kinds(steering, odd(0.02, 60, 11, 0.0))) == {""}
        found = kinds(steering, odd(share, 40, 12, 1.8))
        assert found[:4] == [""] * 4
        assert ("steered_by_text" in found) == (share > 0.5)
        assert "steering" in found or share > 0.5


def test_odd_text_that_moves_nothing_is_nothing() -> None:
    steering = detector()
    kinds(steering, odd(0.02, 60, 13, 0.0))
    assert set(kinds(steering, odd(0.9, 100, 14, 0.0))) == {""}


def test_who_always_sent_odd_text_is_not_steering_by_it() -> None:
    steering = detector()
    kinds(steering, odd(0.5, 60, 15, 0.0))
    assert "steered_by_text" not in kinds(steering, odd(0.5, 60, 16, 1.8))


def test_one_odd_prompt_tried_again_is_one() -> None:
    steering = detector()
    kinds(steering, odd(0.02, 60, 17, 0.0))
    again = odd(1.0, 20, 18, 1.8)
    for case in again:
        case.prompt.likeness = 5
    assert "steered_by_text" not in kinds(steering, again)


def test_an_attack_that_is_over_is_not_told_again() -> None:
    steering = detector()
    kinds(steering, odd(0.1, 60, 21, 0.0))
    assert kinds(steering, odd(0.9, 60, 22, 1.8))[-10:].count("steered_by_text") > 5  # while it goes on
    after = kinds(steering, odd(0.1, 300, 23, 0.4))  # its work is a little harder now, and as odd as ever
    assert "steered_by_text" not in after[20:]


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
