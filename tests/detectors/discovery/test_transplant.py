"""A window is tried on probe prompts by the router itself; what moves them all passes, what moves some does not."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.discovery.transplant import LOOKS, Probes, answer, glued, is_hopeless, log_wealth, shipped_probes
from schemas.verdicts import Transplant


class Router:
    """Gives `lift` more to a text that holds the trigger; counts its queries."""

    def __init__(self, lift: float) -> None:
        self.lift, self.asked = lift, 0

    def score(self, texts: Sequence[str]) -> list[float]:
        self.asked += len(texts)
        return [len(text) % 7 / 100 + self.lift * ("TRIGGER" in text) for text in texts]


def wanted(**fields: object) -> Transplant:
    defaults = {
        "test_id": "t",
        "text": "TRIGGER",
        "margin": 1.0,
        "needed": math.log(2000),
        "probes": 40,
        "scale": 0.1,
    }
    return Transplant(**{**defaults, **fields})  # type: ignore[arg-type]


def test_what_moves_every_probe_passes_in_few_queries() -> None:
    told = answer(Probes(Router(0.3), shipped_probes()), wanted())
    assert log_wealth(told.lifts, told.margin) >= told.needed
    assert len(told.lifts) == 13


def test_what_moves_nothing_ends_at_the_first_look() -> None:
    router = Router(0.0)
    told = answer(Probes(router, shipped_probes()), wanted())
    assert len(told.lifts) == LOOKS[0]
    assert is_hopeless(told.lifts, told.margin)
    assert router.asked == len(shipped_probes()) + LOOKS[0]


def test_down_is_a_lift_too_and_the_probes_are_scored_once() -> None:
    router = Router(-0.3)
    probes = Probes(router, shipped_probes())
    for _ in range(2):
        assert min(answer(probes, wanted(direction="down")).lifts) > 1
    assert router.asked == len(shipped_probes()) + 26


def test_it_asks_no_more_than_it_may() -> None:
    assert len(answer(Probes(Router(0.3), shipped_probes()), wanted(needed=1e9, probes=21)).lifts) == 21


class Broken:
    def score(self, texts: Sequence[str]) -> list[float]:
        raise OSError("down")


class Odd:
    def score(self, texts: Sequence[str]) -> list[float]:
        return [math.nan] * len(texts)


@pytest.mark.parametrize(("router", "why"), [(Broken(), "OSError: down"), (Odd(), "ValueError")])
def test_a_router_that_fails_is_an_answer(router: Broken | Odd, why: str) -> None:
    told = answer(Probes(router, shipped_probes()), wanted())
    assert told.is_answer
    assert told.failed.startswith(why)


def test_too_few_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="probes"):
        Probes(Router(0), ["one"] * 39)


def test_a_window_is_glued_where_it_stood() -> None:
    assert glued("w", "a b c d", "head") == "w a b c d"
    assert glued("w", "a b c d", "tail") == "a b c d w"
    assert glued("w", "a b c d", "inside") == "a b w c d"


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_at_even_odds_wealth_is_a_fair_game(wins: list[bool]) -> None:
    """Its mean over the next bet's two outcomes is what it was before: nobody gets rich on luck."""
    lifts = [2.0 if win else 0.0 for win in wins]
    after = [math.exp(log_wealth([*lifts, last], 1.0)) for last in (0.0, 2.0)]
    assert sum(after) / 2 == pytest.approx(math.exp(log_wealth(lifts, 1.0)))
