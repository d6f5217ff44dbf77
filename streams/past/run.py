"""One replay: the window, all that its result depends on, and the lanes' own judgement over it.

The same `Judge` and `Alerting` that the lanes run, in stream time, fresh for every run. Judgement begins `warm_up`
before the window, so that baselines are there when it opens; what is said before is not kept.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from detectors.processor import Output, Processor, Record
from schemas.alerts import Alert
from schemas.clickhouse.tables import Judged
from schemas.codec import TICK_HEADERS
from schemas.topics import ALERTS, FINDINGS, VERDICTS
from schemas.verdicts import Finding, Verdict
from streams.replay import FileRecord


class Window(NamedTuple):
    """Milliseconds of stream time: judged from `warm_from`, kept from `begins`, both up to `ends`, exclusive."""

    warm_from: int
    begins: int
    ends: int


class Pins(msgspec.Struct, kw_only=True, frozen=True):
    """What a result depends on, beside the events. Equal pins over equal events give equal results."""

    release: str
    source: str
    window: Window
    detectors: Mapping[str, str]  # versions
    thresholds: Mapping[str, float]  # a tenant's own as "parameter tenant"
    thresholds_version: int
    catalogue_version: int
    catalogue_sha256: str
    rules_sha256: str  # of custody
    alerting_sha256: str  # of the rules that turn findings into alerts
    limits: Mapping[str, float]

    def run_id(self) -> str:
        """16 hex digits: the same replay has the same name, and replaces itself."""
        text = msgspec.json.encode(self, order="sorted")
        return hashlib.sha256(text).hexdigest()[:16]


class Run(msgspec.Struct, kw_only=True):
    """What a replay was, as `replay_runs` has it."""

    run_id: str
    made_at: datetime
    source: str
    warm_from: datetime
    begins: datetime
    ends: datetime
    pins: str  # JSON
    events: int = 0
    left_out: int = 0  # of erased principals
    verdicts: int = 0
    flagged: int = 0
    findings: int = 0
    alerts: int = 0


def new_run(pins: Pins) -> Run:
    """A run that has not begun."""
    warm_from, begins, ends = map(at, pins.window)
    return Run(
        run_id=pins.run_id(), made_at=datetime.now(UTC), source=pins.source, warm_from=warm_from, begins=begins,
        ends=ends, pins=msgspec.json.encode(pins, order="sorted").decode(),
    )  # fmt: skip


class Replay:
    """Feed it each partition's records in order, in any order of partitions; then `finish`."""

    def __init__(self, run: Run, window: Window, judge: Callable[[int], Processor], alerting: Processor) -> None:
        self._run = run
        self._window = window
        self._make_judge = judge
        self._alerting = alerting
        self._judges: dict[int, Processor] = {}
        self._findings: list[tuple[int, int, int, Output]] = []  # stream time, partition, number

    def feed(self, partition: int, records: Sequence[Record]) -> tuple[list[Judged], list[Judged]]:
        """Judge records of one partition; the verdicts and the findings that lie in the window."""
        if partition not in self._judges:
            self._judges[partition] = self._make_judge(partition)
        verdicts, findings = [], []
        self._run.events += len(records)
        for output in self._judges[partition].apply(records):
            if output.topic == VERDICTS.name:
                verdict = msgspec.json.decode(output.value, type=Verdict)
                if self._within(verdict.time):
                    verdicts.append(Judged(self._run.run_id, verdict))
                    self._run.flagged += verdict.decision == "flagged"
            elif output.topic == FINDINGS.name:
                finding = msgspec.json.decode(output.value, type=Finding)
                self._findings.append((ms(finding.time), partition, len(self._findings), output))
                if self._within(finding.time):
                    findings.append(Judged(self._run.run_id, finding))
        self._run.verdicts += len(verdicts)
        self._run.findings += len(findings)
        return verdicts, findings

    def finish(self) -> list[Judged]:
        """Turn all findings into alerts, in stream time; the last state of each that changed in the window."""
        fired: dict[str, datetime] = {}
        last: dict[str, Alert] = {}
        offset = 0
        for time, output in self._in_order():
            queue = deque([output])
            while queue:
                given = queue.popleft()
                record = FileRecord(FINDINGS.name, offset, time, given.value, given.key, given.headers)
                offset += 1
                for said in self._alerting.apply([record]):
                    if said.topic == FINDINGS.name:  # what the lane tells itself, by way of its topic
                        queue.append(said)
                    elif said.topic == ALERTS.name:
                        alert = msgspec.json.decode(said.value, type=Alert)
                        fired.setdefault(alert.alert_id, alert.time)
                        last[alert.alert_id] = alert
        alerts = [
            Judged(self._run.run_id, alert, fired[name]) for name, alert in last.items() if self._within(alert.time)
        ]
        self._run.alerts = len(alerts)
        return alerts

    def _in_order(self) -> Sequence[tuple[int, Output]]:
        """Findings as their topic would have had them, and a tick at the end: what has been quiet is resolved."""
        tick = Output(FINDINGS.name, b"", b"", TICK_HEADERS)
        findings = [(time, output) for time, _, _, output in sorted(self._findings, key=lambda item: item[:3])]
        return [*findings, (self._window.ends - 1, tick)]

    def _within(self, time: datetime) -> bool:
        return self._window.begins <= ms(time) < self._window.ends


def ms(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)


def at(time_ms: int) -> datetime:
    """The time, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)
