"""Events of a window as Kafka still has them, with their text: everything can be judged again."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer

from detectors.panel import PromptPanel
from detectors.processor import Record
from schemas.codec import InvalidRecord, decode_event
from schemas.erasures import Erasures
from schemas.topics import EVENTS, named
from streams.control import InForce
from streams.kafka import assign_all, read_batches, read_to_end
from streams.past.run import Run, Window, at

_BATCH = 5_000


async def put_in_force(
    connection: Mapping[str, Any], suffix: str, panel: PromptPanel, keys: Mapping[str, bytes] | None
) -> None:
    """Give the panel the catalogue and the thresholds that are in force now. `keys`: as of `InForce`."""
    in_force = InForce(panel, keys, suffix)
    for topic in in_force.topics:
        async for record in read_to_end(connection, topic):
            in_force.take(record)
    in_force.swap()


async def events(
    connection: Mapping[str, Any], suffix: str, window: Window, erasures: Erasures, run: Run
) -> AsyncIterator[tuple[int, Sequence[Record]]]:
    """Records by partition, in log order, without those of erased principals. Joins no group, commits nothing."""
    topic = named(EVENTS, suffix)
    reader = AIOKafkaConsumer(
        **connection, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=100
    )
    async with reader:
        partitions = await assign_all(reader, topic)
        first = await reader.offsets_for_times(dict.fromkeys(partitions, window.warm_from))
        behind = await reader.offsets_for_times(dict.fromkeys(partitions, window.ends))
        ends = await reader.end_offsets(partitions)
        for partition in partitions:
            begin, end = first[partition], behind[partition]
            if begin is None:  # nothing that late
                continue
            reader.assign([partition])
            reader.seek(partition, begin.offset)
            stop = ends[partition] if end is None else end.offset
            while (position := await reader.position(partition)) < stop:
                batches = await read_batches(reader, {partition: position}, 100, _BATCH)
                records = [record for record in batches.get(partition, ()) if record.offset < stop]
                kept = [record for record in records if not _erased(record, erasures)]
                run.left_out += len(records) - len(kept)
                if kept:
                    yield partition.partition, kept


def _erased(record: Record, erasures: Erasures) -> bool:
    if not erasures:
        return False
    try:
        event = decode_event(record)
    except InvalidRecord:
        return False  # it is judged as what it is: a dead letter
    if event is None:
        return False
    return erasures.cover(event.tenant_id, event.principal_hash, at(record.timestamp))
