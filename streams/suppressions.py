"""The topic of suppression rules: read whole before the fleet lane starts, then followed; and written."""

import logging
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from mode import Service

from detectors.suppressions import Suppressions
from schemas.codec import InvalidRecord, Record, decode, encode
from schemas.suppressions import Suppression
from schemas.topics import SUPPRESSIONS, named
from streams.kafka import followed, read_to_end

log = logging.getLogger(__name__)

POLL_MS = 200


class SuppressionControl(Service):
    """Keeps `suppressions` as the topic says. Start it before the fleet lane."""

    def __init__(self, brokers: Mapping[str, Any], suppressions: Suppressions, suffix: str = "") -> None:
        super().__init__()
        self._brokers = brokers
        self._suppressions = suppressions
        self._suffix = suffix

    async def on_start(self) -> None:
        """Read the topic to its end: the first alert is published by the rules in force."""
        self._tail = await self.add_async_context(followed(self._brokers, named(SUPPRESSIONS, self._suffix)))
        while not await self._tail.at_end():
            await self._take()

    @Service.task
    async def _follow(self) -> None:
        while not self.should_stop:
            await self._take()

    async def _take(self) -> None:
        for record in await self._tail.read(POLL_MS):
            take(self._suppressions, record)


def take(suppressions: Suppressions, record: Record) -> None:
    """Take over a record of the topic, a tombstone too."""
    if record.value is None and record.key is not None:
        suppressions.remove(record.key.decode(errors="replace"))
        return
    try:
        suppressions.put(decode(Suppression, record))
    except InvalidRecord as error:
        log.error("suppression left out: %s", error)


async def read(brokers: Mapping[str, Any], suffix: str = "") -> Suppressions:
    """All rules that the topic has.

    Raises:
        NoSuchTopicError: there is none.
    """
    suppressions = Suppressions()
    async for record in read_to_end(brokers, named(SUPPRESSIONS, suffix), must_exist=True):
        take(suppressions, record)
    return suppressions


async def write(brokers: Mapping[str, Any], rule: Suppression, suffix: str = "") -> None:
    """Publish a rule, and wait until the brokers have it."""
    async with AIOKafkaProducer(**brokers, enable_idempotence=True) as producer:
        await producer.send_and_wait(named(SUPPRESSIONS, suffix), encode(rule), key=rule.suppression_id.encode())
