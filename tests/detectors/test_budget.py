"""The token bucket in stream time."""

import math

from hypothesis import given
from hypothesis import strategies as st

from detectors.budget import Budget

NOW = 1_790_000_000_000


def test_nothing_is_granted_without_a_budget() -> None:
    assert not Budget(0).take(NOW)


def test_a_burst_then_the_rate() -> None:
    budget = Budget(2, burst=3)
    assert [budget.take(NOW) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.take(NOW + 500), budget.take(NOW + 500)] == [True, False]


@given(st.lists(st.integers(0, 5_000), max_size=60), st.floats(0.1, 50), st.integers(0, 60))
def test_the_rate_holds_and_a_restored_one_goes_on_alike(steps: list[int], rate: float, cut: int) -> None:
    budget, restored = Budget(rate), Budget(rate)
    time, granted = NOW, 0
    for number, step in enumerate(steps):
        time += step
        if number == cut:
            restored.load(budget.pack())
        got = budget.take(time)
        granted += got
        if number >= cut:
            assert restored.take(time) == got
    assert granted <= 10 + math.ceil((time - NOW) / 1000 * rate)


def test_time_never_goes_back() -> None:
    """Records of one partition may carry an earlier time; it earns nothing."""
    budget = Budget(1, burst=1)
    assert budget.take(NOW)
    assert not budget.take(NOW - 10**9)
    assert not budget.take(NOW)
    assert budget.take(NOW + 1_000)
