"""What makes one lane differ from another."""

from collections.abc import Callable
from dataclasses import dataclass

from detectors.processor import Processor
from schemas.topics import Topic


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """What a lane is: its topics, its group and how a partition's processor is made."""

    name: str
    source: Topic
    checkpoints: Topic
    group: str
    make: Callable[[int], Processor]
    checkpoint_seconds: float = 2.0
    checkpoint_events: int = 10_000
    tick_seconds: float = 1.0  # of silence, after which an idle partition that waits is moved on
    batch_records: int = 2_000
    dead_letter_max_ratio: float = 0.95
    dead_letter_min_count: int = 100_000
    session_timeout_ms: int = 10_000
    instance_id: str | None = None  # static membership: back within seconds after a crash
