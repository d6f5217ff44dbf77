"""The history lane: every topic that ClickHouse keeps, in batches, committed once stored.

A consumer group of its own. While ClickHouse is away the lane holds one batch in flight and one in hand, pauses
its partitions and goes on polling, so that it stays in its group: lag, never loss, and nobody else waits.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from mode import Service

from schemas.clickhouse import migrations
from schemas.clickhouse.rows import TOPICS
from schemas.codec import InvalidRecord, Record, dead_letter
from schemas.topics import DEADLETTERS, ERASURES, named
from streams import metrics
from streams.health import Health
from streams.history import History
from streams.kafka import connected, read_batches, read_to_end
from streams.migrations import migrate
from streams.settings import ClickHouse, Settings
from streams.store import Store

log = logging.getLogger(__name__)

POLL_MS = 200
FETCH_BYTES = 16 << 20  # that one look at a broker may bring
BATCH_BYTES = 64 << 20  # of events, beyond which a batch is full: those of 1 MiB are as many as small ones
STOP_SECONDS = 5.0  # for what is in flight when the lane is told to stop
NAME = "history"

Insert = Callable[[Sequence[Record]], Coroutine[Any, Any, None]]


class Reader:
    """Reads the topics and hands batches to `insert`; commits each batch's offsets when `insert` has returned."""

    def __init__(
        self, insert: Insert, connection: Mapping[str, Any], settings: ClickHouse, health: Health, suffix: str = ""
    ) -> None:
        """`connection`: how to reach the brokers; `suffix`: of every topic's and the group's name."""
        self._insert = insert
        self._connection = connection
        self._settings = settings
        self._health = health
        self._suffix = suffix
        self._batch: list[Record] = []
        self._batch_bytes = 0
        self._batch_since = 0.0
        self._read_to: dict[TopicPartition, int] = {}  # next offset to take in hand
        self._inserting: asyncio.Task[None] | None = None
        self._inserted_to: dict[TopicPartition, int] = {}  # what may be committed when `_inserting` is done
        self._stored_to: dict[TopicPartition, int] = {}
        self._stopping = False
        self._clients = AsyncExitStack()
        self._turn = asyncio.Lock()  # held while the loop's state is in use

    async def start(self) -> None:
        """Join the group."""
        consumer = AIOKafkaConsumer(
            *(topic + self._suffix for topic in TOPICS),
            **self._connection,
            group_id=self._settings.group + self._suffix,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=FETCH_BYTES,
            max_poll_interval_ms=120_000,
        )
        self._consumer = await self._clients.enter_async_context(connected(consumer))

    async def run(self) -> None:
        """Read until `stop`.

        Raises:
            KafkaError: the group or the brokers refuse us; what was not committed is read again.
        """
        while not self._stopping:
            async with self._turn:
                await self._read()

    async def stop(self) -> None:
        """Store what is in hand if that takes no more than STOP_SECONDS, and leave the group."""
        self._stopping = True
        async with self._turn:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    while self._inserting is not None or self._batch:
                        if self._inserting is None:
                            self._begin()
                        await self._finish()
            except Exception as error:
                log.warning("history: the last batch is left for the next start: %r", error)
            if self._inserting is not None:
                self._inserting.cancel()
            await self._clients.aclose()

    async def _read(self) -> None:
        polled = await read_batches(self._consumer, await self._positions(), POLL_MS, self._settings.batch_rows)
        for at, records in polled.items():
            if not records:
                continue
            if not self._batch:
                self._batch_since = asyncio.get_running_loop().time()
            self._batch += records
            self._batch_bytes += sum(len(record.value or b"") for record in records)
            self._read_to[at] = records[-1].offset + 1
            self._stored_to.setdefault(at, records[0].offset)
        await self._advance()
        self._report()

    async def _positions(self) -> dict[TopicPartition, int]:
        """Where reading goes on, in each of our partitions that is not paused."""
        ours = self._consumer.assignment() - self._consumer.paused()
        for at in ours - self._read_to.keys():
            self._read_to[at] = await self._consumer.committed(at) or 0
        return {at: self._read_to[at] for at in ours}

    async def _advance(self) -> None:
        if self._inserting is not None and self._inserting.done():
            await self._finish()
        full = len(self._batch) >= self._settings.batch_rows or self._batch_bytes >= BATCH_BYTES
        if self._inserting is None and self._batch:
            age = asyncio.get_running_loop().time() - self._batch_since
            if full or age >= self._settings.batch_seconds:
                self._begin()
                full = False
        assigned = self._consumer.assignment()
        if full:
            self._consumer.pause(*assigned)
        elif self._consumer.paused():
            self._consumer.resume(*assigned)

    def _begin(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        self._inserted_to = {}
        for record in batch:
            self._inserted_to[TopicPartition(record.topic, record.partition)] = record.offset + 1
        self._inserting = asyncio.create_task(self._insert(batch))

    async def _finish(self) -> None:
        """Wait for the insert and commit what it covered, of the partitions that are still ours."""
        if self._inserting is None:
            return
        await self._inserting
        self._inserting = None
        assigned = self._consumer.assignment()
        offsets = {at: offset for at, offset in self._inserted_to.items() if at in assigned}
        self._stored_to |= offsets
        try:
            if offsets:
                await self._consumer.commit(offsets)
        except KafkaError as error:
            log.info("history: offsets not committed, so read again later: %r", error)

    def _report(self) -> None:
        lag = 0
        for at in self._consumer.assignment():
            stored = self._stored_to.get(at)
            behind = 0 if stored is None else max(0, (self._consumer.highwater(at) or 0) - stored)
            topic = at.topic.removesuffix(self._suffix)
            metrics.CONSUMER_LAG.labels(NAME, topic, str(at.partition)).set(behind)
            lag += behind
        self._health.lag(NAME, lag)
        self._health.ready(NAME, True)
        self._health.progress(NAME)  # a ClickHouse that is away is lag, and no reason to restart this worker


class HistoryLane(Service):
    """The reader, with its batches going through a Faust agent, inside a Faust app."""

    def __init__(self, app: faust.App, settings: Settings, connection: Mapping[str, Any], health: Health) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`)."""
        super().__init__()
        self._connection = connection
        self._suffix = settings.kafka.topic_suffix
        self._embedded = not settings.clickhouse.dsn
        self._store = Store.of(settings.clickhouse)
        self._history = History(self._store, self._refuse, self._suffix)
        self._reader = Reader(self._through_agent, connection, settings.clickhouse, health, self._suffix)
        self._batches = app.channel(maxsize=1)
        app.agent(self._batches, name="history.agent")(self._agent)

    async def on_start(self) -> None:
        """Connect. The embedded engine's tables are made here, for nobody else can open it meanwhile."""
        if self._embedded:
            await migrate(self._store, migrations.load())
        async for record in read_to_end(self._connection, named(ERASURES, self._suffix)):
            self._history.take_erasure(record)
        self._letters = await self.add_async_context(
            connected(AIOKafkaProducer(**self._connection, enable_idempotence=True, max_request_size=8 << 20))
        )
        await self._reader.start()

    @Service.task
    async def _run(self) -> None:
        await self._reader.run()

    async def on_stop(self) -> None:
        """Store what is in hand, then let go."""
        await self._reader.stop()
        await self._store.close()

    async def _through_agent(self, records: Sequence[Record]) -> None:
        if self.should_stop:  # the app's agents may be gone already
            await self._history.insert(records)
            return
        done = asyncio.get_running_loop().create_future()
        await self._batches.send(value=(records, done))
        await done

    async def _agent(self, stream: Any) -> None:
        async for records, done in stream:
            try:
                await self._history.insert(records)
                done.set_result(None)
            except BaseException as error:  # only when the agent is ended
                if not done.done():
                    done.set_exception(RuntimeError(f"not stored: {error!r}"))
                raise

    async def _refuse(self, record: Record, error: InvalidRecord) -> None:
        key, value, headers = dead_letter(error, record, "store")
        metrics.DEAD_LETTERS.labels("store", error.reason).inc()
        topic = named(DEADLETTERS, self._suffix)
        await self._letters.send_and_wait(topic, value, key=key, headers=list(headers))
