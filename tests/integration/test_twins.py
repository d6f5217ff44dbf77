"""Two processes that start with one instance id at one moment: here lanes of one process, so that it is one."""

import asyncio
from collections import Counter

import pytest

from detectors.processor import OneByOne, Record
from schemas.topics import CHECKPOINTS, EVENTS
from streams.app import Pointsman
from streams.embedded.kafka import KafkaCluster
from streams.health import Health
from streams.lane import Lane
from streams.lanespec import LaneSpec
from streams.topics import create_topics

PARTITIONS = 6
PATIENCE_S = 60.0


class Nothing(OneByOne):
    """A processor whose state is its offset."""

    def _take(self, record: Record) -> None:
        """Nothing comes."""

    def waiting(self) -> bool:
        return False

    def holds(self) -> Counter[str]:
        return Counter()

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        return list(self.snapshot().items())

    def load(self, key: bytes, value: bytes | None) -> None:
        self.offset = int(value or b"0")

    def loaded(self) -> None:
        """Nothing is left to do."""

    def snapshot(self) -> dict[bytes, bytes]:
        return {b"marker": b"%d" % self.offset}


class Process:
    """A lane in an app of its own."""

    def __init__(self, kafka: KafkaCluster, run_id: str, instance_id: str) -> None:
        spec = LaneSpec("twin", EVENTS, CHECKPOINTS, "twins", lambda _: Nothing(), instance_id=instance_id)
        self.health = Health(expected=("twin",))
        self._lane = Lane(Pointsman(), spec, kafka.connection, self.health, run_id)
        self._error: BaseException | None = None

    @property
    def error(self) -> BaseException | None:
        """Why it ended."""
        return self._error or self._lane.crash_reason

    async def start(self, after_seconds: float = 0.0) -> None:
        await asyncio.sleep(after_seconds)
        try:
            await self._lane.start()
        except RuntimeError as error:
            self._error = error

    async def stop(self) -> None:
        await self._lane.stop()


@pytest.mark.parametrize("apart_seconds", [0.0, 0.02, 0.1])
async def test_one_ends_and_names_the_id_and_the_other_serves(
    kafka: KafkaCluster, run_id: str, apart_seconds: float
) -> None:
    """Kafka tells the one that was still joining that it is fenced: aiokafka knew no such error, and named none."""
    await create_topics(kafka.connection, PARTITIONS, 1, run_id)
    first = Process(kafka, run_id, "the-one-before")  # brokers that never had one fence the two in no order
    await first.start()
    await first.stop()
    twins = [Process(kafka, run_id, "the-one") for _ in range(2)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(twins[0].start(), twins[1].start(apart_seconds))
            while not any(twin.error for twin in twins):  # noqa: ASYNC110 (a service's own task ends it)
                await asyncio.sleep(0.05)
            [ended] = [twin for twin in twins if twin.error]
            [left] = [twin for twin in twins if twin is not ended]
            await ended.stop()
            assert "another process run with kafka.instance_id 'the-one'" in str(ended.error)
            while not left.health.is_ready():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(3.0)  # several heartbeats
        assert left.error is None
        assert left.health.is_ready()
    finally:
        for twin in twins:
            await twin.stop()
