"""Stream time goes on whatever the broker's clock does, and is the same however records are batched."""

from hypothesis import given
from hypothesis import strategies as st

from detectors.streamtime import StreamTime

stamps = st.lists(st.integers(0, 10_000_000), max_size=40)


def test_while_the_clock_goes_forward_it_is_the_clock() -> None:
    assert StreamTime().advance([5, 5, 7, 1_000]) == [5, 5, 7, 1_000]


def test_after_a_step_back_it_goes_on_by_what_lies_between_records() -> None:
    time = StreamTime()
    assert time.advance([3_600_000, 10, 12, 1_012]) == [3_600_000, 3_600_000, 3_600_002, 3_601_002]
    assert time.advance([3_601_003]) == [3_601_003], "the clock has caught up, and is followed again"


def test_a_record_of_unknown_time_moves_nothing() -> None:
    assert StreamTime().advance([1_000, 0, 1_001]) == [1_000, 1_000, 1_001]
    assert StreamTime().advance([1_000, 400, 0, 500]) == [1_000, 1_000, 1_000, 1_100]


def test_a_state_of_before_knows_no_stamp_and_waits_for_the_second_record() -> None:
    assert StreamTime(now_ms=1_000).advance([400, 500]) == [1_000, 1_100]


@given(stamps)
def test_it_never_goes_back(values: list[int]) -> None:
    times = StreamTime().advance(values)
    assert times == sorted(times)


@given(stamps, st.integers(0, 40))
def test_batches_and_restarts_change_nothing(values: list[int], cut: int) -> None:
    first = StreamTime()
    times = first.advance(values[:cut])
    restored = StreamTime(first.now_ms, first.stamp_ms)
    assert times + restored.advance(values[cut:]) == StreamTime().advance(values)
