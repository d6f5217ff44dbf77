"""What a run of the demo came to: which attacks were named, what was alarmed without one, and what must hold."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
import numpy as np

from loadtests.traffic import Attack
from schemas.alerts import Alert
from schemas.verdicts import Finding, Verdict

CLOCKS_S = 0.5  # an alert cannot come before its attack, but the clocks of gateways and broker may differ


class Told(NamedTuple):
    """A firing alert's first state and when the broker took it."""

    alert: Alert
    at: datetime


class Detection(msgspec.Struct):
    """One planted attack. `planted`: its requests; `first_alert_s`: from its first request to the first alert."""

    name: str
    planted: int
    detected: bool
    first_alert_s: float | None


class Percentiles(msgspec.Struct):
    """In milliseconds; None: nothing to measure."""

    p50: float | None
    p99: float | None


class Report(msgspec.Struct):
    """The file `.demo/report.json`."""

    events: int
    requests: int
    verdicts: int
    verdicts_per_request_min: int
    verdicts_per_request_max: int
    unjudged: dict[str, int]
    coverage: float
    attacks: list[Detection]
    false_alerts: int
    alert_latency_ms: Percentiles
    requests_per_s: float
    rows_in_clickhouse: dict[str, int]
    seconds: float


class Seen(msgspec.Struct):
    """What came out of the service, by id: what is published again replaces itself."""

    verdicts: dict[str, Verdict] = {}
    findings: dict[str, Finding] = {}
    told: dict[str, Told] = {}  # by alert_id
    alert_states: set[tuple[str, int]] = set()
    last_verdict: datetime | None = None
    read_to: dict[tuple[str, int], int] = {}  # topic and partition -> next offset


class Named(NamedTuple):
    """Alerts by what they are about."""

    detections: list[Detection]
    side: list[Told]  # evidence from an attack, under another name: its consequence
    false: list[Told]  # no attack at all


def name_attacks(attacks: Sequence[Attack], told: Iterable[Told], start: datetime) -> Named:
    """Credit alerts to attacks: by a request they cite, or by the principal they are about once it attacks.

    An alert of a kind that does not name the attack is its consequence only where it cites one of its requests.
    """
    first: dict[str, float] = {}
    side: list[Told] = []
    false: list[Told] = []
    for alarm in sorted(told, key=lambda alarm: alarm.at):
        seconds = (alarm.at - start).total_seconds()
        named = [attack for attack in attacks if _names(alarm.alert, attack, seconds)]
        for attack in named:
            first.setdefault(attack.name, max(0.0, seconds - attack.first_at))
        if not named:
            (side if any(_cites(alarm.alert, attack) for attack in attacks) else false).append(alarm)
    detections = [
        Detection(attack.name, len(attack.request_ids), attack.name in first, first.get(attack.name))
        for attack in attacks
    ]
    return Named(detections, side, false)


def _names(alert: Alert, attack: Attack, seconds: float) -> bool:
    if alert.alertname not in attack.kinds or seconds < attack.first_at - CLOCKS_S:
        return False
    return alert.principal_hash in attack.principals or _cites(alert, attack)


def _cites(alert: Alert, attack: Attack) -> bool:
    return not {alert.first_request_id, *alert.request_ids}.isdisjoint(attack.request_ids)


def latency(told: Iterable[Told], findings: Mapping[str, Finding]) -> Percentiles:
    """From the broker taking the event that made an alert fire, to it taking the alert."""
    delays = []
    for alert, at in told:
        causes = [findings[name].time for name in alert.finding_ids if name in findings]
        if causes:
            delays.append((at - max(causes)).total_seconds() * 1000)
    if not delays:
        return Percentiles(None, None)
    return Percentiles(*(round(float(value), 1) for value in np.percentile(delays, (50, 99))))


def verdicts_by_request(event_ids: Iterable[str], seen: Seen) -> dict[str, int]:
    """How many verdicts each request event has; 0 where there is none."""
    counts = dict.fromkeys(event_ids, 0)
    for verdict in seen.verdicts.values():
        counts[verdict.event_id] = counts.get(verdict.event_id, 0) + 1
    return counts


def unjudged(seen: Seen) -> dict[str, int]:
    """How many verdicts say that nothing could be said, by reason."""
    counts: dict[str, int] = {}
    for verdict in seen.verdicts.values():
        if verdict.decision == "unjudged":
            reason = str(verdict.unjudged_reason)
            counts[reason] = counts.get(reason, 0) + 1
    return counts


def broken(report: Report, expected_rows: Mapping[str, int]) -> list[str]:
    """The invariants that do not hold, a sentence each."""
    problems = []
    if report.verdicts_per_request_min < 1:
        problems.append("a request has no verdict")
    if report.verdicts_per_request_max > 1:
        problems.append("a request has more than one verdict")
    for table, count in expected_rows.items():
        found = report.rows_in_clickhouse.get(table, 0)
        if found != count:
            problems.append(f"ClickHouse has {found:,} rows of {table}, not {count:,}")
    return problems
