"""A record of any of our topics as rows of the history: a pure function, no I/O."""

from collections.abc import Callable
from functools import partial
from typing import Any

from schemas import topics
from schemas.alerts import Alert
from schemas.audits import AuditLabel
from schemas.clickhouse.tables import (
    ALERTS,
    AUDITS,
    DEAD_LETTERS,
    FINDINGS,
    OUTCOMES,
    REASONS,
    REQUESTS,
    ROUTES,
    THRESHOLD_LINKS,
    THRESHOLDS,
    VERDICTS,
    NumberedReason,
    Table,
)
from schemas.codec import ERASE_TYPE, TICK_TYPE, Record, decode, decode_event, read_dead_letter
from schemas.events import Outcome, Request, Route
from schemas.thresholds import ThresholdUpdate
from schemas.verdicts import Finding, Verdict

Subject = tuple[Table, Any]
Row = tuple[Table, tuple[Any, ...]]

_EVENT_TABLES = {Request: REQUESTS, Route: ROUTES, Outcome: OUTCOMES}


def subjects(topic: str, record: Record) -> list[Subject]:
    """What rows of `record` of `topic` (its name without a suffix) are about, each for the `read` of its table.

    None for a tick or a tombstone.

    Raises:
        InvalidRecord: the record is none that `topic` may hold. Such an event has a dead letter of its own.
        KeyError: a topic that history does not keep (`TOPICS` has them).
    """
    return _READERS[topic](record)


def rows(topic: str, record: Record) -> list[Row]:
    """The rows themselves; raises as `subjects`."""
    return [(table, table.row(subject, record)) for table, subject in subjects(topic, record)]


def _event(record: Record) -> list[Subject]:
    event = decode_event(record)
    return [] if event is None else [(_EVENT_TABLES[type(event)], event)]


def _verdict(record: Record) -> list[Subject]:
    verdict = decode(Verdict, record)
    found: list[Subject] = [(VERDICTS, verdict)]
    if verdict.reasons:
        found += [(REASONS, NumberedReason(verdict, number, each)) for number, each in enumerate(verdict.reasons)]
    return found


def _dead_letter(record: Record) -> list[Subject]:
    return [(DEAD_LETTERS, read_dead_letter(record))]


def _threshold(record: Record) -> list[Subject]:
    # A compacted topic's tombstone says nothing about the past, nor does an erasure among the findings.
    if not record.value or ("ce_type", ERASE_TYPE) in record.headers:
        return []
    update = decode(ThresholdUpdate, record)
    return [(THRESHOLDS, update), (THRESHOLD_LINKS, update)]


def _plain(kind: type, table: Table, record: Record) -> list[Subject]:
    if not record.value and ("ce_type", TICK_TYPE) in record.headers:
        return []
    return [(table, decode(kind, record))]


_READERS: dict[str, Callable[[Record], list[Subject]]] = {
    topics.EVENTS.name: _event,
    topics.VERDICTS.name: _verdict,
    topics.FINDINGS.name: partial(_plain, Finding, FINDINGS),
    topics.ALERTS.name: partial(_plain, Alert, ALERTS),
    topics.DEADLETTERS.name: _dead_letter,
    topics.THRESHOLDS.name: _threshold,
    topics.AUDITS.name: partial(_plain, AuditLabel, AUDITS),
}

TOPICS = tuple(_READERS)
