"""A file of events through the detect and fleet lanes in one process: no broker, event time only."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import median_low
from typing import Protocol

import msgspec

from detectors.discovery.transplant import Probes, answer
from detectors.processor import Output, Record
from schemas.alerts import Alert
from schemas.codec import MAX_CLOCK_OFF_MS, TICK_HEADERS, encode, read_dead_letter
from schemas.deadletters import DeadLetter
from schemas.topics import ALERTS, DEADLETTERS, EVENTS, FINDINGS, VERDICTS
from schemas.verdicts import Finding, Verdict

BATCH = 1_000
NEIGHBOURS = 5  # lines on each side whose time says whether a line's own time can be believed


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A line of a file, or an output of one lane on its way to the next, as a Kafka record."""

    topic: str
    offset: int
    timestamp: int  # milliseconds
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = 0


class Result(msgspec.Struct):
    """What a replay gives. `alerts` holds the last state of each episode, in the order in which they began."""

    verdicts: list[Verdict] = []
    findings: list[Finding] = []
    alerts: list[Alert] = []
    deadletters: list[DeadLetter] = []


class Applies(Protocol):
    """What a replay needs of a processor (detectors/processor.py)."""

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """See `Processor.apply`."""


class _Times(msgspec.Struct):
    event_time: datetime | None = None


@dataclass(slots=True)
class _Collected:
    result: Result = field(default_factory=Result)
    alerts: dict[str, Alert] = field(default_factory=dict)
    fleet_offset: int = 0


def replay(
    lines: Sequence[bytes], judge: Applies, alerting: Applies, flush_ms: int, probes: Probes | None = None
) -> Result:
    """Run `lines` (one event's JSON each) through both processors; `probes` answers the transplants wanted.

    Stream time is the events' own, made monotone; after the last line it moves on by `flush_ms`, so that
    requests whose route never came get their verdict. Two runs give equal results.
    """
    collected = _Collected()
    for batch in _batches(list(_records(lines)), flush_ms):
        findings = _collect(judge.apply(batch), collected, batch[-1].timestamp)
        # Of several partitions' findings the broker stamps first what is written first.
        findings.sort(key=lambda finding: finding.timestamp)
        end = FileRecord(FINDINGS.name, 0, batch[-1].timestamp, b"", headers=TICK_HEADERS)
        waiting = deque((*findings, end))
        while waiting:
            record = waiting.popleft()
            numbered = replace(record, offset=collected.fleet_offset)
            collected.fleet_offset += 1
            # What a campaign tells its members' alerts is in the log before what comes after.
            told = _collect(alerting.apply([numbered]), collected, record.timestamp)
            if probes is not None:
                told = [reply for record in told for reply in _with_answer(record, probes)]
            waiting.extendleft(reversed(told))
    collected.result.alerts = list(collected.alerts.values())
    return collected.result


def _collect(outputs: Sequence[Output], collected: _Collected, time_ms: int) -> list[FileRecord]:
    findings = []
    result = collected.result
    for output in outputs:
        if output.topic == VERDICTS.name:
            result.verdicts.append(msgspec.json.decode(output.value, type=Verdict))
        elif output.topic == FINDINGS.name:
            finding = msgspec.json.decode(output.value, type=Finding)
            result.findings.append(finding)
            at = round(finding.time.timestamp() * 1000)
            findings.append(FileRecord(output.topic, 0, at, output.value, output.key, output.headers))
        elif output.topic == ALERTS.name:
            alert = msgspec.json.decode(output.value, type=Alert)
            collected.alerts[alert.alert_id] = alert
        elif output.topic == DEADLETTERS.name:
            letter = FileRecord(output.topic, 0, time_ms, output.value, output.key, output.headers)
            result.deadletters.append(read_dead_letter(letter))
    return findings


def _with_answer(record: FileRecord, probes: Probes) -> Iterator[FileRecord]:
    """The record, and what a transplant that it wants gives."""
    yield record
    finding = msgspec.json.decode(record.value or b"", type=Finding)
    if finding.transplant is not None and not finding.transplant.is_answer:
        finding.transplant = answer(probes, finding.transplant)
        yield replace(record, value=encode(finding))


def _batches(records: list[FileRecord], flush_ms: int) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), BATCH):
        yield records[start : start + BATCH]
    if records:
        last = records[-1]
        yield [FileRecord(EVENTS.name, last.offset + 1, last.timestamp + flush_ms, b"", headers=TICK_HEADERS)]


def _records(lines: Sequence[bytes]) -> Iterator[FileRecord]:
    """Give each line the stream's time. A line that no neighbour agrees with (within a day) does not move it."""
    times = [_event_ms(line) for line in lines]
    known = [(index, time) for index, time in enumerate(times) if time is not None]
    believed: dict[int, int] = {}
    for place, (index, time) in enumerate(known):
        before = [t for _, t in known[max(0, place - NEIGHBOURS) : place]]
        after = [t for _, t in known[place + 1 : place + 1 + NEIGHBOURS]]
        sides = [median_low(side) for side in (before, after) if side]
        if not sides or any(abs(time - side) <= MAX_CLOCK_OFF_MS for side in sides):
            believed[index] = time
    now = next(iter(believed.values()), 0)
    for index, line in enumerate(lines):
        now = max(now, believed.get(index, now))
        yield FileRecord(EVENTS.name, index, now, line)


def _event_ms(line: bytes) -> int | None:
    try:
        time = msgspec.json.decode(line, type=_Times).event_time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if time is None or time.tzinfo is None:
        return None
    return round(time.timestamp() * 1000)
