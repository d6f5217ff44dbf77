"""Runs a detection's own `Tests`: the findings of each through the very code that the lanes run."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from detectors.alerting import Alerting
from detectors.detections import Detections
from detectors.detections.correlation import milliseconds
from detectors.detections.model import Detection, Example
from schemas.alerts import Alert
from schemas.topics import ALERTS, FINDINGS
from schemas.verdicts import Finding, Severity

_START = datetime(2026, 1, 1, tzinfo=UTC)


class Failure(NamedTuple):
    """A test that did not give what it expects."""

    rule_id: str
    name: str
    why: str


class _Row(NamedTuple):
    """A record of the findings topic."""

    offset: int
    timestamp: int
    value: bytes
    key: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = FINDINGS.name
    partition: int = 0


def failures(detection: Detection) -> Iterator[Failure]:
    """Run all of a detection's tests; those that fail, with what they gave instead."""
    for example in detection.tests:
        try:
            severities = _fired(detection, example)
        except msgspec.ValidationError as error:
            yield Failure(detection.rule_id, example.name, f"`Log`: {error}")
            continue
        if bool(severities) != example.expected_result:
            yield Failure(detection.rule_id, example.name, "it alerts" if severities else "it does not alert")
        elif example.severity and severities[-1] != example.severity:
            yield Failure(detection.rule_id, example.name, f"its severity is {severities[-1]}")


def _fired(detection: Detection, example: Example) -> list[Severity]:
    """The severities of the states published as firing."""
    detections = Detections([detection])
    alerting = Alerting(detections, refresh_seconds=1.0)
    severities: list[Severity] = []
    for number, entry in enumerate(example.log):
        made = _finding(detection, number, entry)
        time_ms = round(made.time.timestamp() * 1000)
        for output in detections.records(made):
            published = alerting.apply([_Row(alerting.offset, time_ms, output.value, output.key)])
            alerts = [msgspec.json.decode(out.value, type=Alert) for out in published if out.topic == ALERTS.name]
            severities += [alert.severity for alert in alerts if alert.status == "firing"]
    return severities


def _finding(detection: Detection, number: int, entry: Mapping[str, Any]) -> Finding:
    fields = {name: value for name, value in entry.items() if name != "at"}
    made: dict[str, Any] = {
        "finding_id": f"finding {number}", "kind": detection.log_types[0], "category": detection.category,
        "severity": "info", "time": _START + timedelta(milliseconds=milliseconds(entry.get("at", "0s"))),
        "labels": {}, "detector": "test", "detector_version": "1", "tenant_id": "acme", "principal_hash": "p1",
        "router_name": "r1", "request_id": f"request {number}",
    }  # fmt: skip
    return msgspec.convert(made | fields, Finding)
