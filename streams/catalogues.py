"""Where a trigger catalogue is kept: a JSONL file, or the compacted topic; both read whole and appended to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaProducer

from detectors.catalogue import SHIPPED, Records, append_records, read_records
from schemas.codec import decode, encode
from schemas.topics import PROPOSALS, TRIGGERS, named
from schemas.triggers import Trigger
from streams.kafka import read_to_end


class CatalogueStore(Protocol):
    """A catalogue's records, all of its history written through `append`."""

    async def read(self) -> Records:
        """All records as they are now."""

    async def append(self, entries: Sequence[Trigger]) -> None:
        """Write entries; returns when they are stored."""


class FileStore:
    """A JSONL file, made at the first append."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Records:
        """See `CatalogueStore`; no file is no records. Raises CatalogueError for a line that is no Trigger."""
        return read_records(self._path) if self._path.exists() else Records()

    async def append(self, entries: Sequence[Trigger]) -> None:
        """See `CatalogueStore`."""
        append_records(self._path, entries)


class TopicStore:
    """The topic `pointsman.triggers.v1` (with a suffix), which every worker follows, and the fleet's proposals."""

    def __init__(self, brokers: Mapping[str, Any], suffix: str = "") -> None:
        self._brokers = brokers
        self._topic = named(TRIGGERS, suffix)
        self._proposals = named(PROPOSALS, suffix)

    async def read(self) -> Records:
        """See `CatalogueStore`: over the shipped entries, as workers have them, so that those can be retired too.

        A proposal is one whatever it says, and none where a reviewer has written.
        Raises InvalidRecord for a record that is no Trigger.
        """
        records = await self._read(self._topic, read_records(SHIPPED))
        proposals = (await self._read(self._proposals, Records())).view()
        for name in proposals.keys() - records.view().keys():
            records.put(msgspec.structs.replace(proposals[name], review="proposed", reviewer=""))
        return records

    async def _read(self, topic: str, records: Records) -> Records:
        async for record in read_to_end(self._brokers, topic):
            if record.value is None and record.key is not None:
                records.remove(record.key.decode())
            else:
                records.put(decode(Trigger, record))
        return records

    async def append(self, entries: Sequence[Trigger]) -> None:
        """See `CatalogueStore`."""
        async with AIOKafkaProducer(**self._brokers, enable_idempotence=True) as producer:
            sent = [
                await producer.send(self._topic, encode(entry), key=entry.trigger_id.encode()) for entry in entries
            ]
            for delivery in sent:
                await delivery
