"""Spend: a principal that leaves its own past, by tier, price or rate; tenants that rise together; held
baselines."""

import random
from itertools import pairwise

import pytest

from detectors.contract import Answer
from detectors.spend import Spend
from detectors.spend.past import MOST_HELD, Past
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason
from tests.detectors.checks import ROUTER, START, case_of

HOUR = 3600.0


def ask(spend: Spend, time: float, rank: int, usd: float, who: str = "p0", tenant: str = "t0") -> list[Answer]:
    """One request at its verdict and at its outcome; both answers."""
    answers: list[Answer] = []
    for outcome in (None, {"cost_usd": usd}):
        case = case_of(who, time, tenant, route=ROUTER | {"tier_rank": rank}, outcome=outcome)
        answer = spend.score(case)
        spend.learn(case, isinstance(answer, Reason) and answer.flagged)
        answers.append(answer)
    return answers


def stages(answers: list[Answer]) -> set[str]:
    return {answer.stage for answer in answers if isinstance(answer, Reason) and answer.flagged}


def habit(
    spend: Spend, n: int, seed: int, who: str = "p0", tenant: str = "t0", every: float = 60.0
) -> list[Answer]:
    """`n` requests, one in four to the dear tier; a mean of a few cents."""
    rng, answers = random.Random(seed), []
    for i in range(n):
        rank = int(rng.random() < 0.25)
        answers += ask(spend, START + i * every, rank, 0.01 * 5**rank * rng.lognormvariate(0, 0.7), who, tenant)
    return answers


def test_a_habit_is_no_finding() -> None:
    assert not stages(habit(Spend(Thresholds()), 3000, 1))


def test_all_to_the_dear_tier_is_found_at_the_verdict() -> None:
    spend = Spend(Thresholds())
    habit(spend, 500, 2)
    later = START + 500 * 60
    answers = [ask(spend, later + i * 60, 1, 0.05)[0] for i in range(30)]
    assert stages(answers) == {"tier"}
    first = next(i for i, answer in enumerate(answers) if stages([answer]))
    assert first < 25
    found = answers[first]
    assert isinstance(found, Reason)
    assert (found.kind, found.direction) == ("denial_of_wallet", "up")


def test_a_first_use_of_a_dear_tier_then_a_burst_is_found() -> None:
    spend = Spend(Thresholds())
    for i in range(300):
        ask(spend, START + i * 60, 0, 0.01)
    once = ask(spend, START + 300 * 60, 4, 0.01)
    assert not stages(once)
    burst = [answer for i in range(5) for answer in ask(spend, START + 301 * 60 + i, 4, 0.01)]
    assert "tier" in stages(burst)


def test_dearer_requests_are_found_at_the_outcome() -> None:
    spend = Spend(Thresholds())
    habit(spend, 500, 3)
    answers = [answer for i in range(60) for answer in ask(spend, START + (500 + i) * 60, 0, 0.5)]
    assert "price" in stages(answers)


def test_a_flood_of_ordinary_requests_is_found() -> None:
    spend = Spend(Thresholds())
    habit(spend, 1500, 4)
    rng, time = random.Random(5), START + 1500 * 60
    answers = [
        answer for i in range(6000) for answer in ask(spend, time + i * 1.5, 0, 0.02 * rng.lognormvariate(0, 0.7))
    ]
    assert "rate" in stages(answers)


def test_fail_overs_do_not_count_and_free_answers_cost_nothing() -> None:
    spend = Spend(Thresholds())
    habit(spend, 100, 6)
    route = ROUTER | {"tier_rank": 5, "fallback_from": "m0"}
    assert spend.score(case_of(time=START + 1e5, route=route)) is None
    assert spend.score(case_of(time=START + 1e5, route=route, outcome={"cost_usd": 0.0})) is None


def test_without_a_past_there_is_no_answer() -> None:
    spend = Spend(Thresholds())
    assert ask(spend, START, 5, 100.0) == [None, None]


def test_many_small_principals_that_rise_together_are_found_once() -> None:
    spend, rng = Spend(Thresholds()), random.Random(7)
    found = []
    for minute in range(900):
        for _ in range(4):
            who = rng.randrange(60)
            usd = 0.01 * rng.lognormvariate(0, 0.5) * (1.6 if minute >= 600 else 1.0)
            for answer in ask(spend, START + minute * 60 + who / 60, 0, usd, f"p{who}"):
                if isinstance(answer, Reason) and answer.kind == "fleet_spend":
                    found.append(minute)
    assert found
    assert min(found) >= 600
    assert all(later - earlier >= 10 or later == earlier for earlier, later in pairwise(found))


def test_flagged_cases_hold_the_baseline_for_a_time_only() -> None:
    past = Past()
    for i in range(100):
        assert not past.holds(flagged=False), i
    held = [past.holds(flagged=True) for _ in range(2 * MOST_HELD)]
    assert held == [True] * MOST_HELD + [False] * MOST_HELD
    assert not past.holds(flagged=False)
    assert past.holds(flagged=True)


def test_a_flagged_price_does_not_become_the_usual_price() -> None:
    spend = Spend(Thresholds())
    habit(spend, 300, 8)
    for i in range(200):
        case = case_of(time=START + (300 + i) * 60, route=ROUTER, outcome={"cost_usd": 5.0})
        spend.score(case)
        spend.learn(case, flagged=True)
    later = [answer for i in range(20) for answer in ask(spend, START + (600 + i) * 60, 0, 5.0)]
    assert stages(later) & {"price", "rate"}


def test_an_alarm_restarts_the_sums_so_that_it_ends_with_the_attack() -> None:
    spend = Spend(Thresholds())
    habit(spend, 300, 8)
    during = [answer for i in range(60) for answer in ask(spend, START + (300 + i) * 60, 3, 0.01)]
    after = [answer for i in range(60) for answer in ask(spend, START + (360 + i) * 60, 0, 0.01)]
    assert "tier" in stages(during)
    assert not stages(after)


def test_one_prompt_tried_again_and_again_is_little_evidence() -> None:
    def tiers_found(likenesses: list[int]) -> bool:
        spend = Spend(Thresholds())
        habit(spend, 300, 8)
        answers = []
        for i, likeness in enumerate(likenesses):
            case = case_of(time=START + (300 + i) * 60, route=ROUTER | {"tier_rank": 3})
            case.prompt.likeness = likeness
            answers.append(spend.score(case))
            spend.learn(case, False)
        return "tier" in stages(answers)

    rng = random.Random(5)
    assert tiers_found([rng.getrandbits(64) for _ in range(15)])
    assert not tiers_found([rng.getrandbits(64)] * 15)


def test_sums_fade_with_stream_time() -> None:
    past = Past(seen=START, tier_sum=8.0, price_sum=4.0)
    past.fade(START + 24 * HOUR)
    assert past.tier_sum == pytest.approx(4.0)
    assert past.price_sum == pytest.approx(2.0)
    past.fade(START)
    assert past.tier_sum == pytest.approx(4.0)


def test_a_past_is_packed_and_unpacked() -> None:
    past = Past(seen=START, requests=7, held=3, ranks=[1.0, 2.0, 0.0, 0.0, 0.5, 0.25], mean=-2.5)
    assert Past.unpack(past.pack()) == past
