"""What both designs are given to judge: one fleet's events, the same bytes, waiting in the events topic."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer

from loadtests.fleet import Fleet
from loadtests.player import SOURCE
from loadtests.prompts import data_dir
from loadtests.router import DifficultyRouter
from loadtests.traffic import Sent, events, score_all
from schemas.codec import encode, event_headers
from schemas.events import Request
from schemas.topics import EVENTS, named
from streams.replay import FileRecord

RATE = 1_000.0  # requests a second of event time


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events in order of publication, as records of one partition."""

    records: list[FileRecord]
    requests: int  # distinct

    def __len__(self) -> int:
        return len(self.records)

    async def produce(self, brokers: Mapping[str, Any], suffix: str) -> None:
        """Publish all to the events topic, each to the partition of its key, and await every delivery."""
        topic = named(EVENTS, suffix)
        async with AIOKafkaProducer(
            **brokers, enable_idempotence=True, linger_ms=20, max_batch_size=1 << 20
        ) as producer:
            sends = [
                await producer.send(topic, record.value, key=record.key, headers=list(record.headers))
                for record in self.records
            ]
            await asyncio.gather(*sends)


def make(requests: int, seed: int = 1) -> Backlog:
    """So many requests with their routes and outcomes: real prompts where POINTSMAN_DATA has them.

    They begin now: the codec refuses events that are more than a day off the broker's clock.
    """
    router = DifficultyRouter.load("words")
    asks = Fleet(seed, data_dir()).asks(requests, RATE)
    return of_events(events(asks, score_all(router, asks), router, seed, datetime.now(UTC)))


def of_events(sent: Sequence[Sent]) -> Backlog:
    """Encode events as a gateway's publisher does, with CloudEvents headers."""
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    records = [
        FileRecord(
            EVENTS.name,
            offset,
            now_ms + round(at * 1000),
            encode(event),
            event.principal_hash.encode(),
            tuple(event_headers(event, SOURCE)),
        )
        for offset, (at, event) in enumerate(sent)
    ]
    return Backlog(records, len({event.event_id for _, event in sent if isinstance(event, Request)}))
