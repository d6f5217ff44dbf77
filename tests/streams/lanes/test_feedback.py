"""The relay on real Kafka: whatever anybody may write into its topics is copied, and stops nothing."""

from aiokafka import AIOKafkaProducer

from detectors.feedback.processor import MOST_BYTES, ORIGIN
from loadtests.hostile import send_undecodable
from schemas.topics import AUDITS, DECISIONS, FEEDBACK, REPORTS, named
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import read_to_end
from streams.lanes.feedback import Relay
from streams.settings import Kafka, Settings
from streams.topics import create_topics


async def test_records_without_bytes_with_too_many_and_unreadable_ones_are_copied(
    kafka: KafkaCluster, run_id: str
) -> None:
    await create_topics(kafka.connection, 1, 1, run_id)
    async with AIOKafkaProducer(**kafka.connection, max_request_size=9 << 20, compression_type="lz4") as producer:
        audits = named(AUDITS, run_id)
        nothing = producer.create_batch()
        nothing.append(key=None, value=None, timestamp=None)
        await (await producer.send_batch(nothing, audits, partition=0))
        await producer.send_and_wait(audits, b" " * (2 << 20), key=b"k" * (2 << 20))
        await producer.send_and_wait(named(REPORTS, run_id), b"v", key=b"k")
    async with AIOKafkaProducer(**kafka.connection) as producer:
        await send_undecodable(producer, named(DECISIONS, run_id), 0)
    settings = Settings(kafka=Kafka(bootstrap=kafka.bootstrap, topic_suffix=run_id))
    relay = Relay(settings, kafka.connection, Health())
    await relay.on_start()
    try:
        copied: dict[str, int] = {}
        while len(copied) < 4:
            await relay.step()
            async for record in read_to_end(kafka.connection, named(FEEDBACK, run_id)):
                copied[dict(record.headers)[ORIGIN].decode()] = len(record.value or b"")
    finally:
        await relay.on_stop()
    assert copied == {
        f"{AUDITS.name}:0:0": 0, f"{AUDITS.name}:0:1": MOST_BYTES + 1,
        f"{DECISIONS.name}:0:0": 0, f"{REPORTS.name}:0:0": 1,
    }  # fmt: skip
