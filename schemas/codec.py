"""Bytes and headers to records and back: limits, CloudEvents envelopes, dead letters.

One msgspec decode decides; what was wrong is worked out only when it fails, from the
place msgspec names, and never quotes the event. Events may come as CloudEvents 1.0 in binary mode (headers
`ce_*`), in structured mode (`application/cloudevents+json`), or as bare JSON: a file of values stands alone.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NoReturn, Protocol, TypeVar, get_args

import msgspec

from schemas.deadletters import DeadLetter, InvalidReason
from schemas.erasures import Erasure
from schemas.events import CUT_CHARS, PROMPT_CAP_CHARS, AnyEvent, Id, Outcome, Request, Route

MAX_VALUE_BYTES = 1 << 20
MAX_LETTER_BYTES = 2 << 20  # of a dead letter: under what any producer of ours and the topic take
MAX_CLOCK_OFF_MS = 86_400_000
TICK_TYPE = b"pointsman.tick.v1"
ERASE_TYPE = b"pointsman.erase.v1"
ERASE_HEADERS = (("ce_type", ERASE_TYPE),)  # of an Erasure among the events and the findings: state is to forget
TICK_HEADERS = (("ce_type", TICK_TYPE),)  # of a record without value: moves an idle partition's stream time

# Of a stand-in for a record that the Kafka client cannot decode (streams/kafka.py).
UNREADABLE_HEADERS = (("x-unreadable", b"header name"),)

_BARE = b"application/json"
_STRUCTURED = b"application/cloudevents"
_ORIGINAL = "x-header-"  # before the name of each of a dead letter's original headers
_SIZE = "x-size"  # of a record that did not fit into its dead letter
_REASONS = frozenset(get_args(InvalidReason))

T = TypeVar("T")


class Place(Protocol):
    """Where a record stood in its topic, and when the broker took it (milliseconds since 1970)."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...


class Record(Place, Protocol):
    """A record as Kafka gives it (aiokafka's ConsumerRecord is one)."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # Kafka's null comes as None, and is read as empty


class InvalidRecord(ValueError):
    """A record that can never be judged as it is: to the dead letters, and on. Names the place, quotes nothing."""

    def __init__(self, reason: InvalidReason, record: Record, field: str = "", detail: str = "") -> None:
        self.reason = reason
        self.field = field
        self.detail = detail
        self.topic = record.topic
        self.partition = record.partition
        self.offset = record.offset
        super().__init__(reason, field, detail, self.topic, self.partition, self.offset)

    def __str__(self) -> str:
        """Reason, field, place and detail in one line."""
        at = f" at {self.field}" if self.field else ""
        why = f": {self.detail}" if self.detail else ""
        return f"{self.reason}{at} in {self.topic}[{self.partition}]@{self.offset}{why}"


class _Envelope(msgspec.Struct):
    """A CloudEvent in structured mode; other attributes are ignored."""

    specversion: Literal["1.0"]
    id: Id
    source: Id
    type: str
    data: msgspec.Raw


_encoder = msgspec.json.Encoder()
_event_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}  # one a record type


def decode_event(record: Record) -> AnyEvent | None:
    """Decode one record of the events topic; None: a tick, which only moves stream time, or an erasure.

    Prompt text over PROMPT_CAP_CHARS comes back as a head and a tail of CUT_CHARS, with its length.

    Raises:
        InvalidRecord: the record breaks a limit; it is never anything else that is raised.
    """
    declared, structured = _envelope_headers(record)
    value = record.value
    if declared == ERASE_TYPE:
        return None
    if not value:
        if declared == TICK_TYPE:
            return None
        if tuple(record.headers) == UNREADABLE_HEADERS:
            raise InvalidRecord(
                "bad_envelope", record, detail="a header name that is not UTF-8; its bytes stay there"
            )
        raise InvalidRecord("empty", record, detail="no value, and not a tick")
    if declared == TICK_TYPE:
        raise InvalidRecord("bad_envelope", record, "ce_type", "a tick with a value")
    _check_bytes(value, record)
    path = "$"
    data: bytes | msgspec.Raw = value
    if structured:
        declared, data = _open_envelope(value, record)
        path = "$.data"
    try:
        event = _event_decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        _refuse(error, data, record, path)
    if declared:
        _check_type(declared, event, record)
    if abs(event.event_time.timestamp() * 1000 - record.timestamp) > MAX_CLOCK_OFF_MS:
        raise InvalidRecord("time_off", record, f"{path}.event_time", "more than a day from the broker's time")
    if type(event) is Request:
        _cut_prompt(event)
    return event


def decode(kind: type[T], record: Record) -> T:
    """Decode a record of one of our own topics. A tombstone is `empty`: readers of compacted topics look first.

    Raises:
        InvalidRecord: as `decode_event`.
    """
    value = record.value
    if not value:
        raise InvalidRecord("empty", record, detail="no value")
    try:
        decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))
        decoded: T = decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _refuse(error, value, record, "$")
    return decoded


def erasure_in(record: Record) -> Erasure | None:
    """The erasure that a record of the events or the findings is; None: it is something else.

    Raises:
        InvalidRecord: it says that it is one, and is not.
    """
    if ("ce_type", ERASE_TYPE) not in record.headers:
        return None
    return decode(Erasure, record)


def encode(record: msgspec.Struct) -> bytes:
    """Encode a record as JSON. Numbers must be finite: JSON has no others, and msgspec writes them as null."""
    return _encoder.encode(record)


def stable_id(*parts: str) -> str:
    """A deterministic id, 32 hex digits (blake2b-128); no two lists of parts share their bytes."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def event_type(event: AnyEvent) -> str:
    """`request`, `route` or `outcome`."""
    return str(event.__struct_config__.tag)


def event_headers(event: AnyEvent, source: str, traceparent: str = "") -> list[tuple[str, bytes]]:
    """CloudEvents headers in binary mode. `source` is the gateway's URI reference, as `//litellm/eu/pod-7`."""
    headers = [
        ("content-type", _BARE),
        ("ce_specversion", b"1.0"),
        ("ce_type", f"pointsman.llmrouter.{event_type(event)}.v1".encode()),
        ("ce_id", event.event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_time", event.event_time.isoformat().encode()),
        ("ce_subject", event.request_id.encode()),
        ("ce_partitionkey", event.principal_hash.encode()),
    ]
    if traceparent:
        headers.append(("ce_traceparent", traceparent.encode()))
    return headers


def dead_letter(
    error: InvalidRecord, record: Record, stage: str
) -> tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]:
    """Key, value and headers of a dead letter: the record's own, with `dead_letter_headers`.

    Brokers limit compressed bytes and producers raw ones, so a record may be too large to be sent on. Of one over
    MAX_LETTER_BYTES (key, value and headers) only the first MAX_VALUE_BYTES of the value are, and its size.
    """
    key, value, headers = record.key or b"", record.value or b"", dead_letter_headers(error, record, stage)
    size = len(key) + len(value) + sum(len(name.encode()) + len(content) for name, content in headers)
    if size <= MAX_LETTER_BYTES:
        return key, value, headers
    ours = tuple((name, content) for name, content in headers if not name.startswith(_ORIGINAL))
    return b"", value[:MAX_VALUE_BYTES], (*ours, (_SIZE, b"%d" % size))


def dead_letter_headers(error: InvalidRecord, record: Record, stage: str) -> tuple[tuple[str, bytes], ...]:
    """Headers of a dead letter, whose key and value are the record's own. `stage`: as `DeadLetter.stage`."""
    place = (record.topic, str(record.partition), str(record.offset))
    ours = (
        ("x-letter-id", stable_id(*place)),
        ("x-original-topic", place[0]),
        ("x-original-partition", place[1]),
        ("x-original-offset", place[2]),
        ("x-original-timestamp", str(record.timestamp)),
        ("x-stage", stage),
        ("x-reason", error.reason),
        ("x-field", error.field),
        ("x-detail", error.detail),
    )
    original = ((_ORIGINAL + name, content or b"") for name, content in record.headers)
    return (*((name, text.encode()) for name, text in ours), *original)


def read_dead_letter(record: Record) -> DeadLetter:
    """The inverse of `dead_letter_headers`, with the original key, value and headers.

    Raises:
        InvalidRecord: not a dead letter of ours.
    """
    ours = {name: content or b"" for name, content in record.headers if not name.startswith(_ORIGINAL)}
    value = record.value or b""
    try:
        reason = ours["x-reason"].decode()
        if reason not in _REASONS:
            raise ValueError(reason)
        return DeadLetter(
            letter_id=ours["x-letter-id"].decode(),
            topic=ours["x-original-topic"].decode(),
            partition=int(ours["x-original-partition"]),
            offset=int(ours["x-original-offset"]),
            time=datetime.fromtimestamp(int(ours["x-original-timestamp"]) / 1000, UTC),
            stage=ours["x-stage"].decode(),
            reason=reason,  # type: ignore[arg-type]  # one of `_REASONS`
            field=ours["x-field"].decode(),
            detail=ours["x-detail"].decode(),
            size=int(ours.get(_SIZE, len(value))),
            key=record.key or b"",
            value=value,
            headers=list(_original_headers(record)),
        )
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise InvalidRecord("bad_envelope", record, detail="not a dead letter's headers") from error


def _original_headers(record: Record) -> Iterator[tuple[str, bytes]]:
    for name, content in record.headers:
        if name.startswith(_ORIGINAL):
            yield name.removeprefix(_ORIGINAL), content or b""


def _envelope_headers(record: Record) -> tuple[bytes, bool]:
    """The declared type (empty: none), and whether the value is an envelope."""
    declared = b""
    structured = False
    for name, content in record.headers:
        if name == "ce_type":
            if declared and content != declared:
                raise InvalidRecord("bad_envelope", record, "ce_type", "given twice, differently")
            declared = content or b""
        elif name == "ce_specversion":
            if content != b"1.0":
                raise InvalidRecord("bad_envelope", record, "ce_specversion", "not CloudEvents 1.0")
        elif name == "content-type":
            if content == _BARE:  # nearly all
                structured = False
                continue
            media = (content or b"").partition(b";")[0].strip().lower()
            structured = media.startswith(_STRUCTURED)
            if structured and media != _STRUCTURED + b"+json":
                raise InvalidRecord("bad_envelope", record, "content-type", "only JSON envelopes, one an event")
    return declared, structured


def _check_bytes(value: bytes, record: Record) -> None:
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidRecord("too_large", record, detail=f"{len(value)} bytes, over {MAX_VALUE_BYTES}")
    # msgspec does not look inside of the strings that it skips.
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise InvalidRecord("not_utf8", record, detail=f"at byte {error.start}") from None


def _open_envelope(value: bytes, record: Record) -> tuple[bytes, msgspec.Raw]:
    try:
        envelope = _envelope_decoder.decode(value)
    except msgspec.ValidationError as error:
        _, field, detail = _explain(error, "$")
        raise InvalidRecord("bad_envelope", record, field, detail) from None
    except (msgspec.DecodeError, RecursionError) as error:
        _refuse(error, value, record, "$")
    return envelope.type.encode(), envelope.data


_TYPE_SUFFIX = {kind: f".llmrouter.{kind.__struct_config__.tag}.v1".encode() for kind in (Request, Route, Outcome)}


def _check_type(declared: bytes, event: AnyEvent, record: Record) -> None:
    """`VENDOR.llmrouter.TYPE.v1`, whoever the vendor is."""
    if not declared.endswith(_TYPE_SUFFIX[type(event)]):
        raise InvalidRecord("bad_envelope", record, "ce_type", "the envelope's type is not the value's event_type")


def _cut_prompt(request: Request) -> None:
    text = request.prompt_text
    if len(text) > PROMPT_CAP_CHARS:
        request.prompt_chars = max(request.prompt_chars, len(text))  # a gateway may have cut before
        request.prompt_head, request.prompt_tail = text[:CUT_CHARS], text[-CUT_CHARS:]
        request.prompt_text = ""
    if len(request.prompt_head) > CUT_CHARS:
        request.prompt_head = request.prompt_head[:CUT_CHARS]
    if len(request.prompt_tail) > CUT_CHARS:
        request.prompt_tail = request.prompt_tail[-CUT_CHARS:]


_PLACE = re.compile(r" - at `(?:key in )?\$?(.*)`$")
_BYTE = re.compile(r"\(byte (\d+)\)")
_BOUND = re.compile(r"` [<>]=? |` of length |out of range")
_NON_FINITE = (b"NaN", b"Infinity", b"-NaN", b"-Infinity")


def _refuse(error: Exception, value: bytes | msgspec.Raw, record: Record, path: str) -> NoReturn:
    """Raise the InvalidRecord that says what msgspec found, without the event's content."""
    if isinstance(error, msgspec.ValidationError):
        reason, field, detail = _explain(error, path)
        raise InvalidRecord(reason, record, field, detail) from None
    if isinstance(error, UnicodeDecodeError):
        raise InvalidRecord("not_utf8", record, detail=f"at byte {error.start} of a string") from None
    if isinstance(error, RecursionError):
        raise InvalidRecord("not_json", record, path, "nested too deeply") from None
    byte = _BYTE.search(str(error))
    at = int(byte[1]) if byte else 0
    around = bytes(value)[max(at - 1, 0) : at + 9]
    if around.startswith(_NON_FINITE) or around[1:].startswith(_NON_FINITE):
        raise InvalidRecord("out_of_range", record, path, f"a non-finite number at byte {at}") from None
    raise InvalidRecord("not_json", record, path, f"malformed at byte {at}" if byte else "truncated") from None


def _explain(error: msgspec.ValidationError, path: str) -> tuple[InvalidReason, str, str]:
    """Reason, field and a sentence of ours, from msgspec's message. Its paths show `[...]` for a map's keys."""
    message = str(error)
    place = _PLACE.search(message)
    what = message[: place.start()] if place else message
    field = path + (place[1] if place else "")
    if what.startswith("Object missing required field"):
        return "missing_field", f"{field}.{what.split('`')[1]}", "required"
    if what.startswith("Invalid value") and field == f"{path}.event_type":
        return "unknown_type", field, "none of request, route, outcome"
    if what.startswith("Expected `datetime` with a timezone"):
        return "time_without_zone", field, "a time needs its zone"
    if _BOUND.search(what):
        return "out_of_range", field, what[0].lower() + what[1:]
    if what.startswith("Expected"):
        return "wrong_type", field, what[0].lower() + what[1:]
    if what.startswith("Invalid RFC3339"):
        return "wrong_type", field, "not an RFC 3339 time"
    return "wrong_type", field, "none of the allowed values"
