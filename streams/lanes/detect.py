"""The detect lane: events to verdicts and findings."""

from detectors.detections import Detections
from detectors.judge import Judge, JudgeLimits
from detectors.panel import PromptPanel
from detectors.registry import stream_detectors
from schemas.topics import CHECKPOINTS, EVENTS
from streams.lane import LaneSpec
from streams.settings import Settings


def spec(settings: Settings, panel: PromptPanel, detections: Detections) -> LaneSpec:
    """The lane as the settings want it; all partitions of a worker share the panel."""
    detect = settings.detect
    limits = JudgeLimits(
        join_grace_ms=round(detect.join_grace_seconds * 1000),
        outcome_ttl_ms=round(detect.outcome_ttl_seconds * 1000),
        transformer_per_second=detect.transformer_per_second,
    )

    def make(partition: int) -> Judge:
        return Judge(panel, stream_detectors(panel.thresholds), limits, partition, detections)

    return LaneSpec(
        name="detect",
        source=EVENTS,
        checkpoints=CHECKPOINTS,
        group=detect.group,
        make=make,
        checkpoint_seconds=detect.checkpoint_seconds,
        checkpoint_events=detect.checkpoint_events,
        tick_seconds=min(1.0, detect.join_grace_seconds / 2),
        dead_letter_max_ratio=detect.dead_letter_max_ratio,
        dead_letter_min_count=detect.dead_letter_min_count,
        session_timeout_ms=round(settings.kafka.session_seconds * 1000),
        instance_id=settings.kafka.instance_id or None,
    )
