"""The bets and the e-detectors: errors at the boundary, weights, bounds."""

import math

import numpy as np
import pytest

from detectors.ratchet import RatchetConfig
from detectors.ratchet.evidence import Evidence, Seen, share_ucb
from loadtests.feedback.errors import config_of, count, log_e, log_terms

DELTA = 0.01


@pytest.mark.parametrize("case", ["plain", "corrupted", "corrupted when it helps", "delayed"])
def test_what_is_unsafe_is_rarely_ever_loosened_to(case: str) -> None:
    """5,000 runs at the boundary, looked at after every label: as at alpha = 1 % with ten times the labels."""
    found = count(case, runs=5_000, labels=800, alpha=0.1, delta=DELTA)  # type: ignore[arg-type]
    assert found.low <= DELTA


def test_corruption_that_is_not_allowed_for_shows() -> None:
    """The test above would see a bet that is not valid."""
    assert count("corruption not allowed for", runs=5_000, labels=800, alpha=0.1, delta=DELTA).low > DELTA


def test_the_runs_bet_what_the_ratchet_bets() -> None:
    config = config_of("corrupted", 0.05, DELTA)
    evidence, growth, rng = Evidence(config), log_terms(config), np.random.default_rng(0)
    kinds = rng.choice(3, 500, p=[0.1, 0.85, 0.05])
    for kind in kinds.tolist():
        evidence.take(1.5 if kind == 0 else 0.5, kind == 2, 1.0, "p", "t")
    assert evidence.log_bet(1) == pytest.approx(float(log_e(growth[kinds].sum(axis=0)[None])[0]))


def weighted(rng: np.random.Generator, n: int, near: float, far: float) -> list[tuple[bool, float]]:
    """Labels of a sample that draws one stratum four times as often as the other; (missed, weight)."""
    drawn = rng.random(n) < 0.8  # of equal parts of traffic
    return [(bool(rng.random() < (near if often else far)), 0.25 if often else 1.0) for often in drawn.tolist()]


@pytest.mark.parametrize(("near", "far"), [(0.2, 0.0), (0.0, 0.2), (0.1, 0.1)])
def test_weights_undo_how_labels_were_drawn(near: float, far: float) -> None:
    """At a mean risk of alpha = 10 %, however it is spread over strata, bets err rarely; the bound covers it."""
    config = RatchetConfig(grid=(0.0, 1.0), start=0, ceiling=1, alpha=0.1, delta=0.1, epsilon=0.0)
    rng, erred, uncovered = np.random.default_rng(1), 0, 0
    for _ in range(200):
        evidence, highest = Evidence(config), 0.0
        for missed, weight in weighted(rng, 300, near, far):
            evidence.take(0.5, missed, weight, "p", "t")
            highest = max(highest, evidence.log_bet(1))
        erred += highest >= -math.log(0.1)
        uncovered += evidence.risk_ucb(1, 0.1, 0.0, 1.0) < 0.1
    assert erred <= 30  # 20 in the mean at most; 30 is beyond 99 % of chance
    assert uncovered <= 30


def test_the_e_detector_keeps_its_distance_between_false_alarms() -> None:
    config = RatchetConfig(grid=(0.0, 1.0), start=0, ceiling=1, alpha=0.1, arl=500, epsilon=0.0)
    rng, until = np.random.default_rng(2), []
    for _ in range(60):
        evidence, labels = Evidence(config), 0
        while evidence.alarm(1) < config.arl:
            evidence.take(0.5, bool(rng.random() < 0.1), 1.0, "p", "t")
            labels += 1
        until.append(labels)
    assert np.mean(until) >= config.arl


def test_a_broken_weight_counts_against_every_loosening() -> None:
    config = RatchetConfig(grid=(0.0, 1.0), start=0, ceiling=1, weight_max=2.0)
    for weight in (2.1, 0.0, -1.0, math.nan, math.inf):
        evidence = Evidence(config)
        evidence.take(5.0, False, weight, "p", "t")
        assert evidence.log_bet(1) < 0


def test_the_bound_of_a_share() -> None:
    assert share_ucb(0, 0, 0.01) == 1.0
    assert share_ucb(5, 5, 0.01) == pytest.approx(1.0)
    assert share_ucb(1e5 - 1e-3, 1e5, 0.01) == pytest.approx(1.0)
    none_of = [share_ucb(0, n, 0.01) for n in (10, 100, 1_000)]
    assert none_of == sorted(none_of, reverse=True)
    assert 0.004 < none_of[2] < 0.012
    assert share_ucb(10, 1_000, 0.01) > 0.01


def test_distinct_names_are_never_counted_too_many() -> None:
    seen = Seen(2_048)
    for i in range(1_000):
        seen.add(f"p{i % 100}")
    assert 90 <= len(seen) <= 100
    assert len(Seen.unpack(seen.pack())) == len(seen)
