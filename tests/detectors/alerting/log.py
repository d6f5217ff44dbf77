"""A findings topic for tests, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from detectors.alerting import Alerting
from detectors.detections import Detections, shipped
from detectors.detections.correlation import Correlation, Count
from detectors.kinds import KINDS
from detectors.processor import Output
from schemas.alerts import Alert
from schemas.codec import TICK_HEADERS, encode
from schemas.topics import ALERTS, FINDINGS
from schemas.verdicts import Finding

START = datetime(2026, 3, 1, tzinfo=UTC)


START_MS = int(START.timestamp() * 1000)


def _rules() -> Detections:
    """What ships, but with numbers of this test's own: those that ship are chosen by measurement, and change."""
    held = {detection.rule_id: detection for detection in shipped()}
    group = ("tenant_id", "principal_hash")
    three = Correlation(type="event_count", group_by=group, timespan="10m", condition=Count(gte=3))
    held["novel_text"] = msgspec.structs.replace(held["novel_text"], correlation=three)
    one = Correlation(type="event_count", group_by=group, timespan="20m", condition=Count(gte=1))
    held["denial_of_wallet"] = msgspec.structs.replace(held["denial_of_wallet"], correlation=one)
    return Detections(held.values())


RULES = _rules()


@dataclass(frozen=True)
class Row:
    """A record of the findings topic."""

    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = b"k"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = FINDINGS.name
    partition: int = 3


@dataclass
class Log:
    """Writes the findings topic: `at` is in seconds since START, and the broker's time never goes back."""

    rows: list[Row] = field(default_factory=list)

    def add(self, at: float, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> Row:
        row = Row(len(self.rows), START_MS + int(at * 1000), value, headers=headers)
        self.rows.append(row)
        return row

    def finding(self, at: float, name: str, **fields: Any) -> Row:
        return self.add(at, encode(finding(name, at, **fields)))

    def tick(self, at: float) -> Row:
        return self.add(at, b"", TICK_HEADERS)


def finding(name: str, at: float = 0.0, kind: str = "known_trigger", **fields: Any) -> Finding:
    """As the detect lane addresses it to the detection of its kind's name, but for its id."""
    made = Finding(
        finding_id=name,
        kind=kind,
        category=KINDS[kind],
        severity="info",
        time=START + timedelta(seconds=at),
        labels={},
        detector="triggers",
        detector_version="1",
        tenant_id="acme",
        principal_hash="p1",
        trigger_id="t1",
        request_id=f"request of {name}",
    )
    severity = fields.pop("severity", None)
    for field_name, value in fields.items():
        setattr(made, field_name, value)
    (detection,) = (d for d in RULES if d.rule_id == kind) if kind != "steering" else (None,)
    if detection is not None:
        made = msgspec.structs.replace(detection.addressed(made), finding_id=name)
        made.severity = severity or made.severity
    return made


def alerts(outputs: Sequence[Output]) -> list[Alert]:
    return [msgspec.json.decode(out.value, type=Alert) for out in outputs if out.topic == ALERTS.name]


def states(outputs: Sequence[Output]) -> list[tuple[str, int]]:
    return [(alert.status, alert.count) for alert in alerts(outputs)]


def run(log: Log, **bounds: Any) -> tuple[Alerting, list[Output]]:
    alerting = Alerting(RULES, **bounds)
    return alerting, alerting.apply(log.rows)
