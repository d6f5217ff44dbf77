"""What the control topics say is in force: read once and whole before a start is over, and followed."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
from aiokafka import AIOKafkaProducer

from detectors.catalogue import shipped
from detectors.feedback.chain import topic_key
from detectors.panel import build_panel
from detectors.suppressions import Suppressions
from detectors.thresholds import Thresholds
from schemas.codec import encode
from schemas.suppressions import Suppression
from schemas.thresholds import ThresholdUpdate
from schemas.topics import THRESHOLDS, TRIGGERS, named
from schemas.triggers import Trigger
from streams.catalogues import TopicStore
from streams.control import Control
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.kafka import followed
from streams.suppressions import SuppressionControl, write
from streams.topics import create_topics
from tests.streams.gateways.test_thresholds import FLAG, KEY, chain

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
    async with asyncio.timeout(PATIENCE_S), Control(brokers, health, panel, run_id):
        assert health.is_ready()
        assert len(panel.catalogue) == base + 2
        assert panel.catalogue.version == base + 4
        await store.append([entry(3)])
        while len(panel.catalogue) != base + 3:  # noqa: ASYNC110 (a service's own loop swaps it)
            await asyncio.sleep(0.05)
        assert panel.catalogue.version == base + 5


async def test_thresholds_are_followed_and_an_override_ends_without_being_told(
    kafka: KafkaCluster, run_id: str
) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    panel = build_panel(Thresholds())
    await publish(brokers, run_id, *chain({}))
    control = Control(brokers, Health(), panel, run_id, update_keys={"1": KEY})
    async with asyncio.timeout(PATIENCE_S), control:
        assert (panel.thresholds[FLAG], panel.thresholds.version) == (0.99, 1)
        end = datetime.now(UTC) + timedelta(seconds=8)
        _, override, other = chain(
            {}, {"old_value": 0.99, "new_value": 0.9999, "expires_at": end}, {"new_value": 0.1}
        )
        await publish(brokers, run_id, override, msgspec.structs.replace(other, signature=""))
        for value in (0.9999, 0.99):
            while panel.thresholds[FLAG] != value:  # noqa: ASYNC110 (a service's own loop swaps it)
                await asyncio.sleep(0.05)
        assert datetime.now(UTC) >= end
        assert control.links() == [override]


async def test_a_topic_that_is_made_later_is_read_from_its_beginning(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap, "metadata_max_age_ms": 200}
    async with asyncio.timeout(PATIENCE_S), followed(brokers, named(TRIGGERS, run_id)) as tail:
        assert await tail.at_end()
        assert not await tail.read(0)
        await create_topics({"bootstrap_servers": kafka.bootstrap}, 1, 1, run_id)
        await TopicStore({"bootstrap_servers": kafka.bootstrap}, run_id).append([entry(0)])
        while not (records := await tail.read(100)):
            pass
        assert [record.key for record in records] == [b"own0"]


async def test_suppressions_are_read_to_the_end_and_followed(kafka: KafkaCluster, run_id: str) -> None:
    brokers = {"bootstrap_servers": kafka.bootstrap}
    await create_topics(brokers, 1, 1, run_id)
    begun, now_ms = datetime(2026, 1, 1, tzinfo=UTC), int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp() * 1000)

    def rule(name: str, hours: int) -> Suppression:
        return Suppression(
            suppression_id=name, labels={"trigger_id": name}, starts_at=begun,
            ends_at=begun + timedelta(hours=hours), owner="ann", reason="a test", created_at=begun,
        )  # fmt: skip

    for each in (rule("ended", 24), rule("whole", 24), rule("ended", 1)):
        await write(brokers, each, run_id)
    rules = Suppressions()
    async with asyncio.timeout(PATIENCE_S), SuppressionControl(brokers, rules, run_id):
        assert [rules.over({"trigger_id": name}, now_ms) for name in ("ended", "whole")] == ["", "whole"]
        await write(brokers, rule("later", 24), run_id)
        while not rules.over({"trigger_id": "later"}, now_ms):  # noqa: ASYNC110  a service's own loop takes it
            await asyncio.sleep(0.05)
        assert rules.over({"trigger_id": "ended"}, now_ms) == ""


async def publish(brokers: dict[str, str], run_id: str, *links: ThresholdUpdate) -> None:
    async with AIOKafkaProducer(**brokers) as producer:
        for link in links:
            await producer.send_and_wait(named(THRESHOLDS, run_id), encode(link), key=topic_key(link))


async def tombstone(brokers: dict[str, str], topic: str, trigger_id: str) -> None:
    async with AIOKafkaProducer(**brokers) as producer:
        await producer.send_and_wait(topic, None, key=trigger_id.encode())
