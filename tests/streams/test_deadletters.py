"""The limit past which a lane stops instead of pouring a topic away."""

import pytest

from streams.deadletters import DeadLetterLimit, DeadLetterLimitExceeded


def test_few_dead_letters_never_stop_a_lane() -> None:
    limit = DeadLetterLimit(max_ratio=0.5, min_count=10)
    for _ in range(9):
        limit.add(1, 1, "events", 0)


def test_many_in_number_and_ratio_stop_it_and_say_so() -> None:
    limit = DeadLetterLimit(max_ratio=0.5, min_count=10)
    limit.add(9, 9, "events", 3)
    with pytest.raises(DeadLetterLimitExceeded, match=r"10 of the last 10 records of events\[3\] are dead letters"):
        limit.add(1, 1, "events", 3)


def test_many_among_more_good_ones_do_not() -> None:
    limit = DeadLetterLimit(max_ratio=0.5, min_count=10)
    for _ in range(1_000):
        limit.add(10, 4, "events", 0)


def test_a_good_past_does_not_hide_a_bad_present_for_ever() -> None:
    limit = DeadLetterLimit(max_ratio=0.5, min_count=10)
    for _ in range(1_000):
        limit.add(10, 0, "events", 0)
    bad = (10, 10, "events", 0)
    for _ in range(5):
        limit.add(*bad)
    with pytest.raises(DeadLetterLimitExceeded):
        limit.add(*bad)
