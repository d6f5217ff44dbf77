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

from schemas import codec
from schemas.codec import MAX_VALUE_BYTES, InvalidRecord, Record
from schemas.events import CUT_CHARS, PROMPT_CAP_CHARS, AnyEvent, Request

_KEY = b'"prompt_text"'
_OPENING = re.compile(_KEY + rb'[ \t\r\n]*:[ \t\r\n]*"')
_BACKSLASH, _U = b"\\u"
_MARK_CHARS = 1_024
_WORD = 8
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
    words = np.frombuffer(value, "<u8", (len(value) - begin) // _WORD, begin)
    marks = np.empty(len(value) // _MARK_CHARS + 2, np.int64)
    end, chars = _measure(np.frombuffer(value, np.uint8, offset=begin), words, marks)
    if chars <= PROMPT_CAP_CHARS:
        return None
    first, last = marks[CUT_CHARS // _MARK_CHARS], marks[(chars - CUT_CHARS - _WORD) // _MARK_CHARS]
    text = value[begin : begin + end]
    head, tail = (_string(b'"%b"' % part) for part in (text[:first], text[last:]))
    short = b"%b%b%b" % (value[:begin], _STAND_IN.encode(), value[begin + end :])
    return _Cut(short, chars, head[:CUT_CHARS], tail[-CUT_CHARS:])


@nb.njit(cache=True, nogil=True)
def _measure(data: Any, words: Any, marks: Any) -> Any:
    """Where a JSON string ends, whose opening quote is before `data`, and its characters; (0, 0): see `_cut`.

    `words` is `data` by eights. Mark k of `marks` is the beginning of a character, k * _MARK_CHARS from the first
    or up to seven further.
    """
    at, chars, marked = 0, 0, 0
    while at < data.size:
        if chars >= marked * _MARK_CHARS:
            marks[marked] = at
            marked += 1
        if (at >> 3) + 1 < words.size:
            plain = _plain_bytes(_word_at(words, at))
            at += plain
            chars += plain
            if plain == _WORD:
                continue
        size = _size(data, at)
        if size <= 0:
            return (at, chars) if size == 0 else (0, 0)
        at += size
        chars += 1
    return 0, 0


@nb.njit(inline="always")
def _word_at(words: Any, at: int) -> Any:
    """Eight bytes from any place, the first one lowest."""
    low, shift = words[at >> 3], np.uint64((at & 7) << 3)
    return low if shift == 0 else low >> shift | words[(at >> 3) + 1] << (np.uint64(64) - shift)


@nb.njit(inline="always")
def _plain_bytes(word: Any) -> Any:
    """How many bytes stand before the first that is a quote, a backslash, a control character or no ASCII."""
    ones, highs = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
    quotes, slashes = word ^ (ones * np.uint64(0x22)), word ^ (ones * np.uint64(0x5C))
    special = (quotes - ones) & ~quotes | (slashes - ones) & ~slashes  # a byte's highest bit, where it is zero
    special |= (word - ones * np.uint64(0x20)) & ~word | word
    special &= highs
    if special == 0:  # faster than without the branch
        return np.int64(_WORD)
    lowest = special & (~special + np.uint64(1))  # what borrowing has set wrongly lies above it
    return np.int64(((((lowest >> np.uint64(7)) - np.uint64(1)) & ones) * ones) >> np.uint64(56))


@nb.njit(cache=True)
def _size(data: Any, at: int) -> Any:
    """Bytes of the character of a JSON string that begins at `at`; 0: its end, -1: none, or half of a pair."""
    first = data[at]
    if first == 0x22:
        return 0
    if first == 0x5C:
        return _escape_size(data, at)
    if first < 0x80:
        return 1 if first >= 0x20 else -1
    if first < 0xC2 or first > 0xF4:
        return -1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if at + size > data.size:
        return -1
    for k in range(at + 1, at + size):
        if data[k] & 0xC0 != 0x80:
            return -1
    second = data[at + 1]  # neither longer than need be, nor half of a pair, nor beyond Unicode
    if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
        return -1
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return -1
    return size


@nb.njit(cache=True)
def _escape_size(data: Any, at: int) -> Any:
    kind = data[at + 1] if at + 1 < data.size else 0
    if kind != _U:
        return 2 if kind in (0x22, 0x5C, 0x2F, 0x62, 0x66, 0x6E, 0x72, 0x74) else -1
    if at + 6 > data.size:
        return -1
    for k in range(at + 2, at + 6):
        digit = data[k] | 0x20  # digits have that bit already
        if not (0x30 <= data[k] <= 0x39 or 0x61 <= digit <= 0x66):
            return -1
    if data[at + 2] | 0x20 == 0x64 and data[at + 3] >= 0x38:  # D8 to DF
        return -1
    return 6
