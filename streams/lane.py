"""A lane: one topic in, judged partition by partition, effects out, state in checkpoints.

    Kafka --aiokafka batches--> pump --Faust channel--> agent --> processor --> effects
                                                                     |--> checkpoint --> commit

The rules that keep it exact: effects are delivered before the checkpoint that covers them is written; the
delta and its offset are taken at one moment; input is resumed from the checkpoint's marker, never from the
group's offset; what is done again after a crash has the same ids; a worker that fails in the middle of a
batch ends without a checkpoint.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, ProducerFenced
from mode import Service

from detectors.processor import Output, Processor, Record
from schemas.codec import TICK_HEADERS
from schemas.topics import DEADLETTERS, Topic, named
from streams import metrics
from streams.checkpoints import Checkpoints
from streams.deadletters import DeadLetterLimit
from streams.health import Health
from streams.kafka import connected, read_batches

log = logging.getLogger(__name__)

POLL_MS = 200
IN_FLIGHT = 2  # batches: one is judged while the next is fetched
LEAST_SHARE = 100  # records of a partition in a round, however many partitions there are
REVOKE_SECONDS = 10.0
TICK_CHECK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """What a lane is: its topics, its group and how a partition's processor is made."""

    name: str
    source: Topic
    checkpoints: Topic
    group: str
    make: Callable[[int], Processor]
    checkpoint_seconds: float = 2.0
    checkpoint_events: int = 10_000
    tick_seconds: float = 1.0  # of silence, after which an idle partition that waits is moved on
    batch_records: int = 2_000
    dead_letter_max_ratio: float = 0.95
    dead_letter_min_count: int = 100_000
    session_timeout_ms: int = 10_000
    instance_id: str | None = None  # static membership: back within seconds after a crash


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns."""

    partition: int
    processor: Processor
    checkpoints: Checkpoints
    limit: DeadLetterLimit
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # judging and checkpoint, one at a time
    deliveries: list[asyncio.Future[Any]] = field(default_factory=list)
    loading: asyncio.Task[None] | None = None
    ready: bool = False
    closed: bool = False
    broken: bool = False  # a delivery or a checkpoint failed: a later marker would pass over what is lost
    counted: dict[str, int] = field(default_factory=dict)  # counters as last given to the metrics
    backlog: list[Record] = field(default_factory=list)  # read, and not handed to the agent yet
    read_to: int = 0  # next offset to read
    checkpointed_at: float = 0.0
    checkpointed_offset: int = 0
    active_at: float = 0.0


Work = Sequence[tuple[Owned, Sequence[Record]]]


class TakenOver(RuntimeError):
    """Another process has a partition that this one was never told to give up."""

    def __init__(self, topic: str, partition: int, instance_id: str) -> None:
        super().__init__(
            f"{topic}[{partition}] was taken over: does another process run with kafka.instance_id {instance_id!r}?"
            " (or this one did not answer for longer than kafka.session_seconds)"
        )


class Lane(Service):
    """Runs a `LaneSpec` inside a Faust app."""

    def __init__(
        self, app: faust.App, spec: LaneSpec, connection: Mapping[str, Any], health: Health, suffix: str = ""
    ) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`); `suffix`: of every topic's name."""
        super().__init__()
        self.spec = spec
        self.owned: dict[int, Owned] = {}
        self._connection = connection
        self._health = health
        self._suffix = suffix
        self._source = named(spec.source, suffix)
        self._group = spec.group + suffix
        self._parked: dict[int, tuple[Processor, int]] = {}
        self._in_flight: list[asyncio.Future[None]] = []
        self._fatal: BaseException | None = None
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
        self._consumer.subscribe([self._source], listener=_Listener(self))
        await self.add_async_context(connected(self._consumer))

    # --- reading

    @Service.task
    async def _pump(self) -> None:
        try:
            while not self.should_stop:
                self._raise_if_fatal()
                work = await self._read()
                if work:
                    done = asyncio.get_running_loop().create_future()
                    self._in_flight.append(done)
                    await self._batches.send(value=(work, done))
                while len(self._in_flight) >= IN_FLIGHT or (self._in_flight and self._in_flight[0].done()):
                    await self._in_flight.pop(0)
                self._report()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Nothing may be checkpointed after this: another worker, or this one restarted, does it again.
            self._fatal = self._fatal or error
            self._health.failed(self.spec.name, error)
            log.critical("lane %s stops: %s", self.spec.name, error, exc_info=error)
            await self.crash(error)

    async def _read(self) -> Work:
        """A round: of each partition its share, the shortest first, so that a flood on one holds up no other."""
        judging = self._judging_now()
        hungry = {
            TopicPartition(self._source, owned.partition): owned.read_to
            for owned in judging
            if len(owned.backlog) < self.spec.batch_records
        }
        if hungry or not judging:
            wait_ms = 0 if any(owned.backlog for owned in judging) else POLL_MS
            batches = await read_batches(self._consumer, hungry, wait_ms, self.spec.batch_records)
            for at, records in batches.items():
                owned = self.owned.get(at.partition)
                if records and owned is not None and owned.ready and not owned.closed:
                    owned.read_to = records[-1].offset + 1
                    owned.backlog += records
        judging = self._judging_now()
        share = max(LEAST_SHARE, self.spec.batch_records // max(1, len(judging)))
        work = []
        for owned in sorted(judging, key=lambda owned: len(owned.backlog)):
            taken, owned.backlog = owned.backlog[:share], owned.backlog[share:]
            if taken:
                work.append((owned, taken))
        return work

    def _judging_now(self) -> list[Owned]:
        return [owned for owned in self.owned.values() if owned.ready and not owned.closed]

    def _raise_if_fatal(self) -> None:
        if self._fatal is not None:
            raise self._fatal

    def _report(self) -> None:
        lag = 0
        for owned in self.owned.values():
            highwater = self._consumer.highwater(TopicPartition(self._source, owned.partition))
            behind = max(0, (highwater or 0) - owned.processor.offset)
            metrics.CONSUMER_LAG.labels(self.spec.name, self.spec.source.name, str(owned.partition)).set(behind)
            lag += behind
        held = [owned.ready for owned in self.owned.values()]
        metrics.PARTITIONS.labels(self.spec.name, "owned").set(sum(held))
        metrics.PARTITIONS.labels(self.spec.name, "loading").set(len(held) - sum(held))
        holds: Counter[str] = Counter()
        for owned in self.owned.values():
            holds.update(owned.processor.holds())
        metrics.gauges(holds)
        metrics.coverage([owned.processor.counters for owned in self.owned.values()])
        self._health.lag(self.spec.name, lag)
        self._health.ready(self.spec.name, all(held))
        if not lag:
            self._health.progress(self.spec.name)

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
                await self._publish(owned, outputs)
            except BaseException as error:  # half a batch is in the state: no checkpoint from here on
                self._fatal = self._fatal or error
                raise
            owned.active_at = loop.time()
        letters = sum(output.topic == DEADLETTERS.name for output in outputs)
        consumed = metrics.EVENTS_CONSUMED
        consumed.labels(self.spec.name, self.spec.source.name, "ok").inc(len(records) - letters)
        consumed.labels(self.spec.name, self.spec.source.name, "invalid").inc(letters)
        metrics.BATCH_EVENTS.labels(self.spec.name).observe(len(records))
        metrics.EVENT_AGE.labels(self.spec.name).observe(max(0.0, time.time() - records[-1].timestamp / 1000))
        owned.counted = metrics.count(owned.processor.counters, owned.counted)
        self._health.progress(self.spec.name)
        owned.limit.add(len(records), letters, self._source, owned.partition)

    async def _publish(self, owned: Owned, outputs: Iterable[Output]) -> None:
        """Hand effects to the producer; deliveries are awaited by the next checkpoint."""
        batches: dict[tuple[str, int], Any] = {}
        for output in outputs:
            topic = output.topic + self._suffix
            if output.partition is None or output.headers:  # by their key, or as large as a dead letter may be
                sent = await self._effects.send(
                    topic, output.value, key=output.key, partition=output.partition, headers=list(output.headers)
                )
                owned.deliveries.append(sent)
                continue
            at = (topic, output.partition)
            batch = batches.get(at) or self._effects.create_batch()
            if batch.append(key=output.key, value=output.value, timestamp=None) is None:
                await self._send_batch(owned, batch, at)
                batch = self._effects.create_batch()
                batch.append(key=output.key, value=output.value, timestamp=None)
            batches[at] = batch
        for at, batch in batches.items():
            await self._send_batch(owned, batch, at)

    async def _send_batch(self, owned: Owned, batch: Any, at: tuple[str, int]) -> None:
        batch.close()
        owned.deliveries.append(await self._effects.send_batch(batch, at[0], partition=at[1]))

    # --- checkpoints

    @Service.task
    async def _checkpoint_when_due(self) -> None:
        while not self.should_stop:
            await self.sleep(0.1)
            now = asyncio.get_running_loop().time()
            due = [
                owned
                for owned in self.owned.values()
                if owned.ready
                and not owned.closed
                and (
                    now - owned.checkpointed_at >= self.spec.checkpoint_seconds
                    or owned.processor.offset - owned.checkpointed_offset >= self.spec.checkpoint_events
                )
            ]
            await asyncio.gather(*(self._checkpoint_or_fail(owned) for owned in due))

    async def _checkpoint_or_fail(self, owned: Owned) -> None:
        try:
            await self._checkpoint(owned)
        except Exception as error:
            # Fenced or refused while owning: what follows would be written beside the owner's.
            result = "fenced" if isinstance(error, ProducerFenced) else "failed"
            metrics.CHECKPOINTS.labels(self.spec.name, result).inc()
            if not owned.closed:
                self._fatal = self._fatal or error

    async def _checkpoint(self, owned: Owned, idle_too: bool = False) -> None:
        """Write what has changed. `idle_too`: the marker even where nothing has, for the answer's sake."""
        async with owned.lock:
            if self._fatal is not None or owned.broken:
                return
            offset = owned.processor.offset
            owned.checkpointed_at = asyncio.get_running_loop().time()
            if offset == owned.checkpointed_offset and not idle_too:
                return
            owned.broken = True  # until all that is taken out here is written
            deliveries, owned.deliveries = owned.deliveries, []
            changes = owned.processor.changes()
            with metrics.STAGE_SECONDS.labels(self.spec.name, "publish").time():
                for delivery in deliveries:
                    await delivery
            with metrics.STAGE_SECONDS.labels(self.spec.name, "checkpoint").time():
                await owned.checkpoints.write(changes)
            metrics.CHECKPOINTS.labels(self.spec.name, "ok").inc()
            metrics.CHECKPOINT_KEYS.labels(self.spec.name).inc(len(changes))
            owned.checkpointed_offset = offset
            owned.broken = False
        try:  # for lag tools only: nobody resumes from it
            await self._consumer.commit({TopicPartition(self._source, owned.partition): offset})
        except KafkaError as error:
            log.info("offset of %s[%d] not committed: %r", self._source, owned.partition, error)

    # --- idle partitions

    @Service.task
    async def _tick_when_idle(self) -> None:
        """Write a record into the log itself, so that what expired is in the log and a replay agrees."""
        while not self.should_stop:
            await self.sleep(TICK_CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for owned in list(self.owned.values()):
                idle = now - owned.active_at >= self.spec.tick_seconds
                if idle and owned.ready and not owned.closed and owned.processor.waiting():
                    owned.active_at = now
                    try:
                        await self._effects.send(
                            self._source, b"", key=b"", partition=owned.partition, headers=list(TICK_HEADERS)
                        )
                    except KafkaError as error:
                        log.info("no tick for %s[%d]: %r", self._source, owned.partition, error)

    # --- ownership

    def _assign(self, partitions: Iterable[int]) -> None:
        """Called inside the rebalance, when no heartbeats are sent: only start what takes time."""
        if self._fatal is not None or self.should_stop:
            return  # it ends: nobody else is to be fenced for it
        partitions = list(partitions)
        self._parked = {partition: self._parked[partition] for partition in partitions if partition in self._parked}
        self._consumer.pause(*(TopicPartition(self._source, partition) for partition in partitions))
        for partition in partitions:
            owned = self.owned[partition] = Owned(
                partition,
                self.spec.make(partition),
                Checkpoints(self._connection, named(self.spec.checkpoints, self._suffix), partition, self._group),
                DeadLetterLimit(self.spec.dead_letter_max_ratio, self.spec.dead_letter_min_count),
            )
            owned.loading = asyncio.create_task(self._load(owned))
        log.info("lane %s is given %s", self.spec.name, sorted(partitions))

    async def _load(self, owned: Owned) -> None:
        try:
            await owned.checkpoints.fence()
            state, end = self._parked.pop(owned.partition, (None, -1))
            if state is not None and end == await self._log_end(owned.partition):
                owned.processor = state  # nobody wrote since: no need to read it again
                origin = "as it was left"
            else:
                origin = f"{await owned.checkpoints.load(owned.processor)} records loaded"
            owned.counted = dict(owned.processor.counters)
            if owned.closed:
                return
            at = TopicPartition(self._source, owned.partition)
            self._consumer.seek(at, owned.processor.offset)
            self._consumer.resume(at)
            now = asyncio.get_running_loop().time()
            owned.checkpointed_offset = owned.read_to = owned.processor.offset
            owned.checkpointed_at = owned.active_at = now
            owned.ready = True
            log.info("lane %s resumes %s[%d] at %d, %s", self.spec.name, *at, owned.processor.offset, origin)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not owned.closed:
                self._fatal = self._fatal or error

    async def _log_end(self, partition: int) -> int:
        at = TopicPartition(named(self.spec.checkpoints, self._suffix), partition)
        end: int = (await self._consumer.end_offsets([at]))[at]
        return end

    async def _revoke(self, partitions: Iterable[int]) -> None:
        partitions = sorted(partitions)
        await asyncio.gather(*(self._release(partition) for partition in partitions))
        if partitions:
            log.info("lane %s gave up %s", self.spec.name, partitions)

    async def _release(self, partition: int) -> None:
        owned = self.owned.pop(partition, None)
        if owned is None:
            return
        if owned.loading is not None and not owned.loading.done():
            owned.loading.cancel()
        owned.closed = True  # what waits in the channel is skipped; what is being judged is waited for
        if owned.ready:
            try:
                # A static member is told of no taking over by its own id: only a write shows it.
                idle_too = self.spec.instance_id is not None
                await asyncio.wait_for(self._checkpoint(owned, idle_too), REVOKE_SECONDS)
                if self._fatal is None and owned.checkpointed_offset == owned.processor.offset:
                    self._parked[partition] = (owned.processor, await self._log_end(partition))
            except Exception as error:  # fenced: the new owner has it, and redoes what is missing
                log.warning("no last checkpoint of %s[%d]: %r", self._source, partition, error)
                if isinstance(error, ProducerFenced) and self.spec.instance_id is not None:
                    # To join again would take the other's place in turn, and so for ever.
                    self._fatal = self._fatal or TakenOver(self._source, partition, self.spec.instance_id)
        await owned.checkpoints.close()

    async def on_stop(self) -> None:
        """Warm stop: judge what is in flight and checkpoint; then the clients go, and with them the membership."""
        await self._revoke(list(self.owned))


class _Listener(ConsumerRebalanceListener):
    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._lane._revoke([at.partition for at in revoked])  # noqa: SLF001  its own listener

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._lane._assign([at.partition for at in assigned])  # noqa: SLF001
