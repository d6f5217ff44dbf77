"""A service that reads topics as a member of a group and writes to others, at least once: relay, transplants."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from mode import Service

from streams.health import Health
from streams.kafka import connected

log = logging.getLogger(__name__)


class Follower(Service):
    """Takes step after step until it is stopped; one that fails ends the worker, as a lane's does."""

    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer

    def __init__(
        self, name: str, health: Health, connection: Mapping[str, Any], *topics: str, **reading: Any
    ) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`); `reading`: the consumer's."""
        super().__init__()
        self._name = name
        self._health = health
        self._connection = connection
        self._topics = topics
        self._reading = reading

    @abstractmethod
    async def step(self) -> None:
        """Read some records, do what they ask for, and commit."""

    async def on_start(self) -> None:
        """Connect."""
        self.producer = await self.add_async_context(
            connected(AIOKafkaProducer(**self._connection, enable_idempotence=True))
        )
        self.consumer = await self.add_async_context(connected(AIOKafkaConsumer(
            *self._topics,
            **self._connection,
            **self._reading,
            enable_auto_commit=False,
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
        )))  # fmt: skip

    @Service.task
    async def _run(self) -> None:
        try:
            while not self.should_stop:
                await self.step()
                self._health.ready(self._name, True)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._health.failed(self._name, error)
            log.critical("%s stops: %s", self._name, error, exc_info=error)
            await self.crash(error)

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> bool:
        """Commit what was read (None: all of it); False where the partitions were given to another meanwhile."""
        try:
            await self.consumer.commit(offsets)
        except KafkaError as error:
            log.info("%s: offsets not committed: %r", self._name, error)
            return False
        return True
