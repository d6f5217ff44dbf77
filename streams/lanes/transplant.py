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

from detectors.discovery.transplant import Probes, answer, shipped_probes
from schemas.codec import InvalidRecord, decode, encode
from schemas.topics import FINDINGS, named
from schemas.verdicts import Finding
from streams.follower import Follower
from streams.health import Health
from streams.kafka import read_assigned
from streams.scorers import HttpScorer
from streams.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 500


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


class Transplanter(Follower):
    """Answers what is wanted, one after the other; a router that does not answer is an answer too."""

    def __init__(self, settings: Settings, connection: Mapping[str, Any], health: Health) -> None:
        """`connection`: how to reach the brokers (`streams.kafka.connection`)."""
        self._topic = named(FINDINGS, settings.kafka.topic_suffix)
        super().__init__(
            "transplants",
            health,
            connection,
            self._topic,
            group_id=f"{settings.fleet.group}-transplants{settings.kafka.topic_suffix}",
            auto_offset_reset="latest",  # what was wanted before anybody answered is wanted again, if it matters
            max_poll_interval_ms=600_000,
        )
        self._probes = probes(settings)

    async def step(self) -> None:
        """Answer a batch. Whoever has the partition next answers again what is not committed: the first counts."""
        batches = await read_assigned(self.consumer, _POLL_MS)
        for at, records in batches.items():
            for record in records:
                if record.value and b'"transplant":' in record.value:
                    await self._answer(record, at.partition)
        if batches:
            await self.commit()

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
        await self.producer.send_and_wait(self._topic, encode(reply), key=record.key, partition=partition)
