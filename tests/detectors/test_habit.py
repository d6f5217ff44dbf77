"""A run of scores below the expected is a habit; one topic, and one prompt tried again, are not."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.difficulty.habit import CLIP, MOST, SHRINK, Habit
from detectors.thresholds import Thresholds

BAR = Thresholds()["difficulty.habit"]


def run(habit: Habit, scores: list[float], likeness: int | None = None) -> int | None:
    """The score at which the sum is over the shipped threshold, from 1; prompts differ unless they are told to."""
    rng = random.Random(1)
    for n, below in enumerate(scores, 1):
        habit.add(below, rng.getrandbits(64) if likeness is None else likeness)
        habit.learn(below)
        if habit.low >= BAR:
            return n
    return None


@pytest.mark.parametrize("past", [0, 100])
def test_a_forger_is_found_in_a_few_scores(past: int) -> None:
    habit, rng = Habit(), random.Random(2)
    assert run(habit, [rng.gauss(0, 1) for _ in range(past)]) is None
    assert run(habit, [4.5] * 20) in range(4, 9)


def test_honest_scores_are_no_habit() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        assert run(Habit(), [rng.gauss(0, 1) for _ in range(2_000)]) is None


def test_a_topic_that_the_model_misjudges_becomes_its_callers_usual() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        assert run(Habit(), [rng.gauss(2.5, 0.7) for _ in range(500)]) is None


def test_scores_that_are_too_high_give_no_room_below() -> None:
    habit = Habit()
    run(habit, [-3.0] * 300)
    assert run(habit, [1.7] * 300) is None


def test_one_prompt_tried_again_counts_once() -> None:
    assert run(Habit(), [6.0] * 20, likeness=77) is None


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(0, 2**64 - 1)),
        max_size=60,
    )
)
def test_it_stays_within_bounds_and_is_restored_as_it_was(scores: list[tuple[float, int]]) -> None:
    habit = Habit()
    for below, likeness in scores:
        habit.add(below, likeness)
        habit.learn(below)
        habit = Habit.unpack(habit.pack())
        assert 0 <= habit.low <= MOST
        assert math.isfinite(habit.usual)
        assert abs(habit.usual) <= CLIP + SHRINK
        assert Habit.unpack(habit.pack()) == habit
