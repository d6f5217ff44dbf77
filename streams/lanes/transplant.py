"""Transplants: what the fleet lane wants tried is read from the findings topic, and the answer goes back there.

So the fleet lane's state stays a function of its log, though a router was asked. What is asked again after a crash
is answered again; the lane takes the first answer.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError
from mode import Service

from detectors.discovery.transplant import Probes, answer, shipped_probes
from schemas.codec import InvalidRecord, decode, encode
from schemas.topics import FINDINGS, named
from schemas.verdicts import Finding
from streams.health import Health
from streams.kafka import read_assigned
from streams.scorers import HttpScorer
from streams.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 500
_STOP_SECONDS = 5.0


def probes(settings: Settings) -> Probes:
    """The probe prompts of the settings, and the router that scores them.

    Raises:
        ValueError: the file of probes holds something else, or too few.
        OSError: it cannot be read.
    """
    fleet = settings.fleet
    texts = shipped_probes()
    if fleet.probes:
        texts = tuple(json.loads(line)["text"] for line in Path(fleet.probes).read_text("utf-8").splitlines())
    return Probes(HttpScorer(fleet.router_url, fleet.router_timeout_seconds), texts)


class Transplanter(Service):
    """Answers what is wanted, one after the other; a router that does not answer is an answer too."""

    def __init__(self, settings: Settings, connection: Mapping[str, Any], health: Health) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`)."""
        super().__init__()
        self._connection = connection
        self._health = health
        self._topic = named(FINDINGS, settings.kafka.topic_suffix)
        self._group = f"{settings.fleet.group}-transplants{settings.kafka.topic_suffix}"
        self._probes = probes(settings)

    async def on_start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(**self._connection, enable_idempotence=True)
        self._consumer = AIOKafkaConsumer(
            self._topic,
            **self._connection,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="latest",  # what was wanted before anybody answered is wanted again, if it matters
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            max_poll_interval_ms=600_000,
        )
        await self._producer.start()
        await self._consumer.start()

    @Service.task
    async def _run(self) -> None:
        try:
            while not self.should_stop:
                batches = await read_assigned(self._consumer, _POLL_MS)
                for at, records in batches.items():
                    for record in records:
                        if record.value and b'"transplant":' in record.value:
                            await self._answer(record, at.partition)
                if batches:
                    await self._commit()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._health.failed("transplants", error)
            log.critical("transplants stop: %s", error, exc_info=error)
            await self.crash(error)

    async def _answer(self, record: Any, partition: int) -> None:
        try:
            finding = decode(Finding, record)
        except InvalidRecord:
            return  # the fleet lane reports it
        if finding.transplant is None or finding.transplant.is_answer:
            return
        told = await asyncio.to_thread(answer, self._probes, finding.transplant)
        if told.failed:
            log.warning("the router could not be asked: %s", told.failed)
        reply = msgspec.structs.replace(finding, transplant=told)
        await self._producer.send_and_wait(self._topic, encode(reply), key=record.key, partition=partition)

    async def _commit(self) -> None:
        try:
            await self._consumer.commit()
        except KafkaError as error:  # given to another: it answers again, and the first answer counts
            log.info("transplants: offsets not committed: %r", error)

    async def on_stop(self) -> None:
        """Leave the group."""
        for client in (self._consumer, self._producer):
            try:
                await asyncio.wait_for(client.stop(), _STOP_SECONDS)
            except Exception as error:
                log.warning("transplants: a client did not stop: %r", error)
