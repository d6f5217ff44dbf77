"""Records that the Kafka client itself cannot decode cost nobody else anything."""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.util import calc_crc32c

from schemas.codec import UNREADABLE_HEADERS, Record
from schemas.topics import EVENTS, named
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import read_batches, read_to_end
from streams.lanes.history import Reader
from streams.settings import ClickHouse
from streams.topics import create_topics

CRC_AT, CRC_FROM = 17, 21  # of a record batch, format 2


def poison(batch: Any) -> None:
    """Make the batch's header name bytes that are not UTF-8, as librdkafka would send them."""
    buffer = bytearray(batch._build()).replace(b"HEADERNAME", b"\xff" * 10)
    struct.pack_into(">I", buffer, CRC_AT, calc_crc32c(bytes(buffer[CRC_FROM:])))
    batch._buffer = buffer


async def produce(bootstrap: str, topic: str) -> None:
    """Partition 0: good, poison, good, poison; partition 1: good."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for partition, bad in ((0, False), (0, True), (0, False), (0, True), (1, False)):
            batch = producer.create_batch()
            headers = [("HEADERNAME", b"1")] if bad else []
            batch.append(key=b"k", value=b"v", timestamp=None, headers=headers)
            if bad:
                poison(batch)
            await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()


async def test_the_history_lane_reads_past_it_too(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 2, 1, run_id)
    await produce(kafka.bootstrap, named(EVENTS, run_id))
    stored: set[tuple[int, int]] = set()
    all_read = asyncio.Event()

    async def insert(records: Sequence[Record]) -> None:
        stored.update((record.partition, record.offset) for record in records)
        if len(stored) == 5:
            all_read.set()

    reader = Reader(insert, brokers, ClickHouse(batch_seconds=0.1), Health(), run_id)
    await reader.start()
    reading = asyncio.create_task(reader.run())
    try:
        await asyncio.wait_for(all_read.wait(), 30)
    finally:
        await reader.stop()
        await reading
    assert stored == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)}


async def test_a_header_name_that_is_not_utf8(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 2, 1, run_id)
    topic = named(EVENTS, run_id)
    await produce(kafka.bootstrap, topic)

    consumer = AIOKafkaConsumer(**brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        consumer.assign(partitions)
        positions = dict.fromkeys(partitions, 0)
        seen: list[tuple[int, int, bool]] = []
        while len(seen) < 5:
            for at, records in (await read_batches(consumer, positions, 500, 100)).items():
                seen += [(at.partition, r.offset, r.headers == UNREADABLE_HEADERS) for r in records]
                if records:
                    positions[at] = records[-1].offset + 1
    finally:
        await consumer.stop()
    assert sorted(seen) == [(0, 0, False), (0, 1, True), (0, 2, False), (0, 3, True), (1, 0, False)]
    assert len([record async for record in read_to_end(brokers, topic)]) == 5
