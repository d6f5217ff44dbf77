"""What a router usually spends, learned from what nobody flagged."""

import pytest

from detectors.contract import Case, PromptFacts
from detectors.usual_cost import WARM, UsualCost
from schemas.events import Outcome
from tests.factories import outcome, request, route


def case(cost: float | None, paid: float | None = None) -> Case:
    done: Outcome | None = outcome("r1", "p1", 0, cost_usd=paid) if paid is not None else None
    return Case(
        time=0.0, request=request("r1", "p1", 0), route=route("r1", "p1", 0, cost_estimate_usd=cost), outcome=done,
        prompt=PromptFacts(),
    )  # fmt: skip


@pytest.fixture
def warm() -> UsualCost:
    usual = UsualCost()
    for number in range(200):
        usual.learn(route("r", "p", 0, cost_estimate_usd=0.01 if number % 2 else 0.03))
        usual.learn(route("r", "p", 0, cost_estimate_usd=0.0))
        usual.learn(route("r", "p", 0, cost_estimate_usd=None))
    return usual


def test_extra_is_beyond_the_mean_and_never_below_nothing(warm: UsualCost) -> None:
    assert warm.beyond(case(0.52)) == pytest.approx(0.5)
    assert warm.beyond(case(0.001)) == 0.0
    assert warm.beyond(case(0.52, paid=1.02)) == pytest.approx(1.0), "what was paid is known better"


def test_what_is_not_known_is_none(warm: UsualCost) -> None:
    assert warm.beyond(case(None)) is None
    young = UsualCost()
    for _ in range(int(WARM) - 1):
        assert young.beyond(case(0.5)) is None
        young.learn(route("r", "p", 0, cost_estimate_usd=0.01))


def test_state_comes_back(warm: UsualCost) -> None:
    other = UsualCost()
    for key, value in warm.changes():
        other.load(key, value)
    assert other.snapshot() == warm.snapshot()
    assert other.beyond(case(0.52)) == warm.beyond(case(0.52))
