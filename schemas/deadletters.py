"""Dead letters: what could not be judged, with its original bytes. Value: the bytes; the rest is headers."""

from typing import Literal

import msgspec

from schemas.events import Time

InvalidReason = Literal[
    "too_large",  # value over the limit
    "empty",  # no value
    "not_utf8",
    "not_json",
    "unknown_type",  # event_type that is none of ours
    "missing_field",
    "wrong_type",  # a field of another type
    "out_of_range",  # a number or a string's length outside of its bounds, a non-finite number
    "time_without_zone",
    "time_off",  # the gateway's clock more than a day from the broker's
    "bad_envelope",  # CloudEvents headers or envelope that contradict themselves
    "judge_failed",  # valid, but judging it raised
    "store_refused",  # valid, but ClickHouse refuses its row for good
    "refused",  # a decision about thresholds that the feedback lane does not carry out; the detail says why
    "bad_ticket",  # an audit label whose ticket is forged, replayed, expired or altered
]


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The headers of a dead letter as a record: for history, `pointsman dlq ls` and tests."""

    letter_id: str  # from topic, partition and offset
    topic: str
    partition: int
    offset: int
    time: Time  # the broker's, of the original
    stage: str  # decode, judge, audit, store
    reason: InvalidReason
    field: str = ""  # path of the field at fault, as `$.difficulty_score`
    detail: str = ""  # our sentence; never the event's content
    size: int = 0  # of the value; of the whole record where only the value's beginning is here
    key: bytes = b""
    value: bytes = b""
    headers: list[tuple[str, bytes]] = []  # the original ones
