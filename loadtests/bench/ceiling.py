"""The ceiling: a bare loop of what reads the text, in memory. No Kafka, no join, no detector that has state."""

import time
from collections.abc import Sequence

from detectors.panel import build_panel
from detectors.processor import Record
from detectors.text import read_prompts
from detectors.thresholds import Thresholds
from schemas.codec import decode_event
from schemas.events import Request

BATCH = 667  # requests: as many as a lane's batch of 2,000 events holds


def requests_of(records: Sequence[Record]) -> list[Request]:
    """The request events among records, decoded."""
    return [event for record in records if isinstance(event := decode_event(record), Request)]


def requests_per_s(requests: Sequence[Request]) -> tuple[float, list[str]]:
    """Requests a second, one thread, through the tokeniser and every prompt detector; and those parts' names."""
    detectors = build_panel(Thresholds()).detectors
    cuts = [requests[at : at + BATCH] for at in range(0, len(requests), BATCH)]
    for detector in detectors:  # what is loaded or compiled once
        detector.score_batch(read_prompts(cuts[0]))
    began = time.perf_counter()
    for cut in cuts:
        batch = read_prompts(cut)
        for detector in detectors:
            detector.score_batch(batch)
    return len(requests) / (time.perf_counter() - began), ["tokenise", *(detector.name for detector in detectors)]
