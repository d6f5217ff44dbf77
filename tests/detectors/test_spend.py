"""Spend: a principal that leaves its own past, by tier, price or rate; what is told of many; held baselines."""

import math
import random

import pytest

from detectors.contract import Answer
from detectors.spend import Spend
from detectors.spend.past import MOST_HELD, Past
from detectors.spend.tally import Tally
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
        answer for i in range(6000) for answer in ask(spend, time + i * 1.5, 0, 0.01 * rng.lognormvariate(0, 0.7))
    ]
    assert "rate" in stages(answers)


def flood(spend: Spend, hours: list[int], usd: float = 0.01) -> set[str]:
    """So many requests in each hour after a day of one a minute."""
    for i in range(24 * 60):
        ask(spend, START + i * 60, 0, usd)
    return stages([
        answer
        for hour, n in enumerate(hours)
        for i in range(n)
        for answer in ask(spend, START + (24 + hour) * HOUR + i * HOUR / n, 0, usd)
    ])  # fmt: skip


def test_one_hour_however_full_is_no_alarm_three_are() -> None:
    assert flood(Spend(Thresholds()), [3000, 60, 60]) == set()
    assert flood(Spend(Thresholds()), [800, 800, 800]) == {"rate"}


def test_hours_that_cost_less_than_the_floor_do_not_rise() -> None:
    floor = Thresholds()["spend.floor_usd_per_hour"]
    assert flood(Spend(Thresholds()), [800, 800, 800], 0.9 * floor / 800) == set()
    assert flood(Spend(Thresholds()), [800, 800, 800], 1.1 * floor / 800) == {"rate"}


def test_a_rise_in_price_shows_beside_tiers_that_differ_by_more() -> None:
    """Of four tiers, each five times as dear as the last; then every answer costs three times the usual."""
    spend, rng = Spend(Thresholds()), random.Random(11)

    def play(n: int, begin: float, times: float) -> list[Answer]:
        answers = []
        for i in range(n):
            rank = rng.randrange(4)
            answers += ask(spend, begin + i * 60, rank, times * 1e-3 * 5**rank * rng.lognormvariate(0, 0.5))
        return answers

    assert not stages(play(2000, START, 1.0))
    assert stages(play(30, START + 2000 * 60, 3.0)) == {"price"}


def test_what_is_dear_for_its_tier_alone_shows_in_the_cost_whatever_the_tier() -> None:
    past, limit = Past(), Thresholds()["spend.price"]
    for i in range(200):
        past.add_cost(0.05 if i % 4 == 0 else 0.01, 0.0, START + i * 60, 0.05)
        past.learn_cost(math.log(0.05 if i % 4 == 0 else 0.01), 0.0)
    assert past.price < limit / 2
    for i in range(60):  # every second one is an attack's, and all cost what their tiers do
        past.add_cost(0.05 if i % 2 else 0.01, 0.0, START + (200 + i) * 60, 0.05)
    assert past.price_sum == 0
    mixed = past.dear_sum
    for i in range(60):
        past.add_cost(0.05, 0.0, START + (260 + i) * 60, 0.05)
    assert past.dear_sum > max(mixed, limit)


def test_an_hour_that_was_held_is_no_usual_one() -> None:
    past = Past()
    for i in range(24 * 20):  # twenty an hour
        past.add_cost(0.01, None, START + i * 180, 0.05)
        past.learn_cost(math.log(0.01), None)
    usual = past.hour_mean
    for i in range(24 * 20, 44 * 20):
        past.add_cost(0.01, None, START + i * 180, 0.05)
    assert past.hour_mean == pytest.approx(usual, rel=0.1)


def test_what_an_older_release_wrote_begins_anew() -> None:
    assert Past.unpack(b"\1" * 120) == Past()


def test_fail_overs_do_not_count_and_free_answers_cost_nothing() -> None:
    spend = Spend(Thresholds())
    habit(spend, 100, 6)
    route = ROUTER | {"tier_rank": 5, "fallback_from": "m0"}
    free = case_of(time=START + 1e5, route=route, outcome={"cost_usd": 0.0})
    spend.learn(free, False)  # the habit's last ten minutes are told
    assert spend.score(case_of(time=START + 1e5, route=route)) is None
    assert spend.score(free) is None


def test_without_a_past_there_is_no_answer() -> None:
    spend = Spend(Thresholds())
    assert ask(spend, START, 5, 100.0) == [None, None]


def test_ten_minutes_are_told_once_by_the_first_outcome_after_them() -> None:
    spend = Spend(Thresholds())
    told = [
        answer.levels
        for who in ("p0", "p1")
        for answer in habit(spend, 60, 5, who, tenant=f"of-{who}")
        if isinstance(answer, Reason) and answer.levels is not None
    ]
    assert all(isinstance(levels.bucket, int) and levels.bucket % 600 == 0 for levels in told)
    assert len({levels.bucket for levels in told}) == len(told)
    assert {name for levels in told for name in levels.sums} == {"of-p0"}  # p1's past begins where the time stands
    first = told[0].sums["of-p0"]
    assert first[0] >= first[1] > 0


def test_tenants_beyond_the_bound_count_together() -> None:
    tally = Tally(2)
    for i in range(5):
        tally.add(f"t{i}", 1.0, 0.5, START)
    told = tally.due(START + 1200)
    assert told is not None
    assert told.sums == {"t0": (0.5, 0.25, 0.5), "t1": (0.5, 0.25, 0.5), "": (1.5, 0.75, 1.5)}
    assert tally.due(START + 1) is None


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
