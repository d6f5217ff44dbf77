"""10,000 hostile messages of every kind among good ones: each a dead letter with its bytes, no neighbour harmed."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer

from schemas.codec import encode, read_dead_letter
from schemas.topics import DEADLETTERS, EVENTS, VERDICTS, named
from schemas.verdicts import Verdict
from streams.embedded.kafka import KafkaCluster
from streams.kafka import read_to_end
from tests.factories import at, request, route
from tests.integration.harness import Fleet
from tests.integration.test_reading import poison

HOSTILE = 10_000
GOOD = 2_000
Headers = list[tuple[str, bytes]]


def _altered(old: bytes, new: bytes) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        value = encode(route(f"h{number}", time_ms=_now()))
        assert old in value
        return value.replace(old, new)

    return make


def _now() -> int:
    return round(time.time() * 1000)


# reason -> makers of values (and headers) that must be refused for it
KINDS: dict[str, list[tuple[Callable[[int], bytes], Headers]]] = {
    "empty": [(lambda _: b"", [])],
    "not_utf8": [(_altered(b'"small"', b'"\xff\xfe"'), [])],
    "not_json": [(lambda n: b"{" * (n % 1_000 + 1), []), (lambda _: b"rubbish", [])],
    "unknown_type": [(_altered(b'"route"', b'"rout"'), [])],
    "missing_field": [(_altered(b'"selected_model"', b'"selected_modem"'), []), (lambda _: b"{}", [])],
    "wrong_type": [(_altered(b'"small"', b"7"), []), (lambda _: b"null", []), (lambda _: b"[" * 5_000, [])],
    "out_of_range": [
        (_altered(b"0.2", b"1e999"), []), (_altered(b"0.2", b"NaN"), []), (_altered(b"0.2", b"-1e300"), []),
        (_altered(b'"small"', b'""'), []), (_altered(b'"small"', b'"' + b"x" * 5_000 + b'"'), []),
        (_altered(b"0.001", b"-1"), []),
    ],
    "time_without_zone": [(_altered(b'Z"', b'"'), [])],
    "time_off": [(lambda n: encode(route(f"h{n}", event_time=at(_now() - 90_000_000))), [])],
    "bad_envelope": [(lambda n: encode(route(f"h{n}", time_ms=_now())), [("ce_type", b"x.llmrouter.outcome.v1")])],
}  # fmt: skip


async def _send_all(fleet: Fleet) -> dict[tuple[int, int], tuple[str, bytes]]:
    """Send good and hostile mixed; the hostile ones by partition and offset, with reason and value."""
    topic = named(EVENTS, fleet.suffix)
    producer = AIOKafkaProducer(**fleet.brokers, linger_ms=5, max_request_size=4 << 20)
    await producer.start()
    makers = [(reason, make, headers) for reason, kinds in KINDS.items() for make, headers in kinds]
    sent = []
    for number in range(HOSTILE - 20):
        reason, make, headers = makers[number % len(makers)]
        value = make(number)
        key = f"p{number % 50}".encode()
        sent.append((reason, value, await producer.send(topic, value, key=key, headers=headers)))
        if number % (HOSTILE // GOOD) == 0:
            rid, principal = f"g{number}", f"p{number % 50}"
            for event in (request(rid, principal, _now()), route(rid, principal, _now())):
                await producer.send(topic, encode(event), key=principal.encode())
    for number in range(10):
        large = b"x" * ((1 << 20) + 1)
        sent.append(("too_large", large, await producer.send(topic, large, partition=number % 6)))
    hostile = {}
    for reason, value, future in sent:
        metadata = await future
        hostile[metadata.partition, metadata.offset] = (reason, value)
    for number in range(10):
        batch = producer.create_batch()
        batch.append(key=b"k", value=b"v", timestamp=None, headers=[("HEADERNAME", b"1")])
        poison(batch)
        metadata = await (await producer.send_batch(batch, topic, partition=number % 6))
        hostile[metadata.partition, metadata.offset] = ("bad_envelope", b"")  # the client cannot give its bytes
    await producer.stop()
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
