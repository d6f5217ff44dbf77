"""Long prompts decoded the short way, held to the plain way."""

import json
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import longprompts
from detectors.longprompts import decode_event
from schemas import codec
from schemas.codec import InvalidRecord
from schemas.events import CUT_CHARS, PROMPT_CAP_CHARS, Request
from tests.schemas.test_codec import REQUEST, STRUCTURED, Rec

PIECES = [
    "a",
    "b" * 997,
    " ",
    "é",
    "中文",
    "😀",
    '"',
    "\\",
    '\\"',
    "\\\\",
    "\n",
    "\x1b",
    "/",
    "\\u0041",
    "\u2028",
    '":"',
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join)
WRITTEN = [b"\\", b'"', b"\\ud83d", b"\\u12", b"\\x", b"\n", b"\xff"]
# Around the limit, and well over it.
LENGTHS = st.sampled_from([CUT_CHARS, PROMPT_CAP_CHARS - 1, PROMPT_CAP_CHARS, PROMPT_CAP_CHARS + 1, 80_001])


def of_length(text: str, length: int) -> str:
    return (text * (length // len(text) + 1))[:length]


def either(decode: Any, value: bytes, headers: Any = ()) -> Any:
    try:
        return decode(Rec(value, headers))
    except InvalidRecord as error:
        return str(error)


def same(value: bytes, headers: Any = ()) -> Any:
    found = either(decode_event, value, headers)
    assert found == either(codec.decode_event, value, headers)
    return found


def spelt(document: Any, spelling: int) -> bytes:
    if spelling == 0:
        return msgspec.json.encode(document)
    return json.dumps(document, ensure_ascii=spelling == 1, indent=spelling - 1 or None).encode(errors="replace")


@given(TEXTS, LENGTHS, st.integers(0, 2), st.booleans())
def test_the_same_event(text: str, length: int, spelling: int, enveloped: bool) -> None:
    document: Any = {"prompt_tail": "z", **REQUEST, "prompt_text": of_length(text, length), "user_agent": '\\"u"'}
    if enveloped:
        document = {
            "specversion": "1.0",
            "id": "1",
            "source": "s",
            "type": "x.llmrouter.request.v1",
            "data": document,
        }
    event = same(spelt(document, spelling), STRUCTURED if enveloped else ())
    assert isinstance(event, Request)
    assert bool(event.prompt_text) == (length <= PROMPT_CAP_CHARS)


@given(TEXTS, st.binary(min_size=1, max_size=4) | st.sampled_from(WRITTEN), st.integers(0, 80_000))
def test_the_same_where_bytes_were_written_into_it(text: str, written: bytes, at: int) -> None:
    value = bytearray(spelt({**REQUEST, "prompt_text": of_length(text, 80_000)}, 0))
    value[at : at + len(written)] = written
    same(bytes(value))


LONG = of_length('x"\\é\n', 70_000)


@pytest.mark.parametrize(
    "document",
    [
        '{%s, "prompt_text": %s, "prompt_text": "short"}',
        '{%s, "nested": {"prompt_text": %s}}',
        '{%s, "prompt_text": %s, "prompt\\u005ftext": "short"}',
        '{%s, "a\\"prompt_text": %s}',
        '{%s, "prompt_text": "\\ud83d\\ude00", "prompt_head": %s}',
        '{%s, "prompt_text": %s, "prompt_chars": 123456}',
        '{%s, "prompt_text": %s, "turn_index": -1}',
        '{%s, "prompt_text": %s',
    ],
)  # fmt: skip
def test_the_same_whatever_else_is_called_so(document: str) -> None:
    same((document % (json.dumps(REQUEST)[1:-1], json.dumps(LONG))).encode())


def test_the_text_between_the_ends_is_not_decoded() -> None:
    """Or this module would have no use."""
    value = spelt({**REQUEST, "prompt_text": LONG * 3}, 0)
    with mock.patch.object(codec, "decode_event", wraps=codec.decode_event) as plain:
        event = longprompts.decode_event(Rec(value))
    assert isinstance(event, Request)
    assert event.prompt_chars == 3 * len(LONG)
    assert len(plain.call_args.args[0].value) < 1_000
    assert plain.call_count == 1
