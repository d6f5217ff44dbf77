"""A record of any of our topics as rows of the history: a pure function, no I/O."""

from collections.abc import Callable, Iterator
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
    At,
    NumberedReason,
    Table,
)
from schemas.codec import ERASE_TYPE, TICK_TYPE, Record, decode, decode_event, read_dead_letter
from schemas.events import Outcome, Request, Route
from schemas.thresholds import ThresholdUpdate
from schemas.verdicts import Finding, Verdict

Row = tuple[Table, tuple[Any, ...]]

_EVENT_TABLES = {Request: REQUESTS, Route: ROUTES, Outcome: OUTCOMES}


def rows(topic: str, record: Record) -> list[Row]:
    """Rows that `record` of `topic` (its name without a suffix) makes; none for a tick or a tombstone.

    Raises:
        InvalidRecord: the record is none that `topic` may hold. Such an event has a dead letter of its own.
        KeyError: a topic that history does not keep (`TOPICS` has them).
    """
    at = At(record.partition, record.offset, record.timestamp)
    return list(_READERS[topic](record, at))


def _event(record: Record, at: At) -> Iterator[Row]:
    event = decode_event(record)
    if event is not None:
        table = _EVENT_TABLES[type(event)]
        yield table, table.row(event, at)


def _verdict(record: Record, at: At) -> Iterator[Row]:
    verdict = decode(Verdict, record)
    yield VERDICTS, VERDICTS.row(verdict, at)
    for number, reason in enumerate(verdict.reasons):
        yield REASONS, REASONS.row(NumberedReason(verdict, number, reason), at)


def _dead_letter(record: Record, at: At) -> Iterator[Row]:
    yield DEAD_LETTERS, DEAD_LETTERS.row(read_dead_letter(record), at)


def _threshold(record: Record, at: At) -> Iterator[Row]:
    # A compacted topic's tombstone says nothing about the past, nor does an erasure among the findings.
    if record.value and ("ce_type", ERASE_TYPE) not in record.headers:
        update = decode(ThresholdUpdate, record)
        yield THRESHOLDS, THRESHOLDS.row(update, at)
        yield THRESHOLD_LINKS, THRESHOLD_LINKS.row(update, at)


def _plain(kind: type, table: Table, record: Record, at: At) -> Iterator[Row]:
    if record.value or ("ce_type", TICK_TYPE) not in record.headers:
        yield table, table.row(decode(kind, record), at)


_READERS: dict[str, Callable[[Record, At], Iterator[Row]]] = {
    topics.EVENTS.name: _event,
    topics.VERDICTS.name: _verdict,
    topics.FINDINGS.name: partial(_plain, Finding, FINDINGS),
    topics.ALERTS.name: partial(_plain, Alert, ALERTS),
    topics.DEADLETTERS.name: _dead_letter,
    topics.THRESHOLDS.name: _threshold,
    topics.AUDITS.name: partial(_plain, AuditLabel, AUDITS),
}

TOPICS = tuple(_READERS)
