"""Effects of judging on their way to Kafka."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from detectors.processor import Output
from streams.kafka import packed


async def publish(producer: AIOKafkaProducer, outputs: Iterable[Output], suffix: str) -> list[asyncio.Future[Any]]:
    """Hand outputs to the producer: all are there when what is returned has come. `suffix`: of the topics."""
    deliveries = []
    records: dict[tuple[str, int], list[tuple[bytes, bytes]]] = defaultdict(list)
    for output in outputs:
        topic = output.topic + suffix
        if output.partition is not None and not output.headers:
            records[topic, output.partition].append((output.key, output.value))
            continue
        sent = await producer.send(  # by its key, or as large as a dead letter may be
            topic, output.value, key=output.key, partition=output.partition, headers=list(output.headers)
        )
        deliveries.append(sent)
    for (topic, partition), pairs in records.items():
        for batch in packed(producer, pairs):
            deliveries.append(await producer.send_batch(batch, topic, partition=partition))
    return deliveries
