"""The history lane as a worker, on real Kafka and the real engine: whatever fails, rows are there once."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from loadtests.workers import Worker
from schemas import topics
from schemas.clickhouse import migrations
from schemas.codec import Record, encode
from schemas.topics import Topic, named
from streams.cli import main
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.lanes import history
from streams.migrations import migrate
from streams.settings import ClickHouse
from streams.store import Store
from streams.topics import create_topics
from tests import factories
from tests.streams.history import planted

SECONDS = 120.0
PRINCIPALS = 20


class Run:
    """Topics, settings and a server of one test."""

    def __init__(self, kafka: KafkaCluster, run_id: str, folder: Path) -> None:
        self.kafka = kafka
        self.suffix = run_id
        self.folder = folder
        self.settings = {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_TOPIC_SUFFIX": run_id,
            "POINTSMAN_CLICKHOUSE_BATCH_SECONDS": "0.2",
            "POINTSMAN_CLICKHOUSE_BATCH_ROWS": "500",
            "POINTSMAN_LOG_JSON": "false",
        }
        asyncio.run(create_topics(kafka.connection, 2, 1, run_id))

    def worker(self) -> Worker:
        return Worker("history", self.folder, self.settings, ("history",))

    def produce(self, topic: Topic, values: Sequence[msgspec.Struct]) -> None:
        async def work() -> None:
            async with AIOKafkaProducer(**self.kafka.connection, linger_ms=5) as producer:
                key = [str(getattr(value, "principal_hash", "")).encode() for value in values]
                name = named(topic, self.suffix)
                sends = [await producer.send(name, encode(v), key=k) for v, k in zip(values, key, strict=True)]
                await asyncio.gather(*sends)

        asyncio.run(work())


@pytest.fixture
def run(kafka: KafkaCluster, run_id: str, tmp_path: Path) -> Run:
    return Run(kafka, run_id, tmp_path)


@pytest.fixture
def server(run: Run, tmp_path: Path) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path / "clickhouse", faults=True) as started:
        run.settings["POINTSMAN_CLICKHOUSE_DSN"] = started.dsn
        yield started


def ask(server: ClickHouseServer, sql: str) -> list[tuple[Any, ...]]:
    async def work() -> list[tuple[Any, ...]]:
        async with Store(server.dsn, database="pointsman") as store:
            return (await store.query(sql)).rows

    return asyncio.run(work())


def prepare(server: ClickHouseServer, *statements: str) -> None:
    async def work() -> None:
        async with Store(server.dsn, database="pointsman") as store:
            await migrate(store, migrations.load())
            for statement in statements:
                await store.command(statement)

    asyncio.run(work())


def fault(server: ClickHouseServer, **what: Any) -> None:
    body = json.dumps(what).encode()
    urllib.request.urlopen(f"{server.dsn}/faults", data=body, timeout=5).close()  # noqa: S310


def faulted(server: ClickHouseServer) -> int:
    with urllib.request.urlopen(f"{server.dsn}/faults", timeout=5) as answer:  # noqa: S310
        return int(json.load(answer)["faulted"])


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def requests(first: int, end: int) -> list[msgspec.Struct]:
    now = round(time.time() * 1000)
    return [factories.request(f"r{n:05d}", f"p{n % PRINCIPALS}", now) for n in range(first, end)]


def test_nothing_lost_or_doubled_through_faults_and_kill_9(run: Run, server: ClickHouseServer) -> None:
    prepare(server, "ALTER TABLE requests ADD CONSTRAINT good CHECK request_id != 'r01234'")
    run.produce(topics.EVENTS, requests(0, 1_500))
    run.produce(topics.VERDICTS, [planted.flagged(f"r{n:05d}", f"p{n % PRINCIPALS}") for n in range(300)])
    fault(server, kind="refuse")
    worker = run.worker()
    with worker:  # ready although ClickHouse refuses: it spools in Kafka
        eventually(lambda: faulted(server) >= 2, "no insert was tried")
        assert worker.stop() == 0  # with an insert in flight that cannot end
        worker.start().await_ready()
        assert ask(server, "SELECT count() FROM requests") == [(0,)]
        fault(server, kind="cut")
        eventually(lambda: faulted(server) >= 6, "no insert was cut")
        worker.kill()  # between what ClickHouse has and what is committed
        run.produce(topics.EVENTS, requests(1_500, 2_000))
        fault(server)
        worker.start().await_ready()
        eventually(
            lambda: (
                ask(server, "SELECT count() FROM requests FINAL") == [(1_999,)]
                and ask(server, "SELECT count() FROM reasons FINAL") == [(300,)]
                and ask(server, "SELECT count() FROM dead_letters FINAL") == [(1,)]
            ),
            "not all rows arrived",
        )
        ids = [f"r{n:05d}" for n in range(2_000) if n != 1_234]
        assert ask(server, "SELECT request_id FROM requests FINAL ORDER BY request_id") == [(i,) for i in ids]
        letter = ask(server, "SELECT topic, reason, stage, detail FROM dead_letters FINAL")
        detail = "refused for requests: DatabaseError VIOLATED_CONSTRAINT 469"
        assert letter == [(topics.EVENTS.name + run.suffix, "store_refused", "store", detail)]
        counted = "SELECT uniqCombined64Merge(requests) FROM requests_by_minute"
        assert ask(server, counted) == [(1_999,)]
        before = ask(server, "SELECT count() FROM requests")
        assert worker.stop() == 0
        worker.start().await_ready()  # all was committed: nothing is read again
        run.produce(topics.EVENTS, requests(2_000, 2_001))
        eventually(lambda: ask(server, "SELECT count() FROM requests FINAL") == [(2_000,)], "the last one")
        assert ask(server, "SELECT count() FROM requests") == [(before[0][0] + 1,)]


def test_the_embedded_engine_inside_the_worker(run: Run, tmp_path: Path) -> None:
    """No server, no migration by hand; what is in hand when the worker is stopped is stored first."""
    run.settings["POINTSMAN_CLICKHOUSE_PATH"] = str(tmp_path / "engine")
    run.settings["POINTSMAN_CLICKHOUSE_BATCH_SECONDS"] = "600"
    run.settings["POINTSMAN_CLICKHOUSE_BATCH_ROWS"] = "100000"
    run.produce(topics.VERDICTS, [planted.flagged(f"r{n}", "p1", n, window="w") for n in range(50)])
    worker = run.worker()
    with worker:
        eventually(lambda: _lag(worker) == 50, "the lane read nothing")
        assert worker.stop() == 0
    arguments = ["query", "first_use", "--param", "window=w", "--param", "since=-3d", "--json"]
    environment = {key: value for key, value in run.settings.items() if "CLICKHOUSE" in key}
    found = json.loads(CliRunner().invoke(main, arguments, env=environment).output)
    assert [(row["principal_hash"], row["requests"]) for row in found["rows"]] == [("p1", 50)]


def _lag(worker: Worker) -> float:
    with urllib.request.urlopen(worker.metrics_url, timeout=5) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("pointsman_consumer_lag_messages{"))


def test_a_batch_is_bounded_in_bytes_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is being stored the next one fills: megabytes fill the memory before they are many rows."""
    monkeypatch.setattr(history, "BATCH_BYTES", 1)
    count, size = 40, 900_000
    run.produce(topics.EVENTS, [factories.request(f"r{n}", f"p{n}", prompt_text="x" * size) for n in range(count)])
    batches: list[Sequence[Record]] = []

    async def insert(records: Sequence[Record]) -> None:
        batches.append(records)
        await asyncio.sleep(1.0)

    async def work() -> None:
        reader = history.Reader(insert, run.kafka.connection, ClickHouse(), Health(), run.suffix)
        await reader.start()
        reading = asyncio.create_task(reader.run())
        async with asyncio.timeout(SECONDS):
            while sum(map(len, batches)) < count:  # noqa: ASYNC110  the task reads
                await asyncio.sleep(0.1)
        await reader.stop()
        await reading

    asyncio.run(work())
    heaviest = max(sum(len(record.value or b"") for record in batch) for batch in batches)
    assert heaviest <= history.FETCH_BYTES, "no more than one look at the brokers brings"
