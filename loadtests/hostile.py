"""Records that must become dead letters, of every kind, each with the reason that it must be refused for."""

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

from schemas.codec import MAX_VALUE_BYTES, encode
from schemas.events import Route

Headers = list[tuple[str, bytes]]
DAY_S = 86_400
_CRC_AT, _CRC_FROM = 17, 21  # of a record batch, format 2


def _route(number: int, seconds: float = 0.0) -> bytes:
    return encode(
        Route(
            event_id=f"h{number}-r", event_time=datetime.fromtimestamp(time.time() + seconds, UTC),
            request_id=f"h{number}", tenant_id="t1", principal_hash="p1", selected_model="small",
            router_name="main", router_version="1", tier="SIMPLE", tier_rank=0, difficulty_score=0.2,
            cost_estimate_usd=0.001,
        )
    )  # fmt: skip


def _altered(old: bytes, new: bytes) -> Callable[[int], bytes]:
    def make(number: int) -> bytes:
        value = _route(number)
        if old not in value:
            raise AssertionError(f"a route has no {old!r}")
        return value.replace(old, new)

    return make


def _score(text: bytes) -> Callable[[int], bytes]:
    return _altered(b'_score":0.2', b'_score":' + text)


# reason -> makers of values (and headers) that must be refused for it; the rest is below
KINDS: Mapping[str, list[tuple[Callable[[int], bytes], Headers]]] = {
    "empty": [(lambda _: b"", [])],
    "not_utf8": [(_altered(b'"small"', b'"\xff\xfe"'), [])],
    "not_json": [(lambda n: b"{" * (n % 1_000 + 1), []), (lambda _: b"rubbish", [])],
    "unknown_type": [(_altered(b'"route"', b'"rout"'), [])],
    "missing_field": [(_altered(b'"selected_model"', b'"selected_modem"'), []), (lambda _: b"{}", [])],
    "wrong_type": [(_altered(b'"small"', b"7"), []), (lambda _: b"null", []), (lambda _: b"[" * 5_000, [])],
    "out_of_range": [
        (_score(b"1e999"), []), (_score(b"NaN"), []), (_score(b"-1e300"), []),
        (_altered(b'"small"', b'""'), []), (_altered(b'"small"', b'"' + b"x" * 5_000 + b'"'), []),
        (_altered(b'_usd":0.001', b'_usd":-1'), []),
    ],
    "time_without_zone": [(_altered(b'Z"', b'"'), [])],
    "time_off": [(lambda n: _route(n, -1.05 * DAY_S), [])],
    "bad_envelope": [(_route, [("ce_type", b"x.llmrouter.outcome.v1")])],
}  # fmt: skip


def records(number: int) -> Iterator[tuple[str, bytes, Headers]]:
    """So many of all kinds in turn: reason, value, headers."""
    makers = [(reason, make, headers) for reason, kinds in KINDS.items() for make, headers in kinds]
    for n in range(number):
        reason, make, headers = makers[n % len(makers)]
        yield reason, make(n), headers


TOO_LARGE = b"x" * (MAX_VALUE_BYTES + 1)
FAR_TOO_LARGE = b"x" * (9 << 20)  # compresses to less than the topic's limit, and fits into no dead letter


async def send_undecodable(producer: AIOKafkaProducer, topic: str, partition: int) -> Any:
    """Send a record with a header name that is not UTF-8, as librdkafka lets one; aiokafka's readers raise."""
    batch = producer.create_batch()
    batch.append(key=b"k", value=b"v", timestamp=None, headers=[("HEADERNAME", b"1")])
    poison(batch)
    return await (await producer.send_batch(batch, topic, partition=partition))


def poison(batch: Any) -> None:
    """Make the batch's header name HEADERNAME bytes that are not UTF-8."""
    buffer = bytearray(batch._build()).replace(b"HEADERNAME", b"\xff" * 10)  # noqa: SLF001  no client lets us
    struct.pack_into(">I", buffer, _CRC_AT, calc_crc32c(bytes(buffer[_CRC_FROM:])))
    batch._buffer = buffer  # noqa: SLF001
