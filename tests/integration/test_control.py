"""A worker's catalogue as its topic says: read whole before it is ready, once, and followed from there."""

import asyncio
from datetime import UTC, datetime

import faust
from aiokafka import AIOKafkaProducer

from detectors.catalogue import shipped
from detectors.panel import build_panel
from detectors.thresholds import Thresholds
from schemas.topics import TRIGGERS, named
from schemas.triggers import Trigger
from streams.catalogues import TopicStore
from streams.control import Control
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import Tail
from streams.topics import create_topics

PATIENCE_S = 60.0


def entry(number: int) -> Trigger:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Trigger(trigger_id=f"own{number}", version=1, text=f"quasar zither {number}", kind="lexical",
                   review="approved", updated_at=now)  # fmt: skip


async def test_the_catalogue_is_read_once_and_followed(kafka: KafkaCluster, run_id: str) -> None:
    """Faust read it a second time: a retired trigger came back while it did, and a large one held up the start."""
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    store = TopicStore(brokers, run_id)
    await store.append([entry(number) for number in range(3)])
    await tombstone(brokers, named(TRIGGERS, run_id), "own0")
    panel, health = build_panel(Thresholds()), Health(expected=("catalogue",))
    base = len(shipped())
    app = faust.App("in-control", broker=f"kafka://{kafka.bootstrap}")
    async with asyncio.timeout(PATIENCE_S), Control(app, brokers, health, panel, run_id):
        assert health.is_ready()
        assert len(panel.catalogue) == base + 2
        assert panel.catalogue.version == base + 4
        await store.append([entry(3)])
        while len(panel.catalogue) != base + 3:  # noqa: ASYNC110 (a service's own loop swaps it)
            await asyncio.sleep(0.05)
        assert panel.catalogue.version == base + 5


async def test_a_topic_that_is_made_later_is_read_from_its_beginning(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap, "metadata_max_age_ms": 200}
    tail = Tail(brokers, named(TRIGGERS, run_id))
    await tail.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert await tail.at_end()
            assert not await tail.read(0)
            await create_topics({"bootstrap_servers": kafka.bootstrap}, 1, 1, run_id)
            await TopicStore({"bootstrap_servers": kafka.bootstrap}, run_id).append([entry(0)])
            while not (records := await tail.read(100)):
                pass
            assert [record.key for record in records] == [b"own0"]
    finally:
        await tail.stop()


async def tombstone(brokers: dict[str, str], topic: str, trigger_id: str) -> None:
    async with AIOKafkaProducer(**brokers) as producer:
        await producer.send_and_wait(topic, None, key=trigger_id.encode())
