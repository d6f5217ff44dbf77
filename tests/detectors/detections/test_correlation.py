"""The correlations against what their words say, worked out from the whole past each time."""

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from detectors.detections.correlation import Correlation, Seen
from schemas.verdicts import Finding

SPAN_MS = 10_000
Past = list[tuple[int, str, str]]  # time, kind, principal
PASTS = st.lists(
    st.tuples(st.integers(0, 6_000), st.sampled_from("abc"), st.sampled_from(["p1", "p2", "p3", "p4"])), max_size=25
)


def said(correlation: Correlation, kinds: list[str], past: Past, prompts: str = "") -> list[bool]:
    """What `advance` says at each finding. `prompts`: each one's, a letter a finding; none: not known."""
    seen: Seen = []
    likeness = dict(zip((time_ms for time_ms, _, _ in past), prompts, strict=False))
    answers = []
    for time_ms, kind, principal in past:
        finding = Finding(
            finding_id="f", kind=kind, category="pipeline", severity="info", labels={}, detector="d",
            detector_version="1", time=datetime(2026, 1, 1, tzinfo=UTC), principal_hash=principal,
            likeness=likeness.get(time_ms, ""),
        )  # fmt: skip
        seen, holds = correlation.advance(kinds, seen, finding, time_ms)
        seen = msgspec.json.decode(msgspec.json.encode(seen), type=Seen)
        answers.append(holds)
    assert len(seen) <= max(len(kinds), correlation.condition.gte if correlation.condition else 0)
    return answers


def correlation(type_: str, **condition: Any) -> Correlation:
    made: dict[str, Any] = {"type": type_, "group-by": [], "timespan": "10s"}
    if condition:
        made["condition"] = condition
    return msgspec.convert(made, Correlation)


def pasts(steps: Past) -> Past:
    now, past = 0, []
    for later, kind, principal in steps:
        now += later
        past.append((now, kind, principal))
    return past


def within(past: Past, upto: int) -> Past:
    return [entry for entry in past[: upto + 1] if entry[0] >= past[upto][0] - SPAN_MS]


@given(PASTS, st.integers(1, 5))
def test_event_count(steps: Past, most: int) -> None:
    past = pasts(steps)
    expected = [len(within(past, i)) >= most for i in range(len(past))]
    assert said(correlation("event_count", gte=most), ["a", "b", "c"], past) == expected


@given(PASTS, st.integers(1, 5))
def test_value_count(steps: Past, most: int) -> None:
    past = pasts(steps)
    expected = [len({who for _, _, who in within(past, i)}) >= most for i in range(len(past))]
    assert said(correlation("value_count", gte=most, field="principal_hash"), ["a", "b", "c"], past) == expected


@given(PASTS)
def test_temporal(steps: Past) -> None:
    past = pasts(steps)
    expected = [len({kind for _, kind, _ in within(past, i)}) == 3 for i in range(len(past))]
    assert said(correlation("temporal"), ["a", "b", "c"], past) == expected


@given(PASTS, st.sampled_from([*permutations("abc"), ("a", "a", "b"), ("a", "b", "a"), ("a", "b")]))
def test_temporal_ordered(steps: Past, kinds: tuple[str, ...]) -> None:
    past = [entry for entry in pasts(steps) if entry[1] in kinds]
    expected = [_subsequence(kinds, [kind for _, kind, _ in within(past, i)]) for i in range(len(past))]
    assert said(correlation("temporal_ordered"), list(kinds), past) == expected


def test_where_a_kind_is_wanted_twice_in_a_row_the_same_prompt_is_no_second_one() -> None:
    past = [(number, kind, "p1") for number, kind in enumerate("aaabb")]
    ordered = correlation("temporal_ordered")
    for prompts, fires in (("xyzvw", True), ("xxxvw", False), ("xxyvw", True), ("xyzvv", False), ("xyyyx", True)):
        assert said(ordered, ["a", "a", "b", "b"], past, prompts)[-1] is fires


def _subsequence(wanted: tuple[str, ...], kinds: list[str]) -> bool:
    rest = iter(kinds)
    return all(kind in rest for kind in wanted)
