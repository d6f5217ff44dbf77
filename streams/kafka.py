"""How to reach the brokers, and reading a small topic to its end."""

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from detectors.processor import Record
from streams.settings import Kafka


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


async def read_to_end(connection: Mapping[str, Any], topic: str) -> AsyncIterator[Record]:
    """Every committed record of a topic, partition by partition, up to the end as it is at the start."""
    reader = AIOKafkaConsumer(
        **connection, isolation_level="read_committed", auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    await reader.start()
    try:
        reader.subscribe([topic])
        await reader.getmany(timeout_ms=0)
        partitions = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic) or ()]
        reader.unsubscribe()
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        for at in partitions:
            reader.assign([at])
            await reader.seek_to_beginning(at)
            while await reader.position(at) < ends[at]:
                for record in (await reader.getmany(timeout_ms=100)).get(at, ()):
                    yield record
    finally:
        await reader.stop()
