"""What ships: every kind of finding is read, every test inside holds, and a finding reaches who reads it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from detectors.detections import SHIPPED, Detection, Detections, shipped
from detectors.detections.examples import failures
from detectors.kinds import EVIDENCE, KINDS, fingerprint
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas.codec import Record, decode
from schemas.topics import FINDINGS
from schemas.verdicts import Finding
from streams.replay import FileRecord

ALL = list(shipped())


def finding(kind: str = "known_trigger") -> Finding:
    return Finding(
        finding_id="f", kind=kind, category=KINDS[kind], severity="info", time=datetime(2026, 1, 1, tzinfo=UTC),
        labels={}, detector="d", detector_version="1",
        tenant_id="acme", principal_hash="p1", router_name="r1", trigger_id="t1",
    )  # fmt: skip


def test_every_kind_that_a_detector_can_make_is_read_by_a_detection() -> None:
    made = {kind for detector in build_panel(Thresholds()).detectors for kind in detector.kinds}
    made |= {kind for detector in stream_detectors(Thresholds()) for kind in detector.kinds}
    assert made <= set(KINDS)
    read = {kind for detection in ALL for kind in detection.log_types}
    # What lanes tell each other, what is for reviewers, and what is context alarms nobody.
    assert set(KINDS) - EVIDENCE - {"usual_window", "steering"} <= read


@pytest.mark.parametrize("detection", ALL, ids=lambda detection: detection.rule_id)
def test_the_tests_inside_hold(detection: Detection) -> None:
    assert not list(failures(detection))


@pytest.mark.parametrize("detection", ALL, ids=lambda detection: detection.rule_id)
def test_a_runbook_begins_with_evidence(detection: Detection) -> None:
    assert detection.runbook.startswith("1. ")
    if detection.category != "pipeline":
        assert "pointsman query" in detection.runbook
        assert detection.reports.mitre_atlas
        assert detection.reports.owasp


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yml")), ids=lambda path: path.stem)
def test_each_names_its_techniques_or_says_why_there_are_none(path: Path) -> None:
    text = path.read_text()
    assert ("MITRE ATLAS:" in text and "OWASP LLM:" in text) or "# No taxonomy ids: " in text


def test_a_finding_goes_to_each_detection_that_reads_it_under_its_identity() -> None:
    made = shipped().addressed(finding("novel_text"))
    assert {f.labels["alertname"] for f in made} >= {"novel_text", "odd_text_then_burst"}
    assert len({f.finding_id for f in made}) == len(made)
    first = next(f for f in made if f.labels["alertname"] == "novel_text")
    assert first.labels == {
        "alertname": "novel_text", "category": "cost_escalation", "tenant_id": "acme", "principal_hash": "p1",
    }  # fmt: skip
    assert first.severity == "warning"


def test_records_are_keyed_by_the_identity() -> None:
    for output in shipped().records(finding()):
        row: Record = FileRecord(output.topic, 0, 0, output.value, output.key)
        assert output.topic == FINDINGS.name
        assert output.key.decode() == fingerprint(decode(Finding, row).labels)


def test_what_nobody_reads_is_history_all_the_same() -> None:
    (output,) = Detections([]).records(finding())
    assert b'"labels":{}' in output.value


def test_a_fingerprint_is_of_the_labels_and_not_of_their_order() -> None:
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert len(fingerprint({"a": "1"})) == 32


def test_values_cannot_imitate_another_identity() -> None:
    assert fingerprint({"a": "1", "b": "2"}) != fingerprint({"a": "1b=2"})
    assert fingerprint({"a": "x", "b": ""}) != fingerprint({"a": "", "b": "x"})
