"""Identity of alerts."""

from datetime import UTC, datetime

import pytest

from detectors.kinds import KINDS, Kind, fingerprint, labels_for
from schemas.verdicts import Finding


def finding_of(kind: Kind) -> Finding:
    return Finding(
        finding_id="f",
        kind=kind.name,
        category=kind.category,
        severity=kind.severity,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        labels={},
        detector="d",
        detector_version="1",
        tenant_id="acme",
        principal_hash="p1",
        router_name="r1",
        gateway_name="g1",
        window="w1",
        trigger_id="t1",
    )


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kinds_identity_can_be_read_from_a_finding(kind: Kind) -> None:
    labels = labels_for(kind, finding_of(kind))
    assert list(labels) == ["alertname", "category", *kind.identity]
    assert labels["alertname"] == kind.name
    assert all(labels.values())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_hold_down_says_both_how_many_and_within_what(kind: Kind) -> None:
    assert kind.fire_count >= 1
    assert (kind.fire_count > 1) == (kind.fire_span_s > 0)


def test_a_fingerprint_is_of_the_labels_and_not_of_their_order() -> None:
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert len(fingerprint({"a": "1"})) == 32


def test_values_cannot_imitate_another_identity() -> None:
    assert fingerprint({"a": "1", "b": "2"}) != fingerprint({"a": "1b=2"})
    assert fingerprint({"a": "x", "b": ""}) != fingerprint({"a": "", "b": "x"})
