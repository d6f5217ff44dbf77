"""Bets on a share: what they may win at the allowed one, however it is looked at, and how soon they tell more."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.bets import LOG_RUN, NO_BETS, TILTS, Bets, after, won

SHARES = st.floats(0.0001, 0.99)


@given(SHARES, st.lists(st.floats(0, 10), min_size=len(TILTS), max_size=len(TILTS)))
def test_a_case_at_the_allowed_share_wins_nothing_in_the_mean(allowed: float, before: list[float]) -> None:
    """So that what is won is a supermartingale between the times at which a bet begins anew: Ville, and Doob."""
    hit, miss = (after(tuple(before), each, allowed) for each in (True, False))
    for was, after_hit, after_miss in zip(before, hit, miss, strict=True):
        mean = allowed * math.exp(after_hit) + (1 - allowed) * math.exp(after_miss)
        assert mean <= math.exp(was) * (1 + 1e-9)
        if was < 10:
            assert mean == pytest.approx(math.exp(was))


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0001, 2)), max_size=60))
def test_less_than_the_allowed_hits_never_win_more(cases: list[tuple[bool, float]]) -> None:
    bets: Bets = NO_BETS
    fewer: Bets = NO_BETS
    for number, (hit, allowed) in enumerate(cases):
        bets, fewer = after(bets, hit, allowed), after(fewer, hit and number % 2 == 0, allowed)
        assert won(fewer) <= won(bets) + 1e-9


def test_where_everything_is_allowed_nothing_is_won() -> None:
    bets = NO_BETS
    for _ in range(100):
        bets = after(bets, True, 1.2)
    assert won(bets) == 0


@pytest.mark.parametrize("allowed", [0.02, 0.05, 0.21])
def test_false_alarms_are_as_rare_as_said_though_looked_at_after_every_case(allowed: float) -> None:
    """At a lower bar, so that there are any: at most `cases / bar` of the runs cross it, and some chance."""
    rng, bar, cases, runs = random.Random(7), math.log(2_000), 200, 1_000
    crossed = 0
    for _ in range(runs):
        bets, most = NO_BETS, 0.0
        for _ in range(cases):
            bets = after(bets, rng.random() < allowed, allowed)
            most = max(most, won(bets))
        crossed += most >= bar
    assert crossed <= 130  # the bound is 100 in the mean; 130 is three standard deviations more


@pytest.mark.parametrize(("allowed", "most"), [(0.02, 6), (0.05, 7), (0.23, 11)])
def test_how_many_hits_in_a_row_it_takes(allowed: float, most: int) -> None:
    bets, n = NO_BETS, 0
    while won(bets) <= LOG_RUN:
        bets, n = after(bets, True, allowed), n + 1
    assert n == most
