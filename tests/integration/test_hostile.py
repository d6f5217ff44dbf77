"""10,000 hostile messages of every kind among good ones: each a dead letter with its bytes, no neighbour harmed."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer

from loadtests.hostile import FAR_TOO_LARGE, TOO_LARGE, send_undecodable
from loadtests.hostile import records as hostile_records
from schemas.codec import MAX_VALUE_BYTES, encode, read_dead_letter
from schemas.topics import DEADLETTERS, EVENTS, VERDICTS, named
from schemas.verdicts import Verdict
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from tests.factories import request, route
from tests.integration.harness import Fleet

HOSTILE = 10_000
GOOD = 2_000


async def _send_all(fleet: Fleet) -> dict[tuple[int, int], tuple[str, bytes]]:
    """Send good and hostile mixed; the hostile ones by partition and offset, with reason and value."""
    topic = named(EVENTS, fleet.suffix)
    producer = AIOKafkaProducer(**fleet.brokers, linger_ms=5, max_request_size=16 << 20, compression_type="lz4")
    await producer.start()
    sent = []
    for number, (reason, value, headers) in enumerate(hostile_records(HOSTILE - 20)):
        key = f"p{number % 50}".encode()
        sent.append((reason, value, await producer.send(topic, value, key=key, headers=headers)))
        if number % (HOSTILE // GOOD) == 0:
            rid, principal, now = f"g{number}", f"p{number % 50}", round(time.time() * 1000)
            for event in (request(rid, principal, now), route(rid, principal, now)):
                await producer.send(topic, encode(event), key=principal.encode())
    for number in range(9):
        sent.append(("too_large", TOO_LARGE, await producer.send(topic, TOO_LARGE, partition=number % 6)))
    begin = FAR_TOO_LARGE[:MAX_VALUE_BYTES]
    sent.append(("too_large", begin, await producer.send(topic, FAR_TOO_LARGE, partition=0)))
    hostile = {}
    for reason, value, future in sent:
        metadata = await future
        hostile[metadata.partition, metadata.offset] = (reason, value)
    await producer.stop()
    async with AIOKafkaProducer(**fleet.brokers) as plain:  # it writes a batch as it is
        for number in range(10):
            metadata = await send_undecodable(plain, topic, number % 6)
            hostile[metadata.partition, metadata.offset] = ("bad_envelope", b"")  # the client cannot give its bytes
    return hostile


def test_every_hostile_message_is_a_dead_letter_and_nothing_else(
    kafka: KafkaCluster, run_id: str, tmp_path: Path
) -> None:
    fleet = Fleet(kafka, run_id, tmp_path)
    with fleet.worker("w1"):
        hostile = asyncio.run(_send_all(fleet))
        fleet.exactness()
    letters, verdicts = asyncio.run(_results(fleet))
    assert len(hostile) == HOSTILE
    assert letters == hostile
    assert len(verdicts) == (HOSTILE - 20 + 4) // 5
    assert set(verdicts.values()) == {1}


async def _results(fleet: Fleet) -> tuple[dict[tuple[int, int], tuple[str, bytes]], Counter[str]]:
    letters = {}
    async for record in read_to_end(fleet.brokers, named(DEADLETTERS, fleet.suffix)):
        letter = read_dead_letter(record)
        letters[letter.partition, letter.offset] = (str(letter.reason), letter.value)
    verdicts: Counter[str] = Counter()
    async for record in read_to_end(fleet.brokers, named(VERDICTS, fleet.suffix)):
        verdicts[msgspec.json.decode(record.value or b"", type=Verdict).request_id] += 1
    return letters, verdicts
