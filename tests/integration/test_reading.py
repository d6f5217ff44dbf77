"""Records that the Kafka client itself cannot decode cost nobody else anything."""

import asyncio
import re
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from detectors.feedback import Feedback, Rules
from loadtests.hostile import send_undecodable
from schemas.codec import UNREADABLE_HEADERS, Record
from schemas.topics import CHECKPOINTS, EVENTS, named
from streams.checkpoints import Checkpoints, CheckpointUnreadable
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import read_batches, read_to_end
from streams.lanes.history import Reader
from streams.settings import ClickHouse
from streams.topics import create_topics


async def produce(bootstrap: str, topic: str) -> None:
    """Partition 0: good, poison, good, poison; partition 1: good."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for partition, bad in ((0, False), (0, True), (0, False), (0, True), (1, False)):
            if bad:
                await send_undecodable(producer, topic, partition)
            else:
                await producer.send_and_wait(topic, b"v", key=b"k", partition=partition)
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


async def test_a_checkpoint_log_with_one_is_refused_and_the_place_named(kafka: KafkaCluster, run_id: str) -> None:
    """Whoever can write there could write state too: passing over it would be judging with half a state."""
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    topic = named(CHECKPOINTS, run_id)
    async with AIOKafkaProducer(**brokers) as producer:
        await send_undecodable(producer, topic, 0)
    processor = Feedback(Rules(key="a key of the tests only"))
    with pytest.raises(CheckpointUnreadable, match=re.escape(f"{topic}[0] offset 0")):
        await Checkpoints(brokers, topic, 0, "nobody").load(processor)


async def test_without_positions_nothing_is_taken_that_is_not_given(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 3, 1, run_id)
    topic = named(EVENTS, run_id)
    async with AIOKafkaProducer(**brokers) as producer:
        for partition in (0, 2, 0, 2):
            await producer.send_and_wait(topic, b"v", key=b"k", partition=partition)
        await send_undecodable(producer, topic, 1)
    async with AIOKafkaConsumer(**brokers, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, number) for number in range(3)]
        consumer.assign(partitions)
        given = dict.fromkeys(partitions, 0)
        for _ in range(6):
            for at, records in (await read_batches(consumer, {}, 500, 100)).items():
                given[at] += len(records)
        assert sum(given.values()) > 0
        assert {at: await consumer.position(at) for at in partitions} == given


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
