"""The partitions that a lane owns in this worker: given, fenced and loaded, checkpointed, given up.

What keeps them exact: effects are delivered before the checkpoint that covers them is written; the delta and its
offset are taken at one moment; input is resumed from the marker of the checkpoint, never from the group. After a
failure nothing is checkpointed any more: another worker, or this one started again, does again what is missing,
under the same ids.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from detectors.processor import Processor, Record
from schemas.topics import named
from streams import metrics
from streams.checkpoints import Checkpoints
from streams.deadletters import DeadLetterLimit
from streams.lanespec import LaneSpec

log = logging.getLogger(__name__)

REVOKE_SECONDS = 10.0


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
    loaded: bool = False
    closed: bool = False
    broken: bool = False  # a delivery or a checkpoint failed: a later marker would pass over what is lost
    counted: dict[str, int] = field(default_factory=dict)  # counters as last given to the metrics
    backlog: list[Record] = field(default_factory=list)  # read, and not handed to the agent yet
    read_to: int = 0  # next offset to read
    checkpointed_at: float = 0.0
    checkpointed_offset: int = 0
    active_at: float = 0.0

    @property
    def open(self) -> bool:
        """Whether it can be judged now."""
        return self.loaded and not self.closed

    def begin(self, now: float) -> None:
        """Go on from where its processor stands."""
        self.counted = dict(self.processor.counters)
        self.checkpointed_offset = self.read_to = self.processor.offset
        self.checkpointed_at = self.active_at = now
        self.loaded = True


class TakenOver(RuntimeError):
    """Another process has what this one was never told to give up."""

    def __init__(self, what: str, instance_id: str) -> None:
        super().__init__(
            f"{what} was taken over: does another process run with kafka.instance_id {instance_id!r}?"
            " (or this one did not answer for longer than kafka.session_seconds)"
        )


class Partitions(ConsumerRebalanceListener):
    """Those of one lane."""

    def __init__(self, spec: LaneSpec, connection: Mapping[str, Any], suffix: str) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`); `suffix`: of every topic's name."""
        self.owned: dict[int, Owned] = {}
        self.failure: BaseException | None = None  # the first: nothing is checkpointed after it
        self._spec = spec
        self._connection = connection
        self._source = named(spec.source, suffix)
        self._log = named(spec.checkpoints, suffix)
        self._group = spec.group + suffix
        self._left: dict[int, tuple[Processor, int]] = {}  # with where the log ended: it may be given back
        self._closed = False
        self._consumer: AIOKafkaConsumer

    def subscribe(self, consumer: AIOKafkaConsumer) -> None:
        """Have the group give this consumer partitions of the source."""
        self._consumer = consumer
        consumer.subscribe([self._source], listener=self)

    def open(self) -> list[Owned]:
        """Those that can be judged now."""
        return [owned for owned in self.owned.values() if owned.open]

    def at(self, owned: Owned) -> TopicPartition:
        """Its place in the source."""
        return TopicPartition(self._source, owned.partition)

    def fail(self, error: BaseException) -> None:
        """End the worker without a checkpoint."""
        self.failure = self.failure or error

    # --- checkpoints

    async def checkpoint_due(self) -> None:
        """Checkpoint those whose time has come; one that cannot be written is a failure."""
        now = asyncio.get_running_loop().time()
        due = [
            owned
            for owned in self.open()
            if now - owned.checkpointed_at >= self._spec.checkpoint_seconds
            or owned.processor.offset - owned.checkpointed_offset >= self._spec.checkpoint_events
        ]
        await asyncio.gather(*(self._checkpoint_or_fail(owned) for owned in due))

    async def _checkpoint_or_fail(self, owned: Owned) -> None:
        try:
            await self._checkpoint(owned)
        except Exception as error:
            # Fenced or refused while owning: what follows would be written beside the owner's.
            result = "fenced" if isinstance(error, ProducerFenced) else "failed"
            metrics.CHECKPOINTS.labels(self._spec.name, result).inc()
            if not owned.closed:
                self.fail(error)

    async def _checkpoint(self, owned: Owned, idle_too: bool = False) -> None:
        """Write what has changed. `idle_too`: the marker even where nothing has, for the answer's sake."""
        name = self._spec.name
        async with owned.lock:
            if self.failure is not None or owned.broken:
                return
            offset = owned.processor.offset
            owned.checkpointed_at = asyncio.get_running_loop().time()
            if offset == owned.checkpointed_offset and not idle_too:
                return
            owned.broken = True  # until all that is taken out here is written
            deliveries, owned.deliveries = owned.deliveries, []
            changes = owned.processor.changes()
            with metrics.STAGE_SECONDS.labels(name, "publish").time():
                for delivery in deliveries:
                    await delivery
            with metrics.STAGE_SECONDS.labels(name, "checkpoint").time():
                await owned.checkpoints.write(changes)
            metrics.CHECKPOINTS.labels(name, "ok").inc()
            metrics.CHECKPOINT_KEYS.labels(name).inc(len(changes))
            owned.checkpointed_offset = offset
            owned.broken = False
        try:  # for lag tools only: nobody resumes from it
            await self._consumer.commit({self.at(owned): offset})
        except KafkaError as error:
            log.info("offset of %s[%d] not committed: %r", self._source, owned.partition, error)

    # --- given

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called inside the rebalance, when no heartbeats are sent: only start what takes time."""
        if self.failure is not None or self._closed:
            return  # it ends: nobody else is to be fenced for it
        places = sorted(assigned)
        self._left = {at.partition: self._left[at.partition] for at in places if at.partition in self._left}
        self._consumer.pause(*places)
        for at in places:
            owned = self.owned[at.partition] = Owned(
                at.partition,
                self._spec.make(at.partition),
                Checkpoints(self._connection, self._log, at.partition, self._group),
                DeadLetterLimit(self._spec.dead_letter_max_ratio, self._spec.dead_letter_min_count),
            )
            owned.loading = asyncio.create_task(self._load(owned))
        log.info("lane %s is given %s", self._spec.name, [at.partition for at in places])

    async def _load(self, owned: Owned) -> None:
        try:
            await owned.checkpoints.fence()
            state, end = self._left.pop(owned.partition, (None, -1))
            if state is not None and end == await self._log_end(owned):
                owned.processor = state  # nobody wrote since: no need to read it again
                origin = "as it was left"
            else:
                origin = f"{await owned.checkpoints.load(owned.processor)} records loaded"
            if owned.closed:
                return
            at, offset = self.at(owned), owned.processor.offset
            self._consumer.seek(at, offset)
            self._consumer.resume(at)
            owned.begin(asyncio.get_running_loop().time())
            log.info("lane %s resumes %s[%d] at %d, %s", self._spec.name, *at, offset, origin)
        except Exception as error:
            if not owned.closed:
                self.fail(error)

    async def _log_end(self, owned: Owned) -> int:
        at = TopicPartition(self._log, owned.partition)
        end: int = (await self._consumer.end_offsets([at]))[at]
        return end

    # --- given up

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Checkpoint them a last time, while the rebalance waits."""
        await self._release_all(at.partition for at in revoked)

    async def close(self) -> None:
        """Give up all, and take no more."""
        self._closed = True
        await self._release_all(self.owned)

    async def _release_all(self, partitions: Iterable[int]) -> None:
        released = [self.owned.pop(partition) for partition in sorted(partitions) if partition in self.owned]
        await asyncio.gather(*map(self._release, released))
        if released:
            log.info("lane %s gave up %s", self._spec.name, [owned.partition for owned in released])

    async def _release(self, owned: Owned) -> None:
        if owned.loading is not None and not owned.loading.done():
            owned.loading.cancel()
        owned.closed = True  # what waits in the channel is skipped; what is being judged is waited for
        if owned.loaded:
            try:
                # A static member is told of no taking over by its own id: only a write shows it.
                idle_too = self._spec.instance_id is not None
                await asyncio.wait_for(self._checkpoint(owned, idle_too), REVOKE_SECONDS)
                if self.failure is None and owned.checkpointed_offset == owned.processor.offset:
                    self._left[owned.partition] = (owned.processor, await self._log_end(owned))
            except Exception as error:  # fenced: the new owner has it, and redoes what is missing
                log.warning("no last checkpoint of %s[%d]: %r", self._source, owned.partition, error)
                if isinstance(error, ProducerFenced) and self._spec.instance_id is not None:
                    # To join again would take the other's place in turn, and so for ever.
                    self.fail(TakenOver(f"{self._source}[{owned.partition}]", self._spec.instance_id))
        await owned.checkpoints.close()
