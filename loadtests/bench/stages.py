"""Where judging spends its time: the real `Judge` over the same records in this process, its parts timed.

Each stage's time is its own, without that of the stages it calls. Two clock readings a call are in the
figures (about 0.2 µs), so that the sum is somewhat above what a worker needs.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from detectors import judge, panel
from detectors.embedding import StaticEmbedding
from detectors.judge import Judge, JudgeLimits
from detectors.panel import build_panel
from detectors.processor import Record
from detectors.registry import stream_detectors
from detectors.thresholds import Thresholds
from detectors.triggers.lexical import LexicalIndex
from detectors.triggers.semantic import SemanticIndex
from streams.garbage import settled

BATCH = 2_000  # as the lane reads
CHECKPOINT_EVENTS = 10_000  # as the lane's default


class Clock:
    """Wall time by stage, each stage's own."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]  # seconds that each open stage's inner stages took

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted to `stage`."""

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - began
                self.seconds[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return call


@contextmanager
def _patched(clock: Clock, parts: Sequence[tuple[str, Any, str]]) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for _, owner, name in parts]
    for (stage, owner, name), (_, _, function) in zip(parts, before, strict=True):
        setattr(owner, name, clock.timed(stage, function))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def microseconds_per_request(records: Sequence[Record], requests: int) -> dict[str, float]:
    """Judge everything, timed by stage: µs a request (its route and outcome with it), largest first.

    `joins` is what is left of `Judge.apply`: joining, expiry, counters. `delta` makes the checkpoints' records.
    """
    shared = build_panel(Thresholds())
    detectors = stream_detectors(shared.thresholds)
    lane = Judge(shared, detectors, JudgeLimits())
    lane.apply(records[:BATCH])  # loads what is loaded once
    clock = Clock()
    prompts = [(detector.name, detector, "score_batch") for detector in shared.detectors]
    stream = [(each.name, each, method) for each in detectors for method in ("score", "learn")]
    parts: list[tuple[str, Any, str]] = [
        ("decode", judge, "decode_event"),
        ("tokenise", panel, "read_prompts"),
        ("embedding", StaticEmbedding, "vectors"),
        ("lexical", LexicalIndex, "match"),
        ("semantic", SemanticIndex, "match"),
        *prompts,
        *stream,
        ("case", Judge, "_judge_case"),
        ("verdict", Judge, "_emit_verdict"),
        ("finding", Judge, "_emit_finding"),
        ("joins", Judge, "apply"),
        ("delta", Judge, "changes"),
    ]
    lane = Judge(shared, detectors, JudgeLimits())
    with settled(), _patched(clock, parts):
        due = CHECKPOINT_EVENTS
        for at in range(0, len(records), BATCH):
            lane.apply(records[at : at + BATCH])
            if at + BATCH >= due:
                lane.changes()
                due += CHECKPOINT_EVENTS
    found = sorted(clock.seconds.items(), key=lambda item: -item[1])
    return {stage: round(seconds / requests * 1e6, 2) for stage, seconds in found}
