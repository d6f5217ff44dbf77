"""A whole run judged by ids: what was sent, judged, alarmed and stored, and whether any of it is missing or double.

`exactness.check` proves each lane against its own log; here the log is held against what the sender knows was
acknowledged, and ClickHouse against the topics.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from detectors.detections import load as load_detections
from detectors.suppressions import Suppressions
from loadtests.exactness import Exactness, check
from schemas.clickhouse.rows import rows
from schemas.codec import InvalidRecord
from schemas.topics import (
    ALERTS,
    CHECKPOINTS,
    DEADLETTERS,
    EVENTS,
    FINDINGS,
    FLEET_CHECKPOINTS,
    TICKETS,
    VERDICTS,
    named,
)
from schemas.verdicts import Verdict
from streams.kafka import read_to_end
from streams.lanes import detect, fleet
from streams.settings import Settings
from streams.store import Store

# What makes a row of each table one and the same.
IDENTITIES = {
    "requests": ("event_id",),
    "routes": ("event_id",),
    "outcomes": ("event_id",),
    "verdicts": ("verdict_id",),
    "findings": ("finding_id",),
    "alerts": ("alert_id", "sequence"),
    "dead_letters": ("letter_id",),
}


class Judged(msgspec.Struct):
    """One request's verdict, as far as a run is measured by it."""

    decision: str
    unjudged_reason: str
    kinds: list[str]  # of what it was flagged for
    event_ms: float  # when the gateway says the request came
    published_ms: int  # when the broker took the verdict
    principal: str
    joined: bool  # it had its route


class Reckoning(msgspec.Struct, kw_only=True):
    """`lost`, `duplicated`, `unexpected` and `wrong_state` must be 0."""

    requests: int = 0  # distinct, acknowledged or in the log
    verdicts: int = 0  # distinct
    lost: int = 0  # requests, effects or rows that are nowhere
    duplicated: int = 0  # more than one verdict, or two contents of one id, or two rows
    unexpected: int = 0  # effects or rows that nothing explains
    wrong_state: int = 0  # partitions whose checkpoint is not what its offset says
    repeated: int = 0  # published again with the same id and content: they replace themselves
    dead_letters: int = 0
    rows: dict[str, int] = {}
    unjudged: dict[str, int] = {}
    details: list[str] = []  # of what is not 0, for people

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not (self.lost or self.duplicated or self.unexpected or self.wrong_state)


class Reckoner:
    """Builds what all lanes share once, for several runs."""

    def __init__(self) -> None:
        self._panel, self._detections = detect.panel_of(Settings().detect), load_detections(None)

    async def reckon(
        self, brokers: Mapping[str, Any], settings: Settings, store: Store, sent: Collection[str]
    ) -> tuple[Reckoning, dict[str, Judged]]:
        """Judge a run that is over. `sent`: event ids of acknowledged requests. Also each request's verdict."""
        suffix = settings.kafka.topic_suffix
        detecting = detect.spec(settings, self._panel, self._detections)
        alarming = fleet.spec(settings, self._detections, Suppressions(), self._panel.thresholds)
        found = Reckoning()
        judged_anew = await check(
            brokers, suffix, detecting.make, EVENTS, CHECKPOINTS, (VERDICTS, FINDINGS, DEADLETTERS, TICKETS)
        )
        alarmed_anew = await check(
            brokers, suffix, alarming.make, FINDINGS, FLEET_CHECKPOINTS, (FINDINGS, ALERTS, DEADLETTERS)
        )
        _add(found, "detect", judged_anew)
        _count(found, "lost", "events that no checkpoint covers", judged_anew.behind)
        _add(found, "fleet", alarmed_anew)
        expected = await _identities(brokers, suffix)
        await _compare_rows(found, store, expected)
        judged, twice = await read_verdicts(brokers, suffix)
        requests = set(sent) | {identity for (identity,) in expected["requests"]}
        found.requests, found.verdicts = len(requests), len(judged)
        found.dead_letters = len(expected["dead_letters"])
        _count(
            found,
            "lost",
            "acknowledged requests that are not in the log",
            len(requests) - len(expected["requests"]),
        )
        _count(found, "lost", "requests without a verdict", len(requests - judged.keys()))
        _count(found, "duplicated", "requests with two verdicts", twice)
        for verdict in judged.values():
            if verdict.decision == "unjudged":
                found.unjudged[verdict.unjudged_reason] = found.unjudged.get(verdict.unjudged_reason, 0) + 1
        return found, judged


def _count(found: Reckoning, field: str, what: str, number: int) -> None:
    if number:
        setattr(found, field, getattr(found, field) + number)
        found.details.append(f"{number} {what}")


def _add(found: Reckoning, lane: str, what: Exactness) -> None:
    _count(found, "lost", f"effects of the {lane} lane missing", what.lost)
    _count(found, "duplicated", f"ids with two contents ({lane})", what.conflicting)
    _count(found, "unexpected", f"effects that the log does not explain ({lane})", what.unexpected)
    _count(found, "wrong_state", f"partitions with a wrong checkpoint ({lane})", what.wrong_state)
    found.repeated += what.repeated
    found.details += what.examples


async def read_verdicts(brokers: Mapping[str, Any], suffix: str) -> tuple[dict[str, Judged], int]:
    """Verdicts by their request's event id, and how many requests have two that differ."""
    judged: dict[str, Judged] = {}
    contents: dict[str, bytes] = {}
    differing: set[str] = set()
    async for record in read_to_end(brokers, named(VERDICTS, suffix)):
        value = record.value or b""
        verdict = msgspec.json.decode(value, type=Verdict)
        if contents.setdefault(verdict.event_id, value) != value:
            differing.add(verdict.event_id)
        if verdict.event_id not in judged:  # published again after a crash: the first time counts
            judged[verdict.event_id] = Judged(
                verdict.decision,
                str(verdict.unjudged_reason),
                [reason.kind for reason in verdict.reasons if reason.flagged],
                verdict.event_time.timestamp() * 1000,
                record.timestamp,
                verdict.principal_hash,
                not verdict.route_missing,
            )
    return judged, len(differing)


Identities = dict[str, set[tuple[Any, ...]]]


async def _identities(brokers: Mapping[str, Any], suffix: str) -> Identities:
    """Of every row that the topics' records make, by table."""
    found: Identities = defaultdict(set)
    for topic in (EVENTS, VERDICTS, FINDINGS, ALERTS, DEADLETTERS):
        async for record in read_to_end(brokers, named(topic, suffix)):
            try:
                made = rows(topic.name, record)
            except InvalidRecord:
                continue  # the lane that judged it has written its dead letter
            for table, row in made:
                if table.name in IDENTITIES:
                    places = [table.columns.index(column) for column in IDENTITIES[table.name]]
                    found[table.name].add(tuple(row[place] for place in places))
    return found


async def _compare_rows(found: Reckoning, store: Store, expected: Identities) -> None:
    for table, columns in IDENTITIES.items():
        names = ", ".join(columns)
        answer = await store.query(f"SELECT {names}, count() FROM {table} FINAL GROUP BY {names}")  # noqa: S608
        stored = {tuple(row[:-1]): int(row[-1]) for row in answer.rows}
        found.rows[table] = len(stored)
        _count(found, "lost", f"rows of {table} missing", len(expected[table] - stored.keys()))
        _count(found, "duplicated", f"rows of {table} double", sum(stored.values()) - len(stored))
        _count(
            found, "unexpected", f"rows of {table} that no record explains", len(stored.keys() - expected[table])
        )
