"""Events with long prompts, decoded as `schemas.codec.decode_event` does, at a part of its cost.

Of a prompt over PROMPT_CAP_CHARS only the two ends are kept, and decoding what lies between them takes most of such
an event's time. Here the text is found in the value's bytes, checked, counted and cut there. Whatever is not plain
goes the plain way: the result, an error too, is the same (tests hold it to that).
"""

import re
import secrets
from typing import Any, NamedTuple

import msgspec
import numba as nb
import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from schemas import codec
from schemas.codec import MAX_VALUE_BYTES, InvalidRecord, Record
from schemas.events import CUT_CHARS, PROMPT_CAP_CHARS, AnyEvent, Request

_KEY = b'"prompt_text"'
_OPENING = re.compile(_KEY + rb'[ \t\r\n]*:[ \t\r\n]*"')
_QUOTE, _BACKSLASH, _U = b'"\\u'
_BLOCK = 64  # bytes, as many as a mask has bits
_LANES = 8_192  # bytes checked side by side: each lane counts up to MAX_VALUE_BYTES / _LANES
_REACHES = tuple(CUT_CHARS * eighths // 8 for eighths in (9, 28, 56))  # bytes that may hold an end: six a character
_SHORT_ESCAPES = np.zeros(256, np.uint8)  # bytes of an escape, by its second one
_SHORT_ESCAPES[list(b'"\\/bfnrt')] = 2
# What stands for the text while the rest is decoded: nobody can have written it into an event.
_STAND_IN = secrets.token_hex(16)

_string = msgspec.json.Decoder(str).decode


class _Shortened(NamedTuple):
    """The record with another value."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class _Cut(NamedTuple):
    value: bytes  # with the stand-in
    chars: int  # of the text
    head: str
    tail: str


def decode_event(record: Record) -> AnyEvent | None:
    """See `schemas.codec.decode_event`."""
    value = record.value
    if value is None or not PROMPT_CAP_CHARS < len(value) <= MAX_VALUE_BYTES or (cut := _cut(value)) is None:
        return codec.decode_event(record)
    place = (record.topic, record.partition, record.offset, record.timestamp)
    try:
        event = codec.decode_event(_Shortened(*place, record.key, cut.value, tuple(record.headers)))
    except InvalidRecord:
        event = None
    if not isinstance(event, Request) or event.prompt_text != _STAND_IN:  # another field of that name, or an error
        return codec.decode_event(record)
    event.prompt_text, event.prompt_head, event.prompt_tail = "", cut.head, cut.tail
    event.prompt_chars = max(event.prompt_chars, cut.chars)
    return event


def _cut(value: bytes) -> _Cut | None:
    """The text in an event's bytes; None: short, none, not valid, or with surrogate pairs spelt as escapes."""
    opening = _OPENING.match(value, max(0, value.find(_KEY)))
    if opening is None or value[opening.start() - 1] == _BACKSLASH:
        return None
    begin = opening.end()
    data, starts = np.frombuffer(value, np.uint8), np.empty(len(value) // _BLOCK + 1, np.int64)
    end, escaped = _escapes(data, begin, starts)
    if end - begin - escaped <= PROMPT_CAP_CHARS:
        return None
    valid, continued = _continued(data, begin, end + 1)
    chars = end - begin - escaped - continued
    if not valid or chars <= PROMPT_CAP_CHARS:
        return None
    for reach in _REACHES:
        head = _string(b'"%b"' % value[begin : _character(value, starts[reach // _BLOCK])])
        if len(head) >= CUT_CHARS:
            break
    for reach in _REACHES:
        tail = _string(b'"%b"' % value[_character(value, starts[(end - begin - reach) // _BLOCK]) : end])
        if len(tail) >= CUT_CHARS:
            break
    short = b"%b%b%b" % (value[:begin], _STAND_IN.encode(), value[end:])
    return _Cut(short, chars, head[:CUT_CHARS], tail[-CUT_CHARS:])


def _character(value: bytes, at: int) -> int:
    """Where the next character begins."""
    while value[at] & 0xC0 == 0x80:
        at += 1
    return at


@nb.njit(cache=True, nogil=True)
def _escapes(data: Any, begin: int, starts: Any) -> Any:
    """Where a JSON string ends that begins at `begin`, and its escapes' bytes beyond one each; (0, 0): see `_cut`.

    `starts[k]` is the first byte from the k-th block on that belongs to no escape of the block before.
    """
    at, beyond = begin, 0
    for block in range(begin, data.size, _BLOCK):
        at = starts[(block - begin) // _BLOCK] = max(at, block)
        first = min(block, data.size - _BLOCK)
        part = data[first : first + _BLOCK]
        found = np.uint64(0)
        for k in range(_BLOCK):
            found |= np.uint64((part[k] == _QUOTE) | (part[k] == _BACKSLASH)) << np.uint64(k)
        while at < first + _BLOCK:
            found = found >> np.uint64(at - first) << np.uint64(at - first)
            if not found:
                break
            at = first + np.int64(trailing_zeros(found))
            if data[at] == _QUOTE:
                return at, beyond
            size = _SHORT_ESCAPES[data[at + 1]] if at + 1 < data.size else 0
            if not size:
                size = _long_escape(data, at)
                if not size:
                    return 0, 0
            at += size
            beyond += size - 1
    return 0, 0


@nb.njit(cache=True)
def _long_escape(data: Any, at: int) -> int:
    """Bytes of an escape by number; 0: it is none, or half of a pair."""
    if at + 6 > data.size or data[at + 1] != _U:
        return 0
    for k in range(at + 2, at + 6):
        digit = data[k] | 0x20  # digits have that bit already
        if not (0x30 <= data[k] <= 0x39 or 0x61 <= digit <= 0x66):
            return 0
    if data[at + 2] | 0x20 == 0x64 and data[at + 3] >= 0x38:  # D8 to DF
        return 0
    return 6


@nb.njit(cache=True, nogil=True)
def _continued(data: Any, begin: int, end: int) -> Any:
    """Whether bytes are UTF-8 without control characters, and how many of them continue a character.

    Three bytes before `begin`, and the last one, are ASCII. In lanes, without a branch: compilers make that wide.
    """
    wrong, continued = np.zeros(_LANES, np.uint8), np.zeros(_LANES, np.uint8)
    for at in range(begin, end, _LANES):
        to = min(at + _LANES, end)
        now, one, two, three = data[at:to], data[at - 1 : to - 1], data[at - 2 : to - 2], data[at - 3 : to - 3]
        for k in range(now.size):
            byte, before = now[k], one[k]
            follows = (before >= 0xC0) | (two[k] >= 0xE0) | (three[k] >= 0xF0)
            continues = (byte & 0xC0) == 0x80
            wrong[k] |= (follows != continues) | (byte < 0x20) | (byte == 0xC0) | (byte == 0xC1) | (byte > 0xF4)
            # Longer than need be, half of a pair, beyond Unicode.
            wrong[k] |= ((before == 0xE0) & (byte < 0xA0)) | ((before == 0xF0) & (byte < 0x90))
            wrong[k] |= ((before == 0xED) & (byte > 0x9F)) | ((before == 0xF4) & (byte > 0x8F))
            continued[k] += continues
    return not wrong.any(), continued.sum()
