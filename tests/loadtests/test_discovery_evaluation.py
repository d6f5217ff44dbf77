"""The evaluation of `discovery`, short: a day with campaigns, and one without in which nothing is named."""

from loadtests.evaluations.discovery import make_day, play, tally

REQUESTS = 30_000


def test_a_short_day() -> None:
    day = make_day("words", seed=5, requests=REQUESTS, each=2)
    told = play(day, "words")
    found = tally(day, told)
    assert {kind: one.planted for kind, one in found.items()} == dict.fromkeys(found, 2)
    assert found["prefix"].named + found["suffix"].named >= 3
    assert sum(one.named for one in found.values()) >= 5
    assert told.asked <= 0.005 * told.requests + 48  # the probes' own scores are asked for once
    assert len(told.false) <= 1


def test_a_day_without_campaigns_names_nothing_and_replays_alike() -> None:
    day = make_day("words", seed=4, requests=REQUESTS, each=0)
    first, second = play(day, "words"), play(day, "words")
    assert first.false == []
    assert (first.candidates, first.asked, first.usual) == (second.candidates, second.asked, second.usual)
