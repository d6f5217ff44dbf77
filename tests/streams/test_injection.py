"""What attackers name themselves and write, through judgement, alerts, every notifier, query, metric and log."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner

from detectors.alerting import Alerting
from detectors.catalogue import shipped
from detectors.detections import load
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas import topics
from schemas.alerts import Alert
from schemas.clickhouse import migrations, named
from schemas.codec import encode
from schemas.events import AnyEvent
from schemas.topics import Topic
from streams import logs, metrics
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.migrations import migrate
from streams.notifiers.alertmanager import AlertmanagerNotifier
from streams.notifiers.base import Notifier
from streams.notifiers.channel import Channel
from streams.notifiers.console import ConsoleNotifier
from streams.notifiers.pagerduty import PagerDutyNotifier
from streams.notifiers.slack import SlackNotifier
from streams.notifiers.webhook import WebhookNotifier
from streams.replay import FileRecord, Result, replay
from streams.settings import Log
from streams.store import Store
from tests import factories
from tests.streams.notifiers.alerts import PAYLOADS
from tests.streams.notifiers.receiver import Receiver, receiving

TRIGGER = next(trigger.text for trigger in shipped().triggers if trigger.kind != "semantic")
NOW_MS = round(datetime.now(UTC).timestamp() * 1000) - 3_600_000
ACTING = set('<>&@`*~|$[]{}"')


def hostile_events(number: int, payload: str) -> Iterator[AnyEvent]:
    """A principal that uses a known trigger three times; every name that it or its gateway gives is the payload."""
    for again in range(3):
        at, rid = NOW_MS + number * 1_000 + again, f"{payload}{again}"
        names = {"gateway_name": payload, "trace_id": payload, "tenant_id": payload}
        prompt = f"{TRIGGER} {payload} What is the capital of Peru?"
        who = {"request_model": payload, "user_agent": payload, "conversation_id": payload}
        what = {"selected_model": payload, "router_name": payload, "tier": payload, "provider_name": payload}
        yield factories.request(rid, payload, at, prompt_text=prompt, **names, **who)
        yield factories.route(rid, payload, at, signals=[payload], tier_boundaries={payload: 0.5}, **names, **what)
        yield factories.outcome(rid, payload, at, error_type=payload, response_model=payload, **names)


# One alert a caller, whatever the shipped detections wait for.
DETECTION = """
RuleID: one_caller
DisplayName: A caller uses a known trigger
LogTypes: [known_trigger]
GroupBy: [tenant_id, principal_hash, router_name]
Severity: warning
Runbook: |
  1. What was asked? `pointsman query timeline_of_principal --param principal={principal_hash}`
Tests:
  - {Name: one, ExpectedResult: true, Log: [{principal_hash: p1}]}
  - {Name: another kind, ExpectedResult: false, Log: [{kind: novel_text}]}
"""


def judged(folder: Path) -> tuple[list[bytes], Result]:
    lines = [encode(event) for n, payload in enumerate(PAYLOADS) for event in hostile_events(n, payload)]
    lines += [b'{"event_type":"' + payload.encode() for payload in PAYLOADS]  # broken, so quoted in no log
    panel = build_panel(Thresholds())
    folder.mkdir()
    (folder / "one_caller.yml").write_text(DETECTION)
    detections = load(folder)
    judge = Judge(panel, stream_detectors(panel.thresholds), JudgeLimits(), detections=detections)
    return lines, replay(lines, judge, Alerting(detections), flush_ms=60_000)


async def told(alerts: list[Alert], receiver: Receiver, out: io.StringIO) -> None:
    notifiers: list[Notifier] = [
        WebhookNotifier(receiver.url, "secret"),
        AlertmanagerNotifier(receiver.base),
        SlackNotifier(receiver.url),
        PagerDutyNotifier("key", receiver.url),
        ConsoleNotifier(out),
    ]
    for notifier in notifiers:
        await Channel(notifier, gap_seconds=0.0, most_alerts=20).deliver(alerts)
        await notifier.close()


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for pair in value.items():
            yield from (text for part in pair for text in strings(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in strings(part))
    elif isinstance(value, str):
        yield value


def records_of(lines: list[bytes], result: Result) -> Iterator[FileRecord]:
    outputs: list[tuple[Topic, list[Any]]] = [
        (topics.VERDICTS, result.verdicts), (topics.FINDINGS, result.findings), (topics.ALERTS, result.alerts),
    ]  # fmt: skip
    yield from (FileRecord(topics.EVENTS.name, offset, NOW_MS, line) for offset, line in enumerate(lines))
    for topic, values in outputs:
        yield from (FileRecord(topic.name, n, NOW_MS, encode(value)) for n, value in enumerate(values))


async def stored_and_queried(server: ClickHouseServer, lines: list[bytes], result: Result) -> None:
    async def never(_record: Any, error: Exception) -> None:
        raise error

    async with Store(server.dsn, database="injection") as store:
        await migrate(store, migrations.load())
        await History(store, never).insert(list(records_of(lines, result)))
        (verdicts,) = (await store.query("SELECT count() FROM verdicts FINAL")).rows
        assert verdicts == (len(result.verdicts),)
        for query in named.load().values():
            for payload in PAYLOADS:
                given = {p.name: payload for p in query.parameters if p.type == "String"}
                given |= {p.name: "1" for p in query.parameters if p.default is None and p.type != "String"}
                bound = query.bind({**given, "since": "-3d"} if _has(query, "since") else given, datetime.now(UTC))
                found = (await store.query(query.sql, bound)).records()
                if "principal" in given and query.name == "verdicts_by_principal":
                    assert len(found) == 3, payload  # the payload was compared, not run
        assert (await store.query("SELECT count() FROM verdicts FINAL")).rows == [verdicts]


def _has(query: named.NamedQuery, name: str) -> bool:
    return any(parameter.name == name for parameter in query.parameters)


def printed(server: ClickHouseServer) -> str:
    """All queries that need no parameter, as the command prints them."""
    environment = {"POINTSMAN_CLICKHOUSE_DSN": server.dsn, "POINTSMAN_CLICKHOUSE_DATABASE": "injection"}
    shown = ""
    for query in named.load().values():
        needed = [p for p in query.parameters if p.default is None]
        values = [f"{p.name}={PAYLOADS[5] if p.type == 'String' else 1}" for p in needed]
        arguments = [part for value in values for part in ("--param", value)]
        result = CliRunner().invoke(main, ["query", query.name, *arguments], env=environment)
        assert result.exit_code == 0, result.output
        shown += result.output
    return shown


def test_nothing_that_an_attacker_writes_acts_anywhere(tmp_path: Path) -> None:
    as_json, as_text, out = io.StringIO(), io.StringIO(), io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.setup(Log(level="DEBUG", json=True), as_json)
    text = logging.StreamHandler(as_text)
    text.setFormatter(logs.TextFormatter())
    root.addHandler(text)
    try:
        lines, result = judged(tmp_path / "detections")
        for payload in PAYLOADS:
            logging.getLogger("pointsman.test").warning("it said %s", payload, extra={"request_id": payload})
        asyncio.run(all_notifiers(result, out))
        with ClickHouseServer(tmp_path / "clickhouse") as server:
            asyncio.run(stored_and_queried(server, lines, result))
            shown = printed(server)
    finally:
        logging.basicConfig(handlers=before, level=level, force=True)
    everything = [as_json.getvalue(), as_text.getvalue(), out.getvalue(), shown]
    for written in everything:
        assert "\n" in written
        assert all(line.isprintable() for line in written.split("\n"))
        assert "Peru" not in written  # no text of a prompt anywhere
    assert all(json.loads(line) for line in as_json.getvalue().splitlines())
    assert not any(payload in out.getvalue() for payload in PAYLOADS)
    exposed = metrics.exposition().decode()
    assert not any(payload in exposed for payload in PAYLOADS)


async def all_notifiers(result: Result, out: io.StringIO) -> None:
    principals = {alert.principal_hash for alert in result.alerts if "principal_hash" in alert.labels}
    assert principals == set(PAYLOADS)  # every payload became an alert about itself
    async with receiving() as receiver:
        await told(result.alerts, receiver, out)
        assert len(receiver.taken) >= 4
        for message, body, _ in receiver.taken:
            assert body.decode().isprintable()
            for text in strings(msgspec.to_builtins(message)):
                assert not any(payload in text for payload in PAYLOADS)
                assert "Peru" not in text
                assert all(line.isprintable() for line in text.split("\n"))
                if text.startswith("{}:"):
                    continue  # the webhook's groupKey, of our own names
                acting = ACTING - set("[]") if text.startswith("[") else ACTING  # a headline's own brackets
                assert not set(text) & acting, text
