from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Alert
from streams.notifiers.ledger import Ledger
from tests.streams.notifiers.alerts import alert


def test_transitions_are_news_and_growth_is_not() -> None:
    ledger = Ledger()
    told = [
        ledger.take(state)
        for state in (
            alert(sequence=1, severity="warning"),
            alert(sequence=2, severity="warning", count=10),
            alert(sequence=3, severity="critical"),
            alert(sequence=4, severity="critical", count=20),
            alert(sequence=5, status="resolved"),
        )
    ]
    assert told == [True, False, True, False, True]
    assert not list(ledger.firing())


def test_what_fires_is_known_in_its_last_state() -> None:
    ledger = Ledger()
    for state in (alert("a"), alert("b"), alert("a", sequence=2, count=9), alert("b", "resolved", 2)):
        ledger.take(state)
    assert [(state.alert_id, state.count) for state in ledger.firing()] == [("id of a", 9)]


def test_a_resolve_is_told_though_its_firing_was_never_seen() -> None:
    assert Ledger().take(alert(status="resolved", sequence=7))


@pytest.mark.parametrize("why", ["suppressed_by", "inhibited_by"])
def test_what_is_suppressed_is_not_told_until_it_is_not(why: str) -> None:
    ledger = Ledger()

    def quiet(name: str = "a", status: str = "firing", sequence: int = 1, rule: str = "rule 7") -> Alert:
        fields: dict[str, Any] = {why: rule}
        return alert(name, status, sequence, **fields)

    states = [
        (quiet(), False),
        (quiet(sequence=2), False),
        (alert("a", sequence=3), True),  # the rule has ended
        (quiet(sequence=4, rule="rule 8"), False),
        (quiet("a", "resolved", 5), True),  # for its beginning was told
        (quiet("b"), False),
        (quiet("b", "resolved", 2), False),
        (quiet("c", "resolved", 2), False),
    ]
    assert [ledger.take(state) for state, _ in states] == [told for _, told in states]
    ledger.take(quiet("d"))
    assert list(ledger.firing()) == []


@given(st.integers(0, 6), st.integers(0, 6))
def test_states_published_again_by_a_restarted_lane_are_told_once(start: int, length: int) -> None:
    """Two episodes; the lane publishes a stretch of them again, at any later place."""
    history = [
        alert("a"), alert("a", sequence=2, count=5), alert("b"), alert("a", "resolved", 3),
        alert("b", "resolved", 2), alert("a", alert_id="second"), alert("a", "resolved", 2, alert_id="second"),
    ]  # fmt: skip
    again = history[start : start + length]
    for place in range(start + len(again), len(history) + 1):
        ledger = Ledger()
        told: list[Alert] = [state for state in history[:place] + again + history[place:] if ledger.take(state)]
        assert told == [state for state in history if state.sequence != 2 or state.status != "firing"]
        assert not list(ledger.firing())
