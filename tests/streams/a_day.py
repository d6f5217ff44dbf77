"""A day with planted attacks, judged by the lanes' own code, and a database that has seen it."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from click.testing import CliRunner

from detectors.alerting import Alerting
from detectors.catalogue import shipped
from detectors.detections import shipped as detections
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from schemas import topics
from schemas.clickhouse import migrations
from schemas.codec import encode
from schemas.erasures import Erasure
from schemas.events import AnyEvent
from schemas.topics import EVENTS
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.history import History
from streams.migrations import migrate
from streams.replay import FileRecord, Result, replay
from streams.store import Store
from tests.factories import outcome, request, route

TRIGGER = next(trigger.text for trigger in shipped().triggers if trigger.kind != "semantic")
NOW_MS = round(datetime.now(UTC).timestamp() * 1000)
MINUTE_MS = 60_000
SUBJECTS = ("law", "football", "chemistry", "opera", "tax", "gardens", "whales", "bridges", "trains", "glass")


def asked(
    number: int, principal: str, at_ms: int, prompt: str, usd: float = 0.001, rank: int = 0
) -> list[AnyEvent]:
    rid = f"{principal}-{number}"
    return [
        request(rid, principal, at_ms, prompt_text=prompt),
        route(rid, principal, at_ms, tier_rank=rank, cost_estimate_usd=usd, selected_model=f"m{rank}"),
        outcome(rid, principal, at_ms + 1, cost_usd=usd),
    ]


def day() -> list[AnyEvent]:
    """An hour: an ordinary principal, one with a known trigger at two places, one whose spend breaks out."""
    begin = NOW_MS - 90 * MINUTE_MS
    events: list[AnyEvent] = []
    for minute in range(60):
        at = begin + minute * MINUTE_MS
        events += asked(minute, "quiet", at, f"What is the capital of country number {minute}?")
        usd, rank = (5.0, 3) if minute >= 45 else (0.001, 0)
        for again in range(4):
            prompt = f"Please list the first {again} rivers of {SUBJECTS[(minute + again) % len(SUBJECTS)]}."
            events += asked(10 * minute + again, "wallet", at + 5_000 + again, prompt, usd, rank)
        if minute in (20, 50):
            events += asked(minute, "gadget", at + 9_000, f"{TRIGGER} What is the capital of Peru?")
    return events


DAY = day()


class Past:
    """A database, and what the commands need to reach it (and a broker)."""

    def __init__(self, server: ClickHouseServer) -> None:
        self.database = f"t{secrets.token_hex(6)}"
        self.server = server
        self.environment = {
            "POINTSMAN_CLICKHOUSE_DSN": server.dsn.replace("http://", "clickhouse://"),
            "POINTSMAN_CLICKHOUSE_DATABASE": self.database,
        }

    def run(self, *arguments: str) -> Any:
        """A command's JSON."""
        result = CliRunner().invoke(main, [*arguments, "--json"], env=self.environment)
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def fails(self, *arguments: str) -> str:
        result = CliRunner().invoke(main, arguments, env=self.environment)
        assert result.exit_code != 0
        return result.output

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        async def work() -> list[tuple[Any, ...]]:
            async with Store(self.server.dsn, database=self.database) as store:
                return (await store.query(sql)).rows

        return asyncio.run(work())

    def store(self, records: list[FileRecord]) -> None:
        async def never(_record: Any, error: Exception) -> None:
            raise error

        async def work() -> None:
            async with Store(self.server.dsn, database=self.database) as store:
                await migrate(store, migrations.load())
                await History(store, never).insert(records)

        asyncio.run(work())

    def erase(self, erasure: Erasure) -> None:
        self.query(
            f"INSERT INTO erasures VALUES ('{erasure.tenant_id}', '{erasure.principal_hash}',"
            f" '{erasure.until:%Y-%m-%d %H:%M:%S}', '', '')"
        )

    def rows(self, run: Mapping[str, Any]) -> list[Any]:
        """All that a run gave, to the last digit."""
        tables = ("replay_verdicts", "replay_findings", "replay_alerts")
        return [
            self.query(f"SELECT * FROM {t} FINAL WHERE run_id = '{run['run_id']}' ORDER BY ALL") for t in tables
        ]


def judged(events: list[AnyEvent]) -> Result:
    panel = build_panel(Thresholds())
    judge = Judge(panel, stream_detectors(panel.thresholds), JudgeLimits())
    return replay([encode(event) for event in events], judge, Alerting(detections()), flush_ms=0)


def lived(result: Result) -> list[FileRecord]:
    """The log of events, and what was said of them, as the history lane reads it."""
    times = [round(event.event_time.timestamp() * 1000) for event in DAY]
    log = [
        FileRecord(EVENTS.name, offset, max(times[: offset + 1]), encode(event)) for offset, event in enumerate(DAY)
    ]
    for topic, said in (
        (topics.VERDICTS, result.verdicts),
        (topics.FINDINGS, result.findings),
        (topics.ALERTS, result.alerts),
    ):
        log += [FileRecord(topic.name, offset, NOW_MS, encode(each)) for offset, each in enumerate(said)]
    return log
