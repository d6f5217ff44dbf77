"""How to reach the brokers, reading past what aiokafka cannot, and reading a small topic to its end."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalStateError

from schemas.codec import UNREADABLE_HEADERS, Record
from streams.settings import Kafka

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0

Client = TypeVar("Client", AIOKafkaConsumer, AIOKafkaProducer)


def connection(settings: Kafka) -> dict[str, Any]:
    """Keyword arguments of every aiokafka client."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap,
        "client_id": settings.client_id,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ssl_cafile or None)
        if settings.ssl_certfile:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
        arguments["ssl_context"] = context
    if settings.sasl_mechanism:
        arguments |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password,
        }
    return arguments


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Client]:
    """A service's consumer or producer; brokers that do not answer hold up its end for STOP_SECONDS at most."""
    try:
        await client.start()
        yield client
    finally:
        try:
            await asyncio.wait_for(client.stop(), STOP_SECONDS)
        except Exception as error:
            log.warning("a Kafka client did not stop: %r", error)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that aiokafka cannot decode: its place is known, its bytes stay in the topic."""

    topic: str
    partition: int
    offset: int
    timestamp: int = 0  # not known: it moves no time
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = UNREADABLE_HEADERS


Batches = Mapping[TopicPartition, Sequence[Record]]


async def read_batches(
    consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int], timeout_ms: int, max_records: int
) -> Batches:
    """`getmany` of these partitions (of none: all), but for one poison: a header name that is not UTF-8.

    Every client may write one. aiokafka raises for it for ever, and loses what it had taken of others in the same
    call. So all are read again from `positions` (where reading goes on), and the poison becomes an `Unreadable`.
    Without positions there is nothing to go back to: then it takes one record at most, and so loses none.
    """
    most = max_records if positions else 1
    try:
        batches: Batches = await consumer.getmany(*positions, timeout_ms=timeout_ms, max_records=most)
        return batches
    except UnicodeDecodeError:
        for at, offset in positions.items():
            consumer.seek(at, offset)
        return {at: await _read_past_poison(consumer, at, timeout_ms, max_records) for at in positions}


async def read_assigned(consumer: AIOKafkaConsumer, timeout_ms: int, max_records: int = 2_000) -> Batches:
    """`read_batches` of all partitions that the consumer has, from where it stands."""
    try:
        positions = {at: await consumer.position(at) for at in consumer.assignment()}
    except IllegalStateError:  # a rebalance has just taken one away
        positions = {}
    batches = await read_batches(consumer, positions, timeout_ms, max_records)
    return {at: records for at, records in batches.items() if records}


async def _read_past_poison(
    consumer: AIOKafkaConsumer, at: TopicPartition, timeout_ms: int, max_records: int
) -> Sequence[Record]:
    records: list[Record] = []
    while len(records) < max_records:
        try:
            got = await consumer.getmany(at, timeout_ms=timeout_ms, max_records=1)
        except UnicodeDecodeError:
            offset = await consumer.position(at)
            consumer.seek(at, offset + 1)
            return [*records, Unreadable(at.topic, at.partition, offset)]
        if not got:
            break
        records += got[at]
    return records


class Tail:
    """Topics read whole and then followed (`followed` makes it)."""

    def __init__(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        """`ends`: where the topics ended at the start."""
        self._consumer = consumer
        self._ends = ends

    async def at_end(self) -> bool:
        """Whether all that there was at the start has been read."""
        return all([await self._consumer.position(at) >= end for at, end in self._ends.items()])

    async def read(self, timeout_ms: int) -> list[Record]:
        """What comes next, each partition in order; nothing where nothing comes in time."""
        batches = await read_assigned(self._consumer, timeout_ms, 10_000)
        return [record for records in batches.values() for record in records]


@asynccontextmanager
async def followed(connection: Mapping[str, Any], *topics: str) -> AsyncIterator[Tail]:
    """Topics from their beginning, by no group: each reader has all of them.

    A topic or a partition that is not there yet is read once it is.
    """
    reader = AIOKafkaConsumer(
        **connection, isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False
    )
    async with connected(reader):
        reader.subscribe(topics)
        await reader.getmany(timeout_ms=0)  # learns of the partitions; what it may have read comes again
        ends: dict[TopicPartition, int] = {}
        if there := reader.assignment():
            ends = await reader.end_offsets(there)
            await reader.seek_to_beginning(*there)
        yield Tail(reader, ends)


def packed(producer: AIOKafkaProducer, records: Iterable[tuple[bytes, bytes | None]]) -> Iterator[Any]:
    """Keys and values in batches for `send_batch`, as few as hold them."""
    batch = producer.create_batch()
    for key, value in records:
        if batch.append(key=key, value=value, timestamp=None) is None:
            batch.close()
            yield batch
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)  # the first one fits, however large
    batch.close()
    yield batch


class NoSuchTopicError(RuntimeError):
    """The brokers do not have the topic."""


async def read_to_end(connection: Mapping[str, Any], topic: str, must_exist: bool = False) -> AsyncIterator[Record]:
    """Every committed record of a topic, partition by partition, up to the end as it is at the start.

    Raises:
        NoSuchTopicError: there is no such topic, and it `must_exist`; otherwise it is as an empty one.
    """
    reader = AIOKafkaConsumer(
        **connection, isolation_level="read_committed", auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    async with connected(reader):
        partitions = await assign_all(reader, topic)
        if must_exist and not partitions:
            raise NoSuchTopicError(
                f"these brokers have no topic {topic}: the right ones? (`pointsman topics create` makes it)"
            )
        ends = await reader.end_offsets(partitions)
        for at in partitions:
            reader.assign([at])
            await reader.seek_to_beginning(at)
            while (position := await reader.position(at)) < ends[at]:
                for record in (await read_batches(reader, {at: position}, 100, 10_000)).get(at, ()):
                    yield record


async def assign_all(reader: AIOKafkaConsumer, *topics: str) -> list[TopicPartition]:
    """Give a reader of no group all partitions that topics have; a topic that is not there has none."""
    reader.subscribe(topics)
    await reader.getmany(timeout_ms=0)
    partitions = [
        TopicPartition(topic, number)
        for topic in topics
        for number in sorted(reader.partitions_for_topic(topic) or ())
    ]
    reader.unsubscribe()
    reader.assign(partitions)
    return partitions
