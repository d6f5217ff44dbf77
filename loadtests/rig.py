"""One run's topics, database and workers on brokers and an engine that several runs share."""

import asyncio
import contextlib
import json
import secrets
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtests.background import Background
from loadtests.player import Groups
from loadtests.workers import Worker
from schemas.clickhouse import migrations
from schemas.clickhouse.rows import TOPICS
from schemas.topics import EVENTS, FEEDBACK, FINDINGS, named
from streams.configuration import load
from streams.embedded.clickhouse import ClickHouseServer
from streams.embedded.kafka import KafkaCluster
from streams.lanes.feedback import SOURCES
from streams.migrations import migrate
from streams.settings import Settings
from streams.store import Store
from streams.topics import create_topics

PARTITIONS = 6
SETTLE_SECONDS = 300.0
READY_SECONDS = 300.0  # several start at once, and others may share the machine
REST_SECONDS = 4.0  # longer than the grace of a join, the silence before a tick, and a checkpoint together
ROLES = ("detect", "fleet", "history")


class Rig:
    """Topics with a suffix and a database of its own, and the workers on them."""

    def __init__(
        self, kafka: KafkaCluster, engine: ClickHouseServer, folder: Path, name: str, **settings: str
    ) -> None:
        """`settings`: `POINTSMAN_*` variables beside those of the connections. Creates topics and tables."""
        self.kafka = kafka
        self.engine = engine
        self.suffix = f".{name}-{secrets.token_hex(3)}"
        self.database = self.suffix[1:].replace("-", "_").replace(".", "_")
        self.brokers: Mapping[str, Any] = kafka.connection
        self._folder = folder
        self.settings = {
            "POINTSMAN_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "POINTSMAN_KAFKA_TOPIC_SUFFIX": self.suffix,
            "POINTSMAN_CLICKHOUSE_DSN": engine.dsn,
            "POINTSMAN_CLICKHOUSE_DATABASE": self.database,
            "POINTSMAN_LOG_JSON": "false",
            **settings,
        }
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        await create_topics(self.brokers, PARTITIONS, self.kafka.nodes, self.suffix)
        async with self.store() as store:
            await migrate(store, migrations.load())

    def as_workers_have_it(self) -> Settings:
        """The settings that the workers' variables make."""
        return load(None, self.settings)

    def store(self) -> Store:
        """The database of this run."""
        return Store(self.engine.dsn, database=self.database)

    def worker(self, name: str, roles: tuple[str, ...] = ROLES, **settings: str) -> Worker:
        """A worker, not started."""
        return Worker(f"{name}{self.suffix}", self._folder, {**self.settings, **settings}, roles)

    def misbehave(self, kind: str = "", match: str = "INSERT", **what: Any) -> None:
        """Tell the engine what to do wrong from now on; without arguments: nothing."""
        body = json.dumps({"kind": kind, "match": match, **what}).encode()
        urllib.request.urlopen(f"{self.engine.dsn}/faults", data=body, timeout=5).close()  # noqa: S310  our own

    def stored_verdicts(self) -> int:
        """How many verdicts the database has, each once; 0 where it cannot be asked."""

        async def ask() -> int:
            async with Store(self.engine.dsn, database=self.database, timeout=5) as store:
                return int((await store.query("SELECT count() FROM verdicts FINAL")).rows[0][0])

        try:
            return asyncio.run(ask())
        except Exception:  # it is being kept from answering: that is what some runs are about
            return 0

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until every lane has done all there is to do.

        Raises:
            TimeoutError: it has not within `seconds`.
        """
        asyncio.run(self._settled(seconds))

    async def _settled(self, seconds: float) -> None:
        events = [named(EVENTS, self.suffix)]
        async with asyncio.timeout(seconds), Groups(self.brokers) as groups:
            await groups.at_rest(f"pointsman-detect{self.suffix}", events, REST_SECONDS)
            if (feedback := self.as_workers_have_it().feedback).key:
                sources = [named(topic, self.suffix) for topic in SOURCES]
                await groups.caught_up(f"{feedback.group}-relay{self.suffix}", sources)
                await groups.caught_up(f"{feedback.group}{self.suffix}", [named(FEEDBACK, self.suffix)])
            await groups.caught_up(f"pointsman-fleet{self.suffix}", [named(FINDINGS, self.suffix)])
            await groups.caught_up(f"pointsman-history{self.suffix}", [topic + self.suffix for topic in TOPICS])


@contextlib.contextmanager
def staffed(workers: Sequence[Worker]) -> Iterator[None]:
    """All started at once and ready; stopped in order."""
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.await_ready(READY_SECONDS)
        yield
    finally:
        for worker in workers:
            worker.stop()


class Crew(Background):
    """Workers and who looks after them: what ends by itself is started again, as any supervisor does."""

    def __init__(self, workers: list[Worker]) -> None:
        super().__init__()
        self.workers = workers
        self.restarts = 0
        self._staff = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start all, and wait until they are ready."""
        self._staff.enter_context(staffed(self.workers))
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop all, in order."""
        with self._staff:
            super().__exit__(kind, error, tb)

    def work(self) -> None:
        """Start again whoever has ended."""
        while not self.stopping.wait(0.2):
            for worker in self.workers:
                if worker.exit_code() is not None:
                    self.restarts += 1
                    worker.start()
