"""CPU of decoding an event, by its type."""

import time
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from detectors.processor import Record
from schemas.codec import decode_event, event_type

REPEATS = 3


def decode_us(records: Sequence[Record]) -> dict[str, float]:
    """Median µs an event of each type."""
    by_type: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        event = decode_event(record)
        if event is not None:
            by_type[event_type(event)].append(record)
    return {kind: round(median(_once(of_kind) for _ in range(REPEATS)), 2) for kind, of_kind in by_type.items()}


def _once(records: Sequence[Record]) -> float:
    began = time.process_time()
    for record in records:
        decode_event(record)
    return (time.process_time() - began) / len(records) * 1e6
