"""Coverage: exact counts, and findings when a route falls behind the others or its own past."""

import random
from collections.abc import Iterable
from statistics import mean
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from detectors.coverage import ROUTES_OF_ROUTER, Coverage, RouteCounts, unpack, wilson
from detectors.thresholds import Thresholds
from schemas.verdicts import Reason
from tests.detectors.checks import ROUTER, case_of, feed

GUARDED = {"guardrail_verdict": "allow", "evaluation_score_label": "safe"}
UNGUARDED = {"evaluation_score_label": "safe"}


def send(detector: Coverage, n: int, outcome: dict[str, Any], **route: Any) -> list[Reason]:
    """`n` requests and outcomes on one route; what was flagged."""
    found = []
    for i in range(n):
        for seen in (None, outcome):
            case = case_of(time=float(i), route=ROUTER | route, outcome=seen)
            found += [answer for answer in feed(detector, [case]) if isinstance(answer, Reason)]
    return found


def test_counts_are_exact_per_route() -> None:
    detector = Coverage(Thresholds())
    send(detector, 30, GUARDED, selected_model="a")
    send(detector, 20, UNGUARDED, selected_model="a", cache_hit=True)
    send(detector, 5, {"evaluation_score_label": "unsafe"}, selected_model="a", fallback_from="b")
    case = case_of(route=ROUTER | {"selected_model": "a"})
    assert case.route is not None
    counts = detector.counts(case.route)
    assert (counts.requests, counts.outcomes, counts.guarded, counts.unsafe) == (30, 30, 30, 0)
    case.route.cache_hit = True
    assert (detector.counts(case.route).outcomes, detector.counts(case.route).guarded) == (20, 0)
    case.route.cache_hit, case.route.fallback_from = False, "b"
    assert detector.counts(case.route).unsafe == 5


def test_a_route_without_the_guardrail_is_found_once() -> None:
    detector = Coverage(Thresholds())
    assert not send(detector, 400, GUARDED, selected_model="a")
    found = send(detector, 200, UNGUARDED, selected_model="b")
    assert [reason.kind for reason in found] == ["guardrail_gap"]
    assert found[0].expected is not None
    assert found[0].expected > 0.9
    assert found[0].seen == 0.0


def test_a_fail_over_is_a_route_of_its_own() -> None:
    detector = Coverage(Thresholds())
    send(detector, 400, GUARDED, selected_model="a")
    found = send(detector, 100, UNGUARDED, selected_model="a", fallback_from="b")
    assert [reason.kind for reason in found] == ["guardrail_gap"]


def test_an_open_gap_is_said_again_while_it_lasts_and_after_it_was_mended() -> None:
    detector = Coverage(Thresholds())
    send(detector, 400, GUARDED, selected_model="a")
    assert len(send(detector, 2050, UNGUARDED, selected_model="b")) == 3
    send(detector, 1500, GUARDED, selected_model="b")
    assert not send(detector, 1500, GUARDED, selected_model="b")
    assert len(send(detector, 900, UNGUARDED, selected_model="b")) == 1


def test_a_guardrail_that_goes_everywhere_is_found_by_the_route_own_past() -> None:
    detector = Coverage(Thresholds())
    assert not send(detector, 2000, GUARDED, selected_model="a")
    assert {reason.kind for reason in send(detector, 1000, UNGUARDED, selected_model="a")} == {"guardrail_gap"}


def test_a_fleet_without_guardrails_or_with_few_requests_is_no_finding() -> None:
    detector = Coverage(Thresholds())
    assert not send(detector, 500, UNGUARDED, selected_model="a")
    assert not send(detector, 500, UNGUARDED, selected_model="b")
    detector = Coverage(Thresholds())
    send(detector, 400, GUARDED, selected_model="a")
    assert not send(detector, 10, UNGUARDED, selected_model="b")


def test_another_router_is_no_measure() -> None:
    detector = Coverage(Thresholds())
    send(detector, 400, GUARDED, selected_model="a")
    assert not send(detector, 400, UNGUARDED, selected_model="b", router_name="other")


def test_an_unsafe_route_is_found() -> None:
    detector = Coverage(Thresholds())
    unsafe = GUARDED | {"evaluation_score_label": "unsafe"}
    assert not send(detector, 500, GUARDED, selected_model="a")
    found = send(detector, 100, unsafe, selected_model="b")
    assert {reason.kind for reason in found} == {"unsafe_route"}


def labelled(detector: Coverage, labels: Iterable[bool], parts: int = 1) -> list[Reason]:
    """Answers of one route, unsafe or not, judged by each of so many partitions in turn."""
    found = []
    detectors = [detector, *(Coverage(Thresholds()) for _ in range(parts - 1))]
    for i, unsafe in enumerate(labels):
        label = {"evaluation_score_label": "unsafe" if unsafe else "safe"}
        found += send(detectors[i % parts], 1, GUARDED | label, selected_model="a")
    return [reason for reason in found if reason.kind == "unsafe_route"]


def test_a_few_unsafe_answers_of_a_few_are_no_finding() -> None:
    assert not labelled(
        Coverage(Thresholds()), [True, False, False, False, True, False, False, False, True] + 16 * [False]
    )


def test_unsafe_answers_are_found_by_each_partition_that_sees_a_few() -> None:
    rng = random.Random(1)
    found = labelled(Coverage(Thresholds()), [rng.random() < 0.5 for _ in range(120)], parts=6)
    assert len(found) >= 3
    assert all(reason.score > reason.threshold and reason.expected == 0.02 for reason in found)


def test_how_many_unsafe_answers_it_takes_is_as_the_page_says() -> None:
    def needed(rng: random.Random, share: float) -> int:
        detector, found, n = Coverage(Thresholds()), 0, 0
        while not found:
            n += 1
            found = len(labelled(detector, [rng.random() < share]))
        return n

    rng = random.Random(1)
    assert needed(rng, 1.0) == 6
    assert 12 <= mean(needed(rng, 0.5) for _ in range(100)) <= 14


def test_answers_at_the_allowed_share_are_no_finding_however_they_are_spread() -> None:
    rng = random.Random(2)
    for parts in (1, 6, 100):
        assert not labelled(Coverage(Thresholds()), [rng.random() < 0.02 for _ in range(20_000)], parts)


def test_an_unsafe_route_is_said_again_and_ends_when_answers_are_safe_again() -> None:
    detector = Coverage(Thresholds())
    assert len(labelled(detector, 300 * [True])) == 4
    assert not labelled(detector, 1000 * [False])
    assert len(labelled(detector, 30 * [True])) == 1


def test_counts_of_releases_that_bet_less_are_read() -> None:
    old = RouteCounts(requests=7, open=2, unsafe_bets=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert unpack(old.pack()[:105]) == unpack(old.pack()) == old
    assert unpack(old.pack()[:65]) == RouteCounts(requests=7, open=2)


def test_requests_that_nothing_could_read_are_found() -> None:
    detector = Coverage(Thresholds())
    cases = [case_of(time=float(i), route=ROUTER) for i in range(200)]
    for i, case in enumerate(cases):
        case.prompt.unable = ["triggers", "novelty"] if i % 2 else []
        case.prompt.scores = {} if i % 2 else {"triggers": 0.0}
    found = [answer for answer in feed(detector, cases) if isinstance(answer, Reason)]
    assert [reason.kind for reason in found] == ["unjudged"]
    further = [case_of(time=float(i), route=ROUTER | {"selected_model": "z", "attempt": 1}) for i in range(200)]
    assert not [answer for answer in feed(detector, further) if isinstance(answer, Reason)]


def test_invented_routes_share_a_row() -> None:
    detector = Coverage(Thresholds())
    for i in range(3 * ROUTES_OF_ROUTER):
        send(detector, 1, GUARDED, selected_model=f"m{i}")
    assert len(detector.snapshot()) == ROUTES_OF_ROUTER + 1


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_wilson_holds_the_share(n: int, share: float) -> None:
    hits = round(n * share)
    interval = wilson(hits, n)
    assert 0 <= interval.low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= interval.high <= 1
    wider = wilson(hits / 4, n / 4)
    assert wider.high - wider.low >= interval.high - interval.low


def test_wilson_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 0.0, 1.0)
