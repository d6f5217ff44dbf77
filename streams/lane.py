"""A lane: one topic in, judged partition by partition, effects out, state in checkpoints.

    Kafka --aiokafka batches--> pump --Faust channel--> agent --> processor --> effects
                                                                     |--> checkpoint --> commit

Whose partitions these are, their state and their checkpoints: streams/partitions.py.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from mode import Service

from detectors.processor import Record
from schemas.codec import TICK_HEADERS
from schemas.topics import DEADLETTERS
from streams import metrics
from streams.effects import publish
from streams.health import Health
from streams.kafka import connected, read_batches
from streams.lanespec import LaneSpec
from streams.partitions import Owned, Partitions, TakenOver

log = logging.getLogger(__name__)

POLL_MS = 200
IN_FLIGHT = 2  # batches: one is judged while the next is fetched
LEAST_SHARE = 100  # records of a partition in a round, however many partitions there are
CHECK_SECONDS = 0.1  # how often it is looked for what is due

Work = Sequence[tuple[Owned, Sequence[Record]]]


class Lane(Service):
    """Runs a `LaneSpec` inside a Faust app."""

    def __init__(
        self, app: faust.App, spec: LaneSpec, connection: Mapping[str, Any], health: Health, suffix: str = ""
    ) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`); `suffix`: of every topic's name."""
        super().__init__()
        self.spec = spec
        self._connection = connection
        self._health = health
        self._suffix = suffix
        self._group = spec.group + suffix
        self._partitions = Partitions(spec, connection, suffix)
        self._in_flight: list[asyncio.Future[None]] = []
        self._batches = app.channel(maxsize=IN_FLIGHT)
        app.agent(self._batches, name=f"{spec.name}.agent")(self._agent)

    async def on_start(self) -> None:
        """Connect; partitions come with the group's first assignment."""
        # Judging is mostly native code that releases the GIL; one thread keeps the loop (heartbeats) free.
        self._judging = self.add_context(ThreadPoolExecutor(1, thread_name_prefix=f"judge-{self.spec.name}"))
        self._effects = await self.add_async_context(connected(AIOKafkaProducer(
            **self._connection,
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=1 << 20,
            max_request_size=8 << 20,
            compression_type="lz4",
        )))  # fmt: skip
        self._consumer = AIOKafkaConsumer(
            **self._connection,
            group_id=self._group,
            group_instance_id=self.spec.instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_partition_fetch_bytes=4 << 20,
            fetch_max_bytes=16 << 20,
            session_timeout_ms=self.spec.session_timeout_ms,
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=120_000,
        )
        self._partitions.subscribe(self._consumer)
        try:
            await self.add_async_context(connected(self._consumer))
        except KafkaError as error:
            explained = self._explained(error)
            raise explained from (None if explained is error else error)

    async def on_stop(self) -> None:
        """Warm stop: judge what is in flight and checkpoint; then the clients go, and with them the membership."""
        await self._partitions.close()

    def _explained(self, error: Exception) -> Exception:
        """Aiokafka does not know FENCED_INSTANCE_ID, which the broker answers who joins with another's."""
        if self.spec.instance_id is not None and isinstance(error, KafkaError) and "UnknownError" in str(error):
            return TakenOver(f"the place in the group {self._group}", self.spec.instance_id)
        return error

    # --- reading

    @Service.task
    async def _pump(self) -> None:
        try:
            while not self.should_stop:
                if self._partitions.failure is not None:
                    raise self._partitions.failure
                await self._fetch()
                if work := self._shares():
                    done = asyncio.get_running_loop().create_future()
                    self._in_flight.append(done)
                    await self._batches.send(value=(work, done))
                while len(self._in_flight) >= IN_FLIGHT or (self._in_flight and self._in_flight[0].done()):
                    await self._in_flight.pop(0)
                self._report()
        except Exception as error:
            error = self._explained(error)
            self._partitions.fail(error)
            self._health.failed(self.spec.name, error)
            log.critical("lane %s stops: %s", self.spec.name, error, exc_info=error)
            await self.crash(error)

    async def _fetch(self) -> None:
        """Put what comes next into the backlogs, as far as these are short."""
        ours = self._partitions.open()
        hungry = {
            self._partitions.at(owned): owned.read_to
            for owned in ours
            if len(owned.backlog) < self.spec.batch_records
        }
        if ours and not hungry:
            return
        wait_ms = 0 if any(owned.backlog for owned in ours) else POLL_MS
        batches = await read_batches(self._consumer, hungry, wait_ms, self.spec.batch_records)
        for at, records in batches.items():
            owned = self._partitions.owned.get(at.partition)
            if records and owned is not None and owned.open:
                owned.read_to = records[-1].offset + 1
                owned.backlog += records

    def _shares(self) -> Work:
        """A round: of each partition its share, the shortest first, so that a flood on one holds up no other."""
        ours = self._partitions.open()
        share = max(LEAST_SHARE, self.spec.batch_records // max(1, len(ours)))
        work = []
        for owned in sorted(ours, key=lambda owned: len(owned.backlog)):
            taken, owned.backlog = owned.backlog[:share], owned.backlog[share:]
            if taken:
                work.append((owned, taken))
        return work

    def _report(self) -> None:
        name, owned = self.spec.name, list(self._partitions.owned.values())
        lag, holds = 0, Counter[str]()
        for each in owned:
            behind = max(0, (self._consumer.highwater(self._partitions.at(each)) or 0) - each.processor.offset)
            metrics.CONSUMER_LAG.labels(name, self.spec.source.name, str(each.partition)).set(behind)
            lag += behind
            holds.update(each.processor.holds())
        loaded = sum(each.loaded for each in owned)
        metrics.PARTITIONS.labels(name, "owned").set(loaded)
        metrics.PARTITIONS.labels(name, "loading").set(len(owned) - loaded)
        metrics.gauges(holds)
        metrics.coverage([each.processor.counters for each in owned])
        self._health.lag(name, lag)
        self._health.ready(name, loaded == len(owned))
        if not lag:
            self._health.progress(name)

    # --- judging

    async def _agent(self, stream: Any) -> None:
        """The Faust agent. Never raises: an agent that does is restarted, and its batch lost in silence."""
        async for work, done in stream:
            try:
                for owned, records in work:
                    await self._judge(owned, records)
                if not done.done():
                    done.set_result(None)
            except BaseException as error:
                if not done.done():
                    done.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
                if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                    raise

    async def _judge(self, owned: Owned, records: Sequence[Record]) -> None:
        async with owned.lock:
            if owned.closed:
                return  # revoked while it waited: the new owner reads it from the marker
            loop = asyncio.get_running_loop()
            try:
                with metrics.STAGE_SECONDS.labels(self.spec.name, "judge").time():
                    outputs = await loop.run_in_executor(self._judging, owned.processor.apply, records)
                owned.deliveries += await publish(self._effects, outputs, self._suffix)
                letters = sum(output.topic == DEADLETTERS.name for output in outputs)
                owned.limit.add(len(records), letters, *self._partitions.at(owned))
            except BaseException as error:  # half a batch is in the state, or too many are letters: no checkpoint
                self._partitions.fail(error)
                raise
            owned.active_at = loop.time()
        self._count(owned, records, letters)

    def _count(self, owned: Owned, records: Sequence[Record], letters: int) -> None:
        name, source = self.spec.name, self.spec.source.name
        metrics.EVENTS_CONSUMED.labels(name, source, "ok").inc(len(records) - letters)
        metrics.EVENTS_CONSUMED.labels(name, source, "invalid").inc(letters)
        metrics.BATCH_EVENTS.labels(name).observe(len(records))
        metrics.EVENT_AGE.labels(name).observe(max(0.0, time.time() - records[-1].timestamp / 1000))
        owned.counted = metrics.count(owned.processor.counters, owned.counted)
        self._health.progress(name)

    # --- what is due

    @Service.task
    async def _checkpoint_when_due(self) -> None:
        while not self.should_stop:
            await self.sleep(CHECK_SECONDS)
            await self._partitions.checkpoint_due()

    @Service.task
    async def _tick_when_idle(self) -> None:
        """Write a record into the log itself, so that what expired is in the log and a replay agrees."""
        while not self.should_stop:
            await self.sleep(CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for owned in self._partitions.open():
                if now - owned.active_at >= self.spec.tick_seconds and owned.processor.waiting():
                    owned.active_at = now
                    await self._tick(self._partitions.at(owned))

    async def _tick(self, at: TopicPartition) -> None:
        try:
            await self._effects.send(at.topic, b"", key=b"", partition=at.partition, headers=list(TICK_HEADERS))
        except KafkaError as error:
            log.info("no tick for %s[%d]: %r", *at, error)
