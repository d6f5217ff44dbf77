"""Joins when they are full."""

import time

from detectors.joins import Joins

MANY = 40_000


def pass_through(joins: Joins, first: int, number: int, most: int) -> float:
    """CPU seconds in which so many requests come, are settled and displace others."""
    began = time.thread_time()
    for i in range(first, first + number):
        key = ("p", f"{i}")
        joins.open(key, i, i)
        joins.settle(key, i, i)
        assert not list(joins.overdue(i - 1, most))
        joins.forget_settled(-1, most)
    return time.thread_time() - began


def test_what_goes_costs_no_more_the_more_went_before_it() -> None:
    """A plain dictionary, cut at its front, took eight times as long."""
    joins = Joins()
    filling = pass_through(joins, 0, MANY, MANY)
    full = pass_through(joins, MANY, MANY, MANY)
    assert len(joins.settled) == MANY
    assert full < 4 * filling, (filling, full)
