"""Difficulty: forged scores against what prompts get, free invariants, and a training that attackers cannot own."""

import random
from typing import Any

import numpy as np
import pytest

from detectors.contract import Case, PromptFacts
from detectors.difficulty import Difficulty
from detectors.difficulty.model import FEATURES, LEARNERS, MOST_OF_ONE, READY, REFERENCE, RouterModel, features
from detectors.difficulty.regression import Regression
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason
from tests.detectors.checks import ROUTER, START, case_of, vector


def prompt_case(i: int, rng: random.Random, score: float | None = None, **route: Any) -> Case:
    """A prompt whose score follows from its vector, with some noise; or with a forged score."""
    facts = PromptFacts(vector=vector(rng))
    values = np.frombuffer(facts.vector, np.float16).astype(float)
    honest = 1 / (1 + np.exp(-12 * float(values[0] + values[1]) - rng.gauss(0, 0.5)))
    said = ROUTER | {"difficulty_score": float(honest) if score is None else score} | route
    return case_of(f"p{i % 20}", START + i, route=said, prompt=facts)


@pytest.fixture(scope="module")
def trained() -> Difficulty:
    detector, rng = Difficulty(Thresholds()), random.Random(1)
    for i in range(REFERENCE + READY + 500):
        case = prompt_case(i, rng)
        detector.score(case)
        detector.learn(case, flagged=False)
    return detector


def kinds(answer: object) -> set[str]:
    return {answer.kind} if isinstance(answer, Reason) and answer.flagged else set()


def test_a_forged_score_of_a_hard_prompt_is_found(trained: Difficulty) -> None:
    rng, found, false = random.Random(2), 0, 0
    for i in range(300):
        honest = prompt_case(i, rng)
        false += bool(kinds(trained.score(honest)))
        if honest.route is not None and (honest.route.difficulty_score or 0) > 0.9:
            honest.route.difficulty_score = 0.01
            forged = case_of(time=START + i, route=ROUTER | {"difficulty_score": 0.01}, prompt=honest.prompt)
            found += kinds(trained.score(forged)) == {"spoofed_difficulty"}
    assert false == 0
    assert found >= 15


def test_a_habit_of_scores_too_low_is_found_though_none_is_by_itself(trained: Difficulty) -> None:
    detector, rng = Difficulty(Thresholds()), random.Random(12)
    for key, value in trained.snapshot().items():
        detector.load(key, value)
    found: list[str] = []
    while len(found) < 20:
        honest = prompt_case(len(found), rng)
        model, x = detector._models.get(detector._take(honest).model_key), detector._take(honest).x
        if honest.route is None or model is None or x is None:
            raise AssertionError("a trained model")
        scores = [score / 1000 for score in range(1000)]
        low = next((s for s in scores if -3.9 < model.residual(s, x) < -3.1), None)  # no more than 5.0, alone
        if low is None:
            continue
        case = case_of("forger", START + len(found), route=ROUTER | {"difficulty_score": low}, prompt=honest.prompt)
        case.prompt.likeness = rng.getrandbits(64)
        answer = detector.score(case)
        detector.learn(case, flagged=bool(kinds(answer)))
        found.append(answer.stage if isinstance(answer, Reason) and answer.flagged else "")
    assert found[:3] == [""] * 3
    assert found[-5:] == ["habit"] * 5


def test_a_model_of_heavy_tails_calls_no_single_score_forged() -> None:
    """Few callers of one topic each: one in 25 of what is learnt is as far off as a forged score."""
    detector, rng = Difficulty(Thresholds()), random.Random(3)
    for i in range(REFERENCE + READY + 500):
        case = prompt_case(i, rng, score=0.01 if rng.random() < 0.04 else None)
        detector.score(case)
        detector.learn(case, flagged=False)
    forged, body = [], []
    for i in range(300):
        case = prompt_case(i, rng, score=0.01)
        forged += [*kinds(detector.score(case))]
        body.append(-(detector.residual(case) or 0.0))
    assert max(body) > Thresholds()["difficulty.spoofed"], "by the middle of the residuals alone it would be"
    assert forged == []


def test_what_contradicts_itself_is_said_as_that_and_is_no_habit(trained: Difficulty) -> None:
    detector, rng = Difficulty(Thresholds()), random.Random(12)
    for key, value in trained.snapshot().items():
        detector.load(key, value)
    boundaries = {"a": 0.3, "b": 0.6, "c": 0.9}
    for number in range(60):
        case = prompt_case(number, rng, score=0.02, tier_boundaries=boundaries, tier_rank=3)
        case.request.principal_hash, case.prompt.likeness = "overruled", rng.getrandbits(64)
        assert kinds(detector.score(case)) <= {"tier_contradiction", "boundaries_changed"}
        detector.learn(case, flagged=True)
    after = prompt_case(60, rng)
    after.request.principal_hash = "overruled"
    assert not kinds(detector.score(after))


def test_a_score_that_is_too_high_is_another_detectors_business(trained: Difficulty) -> None:
    rng = random.Random(3)
    assert not any(kinds(trained.score(prompt_case(i, rng, score=1.0))) for i in range(100))


def test_residuals_have_a_sign_and_a_scale(trained: Difficulty) -> None:
    rng = random.Random(4)
    residuals = [trained.residual(prompt_case(i, rng)) for i in range(300)]
    values = np.array([residual for residual in residuals if residual is not None])
    assert len(values) == 300
    assert abs(np.median(values)) < 0.3
    assert 0.6 < np.std(values) < 1.6


def test_direction_turns_the_score_round() -> None:
    detector, rng = Difficulty(Thresholds()), random.Random(5)
    for i in range(REFERENCE + READY + 100):
        case = prompt_case(i, rng, score_direction=-1)
        assert case.route is not None
        case.route.difficulty_score = 1 - (case.route.difficulty_score or 0)
        detector.learn(case, flagged=False)
    low = detector.residual(prompt_case(1, rng, score=1.0, score_direction=-1))
    high = detector.residual(prompt_case(1, rng, score=0.0, score_direction=-1))
    assert low is not None
    assert high is not None
    assert low < high


def test_another_version_is_another_model(trained: Difficulty) -> None:
    assert trained.residual(prompt_case(1, random.Random(6), router_version="v2")) is None
    assert trained.score(prompt_case(1, random.Random(6), router_version="v2")) is None


def test_flagged_cases_and_outcomes_do_not_train() -> None:
    detector, rng = Difficulty(Thresholds()), random.Random(7)
    for i in range(50):
        detector.learn(prompt_case(i, rng), flagged=True)
        case = prompt_case(i, rng)
        assert case.route is not None
        outcome = case_of(time=START, route=ROUTER, outcome={"cost_usd": 1.0})
        detector.learn(outcome, flagged=False)
    assert not detector.snapshot()


def test_one_principal_cannot_own_the_training() -> None:
    model, rng = RouterModel(), np.random.default_rng(8)
    for _ in range(10 * LEARNERS):
        model.learn(float(rng.random()), rng.normal(size=FEATURES), learner=9)
    honest = RouterModel()
    for i in range(10 * LEARNERS):
        honest.learn(float(rng.random()), rng.normal(size=FEATURES), learner=1 + i % 20)
    assert honest.established
    assert not model.established
    assert model.share_above(-1.0) in (0.0, 1.0)
    assert MOST_OF_ONE < LEARNERS


def contradiction(**route: Any) -> Case:
    cuts = {"simple_medium": 0.15, "medium_complex": 0.35, "complex_reasoning": 0.6}
    return case_of(route=ROUTER | {"difficulty_score": 0.1, "tier_rank": 3, "tier_boundaries": cuts} | route)


def test_a_low_score_in_the_top_tier_is_found() -> None:
    detector = Difficulty(Thresholds())
    answer = detector.score(contradiction())
    assert kinds(answer) == {"tier_contradiction"}
    assert isinstance(answer, Reason)
    assert (answer.expected, answer.seen) == (0.0, 3.0)


def test_a_top_score_in_the_lowest_tier_is_found() -> None:
    answer = Difficulty(Thresholds()).score(contradiction(difficulty_score=0.7, tier_rank=0))
    assert kinds(answer) == {"tier_downgrade"}
    assert isinstance(answer, Reason)
    assert (answer.expected, answer.seen, answer.direction) == (3.0, 0.0, "down")


@pytest.mark.parametrize(
    "route",
    [
        {"difficulty_score": 0.7},
        {"difficulty_score": 0.2, "tier_rank": 0},
        {"difficulty_score": 0.7, "tier_rank": 1},
        {"difficulty_score": 0.7, "tier_rank": 0, "fallback_from": "m1"},
        {"difficulty_score": 0.4},
        {"tier_rank": 1},
        {"escalated": True},
        {"fallback_from": "m1"},
        {"tier_boundaries": {}},
        {"tier_rank": None},
        {"difficulty_score": None},
    ],
)
def test_what_is_no_contradiction(route: dict[str, Any]) -> None:
    assert not kinds(Difficulty(Thresholds()).score(contradiction(**route)))


def test_a_threshold_that_all_prompts_pass_chosen_by_the_caller_is_found(trained: Difficulty) -> None:
    caller: dict[str, Any] = {"threshold_source": "caller", "router_threshold": 0.0}
    assert kinds(trained.score(prompt_case(1, random.Random(9), **caller))) == {"caller_threshold"}
    for harmless in ({"router_threshold": 0.5}, {"threshold_source": "config"}):
        assert not kinds(trained.score(prompt_case(1, random.Random(9), **(caller | harmless))))


def test_boundaries_that_change_are_said_once_and_a_deployment_is_not_a_siren() -> None:
    detector = Difficulty(Thresholds())
    said = []
    for i in range(120):
        cut = 0.3 if i < 50 or i % 2 else 0.4
        case = case_of(time=START + i, route=ROUTER | {"tier_boundaries": {"cut": cut}})
        said += [i] if kinds(detector.score(case)) == {"boundaries_changed"} else []
        detector.learn(case, flagged=True)
    assert said == [50]


def test_features_refuse_what_is_no_vector() -> None:
    assert features(b"\x00", 1, 1, 1) is None
    assert features(np.full(64, np.nan, np.float16).tobytes(), 1, 1, 1) is None
    assert features(np.full(64, np.inf, np.float16).tobytes(), 1, 1, 1) is None
    huge = features(b"", 2**60, 2**60, 2**60)
    assert huge is not None
    assert np.all(np.isfinite(huge))
    assert np.all(np.abs(huge) < 20)


def test_the_regression_is_rivers_and_is_restored_exactly() -> None:
    rng = np.random.default_rng(10)
    running, restored, weights = Regression(FEATURES), Regression(FEATURES), rng.normal(size=FEATURES)
    rows = rng.normal(size=(400, FEATURES))
    for row in rows[:200]:
        running.learn(row, float(row @ weights))
    restored.unpack(running.pack())
    for row in rows[200:]:
        assert restored.predict(row) == running.predict(row)
        assert running.predict(row) == pytest.approx(running.predict_one(dict(enumerate(row.tolist()))))
        running.learn(row, float(row @ weights))
        restored.learn(row, float(row @ weights))
    assert restored.pack() == running.pack()
    assert running.predict(rows[0]) == pytest.approx(float(rows[0] @ weights), abs=0.5)
