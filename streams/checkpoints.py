"""A partition's checkpoint log: deltas in transactions of that partition's own producer.

Starting the producer of a partition fences whoever owned it before (one transactional id a partition), so
what is then read up to the log's end is final. FACTS of the broker that this stands on are tests:
tests/integration/test_aiokafka_traps.py.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.processor import Processor, Record
from streams.kafka import Unreadable, connected, packed, read_batches

TRANSACTION_TIMEOUT_MS = 15_000
CLOSE_SECONDS = 3.0
MOST_RECORDS = 10_000  # of a log, handed to the processor at a time


class CheckpointUnreadable(RuntimeError):
    """A record of the log is not one that this release can load; the message names its place."""


def _load(processor: Processor, records: Sequence[Record]) -> None:
    load, record = processor.load, records[0]
    try:
        for record in records:
            if isinstance(record, Unreadable):  # nobody but a lane may write here: not to be passed over
                raise ValueError("a header name that is not UTF-8")
            load(record.key or b"", record.value)
    except Exception as error:
        place = f"{record.topic}[{record.partition}] offset {record.offset}"
        raise CheckpointUnreadable(f"checkpoint record at {place} cannot be loaded: {error!r}") from error


class Checkpoints:
    """The log of one partition, while this worker owns it."""

    def __init__(self, connection: Mapping[str, Any], topic: str, partition: int, owner: str) -> None:
        """`owner` is the lane's group: the transactional id is made of it and the partition."""
        self._connection = connection
        self._at = TopicPartition(topic, partition)
        self._producer = AIOKafkaProducer(
            **connection,
            transactional_id=f"{owner}-{partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=1 << 20,
            max_request_size=8 << 20,
        )

    async def fence(self) -> None:
        """End the former owner's right to write, and abort what it left open."""
        await self._producer.start()

    async def load(self, processor: Processor) -> int:
        """Read the committed log into an empty processor; how many records there were.

        Raises:
            CheckpointUnreadable: a newer release wrote it, or something that is no lane.
        """
        reader = AIOKafkaConsumer(
            **self._connection,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 << 20,
            fetch_max_bytes=32 << 20,
            fetch_max_wait_ms=100,
        )
        count = 0
        async with connected(reader):  # it may be cancelled here: the partition is taken away again
            reader.assign([self._at])
            end = (await reader.end_offsets([self._at]))[self._at]
            await reader.seek_to_beginning(self._at)
            # By position, never by counting records: transaction markers and compaction take offsets.
            while (position := await reader.position(self._at)) < end:
                for records in (await read_batches(reader, {self._at: position}, 100, MOST_RECORDS)).values():
                    if records:
                        _load(processor, records)
                    count += len(records)
        processor.loaded()
        return count

    async def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write one delta, whole or not at all.

        Raises:
            ProducerFenced: another worker owns the partition now.
            Exception: whatever made a send fail; nothing of the delta is visible then.
        """
        await self._producer.begin_transaction()
        topic, partition = self._at
        sends = [
            await self._producer.send_batch(batch, topic, partition=partition)
            for batch in packed(self._producer, changes)
        ]
        # aiokafka commits a transaction in which a send failed: look at each before.
        for sent in sends:
            await sent
        await self._producer.commit_transaction()

    async def close(self) -> None:
        """Give the producer up; a fenced one may refuse, which is no matter."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._producer.stop(), CLOSE_SECONDS)
