"""Distinct counts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import distinct


@given(st.lists(st.text(max_size=4), max_size=400))
def test_it_is_exact_while_small_and_blind_to_order(names: list[str]) -> None:
    forwards: list[int] = []
    backwards: list[int] = []
    for name in names:
        distinct.add(forwards, name)
    for name in reversed(names):
        distinct.add(backwards, name)
    assert forwards == backwards == sorted(set(forwards))
    assert len(forwards) <= distinct.K
    if len(set(names)) < distinct.K:
        assert distinct.count(forwards) == len(set(names))


@pytest.mark.parametrize("truth", [1_000, 20_000])
def test_it_estimates_what_is_large(truth: int) -> None:
    sketch: list[int] = []
    names = [f"principal {number}" for number in range(truth)] * 2
    random.Random(1).shuffle(names)
    last = 0
    for name in names:
        distinct.add(sketch, name)
        assert distinct.count(sketch) >= last  # never shrinks
        last = distinct.count(sketch)
    assert last == pytest.approx(truth, rel=0.2)  # three standard errors
