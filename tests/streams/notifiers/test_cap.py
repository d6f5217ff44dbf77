from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Alert
from streams.notifiers.cap import HELD_BACK, Cap
from tests.streams.notifiers.alerts import alert


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def flood(number: int, name: str = "novel_text", **fields: Any) -> list[Alert]:
    return [alert(f"{name}{i}", alertname=name, **fields) for i in range(number)]


def names(alerts: list[Alert]) -> list[str]:
    return [state.labels["trigger_id"] for state in alerts]


def test_a_flood_of_one_name_is_held_back_and_another_is_told() -> None:
    cap = Cap("slack", 3, Clock())
    told, held = cap.admit([*flood(10, severity="warning"), *flood(2, "known_trigger")])
    assert names(told) == ["novel_text0", "novel_text1", "novel_text2", "known_trigger0", "known_trigger1"]
    assert held == 7
    assert cap.holding
    summary = cap.summary()
    assert summary is not None
    assert (summary.alertname, summary.status, summary.severity, summary.count) == (
        HELD_BACK,
        "firing",
        "warning",
        7,
    )
    assert summary.summary.endswith("see pointsman alerts ls: 7 novel_text")
    assert summary.labels["channel"] == "slack"
    assert not cap.holding


def test_the_summary_is_told_at_once_then_once_a_minute_and_ends_after_a_quiet_one() -> None:
    clock = Clock()
    cap = Cap("slack", 1, clock)
    cap.admit(flood(3))
    first = cap.summary()
    assert first is not None
    identity = (first.alert_id, first.fingerprint, first.sequence)
    cap.admit(flood(5, sequence=2))
    assert cap.summary() is None
    assert cap.holding  # so nothing is committed yet
    clock.now += 60
    second = cap.summary()
    assert second is not None
    assert (second.alert_id, second.fingerprint, second.sequence - 1) == identity
    assert second.count == 7
    clock.now += 60
    last = cap.summary()
    assert last is not None
    assert last.status == "resolved"
    assert last.ends_at == last.last_seen
    clock.now += 60
    assert cap.summary() is None


def test_room_comes_back_with_time() -> None:
    clock = Clock()
    cap = Cap("slack", 60, clock)
    assert len(cap.admit(flood(100))[0]) == 60
    clock.now += 5
    assert len(cap.admit(flood(100))[0]) == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_an_end_is_told_exactly_where_its_beginning_was(steps: list[tuple[int, bool]]) -> None:
    cap = Cap("slack", 2, Clock())
    begun: dict[str, bool] = {}
    for number, fires in steps:
        state = alert(str(number), "firing" if fires else "resolved")
        if fires == (state.alert_id in begun):
            continue  # it fires already, or never did
        told = bool(cap.admit([state])[0])
        if fires:
            begun[state.alert_id] = told
        else:
            assert told == begun.pop(state.alert_id)
